"""A process of clients that only listen: ``python -m integration.soaking.ears COUNT PLAN``.

It says ``listening`` on stdout when all of them do. Each hears until it is told LAST on every channel; then
what each has heard goes to stdout, as JSON: for each, the payloads by channel, in order. Their sessions are
not killed (they have a user of their own), so nothing may be missing.
"""

import asyncio
import json
import sys
from typing import Any

import asyncpg
import psycopg

from integration.soaking.client import Plan

LAST = "the last"
Heard = dict[str, list[str]]


def is_complete(heard: Heard) -> bool:
    """Whether nothing more is to come."""
    return all(payloads and payloads[-1] == LAST for payloads in heard.values())


async def by_asyncpg(plan: Plan, heard: Heard, ready: asyncio.Semaphore) -> None:
    """asyncpg hears at any moment; it works besides."""
    client: Any = await asyncpg.connect(plan.dsn, server_settings={"application_name": "ears"})

    def note(_client: Any, _pid: int, channel: str, payload: str) -> None:
        heard[channel].append(payload)

    for channel in heard:
        await client.add_listener(channel, note)
    ready.release()
    turn = 0
    while not is_complete(heard):
        await asyncio.sleep(0.1)
        turn += 1
        assert await client.fetchval("SELECT $1::int", turn) == turn
    await client.close()


async def by_psycopg(plan: Plan, heard: Heard, ready: asyncio.Semaphore) -> None:
    """psycopg hears when it is asked to."""
    client = await psycopg.AsyncConnection.connect(plan.dsn, autocommit=True, application_name="ears")
    for channel in heard:
        await client.execute(f"LISTEN {channel}")
    ready.release()
    while not is_complete(heard):
        async for note in client.notifies(timeout=0.2):
            heard[note.channel].append(note.payload)
        await (await client.execute("SELECT 1")).fetchone()
    await client.close()


async def main(count: int, plan: Plan) -> list[Heard]:
    """All of them, until each has heard the last."""
    channels = [f"soak_{number}" for number in range(plan.channels)]
    everybody: list[Heard] = [{channel: [] for channel in channels} for _ in range(count)]
    ready = asyncio.Semaphore(0)
    ways = (by_asyncpg, by_psycopg)
    async with asyncio.TaskGroup() as group:
        for number, heard in enumerate(everybody):
            group.create_task(ways[number % 2](plan, heard, ready))
        for _ in range(count):
            await ready.acquire()
        print("listening", flush=True)
    return everybody


if __name__ == "__main__":
    json.dump(asyncio.run(main(int(sys.argv[1]), Plan(**json.loads(sys.argv[2])))), sys.stdout)

"""A process full of clients of one driver: ``python -m integration.soaking.crowd KIND FIRST COUNT PLAN``.

PLAN is JSON; when all clients have left, the report goes to stdout, as JSON.
"""

import asyncio
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from integration.soaking.acts import ACTS
from integration.soaking.asked import Act, Gone, Refused, Wrong
from integration.soaking.by_asyncpg import ByAsyncpg
from integration.soaking.by_psycopg import ByPsycopgTasks, ByPsycopgThreads
from integration.soaking.by_wire import ByWire
from integration.soaking.client import Client, Plan, Report

KINDS: dict[str, Callable[[Client], Any]] = {
    "asyncpg": ByAsyncpg,
    "tasks": ByPsycopgTasks,
    "threads": ByPsycopgThreads,
    "wire": ByWire,
}


async def await_all(me: Client, life: Act, driver: Any) -> None:
    """Have the driver do what the life asks for, to its end."""
    try:
        request = next(life)
        while True:
            me.doing = request
            try:
                answer = await driver.serve(request)
            except (Refused, Gone, Wrong) as cause:
                me.note(cause)
                request = life.throw(cause)
            else:
                me.note(answer)
                request = life.send(answer)
    except StopIteration:
        me.doing = None
    finally:
        driver.leave()


def do_all(me: Client, life: Act, driver: Any) -> None:
    """The same for a driver that blocks."""
    try:
        request = next(life)
        while True:
            me.doing = request
            try:
                answer = driver.serve(request)
            except (Refused, Gone, Wrong) as cause:
                me.note(cause)
                request = life.throw(cause)
            else:
                me.note(answer)
                request = life.send(answer)
    except StopIteration:
        me.doing = None
    finally:
        driver.leave()


async def _in_tasks(clients: list[Client], make: Callable[[Client], Any]) -> None:
    async def run(client: Client) -> None:
        try:
            await await_all(client, client.live(ACTS), make(client))
        except BaseException as cause:
            client.tell(cause)
            raise

    await asyncio.gather(*(run(client) for client in clients))


def _in_threads(clients: list[Client], make: Callable[[Client], Any]) -> None:
    def run(client: Client) -> None:
        try:
            do_all(client, client.live(ACTS), make(client))
        except BaseException as cause:
            client.tell(cause)
            raise

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(kind: str, first: int, count: int, plan: Plan) -> Report:
    """All clients of this process, from the first act to the last."""
    report = Report()
    clients = [Client(number, kind, plan, report) for number in range(first, first + count)]

    def show(*_: object) -> None:
        for client in clients:
            if client.doing is not None:
                print(f"{client.name}, {client.act}: {client.doing}"[:300], file=sys.stderr)

    signal.signal(signal.SIGUSR1, show)
    # A pipeline that fails says so twice.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    if kind in ("asyncpg", "tasks"):
        asyncio.run(_in_tasks(clients, KINDS[kind]))
    else:
        _in_threads(clients, KINDS[kind])
    return report


if __name__ == "__main__":
    told = main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Plan(**json.loads(sys.argv[4])))
    json.dump(vars(told), sys.stdout)

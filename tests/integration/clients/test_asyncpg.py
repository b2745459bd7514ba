"""asyncpg as it comes, its statement cache on: tasks, its own pool, COPY, cursors, and LISTEN."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from integration.clients.crowd import WORKERS, Rows, in_tasks, said, zone
from servers import Penstock

pytestmark = pytest.mark.integration

INSERT = "INSERT INTO rows_of_workers VALUES ($1, $2, $3)"


@asynccontextmanager
async def connected(penstock: Penstock, **more: Any) -> AsyncIterator[Any]:
    client = await asyncpg.connect(penstock.dsn(), **more)
    try:
        yield client
    finally:
        await client.close()


async def test_the_statement_cache(penstock: Penstock, rows: Rows) -> None:
    async def work(number: int) -> None:
        async with connected(penstock) as client:
            for turn in range(10):
                async with client.transaction():
                    await client.execute(INSERT, number, turn, said(number, turn))
                    own = "SELECT said FROM rows_of_workers WHERE worker = $1 AND turn = $2"
                    assert await client.fetchval(own, number, turn) == said(number, turn)
                assert list(await client.fetchrow(f"SELECT {number}, $1::int", turn)) == [number, turn]
                with pytest.raises(asyncpg.DivisionByZeroError):
                    await client.fetchval(f"SELECT {number} / $1::int", 0)

    await in_tasks(work)
    rows.assert_complete(10)


async def test_a_small_cache_closes_statements_and_prepares_them_again(penstock: Penstock) -> None:
    async def work(number: int) -> None:
        async with connected(penstock, statement_cache_size=3) as client:
            for turn in range(24):
                row = await client.fetchrow(f"SELECT {number} + $1::int AS c{turn % 8}", turn)
                assert dict(row) == {f"c{turn % 8}": number + turn}

    await in_tasks(work)


async def test_statements_that_are_kept(penstock: Penstock) -> None:
    async def work(number: int) -> None:
        async with connected(penstock) as client:
            own = await client.prepare(f"SELECT {number} * $1::int AS mine")
            shared = await client.prepare("SELECT $1::text AS everybodys", timeout=60)
            for turn in range(10):
                assert await own.fetchval(turn) == number * turn
                assert await shared.fetchval(said(number, turn)) == said(number, turn)
            assert [column.name for column in own.get_attributes()] == ["mine"]
            await client.reload_schema_state()
            assert await own.fetchval(3) == number * 3

    await in_tasks(work)


async def test_types_that_asyncpg_asks_the_server_about(penstock: Penstock, server: Any) -> None:
    server.execute("CREATE TYPE mood_of_asyncpg AS ENUM ('calm', 'cross')")
    server.execute("CREATE TYPE pair_of_asyncpg AS (a int, mood mood_of_asyncpg)")

    async def work(number: int) -> None:
        async with connected(penstock) as client:
            for _ in range(3):
                pair = await client.fetchval(
                    "SELECT ROW($1::int, 'cross'::mood_of_asyncpg)::pair_of_asyncpg", number
                )
                assert tuple(pair) == (number, "cross")
                moods = await client.fetchval("SELECT $1::mood_of_asyncpg[]", ["calm", "cross"])
                assert moods == ["calm", "cross"]

    try:
        await in_tasks(work)
    finally:
        server.execute("DROP TYPE pair_of_asyncpg")
        server.execute("DROP TYPE mood_of_asyncpg")


async def test_executemany_and_copy(penstock: Penstock, rows: Rows) -> None:
    async def work(number: int) -> None:
        async with connected(penstock) as client:
            await client.executemany(INSERT, [(number, turn, said(number, turn)) for turn in range(100)])
            await client.copy_records_to_table(
                "rows_of_workers",
                records=[(number, turn, said(number, turn)) for turn in range(100, 200)],
            )
            out = io.BytesIO()
            await client.copy_from_query(
                "SELECT turn, said FROM rows_of_workers WHERE worker = $1 ORDER BY turn", number, output=out
            )
            assert out.getvalue().decode() == "".join(
                f"{turn}\t{said(number, turn)}\n" for turn in range(200)
            )
            with pytest.raises(asyncpg.UniqueViolationError):
                await client.executemany(INSERT, [(number, 200, ""), (number, 0, "")])

    await in_tasks(work)
    rows.assert_complete(200)


async def test_cursors(penstock: Penstock) -> None:
    async def work(number: int) -> None:
        async with connected(penstock) as client:
            for turn in range(3):
                async with client.transaction():
                    series = "SELECT $1::int + n FROM generate_series(1, 120) n"
                    found = [row[0] async for row in client.cursor(series, number * 1000, prefetch=50)]
                    assert found == [number * 1000 + n for n in range(1, 121)]
                    cursor = await client.cursor(series, number)
                    await cursor.forward(turn + 1)
                    assert [row[0] for row in await cursor.fetch(2)] == [number + turn + 2, number + turn + 3]

    await in_tasks(work)


async def test_settings_of_a_client_stay_its_own(penstock: Penstock) -> None:
    async def work(number: int) -> None:
        started = {"application_name": f"worker-{number}"}
        async with connected(penstock, server_settings=started) as client:
            await client.execute(f"SET TimeZone = '{zone(number)}'")
            for _ in range(5):
                assert await client.fetchval("SHOW TimeZone") == zone(number)
                assert await client.fetchval("SHOW application_name") == f"worker-{number}"
            assert client.get_settings().TimeZone == zone(number)

    await in_tasks(work)


async def test_its_own_pool_in_front_of_ours(penstock: Penstock, rows: Rows) -> None:
    # On its way back into asyncpg's pool a connection is reset: UNLISTEN, CLOSE, RESET and unlocking.
    async with asyncpg.create_pool(penstock.dsn(), min_size=2, max_size=8) as pool:

        async def work(number: int) -> None:
            for turn in range(5):
                async with pool.acquire() as client:
                    await client.execute(f"SET TimeZone = '{zone(number)}'")
                    async with client.transaction():
                        await client.execute(INSERT, number, turn, said(number, turn))
                    assert await client.fetchval("SHOW TimeZone") == zone(number)
                async with pool.acquire() as client:
                    assert not (await client.fetchval("SHOW TimeZone")).startswith("Etc/GMT")

        await in_tasks(work)
    rows.assert_complete(5)


async def test_listen(penstock: Penstock) -> None:
    heard: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    listeners = 5

    def hear(listener: int) -> Any:
        return lambda _client, _pid, _channel, payload: heard.put_nowait((listener, payload))

    clients = [await asyncpg.connect(penstock.dsn()) for _ in range(listeners)]
    try:
        for number, client in enumerate(clients):
            await client.add_listener("news_for_asyncpg", hear(number))

        async def work(number: int) -> None:
            async with connected(penstock) as other:
                await other.execute("SELECT pg_notify('news_for_asyncpg', $1)", said(number, 0))

        await in_tasks(work)
        async with asyncio.timeout(20):
            found = [await heard.get() for _ in range(listeners * WORKERS)]
        assert sorted(found) == [
            (listener, text)
            for listener in range(listeners)
            for text in sorted(said(number, 0) for number in range(WORKERS))
        ]
        # A listener has no session of its own: it works like any other client meanwhile.
        assert [await client.fetchval("SELECT $1::int", 7) for client in clients] == [7] * listeners
    finally:
        for client in clients:
            await client.close()
    assert heard.empty()


async def test_a_statement_that_is_cancelled(penstock: Penstock) -> None:
    async def work(number: int) -> None:
        async with connected(penstock) as client:
            if number % 5 == 0:
                with pytest.raises(TimeoutError):
                    await client.fetchval("SELECT pg_sleep($1)", 60, timeout=0.1)
            for turn in range(5):
                assert await client.fetchval(f"SELECT {number} + $1::int", turn) == number + turn

    await in_tasks(work)

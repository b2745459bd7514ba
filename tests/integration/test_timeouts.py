"""Who takes too long: queries, transactions, clients; each with real clients and a real server."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import errors

from integration.looking import at_rest, pool_of, trusting, until
from integration.raw import Raw
from servers import Penstock

Make = Callable[..., Penstock]


def still_runs(server: psycopg.Connection[Any], marker: str) -> bool:
    row = server.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
        " AND query LIKE %s",
        (f"%{marker}%",),
    ).fetchone()
    assert row is not None
    return bool(row[0])


def test_a_query_that_runs_too_long_is_cancelled_and_its_client_stays(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(max=1, query_timeout="300ms")
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        with pytest.raises(errors.QueryCanceled, match="query timeout") as caught:
            client.execute("SELECT pg_sleep(30) AS too_long")
        assert "query_timeout" in (caught.value.diag.message_hint or "")
        assert client.execute("SELECT 1").fetchone() == (1,)
        assert not still_runs(server, "too_long")
        # Idle in a transaction, nothing runs: the clock stands still.
        client.execute("BEGIN")
        time.sleep(0.7)
        assert client.execute("SELECT 2").fetchone() == (2,)
        with pytest.raises(errors.QueryCanceled):
            client.execute("SELECT pg_sleep(30) AS too_long")
        with pytest.raises(errors.InFailedSqlTransaction):
            client.execute("SELECT 3")
        client.execute("ROLLBACK")
        assert client.execute("SELECT 4").fetchone() == (4,)
    pool = at_rest(penstock)
    assert pool["opened"] == 1
    assert pool["drops"]["query_timeout"] == 0
    assert penstock.metric("penstock_pool_timeouts_total", reason="query_timeout") == 2
    assert [event["client"] for event in penstock.events("query_timed_out")] != []


def test_each_statement_of_a_pipeline_has_its_own_time(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, query_timeout="500ms")

    async def run() -> None:
        client = await asyncpg.connect(penstock.dsn(), statement_cache_size=0)
        try:
            for _ in range(4):
                assert await client.fetchval("SELECT 1 FROM pg_sleep(0.2)") == 1
            with pytest.raises(asyncpg.QueryCanceledError):
                await client.fetchval("SELECT 1 FROM pg_sleep(20)")
            assert await client.fetchval("SELECT 5") == 5
        finally:
            await client.close()

    asyncio.run(run())
    with psycopg.connect(penstock.dsn(), autocommit=True) as client, client.pipeline() as pipeline:
        cursors = []
        for _ in range(4):
            cursors.append(client.execute("SELECT 1 FROM pg_sleep(0.2)"))
            pipeline.sync()
        assert [cursor.fetchone() for cursor in cursors] == [(1,)] * 4


def test_a_transaction_that_lasts_too_long_is_rolled_back_and_its_client_told(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    server.execute("DROP TABLE IF EXISTS lasting; CREATE TABLE lasting (n int)")
    penstock = make_proxy(trusting(), max=1, transaction_timeout="500ms")
    with Raw.logged_in(penstock.port) as busy:
        busy.ask("BEGIN")
        busy.ask("INSERT INTO lasting VALUES (1)")
        deadline = time.monotonic() + 10
        said = b""
        while b"25P04" not in said and time.monotonic() < deadline:
            # It is never idle for long, and no query takes long.
            try:
                said = b"".join(kind + body for kind, body in busy.ask("SELECT pg_sleep(0.05)"))
            except (EOFError, OSError):
                break
        assert penstock.events("client_closed")[0]["reason"] == "transaction_timeout"
    with Raw.logged_in(penstock.port) as quick:
        for _ in range(20):
            assert quick.value("SELECT count(*) FROM lasting") == "0"
    at_rest(penstock)
    server.execute("DROP TABLE lasting")
    assert penstock.metric("penstock_pool_timeouts_total", reason="transaction_timeout") == 1


def test_a_long_query_of_a_long_transaction_is_ended_on_the_server(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(max=1, transaction_timeout="400ms")
    with psycopg.connect(penstock.dsn()) as client:
        with pytest.raises(errors.TransactionTimeout, match="transaction timeout") as caught:
            client.execute("SELECT pg_sleep(30) AS lasting_query")
        assert caught.value.sqlstate == "25P04"
        until(lambda: not still_runs(server, "lasting_query"))
    at_rest(penstock)


def test_a_client_that_says_nothing_is_closed_and_one_in_a_transaction_is_not(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=2, client_idle_timeout="400ms")
    with Raw.logged_in(penstock.port) as idle, Raw.logged_in(penstock.port) as inside:
        inside.ask("BEGIN")
        said = idle.to_the_end()
        assert any(kind == b"E" and b"57P05" in body for kind, body in said)
        assert inside.value("SELECT 1") == "1"
        inside.ask("COMMIT")
        for _ in range(8):
            time.sleep(0.1)
            assert inside.value("SELECT 1") == "1"
    assert penstock.events("client_closed")[0]["reason"] == "client_idle_timeout"


def test_a_user_may_have_other_timeouts_than_the_pool_and_both_can_be_changed(make_proxy: Make) -> None:
    user = '[users.patient]\npassword = "slow"\nrun_as = "pool"\nquery_timeout = "off"\n'
    penstock = make_proxy(trusting(more=user), max=2, query_timeout="200ms")
    with (
        psycopg.connect(penstock.dsn(user="patient"), autocommit=True) as patient,
        psycopg.connect(penstock.dsn(), autocommit=True) as usual,
    ):
        assert patient.execute("SELECT 1 FROM pg_sleep(0.8)").fetchone() == (1,)
        with pytest.raises(errors.QueryCanceled):
            usual.execute("SELECT pg_sleep(20)")
        text = penstock.config.read_text()
        penstock.config.write_text(text.replace('query_timeout = "off"', 'query_timeout = "150ms"'))
        penstock.signal(signal.SIGHUP)
        until(lambda: penstock.events("configuration_reloaded"))
        with pytest.raises(errors.QueryCanceled):
            patient.execute("SELECT pg_sleep(20)")


def test_a_client_that_waits_is_told_so_once(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, query_wait_notify="200ms")
    notices: list[Any] = []
    with (
        psycopg.connect(penstock.dsn(), autocommit=True) as holder,
        psycopg.connect(penstock.dsn(), autocommit=True) as waiter,
        psycopg.connect(penstock.dsn(options="-c client_min_messages=warning"), autocommit=True) as silent,
    ):
        waiter.add_notice_handler(lambda said: notices.append((said.severity_nonlocalized, said.sqlstate)))
        waiter.add_notice_handler(lambda said: notices.append((said.message_primary, said.message_detail)))
        silent.add_notice_handler(lambda _: pytest.fail("it did not want to know"))
        holder.execute("BEGIN")
        holder.execute("SELECT 1")
        found: list[Any] = []
        threads = [
            threading.Thread(target=lambda one=one: found.append(one.execute("SELECT 7").fetchone()))
            for one in (waiter, silent)
        ]
        for thread in threads:
            thread.start()
        until(lambda: pool_of(penstock)["waiting"] == 2)
        time.sleep(0.9)
        holder.execute("COMMIT")
        for thread in threads:
            thread.join(10)
        assert found == [(7,), (7,)]
    assert notices[0] == ("NOTICE", "00000")
    ((text, detail),) = notices[1:]
    assert "waits" in text
    assert 'pool "app"' in detail


def test_asyncpg_waits_through_the_notice(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, query_wait_notify="100ms")

    async def run() -> list[str]:
        heard: list[str] = []
        holder = await asyncpg.connect(penstock.dsn())
        waiter = await asyncpg.connect(penstock.dsn())
        waiter.add_log_listener(lambda _, message: heard.append(message.message))
        try:
            async with holder.transaction():
                await holder.fetchval("SELECT 1")
                asked = asyncio.ensure_future(waiter.fetchval("SELECT 7"))
                await asyncio.sleep(0.5)
            assert await asked == 7
            assert await waiter.fetchval("SELECT 8") == 8
        finally:
            await holder.close()
            await waiter.close()
        return heard

    assert len(asyncio.run(run())) == 1

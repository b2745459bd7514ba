"""State that cannot follow its client has it keep its session, until the server says that it is gone."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import asyncpg
import psycopg
import pytest

from integration.looking import at_rest, directly, pool_of, until
from proxy.embedded import EmbeddedPostgres
from servers import Penstock

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
Connection = psycopg.Connection[Any]

# Reason, what begins it, what it needs to be there, what ends it.
STATES = (
    (
        "temp_tables",
        "CREATE TEMP TABLE mine AS SELECT 1 AS one",
        "SELECT one FROM mine",
        "DROP TABLE mine",
    ),
    ("temp_tables", "SELECT 1 AS one INTO TEMPORARY mine", "SELECT one FROM mine", "DISCARD TEMP"),
    (
        "advisory_locks",
        "SELECT pg_advisory_lock(4711)",
        "SELECT 1 / count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        "SELECT pg_advisory_unlock(4711)",
    ),
    (
        "hold_cursors",
        "DECLARE mine CURSOR WITH HOLD FOR SELECT 1 FROM generate_series(1, 100)",
        "FETCH 1 FROM mine",
        "CLOSE mine",
    ),
    ("sql_prepare", "PREPARE mine AS SELECT 1", "EXECUTE mine", "DEALLOCATE mine"),
    ("sql_prepare", "PREPARE mine AS SELECT 1", "EXECUTE mine", "DISCARD ALL"),
)


@contextmanager
def connected(penstock: Penstock, **more: Any) -> Iterator[Connection]:
    connection: Connection
    with psycopg.connect(penstock.dsn(), autocommit=True, **more) as connection:
        yield connection


def pid(client: Connection) -> int:
    row = client.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def one(client: Connection, text: str) -> Any:
    row = client.execute(text).fetchone()
    assert row is not None
    return row[0]


def settled(penstock: Penstock, reason: str, count: int) -> None:
    """The server is asked behind the answer to the client, so it takes a moment."""
    until(lambda: pinned(penstock, reason) == count or None, f"{count} are pinned")


def pins(penstock: Penstock, reason: str, outcome: str = "pinned") -> float:
    return penstock.metric("penstock_pool_pins_total", pool="app", reason=reason, outcome=outcome)


def pinned(penstock: Penstock, reason: str) -> float:
    return penstock.metric("penstock_pool_pinned", pool="app", reason=reason)


@pytest.mark.parametrize(("reason", "begin", "use", "end"), STATES)
def test_a_client_keeps_its_session_while_state_is_there(
    make_proxy: Make, reason: str, begin: str, use: str, end: str
) -> None:
    penstock = make_proxy(max=2)
    with connected(penstock) as client, connected(penstock) as other:
        client.execute(begin, prepare=False)
        settled(penstock, reason, 1)
        held = pid(client)
        for _ in range(3):
            assert pid(other) != held
            assert one(client, use) == 1
            assert pid(client) == held
        holders = penstock.http("/api/v1/pools/app/holders").json()["holders"]
        assert [holder["pinned"] for holder in holders] == [reason]
        client.execute(end, prepare=False)
        settled(penstock, reason, 0)
        assert pins(penstock, reason) == 1
        at_rest(penstock)
        with other.transaction(), client.transaction():
            assert {pid(client), pid(other)} >= {held}
        with pytest.raises(psycopg.Error):
            other.execute(use, prepare=False)
    assert [line["reason"] for line in penstock.events("session_pinned")] == [reason]


def test_only_what_is_there_pins(make_proxy: Make) -> None:
    penstock = make_proxy(max=1)
    with connected(penstock) as client, connected(penstock) as other:
        for text in (
            "BEGIN; CREATE TEMP TABLE mine (one int); ROLLBACK",
            "BEGIN; CREATE TEMP TABLE mine (one int) ON COMMIT DROP; COMMIT",
            "BEGIN; DECLARE mine CURSOR WITH HOLD FOR SELECT 1; ROLLBACK",
            "PREPARE mine AS SELECT 1; DEALLOCATE mine",
            "SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock(1)",
            "BEGIN; SELECT pg_advisory_xact_lock(1); COMMIT",
            "SELECT 'CREATE TEMP TABLE mine', 'pg_advisory_lock'",
        ):
            client.execute(text)
            assert one(other, "SELECT 1") == 1
        for text in ("LOAD 'no_such_library'", "CREATE TEMP TABLE x AS SELECT 1/0"):
            with pytest.raises(psycopg.Error):
                client.execute(text)
            assert one(other, "SELECT 1") == 1
        assert penstock.metric("penstock_pool_drops_total", pool="app", reason="uncertain") == 0
    assert all(pins(penstock, reason) == 0 for reason, *_ in STATES)


def test_a_pinned_client_that_goes_leaves_nothing(make_proxy: Make, postgres: EmbeddedPostgres) -> None:
    penstock = make_proxy(max=1)
    for is_polite in (True, False):
        with connected(penstock) as client:
            client.execute("SELECT pg_advisory_lock(1234)")
            client.execute("CREATE TEMP TABLE mine (one int)")
            client.execute("PREPARE mine AS SELECT 1")
            client.execute("SET statement_timeout = '54321ms'")
            if not is_polite:
                client.execute("BEGIN")
                with socket.socket(fileno=os.dup(client.fileno())) as wire:
                    wire.shutdown(socket.SHUT_RDWR)
                client.close()
        with directly(postgres) as own:
            until(lambda: one(own, "SELECT pg_try_advisory_lock(1234)"), "the lock is free")
        at_rest(penstock)
        assert pinned(penstock, "advisory_locks") == 0
        with connected(penstock) as other:
            assert one(other, "SHOW statement_timeout") == "0"
            for text in ("SELECT * FROM mine", "EXECUTE mine"):
                with pytest.raises(psycopg.Error):
                    other.execute(text)
    assert penstock.metric("penstock_pool_opens_total", pool="app", outcome="ok") == 1


def test_what_load_has_brought_ends_with_its_session(make_proxy: Make) -> None:
    penstock = make_proxy(max=1)
    with connected(penstock) as client:
        client.execute("LOAD 'plpgsql'")
        held = pid(client)
        client.execute("DISCARD ALL")
        assert pinned(penstock, "load") == 1
    at_rest(penstock)
    with connected(penstock) as client:
        assert pid(client) != held


def test_named_statements_and_pins(make_proxy: Make) -> None:
    penstock = make_proxy(max=1)
    with (
        connected(penstock, prepare_threshold=0) as client,
        connected(penstock, prepare_threshold=0) as other,
    ):
        for _ in range(2):
            client.execute("SELECT pg_advisory_lock(%s)", [1])
            held = pid(client)
            settled(penstock, "advisory_locks", 1)
            assert one(client, "SELECT 5") == 5
            client.execute("SELECT pg_advisory_unlock(%s)", [1])
            assert pid(other) == held
        client.execute("CREATE TEMP TABLE mine (one int)", prepare=True)
        client.close()
        assert one(other, "SELECT pg_backend_pid()") == held


async def test_asyncpg_with_temporary_tables(make_proxy: Make) -> None:
    penstock = make_proxy(max=3)
    clients = [await asyncpg.connect(penstock.dsn()) for _ in range(2)]

    async def work(number: int, client: Any) -> None:
        await client.execute("CREATE TEMP TABLE mine (number int)")
        await client.executemany("INSERT INTO mine VALUES ($1)", [(number,)] * 5)
        for _ in range(5):
            assert await client.fetchval("SELECT sum(number) FROM mine") == 5 * number
        await client.execute("DROP TABLE mine")

    await asyncio.gather(*(work(number, client) for number, client in enumerate(clients)))
    for client in clients:
        await client.close()
    at_rest(penstock)


REFUSED = {
    "temp_tables": "CREATE TEMP TABLE mine (one int)",
    "advisory_locks": "SELECT pg_advisory_lock(1)",
    "hold_cursors": "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    "load": "LOAD 'plpgsql'",
    "sql_prepare": "PREPARE mine AS SELECT 1",
    "listen": "LISTEN mine",
    "settings": "SET enable_seqscan = off",
}


def test_what_is_refused(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, **{f"on_{kind}": "refuse" for kind in REFUSED})
    with connected(penstock) as client, connected(penstock) as other:
        for kind, text in REFUSED.items():
            for prepare in (False, True):
                if prepare and kind not in ("temp_tables", "advisory_locks"):
                    continue
                with pytest.raises(psycopg.errors.FeatureNotSupported) as refusal:
                    client.execute(text, prepare=prepare)
                assert f"on_{kind}" in (refusal.value.diag.message_hint or "")
                assert one(client, "SELECT 1") == 1
            assert pins(penstock, kind, "refused") >= 1
        client.execute("SET statement_timeout = '54321ms'")
        client.execute("SET LOCAL enable_seqscan = off")
        client.execute("RESET ALL")
        with client.transaction():
            client.execute("SELECT pg_advisory_xact_lock(1)")
        assert one(other, "SELECT 1") == 1
        client.execute("BEGIN; SELECT 1")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            client.execute("CREATE TEMP TABLE mine (one int)")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            client.execute("SELECT 1")
        client.execute("ROLLBACK")
        with client.pipeline():
            before = client.execute("SELECT 1")
            with pytest.raises(psycopg.errors.FeatureNotSupported):
                client.execute("CREATE TEMP TABLE mine (one int)").fetchone()
        assert before.fetchone() == (1,)


def test_where_statements_have_sessions_of_their_own_a_pin_is_a_refusal(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, pool_mode="statement")
    with connected(penstock) as client:
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            client.execute("SELECT pg_advisory_lock(1)")
        client.execute("SET search_path = pg_catalog")
        assert one(client, "SHOW search_path") == "pg_catalog"


def _counted(penstock: Penstock, reason: str, count: float) -> bool:
    return pins(penstock, reason, "would_pin") == count


def test_a_dry_run_only_counts(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, pin_dry_run=True)
    with connected(penstock) as client, connected(penstock) as other:
        for reason, begin, use, end in STATES[:1] + STATES[2:5]:
            before = pins(penstock, reason, "would_pin")
            client.execute(begin, prepare=False)
            until(partial(_counted, penstock, reason, before + 1))
            assert pinned(penstock, reason) == 0
            with pytest.raises(psycopg.Error):
                other.execute(use, prepare=False)
            assert end
    assert all(pins(penstock, reason) == 0 for reason, *_ in STATES)


def test_a_pinned_client_does_not_hold_up_the_end(make_proxy: Make) -> None:
    penstock = make_proxy(max=1)
    with connected(penstock) as client:
        client.execute("CREATE TEMP TABLE mine (one int)")
        penstock.signal(signal.SIGTERM)
        assert penstock.wait(10) == 0
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")


def test_a_pinned_client_is_told_that_its_session_is_lost(
    make_proxy: Make, postgres: EmbeddedPostgres
) -> None:
    penstock = make_proxy(max=1)
    with connected(penstock) as client, directly(postgres) as own:
        client.execute("CREATE TEMP TABLE mine (one int)")
        own.execute("SELECT pg_terminate_backend(%s)", [pid(client)])
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT pg_sleep(10)")
    assert pool_of(penstock)["busy"] == 0

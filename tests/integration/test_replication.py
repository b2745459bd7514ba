"""Replication connections: a session of their own, opened as they want it, within the bound."""

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from integration.looking import at_rest, directly, kill, pool_of, run, until, wait_for
from proxy.embedded import EmbeddedPostgres, EmbeddedUnavailable
from proxy.embedded.binaries import find_programs
from servers import USUAL, Penstock, debian_programs, lacking

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]


def _program(name: str) -> str:
    for folder in (find_programs(), debian_programs()):
        if folder is not None and (folder / name).exists():
            return str(folder / name)
    return shutil.which(name) or lacking(f"there is no {name}")


@pytest.fixture(scope="module")
def source() -> Iterator[EmbeddedPostgres]:
    """A server whose WAL can be decoded, and whose default rules let the superuser replicate."""
    options = {"wal_level": "logical", "max_wal_senders": "3", "max_replication_slots": "6"}
    server = EmbeddedPostgres(options=options | {"wal_sender_timeout": "10s"})
    try:
        server.start()
    except EmbeddedUnavailable as reason:
        lacking(str(reason))
    yield server
    server.stop()


def _senders(server: EmbeddedPostgres) -> list[tuple[str, str]]:
    with directly(server) as connection:
        return connection.execute(
            "SELECT application_name, coalesce(state, '') FROM pg_stat_replication ORDER BY 1"
        ).fetchall()


@contextmanager
def _running(*command: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={"LC_ALL": "C", **env}
    ) as process:
        try:
            yield process
        finally:
            kill(process)


def test_pg_receivewal_streams_beside_ordinary_clients_and_leaves_nothing(
    make_proxy: Make, source: EmbeddedPostgres, tmp_path: Path
) -> None:
    penstock = make_proxy(server=source, max=2)
    with (
        _running(_program("pg_receivewal"), "-D", str(tmp_path), "-d", penstock.dsn(), "-v") as process,
        psycopg.connect(penstock.dsn(), autocommit=True) as client,
    ):
        until(lambda: _senders(source) == [("pg_receivewal", "streaming")])
        client.execute("CREATE TABLE IF NOT EXISTS received (x int)")
        client.execute("INSERT INTO received SELECT generate_series(1, 1000)")
        (holder,) = penstock.http("/api/v1/pools/app/holders").json()["holders"]
        assert (holder["pinned"], holder["state"]) == ("replication", "active")
        assert holder["application_name"] == "pg_receivewal"
        assert pool_of(penstock)["opened"] == 2
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 0, out
    pool = at_rest(penstock)
    assert pool["drops"]["replication"] == 1
    assert _senders(source) == []


def test_pg_recvlogical_makes_a_slot_streams_from_it_and_drops_it(
    make_proxy: Make, source: EmbeddedPostgres, tmp_path: Path
) -> None:
    penstock, program = make_proxy(server=source, max=2), _program("pg_recvlogical")
    target = tmp_path / "changes"
    slot = ["-d", penstock.dsn(), "--slot", "decoded"]
    made = run(program, *slot, "--create-slot", "--plugin", "test_decoding")
    assert made.returncode == 0, made.stderr
    with (
        _running(program, *slot, "--start", "-f", str(target), "-F", "1") as process,
        psycopg.connect(penstock.dsn(), autocommit=True) as client,
    ):
        until(lambda: _senders(source) == [("pg_recvlogical", "streaming")])
        client.execute("CREATE TABLE decoded (word text)")
        client.execute("INSERT INTO decoded VALUES ('through the gate')")
        until(lambda: target.exists() and "through the gate" in target.read_text())
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 0, out
    dropped = run(program, *slot, "--drop-slot")
    assert dropped.returncode == 0, dropped.stderr
    assert at_rest(penstock)["drops"]["replication"] == 3


def test_a_base_backup_comes_through_whole(
    make_proxy: Make, source: EmbeddedPostgres, tmp_path: Path
) -> None:
    # Two connections: one for the files, one for the WAL meanwhile.
    penstock, target = make_proxy(server=source, max=2), tmp_path / "backup"
    done = run(
        _program("pg_basebackup"), "-D", str(target), "-X", "stream", "-c", "fast", "-d", penstock.dsn()
    )
    assert done.returncode == 0, done.stderr
    checked = run(_program("pg_verifybackup"), "-n", str(target))
    assert checked.returncode == 0, checked.stderr
    assert at_rest(penstock)["opened"] <= 2


def test_a_subscription_of_another_server_follows_through_the_proxy(
    make_proxy: Make, source: EmbeddedPostgres, postgres: EmbeddedPostgres
) -> None:
    penstock = make_proxy(server=source, max=4)
    with directly(source) as publisher, directly(postgres) as subscriber:
        for side in (publisher, subscriber):
            side.execute("CREATE TABLE followed (x int PRIMARY KEY)")
        publisher.execute("INSERT INTO followed VALUES (1)")
        publisher.execute("CREATE PUBLICATION news FOR TABLE followed")
        info = f"host=127.0.0.1 port={penstock.port} dbname=app user=app password={source.password}"
        try:
            subscriber.execute(f"CREATE SUBSCRIPTION reader CONNECTION '{info}' PUBLICATION news")
            publisher.execute("INSERT INTO followed VALUES (2)")
            rows = "SELECT array_agg(x ORDER BY x) FROM followed"
            until(lambda: subscriber.execute(rows).fetchone() == ([1, 2],))
        finally:
            subscriber.execute("DROP SUBSCRIPTION IF EXISTS reader")
            subscriber.execute("DROP TABLE followed")
            publisher.execute("DROP PUBLICATION news; DROP TABLE followed")
    at_rest(penstock)


def test_what_the_client_asks_for_at_its_login_holds_and_sql_works(
    make_proxy: Make, source: EmbeddedPostgres
) -> None:
    penstock = make_proxy(server=source, max=2, session_init="SET statement_timeout = '7s'")
    options = "-c work_mem=5MB -c penstock.getmode=nowait"
    login = penstock.dsn(replication="database", options=options, application_name="mine")
    with ThreadPoolExecutor(1) as pool, psycopg.connect(login, autocommit=True) as client:
        assert client.execute("SHOW work_mem").fetchone() == ("5MB",)
        assert client.execute("SHOW statement_timeout").fetchone() == ("0",)
        assert client.execute("SHOW application_name").fetchone() == ("mine",)
        assert client.info.parameter_status("application_name") == "mine"
        assert client.execute("IDENTIFY_SYSTEM").fetchone()[3] == "app"
        job = pool.submit(client.execute, "SELECT pg_sleep(60)")
        until(lambda: any("pg_sleep(60)" in text for text in _queries(source)))
        client.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            job.result(20)
        assert client.execute("SELECT 1").fetchone() == (1,)
    at_rest(penstock)


def _queries(server: EmbeddedPostgres) -> list[str]:
    with directly(server) as connection:
        rows = connection.execute("SELECT query FROM pg_stat_activity WHERE state = 'active'").fetchall()
    return [text for (text,) in rows]


def test_it_has_its_place_within_the_bound_as_others_have(make_proxy: Make, source: EmbeddedPostgres) -> None:
    penstock = make_proxy(server=source, max=1, getmode="nowait")
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        client.execute("SELECT 1")
        # The idle session makes room.
        with psycopg.connect(penstock.dsn(replication="database"), autocommit=True):
            wait_for(penstock, opened=1, busy=1)
            with pytest.raises(psycopg.errors.TooManyConnections, match="no session available"):
                client.execute("SELECT 1")
            with pytest.raises(psycopg.OperationalError, match="no session available"):
                psycopg.connect(penstock.dsn(replication="database"))
        until(lambda: pool_of(penstock)["opened"] == 0 or pool_of(penstock)["busy"] == 0)
        wait_for(penstock, closing=0, opening=0)
        assert client.execute("SELECT 2").fetchone() == (2,)
    at_rest(penstock)


def test_a_login_that_the_server_refuses_harms_nobody_else(
    make_proxy: Make, source: EmbeddedPostgres
) -> None:
    users = '[users.plain]\npassword = "plain"\n'
    with directly(source) as server:
        server.execute("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN PASSWORD 'plain'")
    penstock = make_proxy(USUAL + users, server=source, max=8, breaker_failures=1, breaker_timeout="30s")
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        for _ in range(3):
            with pytest.raises(psycopg.OperationalError, match="REPLICATION"):
                psycopg.connect(penstock.dsn("plain", password="plain", replication="true"))
        held = [psycopg.connect(penstock.dsn(replication="true"), autocommit=True) for _ in range(3)]
        with pytest.raises(psycopg.OperationalError, match="max_wal_senders"):
            psycopg.connect(penstock.dsn(replication="true"))
        # The breaker, which one failure of the server would open, is closed: others get new sessions.
        with psycopg.connect(penstock.dsn("plain", password="plain"), autocommit=True) as plain:
            assert plain.execute("SELECT current_user").fetchone() == ("plain",)
        assert client.execute("SELECT 1").fetchone() == (1,)
        for one in held:
            one.close()
    (endpoint,) = at_rest(penstock)["endpoints"]
    assert (endpoint["breaker"], endpoint["last_error"]) == ("closed", "")


def test_a_pool_that_takes_none_says_so(make_proxy: Make, source: EmbeddedPostgres) -> None:
    penstock = make_proxy(server=source, max=2, replication="refuse")
    with pytest.raises(psycopg.OperationalError, match="takes no replication connections"):
        psycopg.connect(penstock.dsn(replication="database"))
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(penstock.dsn(database="replication", replication="true"))
    with pytest.raises(psycopg.OperationalError, match='invalid value for parameter "replication"'):
        psycopg.connect(penstock.dsn(replication="perhaps"))


def test_one_that_vanishes_frees_its_slot(make_proxy: Make, source: EmbeddedPostgres, tmp_path: Path) -> None:
    penstock = make_proxy(server=source, max=1, close_timeout="5s")
    with _running(_program("pg_receivewal"), "-D", str(tmp_path), "-d", penstock.dsn()) as process:
        until(lambda: _senders(source) == [("pg_receivewal", "streaming")])
        kill(process)
    until(lambda: _senders(source) == [])
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    assert at_rest(penstock)["drops"]["abandoned"] == 0


def test_a_drain_ends_streams_when_nobody_else_is_left(
    make_proxy: Make, source: EmbeddedPostgres, tmp_path: Path
) -> None:
    penstock = make_proxy(server=source, max=2, idle_transaction_timeout="300ms")
    receiver = (_program("pg_receivewal"), "-D", str(tmp_path), "-d", penstock.dsn(), "--no-loop")
    with _running(*receiver) as process, psycopg.connect(penstock.dsn()) as client:
        until(lambda: _senders(source) == [("pg_receivewal", "streaming")])
        client.execute("SELECT 1")
        penstock.signal(signal.SIGTERM)
        until(lambda: penstock.events("drain_started"))
        client.execute("SELECT 1")
        assert process.poll() is None
        client.rollback()
        assert penstock.wait(20) == 0
        out, _ = process.communicate(timeout=20)
    assert "Penstock is shutting down" in out
    assert process.returncode != 0


def test_psycopg2_reads_a_logical_stream(make_proxy: Make, source: EmbeddedPostgres) -> None:
    extras = pytest.importorskip("psycopg2.extras")
    penstock = make_proxy(server=source, max=2)
    factory = extras.LogicalReplicationConnection
    with (
        contextlib.closing(extras.psycopg2.connect(penstock.dsn(), connection_factory=factory)) as stream,
        psycopg.connect(penstock.dsn(), autocommit=True) as client,
    ):
        cursor = stream.cursor()
        cursor.create_replication_slot("read", output_plugin="test_decoding")
        cursor.start_replication(slot_name="read", decode=True)
        client.execute("CREATE TABLE read_by_driver AS SELECT 'from afar' AS word")
        seen: list[str] = []
        until(lambda: any("from afar" in text for text in seen) or _read(cursor, seen))
        cursor.send_feedback(flush_lsn=cursor.wal_end)
        cursor.close()
    until(lambda: _senders(source) == [])
    with directly(source) as server:
        server.execute("SELECT pg_drop_replication_slot('read')")


def _read(cursor: Any, seen: list[str]) -> None:
    message = cursor.read_message()
    if message is not None:
        seen.append(message.payload)

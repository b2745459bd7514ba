"""begin = "deferred" and "ahead" with real drivers against PostgreSQL: the same answers as begin = "pass"."""

import asyncio
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest

from integration.looking import (
    at_rest,
    directly,
    finished_transactions,
    kill,
    pool_of,
    run,
    sessions_on,
    trusting,
    until,
    wait_for,
)
from integration.raw import EXECUTE, SYNC, Raw, bind, error_of, parse, query, rows
from proxy.embedded import EmbeddedPostgres
from servers import Penstock, lacking

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
CHOICES = ("deferred", "ahead")


@pytest.fixture(params=CHOICES)
def choice(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def table(server: psycopg.Connection[Any]) -> Iterator[str]:
    """A table to write to."""
    server.execute("CREATE TABLE begun (word text UNIQUE)")
    yield "begun"
    server.execute("DROP TABLE begun")


def statuses(answer: list[tuple[bytes, bytes]]) -> list[str]:
    """An answer in words: its command tags, its SQLSTATEs, its transaction status."""
    words = []
    for kind, body in answer:
        if kind == b"C":
            words.append(body[:-1].decode())
        elif kind == b"E":
            words.append(error_of([(kind, body)])["C"])
        elif kind == b"Z":
            words.append(body.decode())
    return words


# -- what it is for -------------------------------------------------------------------------------


def test_a_transaction_without_a_statement_holds_no_session(make_proxy: Make, choice: str) -> None:
    penstock = make_proxy(trusting(), max=1, begin=choice)
    with Raw.logged_in(penstock.port) as idler, Raw.logged_in(penstock.port) as worker:
        assert statuses(idler.ask("BEGIN")) == ["BEGIN", "T"]
        assert statuses(worker.ask("START TRANSACTION READ ONLY")) == ["START TRANSACTION", "T"]
        assert worker.value("SHOW transaction_read_only") == "on"
        assert statuses(idler.ask("COMMIT")) == ["COMMIT", "I"]
        assert statuses(worker.ask("COMMIT")) == ["COMMIT", "I"]
        assert statuses(idler.ask("BEGIN")) == ["BEGIN", "T"]
        assert idler.value("SHOW transaction_read_only") == "off"
        assert statuses(idler.ask("ROLLBACK")) == ["ROLLBACK", "I"]
    at_rest(penstock)


def test_a_client_idle_in_a_deferred_transaction_is_not_cut(make_proxy: Make, choice: str) -> None:
    penstock = make_proxy(trusting(), max=1, begin=choice, idle_transaction_timeout="300ms")
    with Raw.logged_in(penstock.port) as idler, Raw.logged_in(penstock.port) as other:
        idler.ask("BEGIN")
        other.ask("BEGIN")
        other.ask("SELECT 1")
        assert other.is_closed()  # it holds a session, and is cut
        assert idler.value("SELECT 7") == "7"


@pytest.mark.parametrize(
    ("begin", "shown"),
    [
        ("BEGIN", ("read committed", "off", "off")),
        ("begin isolation level serializable, read only, deferrable;", ("serializable", "on", "on")),
        ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ READ WRITE", ("repeatable read", "off", "off")),
        ("BEGIN WORK READ ONLY NOT DEFERRABLE", ("read committed", "on", "off")),
    ],
)
@pytest.mark.parametrize("extended", [False, True])
def test_every_mode_holds_for_the_first_statement(
    make_proxy: Make, choice: str, begin: str, shown: tuple[str, ...], extended: bool
) -> None:
    penstock = make_proxy(trusting(), max=1, begin=choice)
    names = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")
    with Raw.logged_in(penstock.port) as client:
        for name, value in zip(names, shown, strict=True):
            if extended:
                client.send(parse(begin) + bind() + EXECUTE + SYNC)
                assert statuses(client.until_ready())[-1] == "T"
                client.send(parse(f"SHOW {name}") + bind() + EXECUTE + SYNC)
                assert rows(client.until_ready())[0][6:].decode() == value
            else:
                assert statuses(client.ask(begin))[-1] == "T"
                assert client.value(f"SHOW {name}") == value
            assert statuses(client.ask("COMMIT")) == ["COMMIT", "I"]


def test_what_may_not_run_in_a_transaction_runs_outside(make_proxy: Make, choice: str, table: str) -> None:
    penstock = make_proxy(trusting(), max=1, begin=choice)
    with Raw.logged_in(penstock.port) as client:
        for _ in range(2):
            assert statuses(client.ask(f"VACUUM {table}")) == ["VACUUM", "I"]
            assert statuses(client.ask("BEGIN")) == ["BEGIN", "T"]
            assert statuses(client.ask(f"VACUUM {table}")) == ["25001", "E"]
            assert statuses(client.ask("SELECT 1")) == ["25P02", "E"]
            assert statuses(client.ask("COMMIT")) == ["ROLLBACK", "I"]
        assert statuses(client.ask("BEGIN; SELECT 1; COMMIT")) == ["BEGIN", "SELECT 1", "COMMIT", "I"]
        client.send(query("BEGIN") + query("SELECT 1") + query("COMMIT") + query("SELECT 2"))
        answers = [statuses(client.until_ready()) for _ in range(4)]
        assert answers == [["BEGIN", "T"], ["SELECT 1", "T"], ["COMMIT", "I"], ["SELECT 1", "I"]]


def test_units_sent_behind_the_first_statement_follow_it(make_proxy: Make, choice: str, table: str) -> None:
    penstock = make_proxy(trusting(), max=1, begin=choice)
    with Raw.logged_in(penstock.port) as client:
        client.ask("BEGIN")
        unit = parse(f"INSERT INTO {table} VALUES ('a')") + bind() + EXECUTE + SYNC
        more = parse("COMMIT") + bind() + EXECUTE + SYNC
        client.send(unit + more + query(f"SELECT word FROM {table}"))
        assert [statuses(client.until_ready()) for _ in range(3)] == [
            ["INSERT 0 1", "T"],
            ["COMMIT", "I"],
            ["SELECT 1", "I"],
        ]
        client.ask("BEGIN")
        client.send(query(f"COPY {table} FROM STDIN") + b"d\0\0\0\6b\n" + b"c\0\0\0\4" + query("COMMIT"))
        assert statuses(client.until_ready()) == ["COPY 1", "T"]
        assert statuses(client.until_ready()) == ["COMMIT", "I"]
        client.ask("BEGIN")
        many = 20_000
        client.send(b"".join(query(f"SELECT {number}, repeat('x', 90)") for number in range(many)))
        for _ in range(many):
            assert statuses(client.until_ready()) == ["SELECT 1", "T"]
        assert statuses(client.ask("ROLLBACK")) == ["ROLLBACK", "I"]


# -- drivers --------------------------------------------------------------------------------------


def test_psycopg_in_blocks_savepoints_and_pipelines(make_proxy: Make, choice: str, table: str) -> None:
    penstock = make_proxy(max=1, begin=choice)
    with psycopg.connect(penstock.dsn(), prepare_threshold=None) as own:
        own.execute(f"INSERT INTO {table} VALUES ('a')")
        own.commit()
        with pytest.raises(psycopg.errors.UniqueViolation), own.transaction():
            own.execute(f"INSERT INTO {table} VALUES ('a')")
        with own.transaction():
            with pytest.raises(psycopg.errors.UniqueViolation), own.transaction():
                own.execute(f"INSERT INTO {table} VALUES ('a')")
            own.execute(f"INSERT INTO {table} VALUES ('b')")
        with own.transaction():
            pass
        own.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        own.read_only = True
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            own.execute(f"INSERT INTO {table} VALUES ('c')")
        own.rollback()
        own.read_only = None
        with own.pipeline() as pipeline:
            for word in "cde":
                own.execute(f"INSERT INTO {table} VALUES (%s)", (word,))
                pipeline.sync()
        own.commit()
        with own.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            copy.write_row(("f",))
        own.rollback()
        assert (
            "".join(own.execute(f"SELECT string_agg(word, '' ORDER BY word) FROM {table}").fetchone()[0])
            == "abcde"
        )
        own.commit()
        own.autocommit = True
        own.execute(f"VACUUM {table}")
    at_rest(penstock)


def test_psycopg2_and_its_isolation_levels(make_proxy: Make, choice: str, table: str) -> None:
    penstock = make_proxy(max=1, begin=choice)
    own = psycopg2.connect(penstock.dsn())
    try:
        own.set_session(isolation_level="SERIALIZABLE", readonly=True, deferrable=True)
        with own, own.cursor() as cursor:
            cursor.execute("SELECT current_setting('transaction_isolation')")
            assert cursor.fetchone() == ("serializable",)
        own.set_session(isolation_level="DEFAULT", readonly=False, deferrable=False)
        with own, own.cursor() as cursor:
            cursor.execute(f"INSERT INTO {table} VALUES ('a') RETURNING word")
            assert cursor.fetchone() == ("a",)
        with pytest.raises(psycopg2.errors.UniqueViolation), own, own.cursor() as cursor:
            cursor.execute(f"INSERT INTO {table} VALUES ('a')")
        with own, own.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {table}")
            assert cursor.fetchone() == (1,)
    finally:
        own.close()
    at_rest(penstock)


async def asyncpg_at_work(dsn: str, table: str, number: int) -> None:
    own = await asyncpg.connect(dsn, statement_cache_size=0)
    try:
        async with own.transaction(isolation="serializable", readonly=True, deferrable=True):
            assert await own.fetchval("SELECT current_setting('transaction_isolation')") == "serializable"
            assert await own.fetchval("SELECT current_setting('transaction_deferrable')") == "on"
        async with own.transaction():
            await own.execute(f"INSERT INTO {table} VALUES ($1)", f"kept {number}")
            with pytest.raises(asyncpg.DivisionByZeroError):
                async with own.transaction():
                    await own.fetchval("SELECT 1/0")
        with pytest.raises(asyncpg.UniqueViolationError):
            async with own.transaction():
                await own.execute(f"INSERT INTO {table} VALUES ($1)", f"kept {number}")
        async with own.transaction():
            pass
        async with own.transaction():
            await own.copy_records_to_table(table, records=[(f"copied {number}",)])
        assert (
            await own.fetchval(f"SELECT count(*) FROM {table} WHERE word LIKE '% ' || $1", str(number)) == 2
        )
    finally:
        await own.close()


async def test_asyncpg_many_at_once_on_two_sessions(make_proxy: Make, choice: str, table: str) -> None:
    penstock = make_proxy(max=2, begin=choice)
    await asyncio.gather(*(asyncpg_at_work(penstock.dsn(), table, number) for number in range(12)))
    at_rest(penstock)


async def test_psycopg_async_many_at_once_on_two_sessions(make_proxy: Make, choice: str, table: str) -> None:
    penstock = make_proxy(max=2, begin=choice)

    async def work(number: int) -> None:
        async with await psycopg.AsyncConnection.connect(penstock.dsn(), prepare_threshold=None) as own:
            for turn in range(5):
                async with own.transaction(), own.pipeline():
                    await own.execute(f"INSERT INTO {table} VALUES (%s)", (f"{number}-{turn}",))
                    await own.execute("SELECT 1")

    await asyncio.gather(*(work(number) for number in range(12)))
    with directly(penstock.server) as own:
        assert own.execute(f"SELECT count(*) FROM {table}").fetchone() == (60,)
    at_rest(penstock)


def test_psql_runs_a_script(make_proxy: Make, choice: str, table: str) -> None:
    psql = shutil.which("psql") or lacking("there is no psql (apt-get install postgresql-client)")
    penstock = make_proxy(max=1, begin=choice)
    script = f"""
BEGIN;
COPY {table} FROM STDIN;
one
two
\\.
SAVEPOINT a;
SELECT 1/0;
ROLLBACK TO a;
COMMIT AND CHAIN;
INSERT INTO {table} VALUES ('three');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE; COMMIT;
VACUUM {table};
SELECT 'in all ' || count(*) FROM {table};
"""
    done = run(psql, "-X", "-A", "-t", penstock.dsn(), text=script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "in all 2"
    assert "division by zero" in done.stderr


@pytest.mark.parametrize("mode", ["simple", "extended"])
def test_pgbench_keeps_its_books(
    make_proxy: Make, choice: str, postgres: EmbeddedPostgres, mode: str
) -> None:
    """TPC-B with twenty clients on two sessions: every transaction is done, and nothing is lost of any."""
    pgbench = shutil.which("pgbench") or lacking("there is no pgbench (apt-get install postgresql-contrib)")
    penstock = make_proxy(max=2, begin=choice)
    made = run(pgbench, "-i", "-q", postgres.dsn())
    assert made.returncode == 0, made.stderr
    try:
        done = run(pgbench, "-n", "-c", "20", "-j", "2", "-t", "20", "-M", mode, penstock.dsn())
        assert done.returncode == 0, done.stderr
        assert finished_transactions(done.stdout) == 400
        with directly(postgres) as server:
            sums = [
                server.execute(f"SELECT sum({column}) FROM pgbench_{name}").fetchone()
                for name, column in (
                    ("accounts", "abalance"),
                    ("branches", "bbalance"),
                    ("tellers", "tbalance"),
                    ("history", "delta"),
                )
            ]
            assert len(set(sums)) == 1
            assert server.execute("SELECT count(*) FROM pgbench_history").fetchone() == (400,)
    finally:
        with directly(postgres) as server:
            for name in ("accounts", "branches", "history", "tellers"):
                server.execute(f"DROP TABLE pgbench_{name}")
    assert at_rest(penstock)["opened"] <= 2


# -- refusals, and ends ---------------------------------------------------------------------------


def test_a_refused_first_statement_is_a_failed_transaction(make_proxy: Make, choice: str) -> None:
    penstock = make_proxy(trusting(), max=1, getmode="nowait", begin=choice)
    with Raw.logged_in(penstock.port) as holder, Raw.logged_in(penstock.port) as client:
        holder.ask("BEGIN")
        holder.ask("SELECT 1")
        assert statuses(client.ask("BEGIN")) == ["BEGIN", "T"]
        assert statuses(client.ask("SELECT 1")) == ["53300", "E"]
        assert statuses(client.ask("SELECT 1")) == ["25P02", "E"]
        assert statuses(client.ask("COMMIT")) == ["ROLLBACK", "I"]
        client.ask("BEGIN")
        client.send(parse("SELECT 1") + bind() + EXECUTE + SYNC + parse("SELECT 2") + bind() + EXECUTE + SYNC)
        assert [statuses(client.until_ready()) for _ in range(2)] == [["53300", "E"], ["25P02", "E"]]
        holder.ask("COMMIT")
        assert statuses(client.ask("SELECT 1")) == ["25P02", "E"]
        assert statuses(client.ask("ROLLBACK; SELECT 3")) == ["ROLLBACK", "SELECT 1", "I"]
    at_rest(penstock)


def test_psycopg_goes_on_after_a_refusal(make_proxy: Make, choice: str) -> None:
    penstock = make_proxy(max=1, getmode="nowait", begin=choice)
    with psycopg.connect(penstock.dsn()) as own, psycopg.connect(penstock.dsn()) as other:
        other.execute("SELECT 1")
        with pytest.raises(psycopg.errors.TooManyConnections), own.transaction():
            own.execute("SELECT 1")
        assert own.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        other.rollback()
        with own.transaction():
            assert own.execute("SELECT 7").fetchone() == (7,)


def test_a_wait_that_is_cancelled_is_a_failed_transaction(make_proxy: Make, choice: str) -> None:
    penstock = make_proxy(trusting(), max=1, begin=choice)
    with Raw.logged_in(penstock.port) as holder, Raw.logged_in(penstock.port) as client:
        holder.ask("BEGIN")
        holder.ask("SELECT 1")
        client.ask("BEGIN")
        client.send(query("SELECT 1") + query("SELECT 2"))
        until(lambda: pool_of(penstock)["waiting"] == 1)
        canceller = threading.Thread(target=client.cancel, args=(penstock.port,))
        canceller.start()
        assert statuses(client.until_ready()) == ["57014", "E"]
        assert statuses(client.until_ready()) == ["25P02", "E"]
        canceller.join()
        assert statuses(client.ask("ROLLBACK")) == ["ROLLBACK", "I"]
        holder.ask("COMMIT")
        assert client.value("SELECT 7") == "7"


@pytest.fixture(scope="module")
def standby() -> Iterator[EmbeddedPostgres]:
    """A server that recovers for ever, as a hot standby does: it refuses transactions that may write."""
    with EmbeddedPostgres() as server:
        server.halt()
        (server.directory / "data" / "standby.signal").touch()
        server.start()
        yield server


def test_where_the_server_refuses_begin_nothing_runs(
    make_proxy: Make, choice: str, standby: EmbeddedPostgres
) -> None:
    penstock = make_proxy(trusting(), server=standby, max=1, begin=choice)
    leak = "SELECT set_config('application_name', 'leaked', false)"
    unit = parse(leak) + bind() + EXECUTE + SYNC
    with Raw.logged_in(penstock.port) as client:
        for first, count in (
            (query(leak), 1),
            (unit, 1),
            (parse(leak) + SYNC, 1),
            (query(leak) * 2 + SYNC, 3),
        ):
            assert statuses(client.ask("BEGIN READ WRITE")) == ["BEGIN", "T"]
            client.send(first + unit + query(leak))
            answers = [statuses(client.until_ready()) for _ in range(count + 2)]
            assert answers[0] == ["0A000", "E"]
            assert all(answer[-1] == "E" for answer in answers)
            assert statuses(client.ask("COMMIT")) == ["ROLLBACK", "I"]
            assert client.value("SHOW application_name") != "leaked"
        assert statuses(client.ask("BEGIN READ WRITE")) == ["BEGIN", "T"]
        client.send(parse(leak) + bind() + EXECUTE + b"H\0\0\0\4")
        assert client.read()[0] == b"E"
        client.send(SYNC)
        assert statuses(client.until_ready()) == ["E"]
        client.ask("ROLLBACK")
        assert statuses(client.ask("BEGIN READ ONLY")) == ["BEGIN", "T"]
        assert client.value("SELECT 7") == "7"
        client.ask("COMMIT")
        client.ask("BEGIN READ WRITE")
        client.send(query("SELECT 1"))
    at_rest(penstock)
    with psycopg.connect(penstock.dsn()) as own:
        assert own.execute("SELECT 7").fetchone() == (7,)


def test_clients_that_vanish_leave_nothing_behind(make_proxy: Make, choice: str, table: str) -> None:
    penstock = make_proxy(trusting(), max=2, begin=choice)
    for turn in range(6):
        client = Raw.logged_in(penstock.port)
        client.ask("BEGIN")
        if turn % 3:
            client.send(query(f"INSERT INTO {table} VALUES ('{turn}')"))
        if turn % 3 == 2:
            client.until_ready()
        client.close()
    at_rest(penstock)
    with directly(penstock.server) as own:
        assert own.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_a_drain_does_not_wait_for_a_transaction_without_a_statement(make_proxy: Make, choice: str) -> None:
    penstock = make_proxy(trusting(), max=1, begin=choice)
    with Raw.logged_in(penstock.port) as idler, Raw.logged_in(penstock.port) as worker:
        idler.ask("BEGIN")
        worker.ask("BEGIN")
        worker.ask("SELECT 1")
        penstock.signal(signal.SIGTERM)
        assert error_of(idler.to_the_end())["C"] == "57P01"
        assert worker.value("SELECT 7") == "7"
        assert statuses(worker.ask("COMMIT"))[0] == "COMMIT"


def test_killed_programs_leave_nothing_behind(
    make_proxy: Make, choice: str, postgres: EmbeddedPostgres, folder: Path
) -> None:
    pgbench = shutil.which("pgbench") or lacking("there is no pgbench (apt-get install postgresql-contrib)")
    penstock = make_proxy(max=2, begin=choice)
    script = folder / "script.sql"
    script.write_text("BEGIN;\nSELECT pg_sleep(0.001);\nSELECT 1;\nCOMMIT;\n")
    for _ in range(3):
        program = subprocess.Popen(
            [pgbench, "-n", "-c", "10", "-T", "60", "-f", str(script), penstock.dsn()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(penstock, busy=2)
        kill(program)
        at_rest(penstock)
    with psycopg.connect(penstock.dsn()) as own:
        assert own.execute("SELECT 7").fetchone() == (7,)


def test_a_session_that_dies_under_its_first_statement_fails_the_transaction(
    make_proxy: Make, choice: str, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=1, begin=choice)
    with Raw.logged_in(penstock.port) as client:
        for _ in range(5):
            client.value("SELECT 1")
            at_rest(penstock)
            client.ask("BEGIN")
            pids = [pid for pid, _, _ in sessions_on(server)]
            for pid in pids:
                server.execute("SELECT pg_terminate_backend(%s)", (pid,))
            answer = statuses(client.ask("SELECT 1"))
            # It was noticed in time and another was had, or the transaction has failed.
            assert answer in (["SELECT 1", "T"], ["57P01", "E"], ["08006", "E"])
            assert statuses(client.ask("ROLLBACK")) == ["ROLLBACK", "I"]
    at_rest(penstock)


def write_pairs(dsn: str, table: str, number: int, done: list[str]) -> None:
    """Forty transactions of two rows each; what was lost is given up."""
    own = None
    for turn in range(40):
        word = f"{number}-{turn}"
        try:
            if own is None or own.closed:
                own = psycopg.connect(dsn, prepare_threshold=None)
            with own.transaction():
                own.execute(f"INSERT INTO {table} VALUES (%s)", (word + "-a",))
                own.execute(f"INSERT INTO {table} VALUES (%s)", (word + "-b",))
        except psycopg.Error:
            continue
        done.append(word)
    if own is not None:
        own.close()


def test_killed_sessions_tear_no_transaction(make_proxy: Make, choice: str, table: str) -> None:
    """Workers write two rows in each transaction, while their sessions are killed one after the other."""
    penstock = make_proxy(max=2, begin=choice)
    penstock.checked = False  # the log is full of sessions that were lost
    done: list[str] = []
    stop = threading.Event()

    def terminate() -> None:
        with directly(penstock.server) as own:
            while not stop.wait(0.03):
                for pid, _, _ in sessions_on(own)[:1]:
                    own.execute("SELECT pg_terminate_backend(%s)", (pid,))

    workers = [
        threading.Thread(target=write_pairs, args=(penstock.dsn(), table, number, done))
        for number in range(8)
    ]
    killer = threading.Thread(target=terminate)
    for thread in (*workers, killer):
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    killer.join()
    with directly(penstock.server) as own:
        found = [word for (word,) in own.execute(f"SELECT word FROM {table}").fetchall()]
    wholes = {word[:-2] for word in found}
    assert len(found) == 2 * len(wholes)
    assert set(done) <= wholes
    assert done
    at_rest(penstock)


def test_an_older_server_behind_tls_answers_the_same(
    make_proxy: Make, choice: str, debian_postgres: EmbeddedPostgres
) -> None:
    penstock = make_proxy(trusting(), server=debian_postgres, max=1, begin=choice)
    insert = "INSERT INTO pg_temp.begun VALUES (1)"
    with Raw.logged_in(penstock.port) as client:
        for frame in (query, lambda text: parse(text) + bind() + EXECUTE + SYNC):
            client.ask("BEGIN")
            client.send(frame("CREATE TEMP TABLE begun (a int UNIQUE) ON COMMIT DROP") + frame(insert))
            assert statuses(client.until_ready()) == ["CREATE TABLE", "T"]
            assert statuses(client.until_ready()) == ["INSERT 0 1", "T"]
            assert statuses(client.ask(insert)) == ["23505", "E"]
            client.send(frame("COMMIT"))
            assert statuses(client.until_ready()) == ["ROLLBACK", "I"]
            client.ask("BEGIN READ ONLY")
            client.send(frame("SELECT txid_current()"))
            assert statuses(client.until_ready())[-1] in ("T", "E")
            client.ask("ROLLBACK")
            client.send(frame("VACUUM pg_class"))
            assert statuses(client.until_ready()) == ["VACUUM", "I"]
    at_rest(penstock)


# -- ahead ----------------------------------------------------------------------------------------


def test_idle_sessions_carry_a_transaction_that_is_never_old(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), min=2, max=2, begin="ahead", begin_max_age="500ms")

    def states() -> set[str]:
        return {state for _, state, _ in sessions_on(server)}

    until(lambda: states() == {"idle in transaction"})
    with Raw.logged_in(penstock.port) as client:
        for _ in range(3):
            client.ask("BEGIN")
            first = client.value("SELECT extract(epoch FROM clock_timestamp() - now()) < 5")
            assert first == "t"
            assert client.value("SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL") >= "1"
            client.ask("COMMIT")
            assert client.value("SELECT 7") == "7"
        client.ask("SET search_path = pg_catalog")
        client.ask("BEGIN")
        assert client.value("SHOW search_path") == "pg_catalog"
        client.ask("COMMIT")
    began = "SELECT min(xact_start) FROM pg_stat_activity WHERE state = 'idle in transaction'"
    until(lambda: states() == {"idle in transaction"})
    before = server.execute(began).fetchone()
    until(lambda: (server.execute(began).fetchone() or (None,)) > (before or (None,)))

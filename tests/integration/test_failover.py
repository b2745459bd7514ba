"""A primary and its streaming standby behind one pool: who is sent where, and what a promotion looks like."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from integration.looking import directly, pool_of, until
from integration.test_endpoints import Make
from proxy.embedded import EmbeddedPostgres
from servers import Penstock, debian_programs, lacking

pytestmark = pytest.mark.integration

PASSWORD = "the same for both"
WHERE = "SELECT current_setting('port'), pg_is_in_recovery()"

CONFIGURATION = """
[listeners.main]
protocol = "postgres"
address = "127.0.0.1:$port"

[pools.app]
backend = "$hosts"
max = 12
role_check_interval = "200ms"
$pool

[http]
address = "127.0.0.1:$http"

[log]
format = "json"
level = "debug"
"""


class Standby(EmbeddedPostgres):
    """A copy of another server that follows it."""

    def __init__(self, primary: EmbeddedPostgres, **more: Any) -> None:
        super().__init__(password=PASSWORD, **more)
        self._primary = primary

    def _fill(self, programs: Path) -> None:
        data = str(self.directory / "data")
        how = ["-R", "-X", "stream", "-c", "fast", "-D", data, "-d", self._primary.dsn()]
        self._run([str(programs / "pg_basebackup"), *how])


class Pair:
    """Both; ``port_of`` says which is which."""

    def __init__(self, primary: EmbeddedPostgres, standby: Standby) -> None:
        self.primary = primary
        self.standby = standby

    def url(self, *servers: EmbeddedPostgres, **parameters: str) -> str:
        """One URL that names these servers (both, the standby first)."""
        login = f"{self.primary.user}:{PASSWORD.replace(' ', '%20')}"
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers or (self.standby, self.primary))
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://{login}@{hosts}/{self.primary.database}{'?' if query else ''}{query}"

    def promote(self) -> None:
        with directly(self.standby) as connection:
            connection.execute("SELECT pg_promote()")

    def has_caught_up(self) -> None:
        """Return when the standby has everything that the primary has written."""
        with directly(self.primary) as primary, directly(self.standby) as standby:
            [[at]] = primary.execute("SELECT pg_current_wal_lsn()").fetchall()
            until(
                lambda: standby.execute("SELECT pg_last_wal_replay_lsn() >= %s", (at,)).fetchone() == (True,)
            )


@contextlib.contextmanager
def made_pair() -> Iterator[Pair]:
    programs = debian_programs()
    if programs is None:
        lacking("there is no PostgreSQL with pg_basebackup (apt-get install postgresql)")
    options = {"wal_level": "replica", "max_wal_senders": "4", "max_connections": "60"}
    with EmbeddedPostgres(bin_dir=programs, password=PASSWORD, options=options) as primary:
        with directly(primary) as connection:
            connection.execute("CREATE TABLE ledger (worker int, entry int, PRIMARY KEY (worker, entry))")
        with Standby(primary, bin_dir=programs, options=options) as standby:
            yield Pair(primary, standby)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with made_pair() as made:
        yield made


def start(make_proxy: Make, pair: Pair, url: str, **pool: object) -> Penstock:
    return make_proxy(CONFIGURATION.replace("$hosts", url), server=pair.primary, **pool)


def connect(penstock: Penstock, database: str = "app", **more: Any) -> psycopg.Connection[Any]:
    url = penstock.dsn(password=PASSWORD, database=database, **more)
    return psycopg.connect(url, autocommit=True, connect_timeout=10)


def where(connection: psycopg.Connection[Any]) -> bool:
    """Whether the client is on the standby."""
    [[_, in_recovery]] = connection.execute(WHERE).fetchall()
    return bool(in_recovery)


def roles(penstock: Penstock) -> dict[str, str]:
    return {endpoint["name"]: endpoint["role"] for endpoint in pool_of(penstock)["endpoints"]}


def test_writes_go_to_the_primary_wherever_it_stands_in_the_url(make_proxy: Make, pair: Pair) -> None:
    penstock = start(make_proxy, pair, pair.url(target_session_attrs="read-write"))
    with connect(penstock) as connection:
        assert not where(connection)
        assert connection.info.parameter_status("in_hot_standby") == "off"
    primary, standby = f"127.0.0.1:{pair.primary.port}", f"127.0.0.1:{pair.standby.port}"
    until(lambda: roles(penstock) == {standby: "standby", primary: "primary"}, "roles")
    assert penstock.metric("penstock_endpoint_role", endpoint=standby, role="standby") == 1
    assert penstock.metric("penstock_endpoint_role", endpoint=primary, role="standby") == 0


def test_a_client_says_which_server_it_wants(make_proxy: Make, pair: Pair) -> None:
    url = pair.url(target_session_attrs="read-write")
    penstock = start(make_proxy, pair, url, replica_database="app_ro")
    with connect(penstock) as connection:
        for target, on_standby in (("replica", True), ("primary", False), ("replica", True)):
            connection.execute(f"SET penstock.target = '{target}'")
            assert where(connection) is on_standby
        assert connection.execute("SHOW penstock.target").fetchone() == ("replica",)
        connection.execute("SET penstock.target = DEFAULT")
        assert not where(connection)
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"penstock\.target"):
            connection.execute("SET penstock.target = 'elsewhere'")
    with connect(penstock, options="-c penstock.target=replica") as connection:
        assert where(connection)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO ledger VALUES (0, 0)")
        assert where(connection)
    with connect(penstock, database="app_ro") as connection:
        assert where(connection)
        assert connection.info.parameter_status("in_hot_standby") == "on"
        assert connection.execute("SHOW penstock.target").fetchone() == ("replica",)
        connection.execute("SET penstock.target = 'primary'")
        assert not where(connection)


@pytest.mark.parametrize("begin", ["pass", "deferred"])
def test_a_transaction_that_is_read_only_goes_to_the_replica(
    make_proxy: Make, pair: Pair, begin: str
) -> None:
    url = pair.url(target_session_attrs="read-write")
    penstock = start(make_proxy, pair, url, begin=begin, read_only_to_replica=True)
    with connect(penstock) as connection:
        connection.autocommit = False
        for read_only in (True, False, True, True, None):
            connection.read_only = read_only
            with connection.transaction():
                assert where(connection) is (read_only is True)
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        with connection.transaction():
            assert not where(connection)
        connection.isolation_level, connection.autocommit = None, True
        # A SELECT alone says nothing.
        assert not where(connection)
        for statement in ("BEGIN READ ONLY", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"):
            connection.execute(statement)
            assert where(connection)
            connection.execute("COMMIT")
            assert not where(connection)


@pytest.mark.parametrize("begin", ["pass", "deferred"])
def test_what_a_pipeline_has_behind_a_read_only_transaction_goes_to_the_primary(
    make_proxy: Make, pair: Pair, begin: str
) -> None:
    url = pair.url(target_session_attrs="read-write")
    penstock = start(make_proxy, pair, url, begin=begin, read_only_to_replica=True)
    with connect(penstock) as connection:
        with connection.pipeline() as pipeline:
            for entry in range(5):
                connection.execute("BEGIN READ ONLY")
                pipeline.sync()
                inside = connection.execute(WHERE)
                pipeline.sync()
                connection.execute("COMMIT")
                pipeline.sync()
                connection.execute("INSERT INTO ledger VALUES (-1, %s)", (entry,))
                pipeline.sync()
                assert inside.fetchall()[0][1] is True
        assert connection.execute("DELETE FROM ledger WHERE worker = -1").rowcount == 5


def test_where_there_is_no_replica_the_primary_serves_or_the_client_is_told(
    make_proxy: Make, pair: Pair
) -> None:
    with EmbeddedPostgres(password=PASSWORD, bin_dir=debian_programs()) as lonely:
        both = pair.url(lonely, pair.primary)
        penstock = start(make_proxy, pair, both)
        with connect(penstock, options="-c penstock.target=replica") as connection:
            assert not where(connection)
        strict = start(make_proxy, pair, both, target_fallback="refuse", failover_wait="0s")
        with connect(strict) as connection:
            connection.execute("SET penstock.target = 'replica'")
            with pytest.raises(psycopg.Error, match="no server can be had that is standby"):
                where(connection)


class Worker(threading.Thread):
    """Writes entries, one transaction each, and notes what it was told of every one of them."""

    def __init__(self, penstock: Penstock, number: int, stop: threading.Event) -> None:
        super().__init__()
        self.penstock = penstock
        self.number = number
        self.stop = stop
        self.committed: list[int] = []
        self.broken: list[tuple[str, str]] = []  # at which step, and the error

    def run(self) -> None:
        entry = 0
        while not self.stop.is_set():
            with contextlib.suppress(psycopg.Error), connect(self.penstock) as connection:
                while not self.stop.is_set():
                    entry += 1
                    if not self._write(connection, entry):
                        break
                    time.sleep(0.005)

    def _write(self, connection: psycopg.Connection[Any], entry: int) -> bool:
        step = "begin"
        try:
            connection.execute("BEGIN")
            step = "insert"
            connection.execute("INSERT INTO ledger VALUES (%s, %s)", (self.number, entry))
            step = "commit"
            connection.execute("COMMIT")
        except psycopg.Error as error:
            self.broken.append((step, f"{error.sqlstate} {error}"))
            return not connection.closed and not connection.broken
        self.committed.append(entry)
        return True


def test_a_failover_is_a_pause_to_clients_between_two_transactions(make_proxy: Make) -> None:
    with made_pair() as pair:
        url = pair.url(pair.primary, pair.standby, target_session_attrs="read-write")
        penstock = start(make_proxy, pair, url, begin="deferred")
        patient = [connect(penstock) for _ in range(4)]
        assert not any(where(connection) for connection in patient)
        stop = threading.Event()
        workers = [Worker(penstock, number, stop) for number in range(1, 5)]
        for worker in workers:
            worker.start()
        until(lambda: all(len(worker.committed) > 10 for worker in workers), "work")
        pair.has_caught_up()
        pair.primary.halt(crash=True)
        time.sleep(0.3)
        before = [len(worker.committed) for worker in workers]
        late = threading.Timer(0.3, pair.promote)
        late.start()
        # Those who were idle begin while there is no primary.
        assert [where(connection) for connection in patient] == [False] * 4
        late.join()
        until(
            lambda: all(
                len(worker.committed) > count + 10 for worker, count in zip(workers, before, strict=True)
            ),
            "work on the new primary",
        )
        stop.set()
        for worker in workers:
            worker.join()
        for connection in patient:
            connection.close()
        # Who was in the middle of something lost that once, and nobody else was told anything.
        for worker in workers:
            assert len(worker.broken) <= 1, worker.broken
        with directly(pair.standby) as connection:
            kept = Counter(row[0] for row in connection.execute("SELECT worker FROM ledger").fetchall())
        for worker, count in zip(workers, before, strict=True):
            assert kept[worker.number] >= len(worker.committed) - count
        assert [event["role"] for event in penstock.events("endpoint_role_changed")][-1] == "primary"
        [began], [ended] = penstock.events("failover_began"), penstock.events("failover_ended")
        assert began["target"] == ended["target"] == "read-write"
        assert ended["clients"] >= 4

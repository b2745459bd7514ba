"""Several PostgreSQL servers behind one pool: spreading, bounds, fail-over, shards, a dead one among them."""

import contextlib
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from integration.looking import at_rest, directly, pool_of, trusting, until, wait_for
from integration.raw import Raw
from proxy.embedded import EmbeddedPostgres, EmbeddedUnavailable
from servers import Certificates, Penstock, debian_programs, lacking

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]

NAMES = ("east", "north", "west")
WHERE = "SELECT current_setting('port')"


class Servers:
    """Three servers, alike but for their ports."""

    def __init__(self, servers: tuple[EmbeddedPostgres, ...]) -> None:
        self.all = servers

    def text(self, *names: str, route: str = "", keys: dict[str, str] | None = None) -> str:
        """The configuration of a pool with these endpoints; ``keys`` goes into their tables."""
        tables = [route]
        for name in names:
            tables.append(f"[pools.app.endpoints.{name}]")
            tables.append(f'backend = "{self.at(name).dsn()}"')
            tables.append((keys or {}).get(name, ""))
        return trusting().replace('backend = "$backend"\n', "") + "\n" + "\n".join(tables)

    def at(self, name: str) -> EmbeddedPostgres:
        return self.all[NAMES.index(name)]

    def named(self, port: str) -> str:
        return next(name for name in NAMES if str(self.at(name).port) == port)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with contextlib.ExitStack() as stack:
        made = []
        for _ in NAMES:
            server = EmbeddedPostgres(password="the same for all", options={"max_connections": "40"})
            try:
                made.append(stack.enter_context(server))
            except EmbeddedUnavailable as reason:
                lacking(str(reason))
        yield Servers(tuple(made))


@pytest.fixture
def mortal(servers: Servers) -> Iterator[Servers]:
    """The same, all of them running again after the test."""
    yield servers
    for server in servers.all:
        server.halt()
        server.start()


@contextlib.contextmanager
def holders(penstock: Penstock, count: int, **more: str) -> Iterator[list[Raw]]:
    """Clients that hold a session each."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw.logged_in(penstock.port, **more)) for _ in range(count)]
        for client in clients:
            client.ask("BEGIN")
        yield clients


def places(servers: Servers, clients: list[Raw]) -> Counter[str]:
    return Counter(servers.named(client.value(WHERE)) for client in clients)


def breaker(penstock: Penstock, name: str) -> str:
    """The state that the metrics show; exactly one of the three."""
    begin = "penstock_endpoint_breaker{"
    states = [
        sample.partition('state="')[2].partition('"')[0]
        for sample, value in penstock.metrics().items()
        if sample.startswith(begin) and f'endpoint="{name}"' in sample and value == 1.0
    ]
    [state] = states
    return state


def endpoint_of(penstock: Penstock, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(at for at in pool_of(penstock)["endpoints"] if at["name"] == name)
    return found


# -- spreading and bounds -------------------------------------------------------------------------


def test_sessions_are_spread_over_all_servers(make_proxy: Make, servers: Servers) -> None:
    penstock = make_proxy(servers.text(*NAMES), server=servers.all[0], max=9)
    with holders(penstock, 9) as clients:
        assert places(servers, clients) == dict.fromkeys(NAMES, 3)
        for name in NAMES:
            assert endpoint_of(penstock, name)["sessions"]["busy"] == 3
            assert breaker(penstock, name) == "closed"
    at_rest(penstock)


def test_max_per_endpoint_bounds_each_server(make_proxy: Make, servers: Servers) -> None:
    penstock = make_proxy(
        servers.text("east", "west"),
        server=servers.all[0],
        max=10,
        max_per_endpoint=2,
        wait_timeout="300ms",
    )
    with holders(penstock, 4) as clients:
        assert places(servers, clients) == {"east": 2, "west": 2}
        with Raw.logged_in(penstock.port) as late:
            said = late.error("SELECT 1")
            assert said["C"] == "53300"
            assert "opened=4/10" in said["D"]
            clients.pop().close()
            assert late.value("SELECT 1") == "1"
    at_rest(penstock)


def test_at_the_total_bound_an_idle_session_elsewhere_makes_room(make_proxy: Make, servers: Servers) -> None:
    text = servers.text(
        "east",
        "west",
        route='[pools.app.route]\nrule = "list"\ndefault = "east"',
        keys={"east": 'keys = ["eu"]', "west": 'keys = ["us"]'},
    )
    penstock = make_proxy(text, server=servers.all[0], max=2)
    with holders(penstock, 2, options="-c penstock.shard_key=eu") as east:
        assert places(servers, east) == {"east": 2}
    at_rest(penstock)
    with Raw.logged_in(penstock.port, options="-c penstock.shard_key=us") as client:
        assert servers.named(client.value(WHERE)) == "west"
    pool = wait_for(penstock, opened=2, closing=0)
    assert pool["drops"]["replaced"] >= 1
    assert endpoint_of(penstock, "east")["sessions"]["idle"] == 1
    at_rest(penstock)


# -- a server dies --------------------------------------------------------------------------------


def test_one_server_dies_clients_go_on_with_the_other_and_it_is_used_again(
    make_proxy: Make, mortal: Servers
) -> None:
    text = mortal.text("east", "west")
    penstock = make_proxy(
        text, server=mortal.all[0], max=8, breaker_failures=2, breaker_timeout="500ms", wait_timeout="10s"
    )
    stop, all_in = threading.Event(), threading.Barrier(7)
    lost: list[str] = []

    def work() -> int:
        served = 0
        with Raw.logged_in(penstock.port, 60) as client:
            all_in.wait(60)
            while not stop.is_set():
                answer = client.ask("SELECT 1")
                if any(kind == b"E" for kind, _ in answer):
                    lost.append(repr(answer))
                else:
                    served += 1
        return served

    with ThreadPoolExecutor(6) as threads:
        jobs = [threads.submit(work) for _ in range(6)]
        try:
            all_in.wait(60)
            until(lambda: len(_in_use(penstock)) == 2)
            mortal.at("east").halt(crash=True)
            until(lambda: breaker(penstock, "east") in ("open", "half_open"))
            assert endpoint_of(penstock, "east")["last_error"]
            assert penstock.http("/readyz").status == 200
            seen, told = pool_of(penstock)["acquire"]["count"], len(lost)
            until(lambda: pool_of(penstock)["acquire"]["count"] > seen + 500)
            # Only what ran on the dead server was lost; nobody was told that the pool is full or down.
            assert told <= 8
            assert len(lost) <= 8
            mortal.at("east").start()
            until(lambda: breaker(penstock, "east") == "closed")
        finally:
            stop.set()
        assert all(job.result(60) > 0 for job in jobs)
    with holders(penstock, 8) as clients:
        assert places(mortal, clients)["east"] >= 1
    at_rest(penstock)
    assert {entry["endpoint"] for entry in penstock.events("breaker_opened")} == {"east"}
    assert penstock.events("breaker_half_open")
    assert penstock.events("breaker_closed")


def _in_use(penstock: Penstock) -> list[str]:
    return [at["name"] for at in pool_of(penstock)["endpoints"] if sum(at["sessions"].values())]


def test_it_starts_while_one_server_is_down(make_proxy: Make, mortal: Servers) -> None:
    mortal.at("west").halt()
    penstock = make_proxy(mortal.text("east", "west"), server=mortal.all[0], min=2, max=4)
    until(lambda: penstock.http("/readyz").status == 200)
    with holders(penstock, 3) as clients:
        assert places(mortal, clients) == {"east": 3}


def test_when_all_are_down_the_error_is_the_server_s_and_not_a_full_pool(
    make_proxy: Make, mortal: Servers
) -> None:
    penstock = make_proxy(
        mortal.text("east", "west"),
        server=mortal.all[0],
        max=4,
        breaker_timeout="500ms",
        failover_wait="0s",
    )
    until(lambda: penstock.http("/readyz").status == 200)
    with Raw.logged_in(penstock.port) as client:
        assert client.value("SELECT 1") == "1"
        for name in ("east", "west"):
            mortal.at(name).halt()
        until(lambda: pool_of(penstock)["opened"] == 0)
        for _ in range(5):
            said = client.error("SELECT 1")
            assert said["C"] in ("08006", "57P03"), said
            assert "the server is not available" in said["M"]
        until(lambda: penstock.http("/readyz").status == 503)
        mortal.at("west").start()
        until(lambda: penstock.http("/readyz").status == 200)
        assert mortal.named(client.value(WHERE)) == "west"
    at_rest(penstock)


def test_a_server_that_is_full_is_not_asked_and_the_other_serves(make_proxy: Make, servers: Servers) -> None:
    penstock = make_proxy(
        servers.text("east", "west"), server=servers.all[0], max=8, breaker_failures=1, breaker_timeout="30s"
    )
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(directly(servers.at("east")))
        with contextlib.suppress(psycopg.OperationalError):  # "sorry, too many clients already"
            for _ in range(100):
                stack.enter_context(directly(servers.at("east")))
        assert own.execute("SELECT 1").fetchone() == (1,)
        with holders(penstock, 6) as clients:
            assert places(servers, clients)["west"] >= 5
            until(lambda: breaker(penstock, "east") == "open")
            assert {entry["sqlstate"] for entry in penstock.events("breaker_opened")} == {"53300"}
    at_rest(penstock)


# -- shards ---------------------------------------------------------------------------------------


def where(servers: Servers, penstock: Penstock, key: str) -> str:
    with Raw.logged_in(penstock.port, options=f"-c penstock.shard_key={key}") as client:
        return servers.named(client.value(WHERE))


def test_a_list_leads_a_shard_key_to_its_server(make_proxy: Make, servers: Servers) -> None:
    text = servers.text(
        "east",
        "west",
        route='[pools.app.route]\nrule = "list"\ndefault = "west"',
        keys={"east": 'keys = ["eu", "de"]', "west": 'keys = ["us"]'},
    )
    penstock = make_proxy(text, server=servers.all[0], max=4)
    wanted = {"eu": "east", "us": "west", "de": "east"}
    assert {key: where(servers, penstock, key) for key in wanted} == wanted
    with Raw.logged_in(penstock.port) as client:
        assert servers.named(client.value(WHERE)) == "west"
        client.ask("SET penstock.shard_key = 'eu'")
        assert servers.named(client.value(WHERE)) == "east"
        said = client.error("SET penstock.shard_key = 'asia'")
        assert "leads to no endpoint" in repr(said)
        assert servers.named(client.value(WHERE)) == "east"
    with pytest.raises(psycopg.OperationalError, match="leads to no endpoint"):
        psycopg.connect(penstock.dsn(options="-c penstock.shard_key=asia"))
    at_rest(penstock)


def test_a_range_leads_a_shard_key_to_its_server(make_proxy: Make, servers: Servers) -> None:
    text = servers.text(
        *NAMES,
        route='[pools.app.route]\nrule = "range"',
        keys={"east": 'to = "1000"', "north": 'from = "1000"\nto = "2000"', "west": 'from = "2000"'},
    )
    penstock = make_proxy(text, server=servers.all[0], max=6)
    wanted = {"-5": "east", "999": "east", "1000": "north", "1999": "north", "2000": "west", "70000": "west"}
    assert {key: where(servers, penstock, key) for key in wanted} == wanted
    # Without a default, whoever names no key is refused.
    with pytest.raises(psycopg.OperationalError, match=r"penstock\.shard_key"):
        psycopg.connect(penstock.dsn())
    at_rest(penstock)


def test_a_hash_leads_every_shard_key_to_the_same_server_each_time(
    make_proxy: Make, servers: Servers
) -> None:
    text = servers.text(*NAMES, route='[pools.app.route]\nrule = "hash"\ndefault = ""')
    penstock = make_proxy(text, server=servers.all[0], max=6)
    keys = [f"tenant-{number}" for number in range(12)]
    wanted = {key: NAMES[zlib.crc32(key.encode()) % 3] for key in keys}
    for _ in range(2):
        assert {key: where(servers, penstock, key) for key in keys} == wanted
    assert set(wanted.values()) == set(NAMES)
    with Raw.logged_in(penstock.port) as client:
        assert client.value("SELECT 1") == "1"  # any server will do
    at_rest(penstock)


def test_a_dead_shard_is_told_to_its_own_clients_only(make_proxy: Make, mortal: Servers) -> None:
    text = mortal.text(
        "east",
        "west",
        route='[pools.app.route]\nrule = "list"\ndefault = "west"',
        keys={"east": 'keys = ["eu"]', "west": 'keys = ["us"]'},
    )
    penstock = make_proxy(text, server=mortal.all[0], max=4, max_per_endpoint=2, breaker_timeout="500ms")
    with (
        Raw.logged_in(penstock.port, options="-c penstock.shard_key=eu") as eu,
        Raw.logged_in(penstock.port, options="-c penstock.shard_key=us") as us,
    ):
        assert eu.value("SELECT 1") == "1"
        mortal.at("east").halt()
        until(lambda: not sum(endpoint_of(penstock, "east")["sessions"].values()))
        for _ in range(3):
            assert "the server is not available" in eu.error("SELECT 1")["M"]
            assert us.value("SELECT 1") == "1"
        assert penstock.http("/readyz").status == 200
        mortal.at("east").start()
        until(lambda: not any(kind == b"E" for kind, _ in eu.ask("SELECT 1")))
        assert mortal.named(eu.value(WHERE)) == "east"
    at_rest(penstock)


# -- logins that differ ---------------------------------------------------------------------------


@pytest.mark.tls
def test_each_server_has_its_own_tls_login_and_database(
    make_proxy: Make, servers: Servers, certificates: Certificates
) -> None:
    programs = debian_programs()
    if programs is None:
        lacking("there is no PostgreSQL with TLS (apt-get install postgresql)")
    with EmbeddedPostgres(bin_dir=programs, tls=certificates.server) as secured:
        with directly(secured) as own:
            own.execute("CREATE ROLE shard LOGIN PASSWORD 'of the shard'")
            own.execute("CREATE DATABASE other OWNER shard")
        plain = servers.at("east")
        text = (
            trusting().replace('backend = "$backend"\n', "")
            + f"""
[pools.app.route]
rule = "list"
default = "plain"

[pools.app.endpoints.plain]
backend = "{plain.dsn()}?sslmode=disable"
keys = ["a"]

[pools.app.endpoints.secured]
backend = "postgresql://shard:of%20the%20shard@localhost:{secured.port}/other?sslmode=verify-full&sslrootcert={certificates.ca}"
keys = ["b"]
"""
        )
        penstock = make_proxy(text, server=plain, max=4)
        login = (
            "SELECT current_user || ' ' || current_database() || ' ' || coalesce((SELECT ssl::text FROM"
            " pg_stat_ssl WHERE pid = pg_backend_pid()), '')"
        )
        with Raw.logged_in(penstock.port, options="-c penstock.shard_key=a") as client:
            assert client.value(login) == "app app false"
        with Raw.logged_in(penstock.port, options="-c penstock.shard_key=b") as client:
            assert client.value(login) == "shard other true"
            client.ask("SET penstock.shard_key = 'a'")
            assert client.value(login) == "app app false"
        at_rest(penstock)
        penstock.stop()

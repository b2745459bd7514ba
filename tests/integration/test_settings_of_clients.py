"""Settings belong to the client that asked for them, whatever session serves it, and to nobody else."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from integration.looking import at_rest, pool_of, trusting, watch
from integration.raw import EXECUTE, SYNC, Raw, bind, error_of, parse, rows, startup
from proxy.embedded import EmbeddedPostgres
from servers import Penstock

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]

WISHES: list[dict[str, str]] = [
    {},
    {"application_name": "one"},
    {"application_name": "two", "TimeZone": "Asia/Tokyo"},
    {"DateStyle": "German, DMY", "TimeZone": "Europe/Berlin"},
    {"client_encoding": "LATIN1"},
    {"options": "-c search_path=pg_catalog -c statement_timeout=12345", "application_name": "it's quoted"},
    {"extra_float_digits": "0", "IntervalStyle": "iso_8601"},
    {"options": r"-c application_name=with\ blank -c work_mem=5MB"},
]
LOOKED_AT = (
    "application_name",
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "search_path",
    "statement_timeout",
    "extra_float_digits",
    "IntervalStyle",
    "work_mem",
)
REPORTED = (
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "scram_iterations",
    "search_path",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
)
LOOK = "SELECT concat_ws('|', " + ", ".join(f"current_setting('{name}')" for name in LOOKED_AT) + ")"


def _named(wishes: dict[str, str]) -> dict[str, str]:
    if "application_name" in wishes or "application_name" in wishes.get("options", ""):
        return wishes
    return {"application_name": "penstock", **wishes}


def _without_proxy(postgres: EmbeddedPostgres, wishes: dict[str, str], text: str) -> str:
    """What the server itself answers to a client with these wishes; we are "penstock" where it is nobody."""
    wishes = _named(wishes)
    options = wishes.get("options", "")
    more = {name: value for name, value in wishes.items() if name != "options"}
    for name, value in more.items():
        if name not in ("application_name", "client_encoding"):
            options += " -c {}={}".format(name, value.replace(" ", r"\ "))
    known = {name: more[name] for name in ("application_name", "client_encoding") if name in more}
    with psycopg.connect(postgres.dsn(), autocommit=True, options=options, **known) as client:
        row = client.execute(text).fetchone()
        assert row is not None
        return str(row[0])


@pytest.mark.parametrize("sessions", [1, 2])
def test_startup_parameters_hold_for_every_statement_on_whatever_session(
    make_proxy: Make, postgres: EmbeddedPostgres, sessions: int
) -> None:
    penstock = make_proxy(trusting(), max=sessions)
    expected = [_without_proxy(postgres, wishes, LOOK) for wishes in WISHES]
    assert len(set(expected)) == len(WISHES)
    clients = [Raw.logged_in(penstock.port, **wishes) for wishes in WISHES]

    def work(place: int) -> None:
        for turn in range(15):
            if turn % 2:
                assert clients[place].value(LOOK) == expected[place]
            else:
                clients[place].send(parse(LOOK) + bind() + EXECUTE + SYNC)
                assert rows(clients[place].until_ready())[0][6:].decode() == expected[place]

    with ThreadPoolExecutor(len(WISHES)) as pool:
        list(pool.map(work, range(len(WISHES))))
    for client in clients:
        client.close()
    assert at_rest(penstock)["opened"] <= sessions


@pytest.mark.parametrize("wishes", WISHES, ids=lambda wishes: " ".join(wishes) or "none")
def test_parameter_status_at_login_is_that_of_a_direct_connection(
    make_proxy: Make, postgres: EmbeddedPostgres, wishes: dict[str, str]
) -> None:
    penstock = make_proxy(trusting(), max=1)
    with Raw.logged_in(penstock.port) as another:
        another.ask("SET TimeZone = 'Pacific/Auckland'")  # what a session was used for must not show
    for _ in range(2):
        with Raw.logged_in(penstock.port, **wishes) as client:
            through = client.parameters
        direct = _reported_directly(postgres, wishes)
        assert through == direct


def _reported_directly(postgres: EmbeddedPostgres, wishes: dict[str, str]) -> dict[str, str]:
    wishes = _named(wishes)
    options = wishes.get("options", "")
    for name, value in wishes.items():
        if name not in ("options", "application_name", "client_encoding"):
            options += " -c {}={}".format(name, value.replace(" ", r"\ "))
    known = {name: wishes[name] for name in ("application_name", "client_encoding") if name in wishes}
    with psycopg.connect(postgres.dsn(), options=options, **known) as client:
        found = {name: client.info.parameter_status(name) for name in REPORTED}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("wishes", "sqlstate", "words"),
    [
        ({"TimeZone": "Mars/Olympus"}, "22023", "Mars/Olympus"),
        ({"DateStyle": "backwards"}, "22023", "backwards"),
        ({"no_such_setting": "1"}, "42704", "no_such_setting"),
        ({"options": "-c statement_timeout=soon"}, "22023", "soon"),
        ({"client_encoding": "KLINGON"}, "22023", "KLINGON"),
        ({"shared_buffers": "1GB"}, "55P02", "shared_buffers"),
    ],
)
def test_an_invalid_one_is_refused_at_login_in_the_server_s_words(
    make_proxy: Make, wishes: dict[str, str], sqlstate: str, words: str
) -> None:
    penstock = make_proxy(trusting(), max=1)
    for _ in range(2):
        with Raw(penstock.port) as client:
            client.send(startup(user="app", database="app", **wishes))
            said = error_of(client.to_the_end())
            assert (said["S"], said["C"]) == ("FATAL", sqlstate), said
            assert words in said["M"]
    with Raw.logged_in(penstock.port) as other:
        assert other.value("SELECT 1") == "1"
    assert at_rest(penstock)["opened"] == 1


def test_a_client_s_own_set_is_kept_for_it_and_never_seen_by_others(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1)
    with Raw.logged_in(penstock.port) as client, Raw.logged_in(penstock.port) as other:
        before = other.value("SHOW TimeZone")
        client.ask("SET TimeZone = 'Asia/Tokyo'")
        client.ask("SET application_name TO 'of mine'")
        client.ask("SET DateStyle = 'German'")
        for _ in range(5):
            assert other.value("SHOW TimeZone") == before
            assert other.value("SHOW application_name") == "penstock"
            assert client.value("SHOW TimeZone") == "Asia/Tokyo"
            assert client.value("SHOW application_name") == "of mine"
            assert client.value("SHOW DateStyle") == "German, DMY"


@pytest.mark.parametrize(
    ("statement", "look"),
    [
        ("SET search_path = pg_catalog", "SHOW search_path"),
        ("SET ROLE pg_monitor", "SELECT current_user"),
        ("SET SESSION AUTHORIZATION pg_monitor", "SELECT session_user"),
        ("SET statement_timeout = '5s'", "SHOW statement_timeout"),
        ("SET work_mem = '9MB'", "SHOW work_mem"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SHOW default_transaction_read_only"),
        ("DO $$ BEGIN PERFORM set_config('search_path', 'pg_catalog', false); END $$", "SHOW search_path"),
        ("PREPARE left_over AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements"),
        ("LISTEN left_over", "SELECT count(*) FROM pg_listening_channels()"),
        ("SELECT 1; SET work_mem = '9MB'", "SHOW work_mem"),
        ("BEGIN; SET work_mem = '9MB'; COMMIT", "SHOW work_mem"),
    ],
)
def test_what_one_client_sets_never_holds_for_another(make_proxy: Make, statement: str, look: str) -> None:
    penstock = make_proxy(trusting(), max=1, on_sql_prepare="allow", on_listen="allow")
    with Raw.logged_in(penstock.port) as client, Raw.logged_in(penstock.port) as other:
        before = other.value(look)
        client.ask(statement)
        assert other.value(look) == before
    with Raw.logged_in(penstock.port) as later:
        assert later.value(look) == before


def test_a_setting_that_was_rolled_back_does_not_hold(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1)
    with (
        Raw.logged_in(penstock.port, TimeZone="Asia/Tokyo") as client,
        Raw.logged_in(penstock.port) as other,
    ):
        client.ask("BEGIN")
        client.ask("SET TimeZone = 'America/Lima'")
        assert client.value("SHOW TimeZone") == "America/Lima"
        client.ask("ROLLBACK")
        other.ask("SELECT 1")
        assert client.value("SHOW TimeZone") == "Asia/Tokyo"
        client.ask("BEGIN")
        client.ask("SET LOCAL TimeZone = 'America/Lima'")
        client.ask("COMMIT")
        other.ask("SELECT 1")
        assert client.value("SHOW TimeZone") == "Asia/Tokyo"


@pytest.mark.parametrize(
    "statement",
    [
        "RESET ALL",
        "DISCARD ALL",
        "RESET TimeZone",
    ],
)
def test_a_reset_goes_back_to_the_client_s_own_startup_values(make_proxy: Make, statement: str) -> None:
    penstock = make_proxy(trusting(), max=1)
    with (
        Raw.logged_in(penstock.port, TimeZone="Asia/Tokyo", application_name="mine") as client,
        Raw.logged_in(penstock.port) as other,
    ):
        for _ in range(3):
            client.ask("SET TimeZone = 'America/Lima'")
            other.ask("SELECT 1")
            client.ask(statement)
            other.ask("SELECT 1")
            assert client.value("SHOW TimeZone") == "Asia/Tokyo"
            assert client.value("SHOW application_name") == "mine"


# -- several users and databases ------------------------------------------------------------------

MANY = """
[listeners.main]
protocol = "postgres"
address = "127.0.0.1:$port"

[pools."*"]
backend = "$backend"
$pool

[pools.private]
backend = "$backend"

[users.alice]
password = "alice's"

[users.bob]
password = "bob's"
run_as = "pool"

[users.carol]
password = "carol's"
pools = ["private"]

[users.dave]
password = "dave's"

[http]
address = "127.0.0.1:$http"

[log]
format = "json"
level = "debug"
"""


@pytest.fixture
def people(server: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """Alice on the server, and a second database."""
    server.execute("CREATE ROLE alice LOGIN PASSWORD 'alice''s'")
    server.execute("CREATE DATABASE orders")
    yield server
    server.execute("DROP DATABASE orders WITH (FORCE)")
    server.execute("DROP ROLE alice")


def test_users_and_databases_share_one_bound_and_never_a_session(
    make_proxy: Make, people: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(MANY, max=2, wait_timeout="60s")
    who = [
        ("app", None, "app", "app"),
        ("alice", "alice's", "app", "alice"),
        ("bob", "bob's", "app", "app"),
        ("alice", "alice's", "orders", "alice"),
        ("bob", "bob's", "orders", "app"),
    ]

    def work(place: int) -> None:
        user, password, database, runs_as = who[place % len(who)]
        for _ in range(3):
            with psycopg.connect(penstock.dsn(user, database, password), autocommit=True) as client:
                for _ in range(5):
                    row = client.execute("SELECT current_user, session_user, current_database()").fetchone()
                    assert row == (runs_as, runs_as, database)

    stop = threading.Event()
    with ThreadPoolExecutor(len(who) + 1) as pool:
        seen = pool.submit(watch, penstock.server, 3, stop)  # the other pool has opened one, too
        try:
            list(pool.map(work, range(len(who))))
        finally:
            stop.set()
        assert seen.result(20) > 0
    now = pool_of(penstock, "*")
    assert now["opened"] <= 2
    assert now["drops"]["replaced"] > 0
    penstock.stop()


def test_a_user_may_use_only_the_pools_that_are_listed(
    make_proxy: Make, people: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(MANY, max=1)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(penstock.dsn("alice", "app", "wrong"))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(penstock.dsn("nobody", "app", "wrong"))
    with pytest.raises(psycopg.OperationalError, match='permission denied for database "app"'):
        psycopg.connect(penstock.dsn("carol", "app", "carol's"))
    penstock.stop()


def test_a_user_or_database_that_the_server_does_not_know_is_refused_in_its_words(
    make_proxy: Make, people: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(MANY, max=1)
    with pytest.raises(psycopg.OperationalError, match='password authentication failed for user "dave"'):
        psycopg.connect(penstock.dsn("dave", "app", "dave's"))
    with pytest.raises(psycopg.OperationalError, match='database "nowhere" does not exist'):
        psycopg.connect(penstock.dsn("app", "nowhere"))
    penstock.stop()

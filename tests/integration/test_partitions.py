"""Which session a client gets, and how it finds it: classes, purity, tags, keys, marks, resets, pings."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import psycopg
import pytest

from integration.looking import at_rest, pool_of, trusting, until, wait_for
from integration.raw import Raw, error_of, query
from proxy.embedded import EmbeddedPostgres
from servers import Penstock

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
PID = "SELECT pg_backend_pid()"


def said(client: Raw, text: str) -> str:
    """Ask, and return the SQLSTATE of the error that must come."""
    client.send(query(text))
    return error_of(client.until_ready())["C"]


def choosing(*words: str, **pool: Any) -> dict[str, Any]:
    return {"client_may_set": list(words), **pool}


# -- classes --------------------------------------------------------------------------------------


def test_classes_share_the_bound_and_never_a_session(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), **choosing("cclass", max=2))
    with (
        Raw.logged_in(penstock.port, options="-c penstock.cclass=web") as web,
        Raw.logged_in(penstock.port, 20.0, False, **{"penstock.cclass": "batch"}) as batch,
        Raw.logged_in(penstock.port, options="-c penstock.cclass=web") as web_too,
    ):
        first, second = web.value(PID), batch.value(PID)
        assert first != second
        for _ in range(3):
            assert (web_too.value(PID), batch.value(PID), web.value(PID)) == (first, second, first)
        assert web.value("SHOW penstock.cclass") == "web"
        # At the bound another class takes the slot of an idle session.
        web.ask("SET penstock.cclass = 'third'")
        third = web.value(PID)
        assert third not in (first, second)
        assert pool_of(penstock)["opened"] <= 2
        web.ask("SET penstock.cclass = DEFAULT")
        assert web.value("SHOW penstock.cclass") == ""
    at_rest(penstock)


def test_drivers_name_their_class_at_login(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), **choosing("cclass", "purity", max=2))

    async def look() -> tuple[str, str]:
        client = await asyncpg.connect(
            penstock.dsn(),
            statement_cache_size=0,
            server_settings={"penstock.cclass": "web", "penstock.purity": "new"},
        )
        try:
            await client.execute("SET penstock.purity = 'self'")
            return str(await client.fetchval("SHOW penstock.cclass")), str(await client.fetchval(PID))
        finally:
            await client.close()

    cclass, pid = asyncio.run(look())
    assert cclass == "web"
    with psycopg.connect(penstock.dsn(), options="-c penstock.cclass=web", autocommit=True) as client:
        assert client.execute("SHOW penstock.cclass").fetchone() == ("web",)
        assert client.execute(PID).fetchone() == (int(pid),)
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        assert client.execute(PID).fetchone() != (int(pid),)


def test_a_class_changed_in_a_transaction_counts_from_the_next_acquire(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), **choosing("cclass", max=2))
    with Raw.logged_in(penstock.port) as client:
        client.ask("BEGIN")
        first = client.value(PID)
        client.ask("SET penstock.cclass = 'web'")
        assert client.value(PID) == first
        client.ask("COMMIT")
        assert client.value(PID) != first


def test_a_waiter_of_another_class_is_served_when_a_session_comes_home(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), **choosing("cclass", max=1))
    with (
        Raw.logged_in(penstock.port, options="-c penstock.cclass=a") as one,
        Raw.logged_in(penstock.port, options="-c penstock.cclass=b") as two,
    ):
        one.ask("BEGIN")
        pid = one.value(PID)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(two.value, PID)
            wait_for(penstock, waiting=1)
            one.ask("COMMIT")
            assert waiting.result(20) != pid
    assert at_rest(penstock)["opened"] == 1


def test_what_the_operator_does_not_list_may_not_be_chosen(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1)
    with Raw.logged_in(penstock.port) as client:
        for setting in ("cclass", "purity", "tag", "key", "shard_key"):
            value = {"purity": "new", "tag": "work_mem=9MB"}.get(setting, "x")
            assert said(client, f"SET penstock.{setting} = '{value}'") == "22023"
            assert client.value("SELECT 1") == "1"
    with pytest.raises(psycopg.OperationalError, match="may not choose their cclass"):
        psycopg.connect(penstock.dsn(), options="-c penstock.cclass=x")


# -- purity ---------------------------------------------------------------------------------------


def test_purity_new_is_a_session_that_nobody_has_used(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), **choosing("purity", max=2))
    seen = set()
    with Raw.logged_in(penstock.port, options="-c penstock.purity=new") as client:
        for _ in range(4):
            seen.add(client.value(PID))
            assert pool_of(penstock)["opened"] <= 2
        assert len(seen) == 4
        client.ask("SET penstock.purity = 'self'")
        assert client.value(PID) == client.value(PID)
        assert said(client, "SET penstock.purity = 'old'") == "22023"
    at_rest(penstock)


def test_a_purity_new_client_that_waits_gets_the_slot_that_comes_free(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), purity="new", max=1)
    with Raw.logged_in(penstock.port) as one, Raw.logged_in(penstock.port) as two:
        one.ask("BEGIN")
        pid = one.value(PID)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(two.value, PID)
            wait_for(penstock, waiting=1)
            one.ask("COMMIT")
            assert waiting.result(20) != pid


# -- tags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", ["exact", "any"])
def test_an_idle_session_that_is_tagged_right_is_preferred(make_proxy: Make, tags: str) -> None:
    penstock = make_proxy(trusting(), tags=tags, max=4)
    utc = "-c penstock.tag=TimeZone=UTC;statement_timeout=1h"
    with (
        Raw.logged_in(penstock.port, options=utc) as one,
        Raw.logged_in(penstock.port, options="-c penstock.tag=statement_timeout=1h;timezone=UTC") as same,
        Raw.logged_in(penstock.port, options="-c penstock.tag=work_mem=9MB") as other,
        Raw.logged_in(penstock.port) as plain,
    ):
        assert one.value("SHOW penstock.tag") == "statement_timeout=1h;timezone=UTC"
        # Each kind has had a session of its own by now, if there is room for it.
        pids = {}
        for client in (one, other, plain):
            client.ask("BEGIN")
        for name, client in (("one", one), ("other", other), ("plain", plain)):
            pids[name] = client.value(PID)
        for client in (one, other, plain):
            client.ask("COMMIT")
        for _ in range(3):
            assert same.value(PID) == pids["one"]
            assert other.value(PID) == pids["other"]
            assert plain.value(PID) == pids["plain"]
            assert (one.value("SHOW TimeZone"), one.value("SHOW statement_timeout")) == ("UTC", "1h")
            assert other.value("SHOW work_mem") == "9MB"
            assert plain.value("SHOW work_mem") == "4MB"
            assert plain.value("SHOW statement_timeout") == "0"


def test_at_the_bound_only_the_difference_is_sent(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), tags="exact", max=1)
    with (
        Raw.logged_in(penstock.port, options="-c penstock.tag=work_mem=9MB;statement_timeout=1h") as one,
        Raw.logged_in(penstock.port, options="-c penstock.tag=work_mem=9MB") as two,
    ):
        pid = one.value(PID)
        assert two.value(PID) == pid
        assert two.value("SHOW statement_timeout") == "0"
        assert two.value("SHOW work_mem") == "9MB"
        assert one.value("SHOW statement_timeout") == "1h"


def test_a_tag_can_be_changed_and_a_wrong_one_is_refused(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), tags="exact", max=2)
    with Raw.logged_in(penstock.port, TimeZone="Asia/Tokyo") as client:
        client.ask("SET penstock.tag = 'TimeZone=UTC;work_mem=9MB'")
        assert (client.value("SHOW TimeZone"), client.value("SHOW work_mem")) == ("UTC", "9MB")
        client.ask("SET penstock.tag = 'work_mem=8MB'")
        assert (client.value("SHOW TimeZone"), client.value("SHOW work_mem")) == ("Asia/Tokyo", "8MB")
        for wrong in ("no pairs", "=1", "a b=c", "work_mem=1;WORK_MEM=2", "penstock.x=1", "x=" + "y" * 1100):
            assert said(client, f"SET penstock.tag = '{wrong}'") == "22023"
            assert client.value("SHOW work_mem") == "8MB"
        client.ask("BEGIN")
        client.value("SELECT 1")
        assert said(client, "SET penstock.tag = 'work_mem=7MB'") == "55006"
        client.ask("ROLLBACK")
        # What the server refuses is refused in its words, and the client goes on.
        client.ask("SET penstock.tag = 'work_mem=plenty'")
        assert said(client, "SELECT 1") == "22023"
        client.ask("SET penstock.tag = DEFAULT")
        assert (client.value("SHOW TimeZone"), client.value("SHOW work_mem")) == ("Asia/Tokyo", "4MB")
    at_rest(penstock)


def test_a_fixup_runs_when_the_settings_differ_and_only_then(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    server.execute("CREATE TABLE fixed (tag text)")
    try:
        penstock = make_proxy(
            trusting(),
            tags="exact",
            max=1,
            tag_fixup="INSERT INTO fixed VALUES (current_setting('app.tag', true))",
        )
        with (
            Raw.logged_in(penstock.port, options="-c penstock.tag=app.tag=a") as one,
            Raw.logged_in(penstock.port, options="-c penstock.tag=app.tag=b") as two,
        ):
            server.execute("TRUNCATE fixed")
            for client in (two, one, one, one, two, two):
                client.ask("SELECT 1")
            found = server.execute("SELECT tag FROM fixed").fetchall()
            assert found[-2:] == [("a",), ("b",)]
            assert len(found) <= 3
            # Where it fails the session is closed and the client told why; the next acquire tries again.
            pid = two.value(PID)
            server.execute("ALTER TABLE fixed RENAME TO gone")
            assert said(one, "SELECT 1") == "42P01"
            at_rest(penstock)
            assert said(one, "SELECT 1") == "42P01"
            server.execute("ALTER TABLE gone RENAME TO fixed")
            assert one.value(PID) != pid
            assert server.execute("SELECT tag FROM fixed").fetchall()[-1] == ("a",)
        at_rest(penstock)
    finally:
        server.execute("DROP TABLE IF EXISTS fixed, gone")


# -- keys -----------------------------------------------------------------------------------------


def test_clients_of_one_key_share_a_session_one_after_the_other(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), affinity="key", max=3)
    with (
        Raw.logged_in(penstock.port, options="-c penstock.key=k") as one,
        Raw.logged_in(penstock.port, options="-c penstock.key=k") as two,
        Raw.logged_in(penstock.port) as other,
    ):
        one.ask("BEGIN")
        pid = one.value(PID)
        assert other.value(PID) != pid
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(two.value, PID)
            wait_for(penstock, waiting=1)
            one.ask("COMMIT")
            assert waiting.result(20) == pid
    at_rest(penstock)


def test_a_client_that_is_tied_keeps_its_session_to_its_end(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), affinity="client", max=2)
    with Raw.logged_in(penstock.port) as one, Raw.logged_in(penstock.port) as two:
        first, second = one.value(PID), two.value(PID)
        assert first != second
        one.ask("SET work_mem = '9MB'")
        one.ask("CREATE TEMP TABLE mine ()")
        two.value("SELECT 1")
        assert (one.value(PID), one.value("SHOW work_mem")) == (first, "9MB")
    at_rest(penstock)
    with Raw.logged_in(penstock.port) as one, Raw.logged_in(penstock.port) as two:
        for client in (one, two):
            assert client.value("SHOW work_mem") == "4MB"
            assert client.value("SELECT count(*) FROM pg_class WHERE relname = 'mine'") == "0"


# -- what sessions are opened with ----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.parametrize("old", [False, True])
def test_labels_and_role_are_on_every_session_and_no_reset_takes_them(
    make_proxy: Make, postgres: EmbeddedPostgres, mode: str, old: bool, request: pytest.FixtureRequest
) -> None:
    behind = request.getfixturevalue("debian_postgres") if old else postgres
    with psycopg.connect(behind.dsn(), autocommit=True) as server:
        server.execute("DROP ROLE IF EXISTS writer")
        server.execute("CREATE ROLE writer")
    text = trusting(more='\n[pools.app.labels]\nteam = "web"\n"app.zone" = "eu; \'1\'"\n')
    penstock = make_proxy(text, server=behind, role="writer", min=2, max=2, pool_mode=mode)
    look = "SELECT concat_ws('|', current_setting('label.team'), current_setting('app.zone'), current_user)"
    for _ in range(2):
        with Raw.logged_in(penstock.port) as one, Raw.logged_in(penstock.port) as two:
            for statement in ("SELECT 1", "SET ROLE app", "SET SESSION AUTHORIZATION app", "RESET ALL",
                              "SET label.team = 'mine'", "RESET label.team", "RESET ROLE",
                              "SET ROLE NONE", "LISTEN x", "SET label.team = 'mine'"):  # fmt: skip
                one.ask(statement)
                assert two.value(look) == "web|eu; '1'|writer", statement
    with Raw.logged_in(penstock.port) as one:
        assert one.value(look) == "web|eu; '1'|writer"
    at_rest(penstock)


INIT = "SET work_mem = '9MB'; SET TimeZone = 'Asia/Tokyo'; SET statement_timeout = '1h'"
LOOKS = ", ".join(f"current_setting('{name}')" for name in ("work_mem", "TimeZone", "statement_timeout"))


@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.parametrize("reset", ["auto", "full", "rollback"])
def test_session_init_holds_for_every_client_whatever_others_did(
    make_proxy: Make, mode: str, reset: str
) -> None:
    penstock = make_proxy(trusting(), session_init=INIT, pool_mode=mode, reset=reset, max=1)
    look = f"SELECT concat_ws('|', {LOOKS})"
    fresh = "9MB|Asia/Tokyo|1h"
    for options, statement in [
        ("", "SELECT 1"),
        ("", "SET work_mem = '7MB'"),
        ("", "RESET ALL"),
        ("", "DISCARD ALL"),
        ("-c statement_timeout=2h -c TimeZone=UTC", "SELECT 1"),
        ("-c work_mem=6MB", "SET TimeZone = 'America/Lima'"),
        ("", "RESET TimeZone"),
    ]:
        with Raw.logged_in(penstock.port, options=options) as one:
            if "=6MB" in options:
                assert one.value(look) == "6MB|Asia/Tokyo|1h"
            one.ask(statement)
        with Raw.logged_in(penstock.port) as two:
            assert two.value(look) == fresh, (options, statement)
            assert two.parameters["TimeZone"] == "Asia/Tokyo"
    at_rest(penstock)


def test_a_session_init_that_fails_is_told_in_the_server_s_words(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), session_init="SELECT 1/0", max=1, wait=False)
    penstock.checked = False

    def refused() -> str:
        try:
            psycopg.connect(penstock.dsn()).close()
        except psycopg.OperationalError as error:
            return str(error)
        return ""

    assert until(lambda: "division by zero" in refused() and "session_init" in refused())
    assert pool_of(penstock)["opened"] == 0


# -- between two clients --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.parametrize(
    "reset", ["auto", "none", "rollback", "full", "DISCARD ALL", "SELECT 1", "RESET ALL"]
)
def test_what_a_reset_leaves_of_the_last_client(make_proxy: Make, mode: str, reset: str) -> None:
    penstock = make_proxy(trusting(), pool_mode=mode, reset=reset, max=1, on_temp_tables="allow")
    wiped = reset in ("full", "DISCARD ALL") or (reset == "auto" and mode == "session")
    # In transaction mode the table is noticed, and goes before another client gets the session.
    wiped = wiped or (mode == "transaction" and reset != "none")
    for _ in range(2):
        with Raw.logged_in(penstock.port) as one:
            one.ask("CREATE TEMP TABLE IF NOT EXISTS mine ()")
            one.ask("SET work_mem = '9MB'")
            one.ask("SET ROLE pg_monitor")
        with Raw.logged_in(penstock.port) as two:
            assert two.value("SHOW work_mem") == ("9MB" if reset == "none" else "4MB")
            assert two.value("SELECT current_user") == ("pg_monitor" if reset == "none" else "app")
            left = two.value("SELECT count(*) FROM pg_class WHERE relname = 'mine' AND relpersistence = 't'")
            assert left == ("0" if wiped else "1")
            two.ask("RESET ROLE")
            two.ask("BEGIN")
            two.ask("CREATE TABLE never ()")
        at_rest(penstock)
        with Raw.logged_in(penstock.port) as three:
            assert three.value("SELECT count(*) FROM pg_class WHERE relname = 'never'") == "0"
            assert three.value("SELECT 1") == "1"
    assert at_rest(penstock)["opened"] == 1


def test_a_reset_that_fails_costs_the_session_and_no_client_sees_it(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), reset="SELECT 1/0", max=2)
    with Raw.logged_in(penstock.port) as client:
        pids = {client.value(PID) for _ in range(3)}
    assert len(pids) == 3
    assert at_rest(penstock)["drops"]["reset_failed"] >= 3


def test_a_reset_runs_at_every_release(make_proxy: Make, server: psycopg.Connection[Any]) -> None:
    server.execute("CREATE TABLE resets (by int)")
    try:
        penstock = make_proxy(trusting(), reset="INSERT INTO resets VALUES (pg_backend_pid())", max=1)
        wait_for(penstock, idle=1)  # or the login itself has a session, to see what it reports
        with Raw.logged_in(penstock.port) as client:
            for _ in range(3):
                client.ask("SELECT 1")
            at_rest(penstock)
            assert len(server.execute("SELECT FROM resets").fetchall()) == 3
    finally:
        server.execute("DROP TABLE resets")


# -- pings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["auto", "peek", "SELECT 'a ping of ours'"])
def test_a_ping_finds_out_whether_the_session_lives(
    make_proxy: Make, server: psycopg.Connection[Any], command: str
) -> None:
    penstock = make_proxy(trusting(), ping_interval="always", ping_command=command, max=1)
    with Raw.logged_in(penstock.port) as client:
        pid = client.value(PID)
        assert client.value(PID) == pid
        assert pool_of(penstock)["pings"]["ok"] >= 1
        at_rest(penstock)
        found = server.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [int(pid)]).fetchone()
        assert found is not None
        client.value("SELECT 1")
        server.execute("SELECT pg_terminate_backend(%s, 20000)", [int(pid)])  # and wait for its end
        assert client.value(PID) != pid
    at_rest(penstock)


def test_a_ping_leaves_a_client_s_unnamed_statement_to_be_made_again(make_proxy: Make) -> None:
    penstock = make_proxy(ping_interval="always", max=1)
    with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=None) as client:
        for number in range(5):
            assert client.execute("SELECT %s::int", [number]).fetchone() == (number,)


# -- users ----------------------------------------------------------------------------------------

USERS = """
[users.alice]
password = "alice's"

[users.bob]
password = "bob's"
run_as = "pool"
"""


@pytest.fixture
def alice(server: psycopg.Connection[Any]) -> Iterator[None]:
    server.execute("CREATE ROLE alice LOGIN PASSWORD 'alice''s'")
    yield
    server.execute("DROP ROLE alice")


@pytest.mark.usefixtures("alice")
def test_a_homogeneous_pool_refuses_whoever_would_run_as_itself(make_proxy: Make) -> None:
    text = trusting(more=USERS).replace('auth = "trust"', "")
    penstock = make_proxy(text, homogeneous=True, max=2)
    with pytest.raises(psycopg.OperationalError, match="serves its own user only") as caught:
        psycopg.connect(penstock.dsn("alice", "app", "alice's"))
    assert "run_as" in str(caught.value)
    assert "pools.app.homogeneous" in str(caught.value)
    with psycopg.connect(penstock.dsn("bob", "app", "bob's")) as bob:
        assert bob.execute("SELECT current_user").fetchone() == ("app",)
    with psycopg.connect(penstock.dsn()) as app:
        assert app.execute("SELECT current_user").fetchone() == ("app",)


@pytest.mark.usefixtures("alice")
def test_a_wrong_password_is_refused_and_nothing_is_pooled(make_proxy: Make) -> None:
    text = trusting(more=USERS).replace('auth = "trust"', "")
    penstock = make_proxy(text, max=3)
    at_rest(penstock)
    before = pool_of(penstock)["opened"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(penstock.dsn("alice", "app", "wrong"))
    assert pool_of(penstock)["opened"] == before
    with psycopg.connect(penstock.dsn("alice", "app", "alice's")) as client:
        assert client.execute("SELECT current_user").fetchone() == ("alice",)
    with psycopg.connect(penstock.dsn()) as app:
        assert app.execute("SELECT current_user").fetchone() == ("app",)


# -- priorities -----------------------------------------------------------------------------------


def test_a_class_with_more_weight_is_served_first_and_nobody_starves(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    server.execute("CREATE TABLE served (place serial, name text)")
    text = trusting(more='\n[pools.app.priority.urgent]\nweight = 4\napplication_names = ["web-*"]\n')
    penstock = make_proxy(text, max=1, wait_timeout="60s")
    names = ["batch"] * 4 + ["web-1"] * 4
    clients = [Raw.logged_in(penstock.port, application_name=name) for name in names]
    try:
        with Raw.logged_in(penstock.port) as holder:
            holder.ask("BEGIN")
            for number, (name, client) in enumerate(zip(names, clients, strict=True), start=1):
                client.send(query(f"INSERT INTO served (name) VALUES ('{name}')"))
                wait_for(penstock, waiting=number)
            holder.ask("COMMIT")
        for client in clients:
            client.until_ready()
        order = [row[0] for row in server.execute("SELECT name FROM served ORDER BY place").fetchall()]
    finally:
        for client in clients:
            client.close()
        server.execute("DROP TABLE served")
    # The first of each class came to an empty queue of its own.
    assert sorted(order[:5]) == ["batch"] + ["web-1"] * 4
    assert order[5:] == ["batch"] * 3


# -- shards ---------------------------------------------------------------------------------------


def test_a_shard_key_leads_to_its_server_from_the_next_transaction_on(
    make_proxy: Make, postgres: EmbeddedPostgres, server: psycopg.Connection[Any]
) -> None:
    server.execute("CREATE DATABASE elsewhere")
    other = postgres.dsn(database="elsewhere")
    more = f"""
[pools.app.route]
rule = "list"
default = "one"

[pools.app.endpoints.one]
backend = "$backend"
keys = ["eu"]

[pools.app.endpoints.two]
backend = "{other}"
keys = ["us"]
"""
    try:
        penstock = make_proxy(trusting(more=more).replace('backend = "$backend"\n$pool', "$pool", 1), max=2)
        look = "SELECT current_database()"
        with (
            Raw.logged_in(penstock.port, options="-c penstock.shard_key=us") as us,
            Raw.logged_in(penstock.port) as client,
        ):
            assert (us.value(look), client.value(look)) == ("elsewhere", "app")
            client.ask("BEGIN")
            assert client.value(look) == "app"
            client.ask("SET penstock.shard_key = 'us'")
            assert client.value(look) == "app"
            client.ask("COMMIT")
            assert client.value(look) == "elsewhere"
            assert said(client, "SET penstock.shard_key = 'mars'") == "22023"
            client.ask("SET penstock.shard_key = DEFAULT")
            assert client.value(look) == "app"
        with pytest.raises(psycopg.OperationalError, match="leads to no endpoint"):
            psycopg.connect(penstock.dsn(), options="-c penstock.shard_key=mars")
        penstock.stop()
    finally:
        server.execute("DROP DATABASE elsewhere WITH (FORCE)")

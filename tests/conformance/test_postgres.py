"""The behaviours that a real server has a part in, with PostgreSQL behind the proxy and psycopg before it.

Named as their counterparts with a fake world are: test_postgres_r01_... shows R1.
"""

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from integration.looking import at_rest, directly, pool_of, sessions_on, trusting, until, wait_for
from integration.raw import Raw, error_of, query
from proxy.embedded import EmbeddedPostgres
from servers import Penstock

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
PID = "SELECT pg_backend_pid()"


def asked(client: psycopg.Connection[Any], text: str) -> Any:
    """The first column of the first row."""
    row = client.execute(text).fetchone()
    assert row is not None
    return row[0]


def test_postgres_a02_nowait_is_an_error_and_the_same_connection_goes_on(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, getmode="nowait")
    wait_for(penstock, idle=1)
    with (
        psycopg.connect(penstock.dsn()) as holder,
        psycopg.connect(penstock.dsn(), autocommit=True) as client,
    ):
        holder.execute("SELECT 1")
        with pytest.raises(psycopg.errors.TooManyConnections):
            client.execute("SELECT 1")
        holder.commit()
        assert asked(client, "SELECT 7") == 7
    assert at_rest(penstock)["opened"] == 1


def test_postgres_a05_timedwait_gives_up_and_says_which_setting_it_was(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, wait_timeout="300ms")
    with (
        psycopg.connect(penstock.dsn()) as holder,
        psycopg.connect(penstock.dsn(), autocommit=True) as client,
    ):
        holder.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="wait_timeout"):
            client.execute("SELECT 1")
    at_rest(penstock)


def test_postgres_a11_forceget_runs_ten_sessions_with_max_three(make_proxy: Make) -> None:
    penstock = make_proxy(max=3, getmode="forceget", max_forced=7)
    clients = [psycopg.connect(penstock.dsn()) for _ in range(10)]
    try:
        assert len({asked(client, PID) for client in clients}) == 10
        assert pool_of(penstock)["busy"] == 10
    finally:
        for client in clients:
            client.close()
    assert wait_for(penstock, opened=3, busy=0, closing=0)["idle"] == 3


def test_postgres_a20_twenty_clients_with_an_error_in_each_of_many_transactions(make_proxy: Make) -> None:
    penstock = make_proxy(min=5, max=8)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with psycopg.connect(penstock.dsn(), autocommit=True) as client:
                for number in range(10):
                    with pytest.raises(psycopg.errors.DivisionByZero), client.transaction():
                        client.execute("SELECT 1/0")
                    assert asked(client, f"SELECT {number}") == number
        except BaseException as failure:  # noqa: BLE001 - shown below, in the thread that can
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    pool = at_rest(penstock)
    assert 5 <= pool["opened"] <= 8


def test_postgres_h04_all_sessions_killed_and_no_client_sees_it(
    make_proxy: Make, postgres: EmbeddedPostgres
) -> None:
    penstock = make_proxy(min=3, max=3)
    wait_for(penstock, idle=3)
    with directly(postgres) as straight, psycopg.connect(penstock.dsn(), autocommit=True) as client:
        before = [pid for pid, _, _ in sessions_on(straight)]
        assert len(before) == 3
        for pid in before:
            straight.execute("SELECT pg_terminate_backend(%s)", [pid])
        # A query that meets the end of its session on the way is the server's to answer.
        until(lambda: not {pid for pid, _, _ in sessions_on(straight)} & set(before))
        assert asked(client, "SELECT 1") == 1
        until(lambda: at_rest(penstock)["opened"] == 3)
        assert asked(client, "SELECT 2") == 2


@pytest.mark.parametrize("pool_mode", ["transaction", "session"])
def test_postgres_r01_uncommitted_work_is_rolled_back_before_the_next_client(
    make_proxy: Make, pool_mode: str, postgres: EmbeddedPostgres
) -> None:
    penstock = make_proxy(max=1, pool_mode=pool_mode)
    with directly(postgres) as straight:
        straight.execute("CREATE TABLE left_behind (n int)")
        try:
            client = psycopg.connect(penstock.dsn())
            client.execute("INSERT INTO left_behind VALUES (1)")
            client.close()
            with psycopg.connect(penstock.dsn(), autocommit=True) as next_one:
                assert asked(next_one, "SELECT count(*) FROM left_behind") == 0
                assert asked(next_one, "SELECT 7") == 7
            assert at_rest(penstock)["opened"] == 1
        finally:
            straight.execute("DROP TABLE left_behind")


def test_postgres_p01_a_new_session_has_seen_nobody(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, client_may_set=["purity"])
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        first = asked(client, PID)
        client.execute("CREATE TEMP TABLE mine ()")
    with psycopg.connect(
        penstock.dsn(), autocommit=True, options="-c penstock.purity=new", prepare_threshold=None
    ) as client:
        assert asked(client, PID) != first
        assert asked(client, "SELECT count(*) FROM pg_class WHERE relname = 'mine'") == 0
    assert at_rest(penstock)["opened"] == 1


def test_postgres_p02_self_finds_what_the_last_one_left(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, reset="none", pool_mode="session")
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        client.execute("SET work_mem = '9MB'")
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        assert asked(client, "SHOW work_mem") == "9MB"


def test_postgres_t01_who_asks_for_the_state_gets_the_session_that_is_in_it(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=3, tags="exact")
    tagged, plain = "-c penstock.tag=work_mem=9MB", ""
    with (
        Raw.logged_in(penstock.port, options=tagged) as one,
        Raw.logged_in(penstock.port, options=plain) as two,
    ):
        for client in (one, two):
            client.ask("BEGIN")
        pids = {client: client.value(PID) for client in (one, two)}
        for client in (one, two):
            client.ask("COMMIT")
        for _ in range(3):
            for client in (two, one):
                assert client.value(PID) == pids[client]
        assert (one.value("SHOW work_mem"), two.value("SHOW work_mem")) == ("9MB", "4MB")


def test_postgres_t02_a_wrong_tag_is_refused_and_the_session_stays_usable(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1, tags="exact")
    with Raw.logged_in(penstock.port, options="-c penstock.tag=work_mem=9MB") as client:
        pid = client.value(PID)
        client.send(query("SET penstock.tag = 'no pairs'"))
        assert error_of(client.until_ready())["C"] == "22023"
        assert (client.value(PID), client.value("SHOW work_mem")) == (pid, "9MB")


@pytest.mark.parametrize("tags", ["exact", "any"])
def test_postgres_t03_the_fixup_runs_for_another_tag_and_not_for_the_same(
    make_proxy: Make, tags: str, postgres: EmbeddedPostgres
) -> None:
    with directly(postgres) as straight:
        straight.execute("CREATE TABLE fixups (tag text)")
        try:
            penstock = make_proxy(
                trusting(),
                max=1,
                tags=tags,
                tag_fixup="INSERT INTO fixups VALUES (current_setting('app.tag', true))",
            )
            with (
                Raw.logged_in(penstock.port, options="-c penstock.tag=app.tag=a") as a,
                Raw.logged_in(penstock.port, options="-c penstock.tag=app.tag=b") as b,
            ):
                straight.execute("TRUNCATE fixups")
                a.ask("SELECT 1")
                straight.execute("TRUNCATE fixups")
                for client in (a, a, a):
                    client.ask("SELECT 1")
                assert straight.execute("SELECT count(*) FROM fixups").fetchone() == (0,)
                for client in (b, b, a):
                    client.ask("SELECT 1")
                assert straight.execute("SELECT tag FROM fixups").fetchall() == [("b",), ("a",)]
        finally:
            straight.execute("DROP TABLE fixups")


def test_postgres_t04_session_init_runs_once_for_each_new_session(
    make_proxy: Make, postgres: EmbeddedPostgres
) -> None:
    with directly(postgres) as straight:
        straight.execute("CREATE TABLE inits (pid int)")
        try:
            penstock = make_proxy(max=1, session_init="INSERT INTO inits VALUES (pg_backend_pid())")
            with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=None) as client:
                pids = {asked(client, PID) for _ in range(10)}
            at_rest(penstock)
            assert straight.execute("SELECT pid FROM inits").fetchall() == [(pid,) for pid in pids]
            assert len(pids) == 1
        finally:
            straight.execute("DROP TABLE inits")


def test_postgres_t05_where_session_init_fails_the_next_acquire_runs_it_again(
    make_proxy: Make, postgres: EmbeddedPostgres
) -> None:
    with directly(postgres) as straight:
        straight.execute("CREATE TABLE needed (n int)")
        try:
            penstock = make_proxy(max=1, session_init="INSERT INTO needed VALUES (1)")
            penstock.checked = False
            with psycopg.connect(penstock.dsn(), autocommit=True) as client:
                pid = asked(client, PID)
                straight.execute("ALTER TABLE needed RENAME TO away")
                straight.execute("SELECT pg_terminate_backend(%s)", [pid])
                until(lambda: pool_of(penstock)["opened"] == 0)
                with pytest.raises(psycopg.Error, match="needed"):
                    client.execute("SELECT 1")
                assert pool_of(penstock)["opened"] == 0
                straight.execute("ALTER TABLE away RENAME TO needed")
                until(lambda: _works(client))
        finally:
            straight.execute("DROP TABLE IF EXISTS needed, away")


def _works(client: psycopg.Connection[Any]) -> bool:
    try:
        return bool(asked(client, "SELECT 1") == 1)
    except psycopg.Error:
        return False


def test_postgres_u01_in_a_homogeneous_pool_nobody_runs_as_anybody_else(make_proxy: Make) -> None:
    text = trusting(more='\n[users.alice]\npassword = "alice\'s"\n').replace('auth = "trust"', "")
    penstock = make_proxy(text, homogeneous=True, max=2)
    with pytest.raises(psycopg.OperationalError, match="its own user only"):
        psycopg.connect(penstock.dsn("alice", "app", "alice's"))
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        assert asked(client, "SELECT current_user") == "app"


def test_postgres_u02_each_runs_as_itself_and_a_wrong_password_leaves_nothing(
    make_proxy: Make, postgres: EmbeddedPostgres
) -> None:
    with directly(postgres) as straight:
        straight.execute("DROP ROLE IF EXISTS zoe")
        straight.execute("CREATE ROLE zoe LOGIN PASSWORD 'zoe'")
        try:
            text = trusting(more='\n[users.zoe]\npassword = "zoe"\n').replace('auth = "trust"', "")
            penstock = make_proxy(text, max=2)
            opened = wait_for(penstock, idle=1)["opened"]
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(penstock.dsn("zoe", "app", "wrong"))
            assert pool_of(penstock)["opened"] == opened
            for _ in range(3):
                with psycopg.connect(penstock.dsn("zoe", "app", "zoe"), autocommit=True) as client:
                    assert asked(client, "SELECT current_user") == "zoe"
                with psycopg.connect(penstock.dsn(), autocommit=True) as client:
                    assert asked(client, "SELECT current_user") == "app"
            penstock.stop()
        finally:
            straight.execute("DROP ROLE zoe")


def test_postgres_b03_the_open_transaction_of_one_is_not_seen_by_the_next(
    make_proxy: Make, postgres: EmbeddedPostgres
) -> None:
    with directly(postgres) as straight:
        straight.execute("CREATE TABLE begun (n int)")
        try:
            penstock = make_proxy(max=1, begin="ahead")
            client = psycopg.connect(penstock.dsn())
            client.execute("INSERT INTO begun VALUES (1)")
            client.close()
            with psycopg.connect(penstock.dsn()) as next_one:
                assert asked(next_one, "SELECT count(*) FROM begun") == 0
                next_one.execute("INSERT INTO begun VALUES (2)")
            assert straight.execute("SELECT n FROM begun").fetchall() == [(2,)]
        finally:
            straight.execute("DROP TABLE begun")

"""What happens when every session is taken: the four getmodes, as the pool's own and as a client's choice."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from integration.looking import at_rest, pool_of, trusting, until, wait_for
from integration.raw import EXECUTE, SYNC, Raw, bind, error_of, message, parse, query, rows
from servers import Penstock

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]


@contextmanager
def every_session_taken(penstock: Penstock, count: int) -> Iterator[list[psycopg.Connection[Any]]]:
    """Clients that sit in a transaction, one on each session."""
    holders = [psycopg.connect(penstock.dsn()) for _ in range(count)]
    try:
        for holder in holders:
            holder.execute("SELECT 1")
        yield holders
    finally:
        for holder in holders:
            holder.close()


# -- as the pool's own ----------------------------------------------------------------------------


@pytest.mark.parametrize("getmode", ["wait", "timedwait"])
def test_twenty_clients_on_two_sessions_succeed_in_the_order_in_which_they_came(
    make_proxy: Make, getmode: str
) -> None:
    penstock = make_proxy(max=2, getmode=getmode)
    served: list[int] = []
    lock = threading.Lock()

    def work(number: int, client: psycopg.Connection[Any]) -> None:
        with client.transaction():
            client.execute("SELECT 1")
            with lock:
                served.append(number)
            client.execute("SELECT pg_sleep(0.3)")

    clients = [psycopg.connect(penstock.dsn(), autocommit=True) for _ in range(20)]
    try:
        with ThreadPoolExecutor(20) as pool:
            jobs: list[Future[None]] = []
            for number, client in enumerate(clients):
                jobs.append(pool.submit(work, number, client))
                # The next one comes only once this one is seen to hold a session or to wait.
                until(lambda number=number: _arrived(penstock, served, number))
            for job in jobs:
                job.result(30)
    finally:
        for client in clients:
            client.close()
    # Two are served at the same time, so neighbours may note themselves in either order.
    assert sorted(served) == list(range(20))
    assert all(abs(place - number) <= 1 for place, number in enumerate(served)), served
    pool = at_rest(penstock)
    assert pool["opened"] <= 2
    assert pool["acquires"][getmode]["timeout"] == 0


def _arrived(penstock: Penstock, served: list[int], number: int) -> bool:
    return len(served) + pool_of(penstock)["waiting"] > number


def test_nowait_is_refused_at_once_and_the_same_connection_succeeds_later(make_proxy: Make) -> None:
    penstock = make_proxy(max=2, getmode="nowait")
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        with every_session_taken(penstock, 2):
            for _ in range(3):
                with pytest.raises(psycopg.errors.TooManyConnections) as caught:
                    client.execute("SELECT 1")
                said = caught.value.diag
                assert said.severity == "ERROR"
                assert said.message_primary is not None
                assert "getmode is nowait" in said.message_primary
                assert said.message_detail is not None
                assert re.match(r'pool "app": opened=2/2 busy=2 idle=0 .*waiting=0', said.message_detail)
                assert said.message_hint is not None
                assert "pools.app.max" in said.message_hint
        until(lambda: pool_of(penstock)["idle"])
        assert client.execute("SELECT 1").fetchone() == (1,)
    assert at_rest(penstock)["acquires"]["nowait"]["busy"] == 3


def test_nowait_waits_for_a_connect_where_there_is_room(make_proxy: Make) -> None:
    penstock = make_proxy(max=3, getmode="nowait")
    with every_session_taken(penstock, 3):
        assert pool_of(penstock)["busy"] == 3


def test_timedwait_fails_after_its_time_and_not_before(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, getmode="timedwait", wait_timeout="700ms")
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        with every_session_taken(penstock, 1):
            begun = time.monotonic()
            with pytest.raises(psycopg.errors.TooManyConnections) as caught:
                client.execute("SELECT 1")
            took = time.monotonic() - begun
            assert 0.7 <= took < 5
            assert "wait_timeout (0.7s)" in str(caught.value.diag.message_primary)
            assert "wait_timeout" in str(caught.value.diag.message_hint)
        assert client.execute("SELECT 1").fetchone() == (1,)
    at_rest(penstock)


def test_timedwait_is_served_as_soon_as_a_session_comes_home(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, getmode="timedwait", wait_timeout="30s")
    with ThreadPoolExecutor(1) as pool, psycopg.connect(penstock.dsn(), autocommit=True) as client:
        with every_session_taken(penstock, 1):
            job = pool.submit(lambda: client.execute("SELECT 1").fetchone())
            wait_for(penstock, waiting=1)
        assert job.result(10) == (1,)


def test_forceget_opens_up_to_its_ceiling_and_shrinks_again(make_proxy: Make) -> None:
    penstock = make_proxy(max=2, max_forced=3, getmode="forceget", wait_timeout="500ms")
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        with every_session_taken(penstock, 5):
            assert pool_of(penstock)["opened"] == 5
            with pytest.raises(psycopg.errors.TooManyConnections) as caught:
                client.execute("SELECT 1")
            assert "opened=5/2" in str(caught.value.diag.message_detail)
        pool = at_rest(penstock)
        assert pool["opened"] <= 2
        assert pool["drops"]["forced"] >= 3
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_forceget_serves_whoever_comes_when_load_goes_up_and_down(make_proxy: Make) -> None:
    penstock = make_proxy(max=2, max_forced=2, getmode="forceget", wait_timeout="30s")

    def work(_: int) -> None:
        with psycopg.connect(penstock.dsn(), autocommit=True) as client:
            for turn in range(10):
                assert client.execute(f"SELECT {turn}").fetchone() == (turn,)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(work, range(20)))
    assert at_rest(penstock)["opened"] <= 2


def test_max_waiting_refuses_the_one_who_would_make_the_queue_longer(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, getmode="wait", max_waiting=2)
    clients = [psycopg.connect(penstock.dsn(), autocommit=True) for _ in range(3)]
    try:
        with ThreadPoolExecutor(2) as pool:
            with every_session_taken(penstock, 1):
                jobs = []
                for number in (0, 1):
                    jobs.append(pool.submit(clients[number].execute, "SELECT 1"))
                    wait_for(penstock, waiting=number + 1)
                with pytest.raises(psycopg.errors.TooManyConnections) as caught:
                    clients[2].execute("SELECT 1")
                assert "max_waiting" in str(caught.value.diag.message_hint)
            for job in jobs:
                assert job.result(10).fetchone() == (1,)
        assert clients[2].execute("SELECT 1").fetchone() == (1,)
    finally:
        for client in clients:
            client.close()


def test_a_refusal_fails_a_whole_pipeline_but_keeps_its_order(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1, getmode="nowait")
    with Raw.logged_in(penstock.port) as holder, Raw.logged_in(penstock.port) as client:
        holder.ask("BEGIN")
        batch = parse("SELECT 1") + bind() + EXECUTE + SYNC
        client.send(batch + query("SELECT 2") + batch)
        for _ in range(3):
            answer = client.until_ready()
            assert error_of(answer)["C"] == "53300"
            assert [kind for kind, _ in answer] == [b"E", b"Z"]
        holder.ask("COMMIT")
        client.send(batch + query("SELECT 2") + batch)
        assert [rows(client.until_ready())[0][-1:] for _ in range(3)] == [b"1", b"2", b"1"]


# -- as a client's choice -------------------------------------------------------------------------


def test_a_client_chooses_nowait_by_a_startup_option(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, getmode="timedwait", wait_timeout="20s")
    chosen = penstock.dsn(options="-c penstock.getmode=nowait")
    with psycopg.connect(chosen, autocommit=True) as client, every_session_taken(penstock, 1):
        begun = time.monotonic()
        with pytest.raises(psycopg.errors.TooManyConnections):
            client.execute("SELECT 1")
        assert time.monotonic() - begun < 10
        assert client.execute("SHOW penstock.getmode").fetchone() == ("nowait",)


def test_a_client_chooses_by_set_and_sees_its_choice_by_show(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1, getmode="timedwait", wait_timeout="20s")
    with Raw.logged_in(penstock.port) as holder, Raw.logged_in(penstock.port) as client:
        assert client.value("SHOW penstock.getmode") == "timedwait"
        assert client.value("/* mine */ show Penstock.Wait_Timeout ;") == "20s"
        holder.ask("BEGIN")
        client.ask("SET penstock.getmode = 'nowait'")
        assert client.error("SELECT 1")["C"] == "53300"
        client.ask("SET penstock.getmode = timedwait")
        client.ask("SET SESSION penstock.wait_timeout TO '300ms'")
        begun = time.monotonic()
        assert client.error("SELECT 1")["C"] == "53300"
        assert 0.3 <= time.monotonic() - begun < 5
        assert client.value("SHOW penstock.wait_timeout") == "300ms"
        client.ask("SET penstock.wait_timeout = DEFAULT")
        assert client.value("SHOW penstock.wait_timeout") == "20s"
        holder.ask("COMMIT")
        assert client.value("SELECT 7") == "7"


def test_a_client_chooses_in_the_extended_protocol(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1, getmode="timedwait", wait_timeout="20s")
    with Raw.logged_in(penstock.port) as holder, Raw.logged_in(penstock.port) as client:
        client.send(parse("SET penstock.getmode = 'nowait'") + bind() + EXECUTE + SYNC)
        assert [kind for kind, _ in client.until_ready()] == [b"1", b"2", b"C", b"Z"]
        client.send(parse("SHOW penstock.getmode") + bind() + message(b"D", b"P\0") + EXECUTE + SYNC)
        answer = client.until_ready()
        assert [kind for kind, _ in answer] == [b"1", b"2", b"T", b"D", b"C", b"Z"]
        assert rows(answer)[0].endswith(b"nowait")
        holder.ask("BEGIN")
        client.send(parse("SELECT 1") + bind() + EXECUTE + SYNC)
        assert error_of(client.until_ready())["C"] == "53300"


def test_drivers_set_and_show_with_their_own_ways(make_proxy: Make) -> None:
    penstock = make_proxy(max=1)
    with psycopg.connect(penstock.dsn()) as client:
        client.execute("SET penstock.getmode TO nowait")
        assert client.execute("SHOW penstock.getmode").fetchone() == ("nowait",)
        client.commit()
        assert client.execute("SHOW penstock.getmode").fetchone() == ("nowait",)


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("SET penstock.getmode = 'wait'", "22023"),
        ("SET penstock.getmode = 'forceget'", "22023"),
        ("SET penstock.getmode = 'sometimes'", "22023"),
        ("SET penstock.wait_timeout = '1h'", "22023"),
        ("SET penstock.wait_timeout = '5'", "22023"),
        ("SET LOCAL penstock.getmode = 'nowait'", "0A000"),
        ("RESET penstock.getmode", "0A000"),
        ("SELECT 1; SET penstock.getmode = 'nowait'", "0A000"),
        ("SET penstock.colour = 'blue'", "0A000"),
    ],
)
def test_what_a_client_may_not_choose_is_refused_and_changes_nothing(
    make_proxy: Make, statement: str, sqlstate: str
) -> None:
    penstock = make_proxy(trusting(), max=1, wait_timeout="20s")
    with Raw.logged_in(penstock.port) as client:
        said = client.error(statement)
        assert said["C"] == sqlstate, said
        assert said["H"]
        assert client.value("SHOW penstock.getmode") == "timedwait"
        assert client.value("SHOW penstock.wait_timeout") == "20s"
        assert client.value("SELECT coalesce(current_setting('penstock.getmode', true), 'none')") == "none"


def test_the_operator_may_allow_more(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1, max_forced=1, client_may_set=["forceget"])
    with Raw.logged_in(penstock.port) as holder, Raw.logged_in(penstock.port) as client:
        assert client.error("SET penstock.getmode = 'nowait'")["C"] == "22023"
        client.ask("SET penstock.getmode = 'forceget'")
        holder.ask("BEGIN")
        assert client.value("SELECT 1") == "1"


def test_a_startup_option_beyond_the_bounds_is_refused_at_login(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, wait_timeout="20s")
    for option in ("penstock.getmode=forceget", "penstock.wait_timeout=1h", "penstock.colour=blue"):
        with pytest.raises(psycopg.OperationalError, match=r"penstock|may not|may choose"):
            psycopg.connect(penstock.dsn(options=f"-c {option}"))

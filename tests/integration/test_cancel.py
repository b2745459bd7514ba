"""Cancel requests: they hit exactly the query they were meant for, or nothing at all."""

import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from integration.looking import at_rest, sessions_on, trusting, until, wait_for
from integration.raw import Raw, query, send_cancel
from servers import Penstock, lacking

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]


def _runs(server: psycopg.Connection[Any], text: str) -> bool:
    return any(state == "active" and text in statement for _, state, statement in sessions_on(server))


def test_a_cancel_request_ends_exactly_this_client_s_query(
    penstock: Penstock, server: psycopg.Connection[Any]
) -> None:
    with (
        ThreadPoolExecutor(2) as pool,
        psycopg.connect(penstock.dsn(), autocommit=True) as client,
        psycopg.connect(penstock.dsn(), autocommit=True) as other,
    ):
        job = pool.submit(client.execute, "SELECT pg_sleep(60)")
        others = pool.submit(other.execute, "SELECT pg_sleep(2), 'others'")
        until(lambda: _runs(server, "pg_sleep(60)") and _runs(server, "'others'"))
        client.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            job.result(20)
        assert client.execute("SELECT 1").fetchone() == (1,)
        assert others.result(20).fetchone()[1] == "others"
    at_rest(penstock)


def test_ctrl_c_in_psql_cancels_its_query(penstock: Penstock, server: psycopg.Connection[Any]) -> None:
    psql = shutil.which("psql") or lacking("there is no psql (apt-get install postgresql-client)")
    with subprocess.Popen(
        [psql, "-X", "-c", "SELECT pg_sleep(60)", penstock.dsn()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        until(lambda: _runs(server, "pg_sleep(60)"))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert "canceling statement due to user request" in err
    assert not _runs(server, "pg_sleep(60)")
    at_rest(penstock)


def test_a_client_that_waits_is_cancelled_and_stays_connected(make_proxy: Make) -> None:
    penstock = make_proxy(max=1)
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(penstock.dsn()) as holder,
        psycopg.connect(penstock.dsn(), autocommit=True) as client,
    ):
        holder.execute("SELECT 1")
        job = pool.submit(client.execute, "SELECT 1")
        wait_for(penstock, waiting=1)
        client.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled) as caught:
            job.result(20)
        assert caught.value.diag.sqlstate == "57014"
        wait_for(penstock, waiting=0, busy=1)
        holder.commit()
        assert client.execute("SELECT 1").fetchone() == (1,)
    assert at_rest(penstock)["drops"]["uncertain"] == 0


def test_a_cancel_request_with_a_wrong_key_does_nothing(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=2)
    with Raw.logged_in(penstock.port) as client:
        client.send(query("SELECT pg_sleep(1), 'kept'"))
        until(lambda: _runs(server, "'kept'"))
        for key in (secrets.token_bytes(8), client.key[:4] + secrets.token_bytes(4), b"\0" * 8):
            send_cancel(penstock.port, key)
        answer = client.until_ready()
        assert b"E" not in [kind for kind, _ in answer]
    assert len(penstock.events("cancel_refused")) == 3
    assert client.key.hex() not in "\n".join(penstock.log)


def test_the_key_of_a_client_that_has_left_is_worth_nothing(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1)
    with Raw.logged_in(penstock.port) as first:
        key = first.key
        first.ask("SELECT 1")
    until(lambda: penstock.events("client_closed"))
    with Raw.logged_in(penstock.port) as second:
        second.send(query("SELECT pg_sleep(0.5), 'kept'"))
        send_cancel(penstock.port, key)
        assert b"E" not in [kind for kind, _ in second.until_ready()]


def test_a_cancel_request_of_an_idle_client_hits_nobody(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1)
    with Raw.logged_in(penstock.port) as idle, Raw.logged_in(penstock.port) as other:
        idle.ask("SELECT 1")
        other.send(query("SELECT pg_sleep(0.5), 'kept'"))
        wait_for(penstock, busy=1)
        idle.cancel(penstock.port)
        assert b"E" not in [kind for kind, _ in other.until_ready()]
        assert idle.value("SELECT 2") == "2"


def test_a_transaction_goes_on_in_its_failed_state_after_a_cancel(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=1)
    with Raw.logged_in(penstock.port) as client:
        client.ask("BEGIN")
        client.send(query("SELECT pg_sleep(60)"))
        until(lambda: _runs(server, "pg_sleep(60)"))
        client.cancel(penstock.port)
        answer = client.until_ready()
        assert answer[-1] == (b"Z", b"E")
        assert client.error("SELECT 1")["C"] == "25P02"
        assert client.ask("ROLLBACK")[-1] == (b"Z", b"I")
        assert client.value("SELECT 3") == "3"


def test_a_storm_of_cancels_never_hits_another_client(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=2, wait_timeout="30s")
    deadline = time.monotonic() + 6
    stop = threading.Event()

    def victim(number: int) -> tuple[int, int]:
        # Cancels what it runs itself, at the very moment when it ends.
        done = cancelled = 0
        with Raw.logged_in(penstock.port) as client:
            while not stop.is_set():
                client.send(query(f"SELECT 'v{number}', pg_sleep(0.00{number + 1})"))
                threads = [threading.Thread(target=client.cancel, args=(penstock.port,)) for _ in range(2)]
                for thread in threads:
                    thread.start()
                answer = client.until_ready()
                for thread in threads:
                    thread.join()
                kinds = [kind for kind, _ in answer]
                done += b"D" in kinds
                cancelled += b"E" in kinds
        return done, cancelled

    def bystander(number: int) -> int:
        # Nobody cancels these, so each of them must succeed.
        turns = 0
        with Raw.logged_in(penstock.port) as client:
            while not stop.is_set():
                turns += 1
                assert (
                    client.value(f"SELECT 'b{number}.{turns}' FROM pg_sleep(0.001)") == f"b{number}.{turns}"
                )
        return turns

    with ThreadPoolExecutor(8) as pool:
        victims = [pool.submit(victim, number) for number in range(4)]
        bystanders = [pool.submit(bystander, number) for number in range(4)]
        try:
            until(lambda: time.monotonic() > deadline or any(job.done() for job in [*victims, *bystanders]))
        finally:
            stop.set()
        assert all(job.result(30) > 0 for job in bystanders)
        outcomes = [job.result(30) for job in victims]
    assert sum(cancelled for _, cancelled in outcomes) > 0, outcomes
    pool_now = at_rest(penstock)
    assert pool_now["opened"] <= 2
    assert not penstock.events("cancel_failed")

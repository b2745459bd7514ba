"""Clients that vanish at any moment: no slot is lost, the bound holds on the server, nobody else notices."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from integration.looking import (
    at_rest,
    directly,
    kill,
    pool_of,
    reset_on_close,
    sessions_on,
    trusting,
    until,
    wait_for,
    watch,
)
from integration.raw import EXECUTE, SYNC, TERMINATE, Raw, bind, message, parse, query, rows, startup
from proxy.embedded import EmbeddedPostgres
from servers import Penstock, lacking

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
LARGE = "SELECT repeat('x', 1000) FROM generate_series(1, 20000)"
ZONES = ("Asia/Tokyo", "Europe/Berlin", "America/Lima", "UTC", "Pacific/Auckland")


# -- how one vanishes -----------------------------------------------------------------------------


def while_idle(client: Raw, dice: random.Random) -> None:
    client.ask("SELECT 1")


def while_a_query_runs(client: Raw, dice: random.Random) -> None:
    client.send(query("SELECT pg_sleep(30)"))


def in_a_transaction(client: Raw, dice: random.Random) -> None:
    client.ask("BEGIN")
    client.ask("INSERT INTO vanished VALUES ('never committed')")
    if dice.random() < 0.5:
        client.send(query("SELECT pg_sleep(30)"))


def in_a_failed_transaction(client: Raw, dice: random.Random) -> None:
    client.ask("BEGIN")
    client.ask("SELECT 1/0")


def in_a_copy(client: Raw, dice: random.Random) -> None:
    client.send(query("COPY vanished FROM STDIN"))
    while client.read()[0] != b"G":
        pass
    for _ in range(dice.randrange(5)):
        client.send(message(b"d", b"never copied\n" * 1000))


def in_half_of_a_copy_message(client: Raw, dice: random.Random) -> None:
    in_a_copy(client, dice)
    data = message(b"d", b"never copied\n" * 20_000)
    client.send(data[: dice.choice((3, 5, 100, len(data) // 2, len(data) - 1))])


def in_a_large_result(client: Raw, dice: random.Random) -> None:
    client.send(query(LARGE))
    for _ in range(dice.randrange(50)):
        client.read()


def in_a_copy_out(client: Raw, dice: random.Random) -> None:
    client.send(query(f"COPY ({LARGE}) TO STDOUT"))
    for _ in range(dice.randrange(50)):
        client.read()


def in_a_pipeline(client: Raw, dice: random.Random) -> None:
    batch = parse("SELECT $1::text") + bind(b"a") + EXECUTE
    client.send((batch + SYNC) * dice.randrange(1, 30) + batch * dice.randrange(3))


def before_a_sync(client: Raw, dice: random.Random) -> None:
    client.send(parse("INSERT INTO vanished VALUES ('never committed')") + bind() + EXECUTE)


def in_half_of_a_large_bind(client: Raw, dice: random.Random) -> None:
    large = parse("SELECT length($1)") + bind(b"x" * 300_000) + EXECUTE + SYNC
    client.send(large[: dice.choice((50, 20_000, 100_000, 300_000))])


def in_half_of_a_small_message(client: Raw, dice: random.Random) -> None:
    data = query("INSERT INTO vanished VALUES ('half')")
    client.send(data[: dice.randrange(1, len(data))])


def while_being_prepared(client: Raw, dice: random.Random) -> None:
    client.ask(f"SET TimeZone = '{dice.choice(ZONES)}'")
    client.ask("SET work_mem = '7MB'")
    client.send(query("INSERT INTO vanished SELECT 'late' WHERE false"))


def leaving_dirt(client: Raw, dice: random.Random) -> None:
    client.ask("SET search_path = pg_catalog")
    client.ask(f"SET application_name = 'dirt {dice.random()}'")
    client.ask("LISTEN dirt")


def after_a_goodbye(client: Raw, dice: random.Random) -> None:
    client.send(query(LARGE) + TERMINATE)


HOW = (
    while_idle,
    while_a_query_runs,
    in_a_transaction,
    in_a_failed_transaction,
    in_a_copy,
    in_half_of_a_copy_message,
    in_a_large_result,
    in_a_copy_out,
    in_a_pipeline,
    before_a_sync,
    in_half_of_a_large_bind,
    in_half_of_a_small_message,
    while_being_prepared,
    leaving_dirt,
    after_a_goodbye,
)


def vanish(penstock: Penstock, dice: random.Random) -> None:
    """One client comes, does something, and is gone."""
    if dice.random() < 0.1:
        client = Raw(penstock.port)
        packet = startup(user="app", database="app", TimeZone=dice.choice(ZONES))
        client.send(packet[: dice.choice((4, 20, len(packet)))])
    else:
        try:
            client = Raw.logged_in(penstock.port, TimeZone=dice.choice(ZONES), application_name="vanishing")
        except (EOFError, ConnectionError):
            return
        dice.choice(HOW)(client, dice)
    if dice.random() < 0.5:
        time.sleep(dice.random() * 0.02)  # so that it goes at any moment, not always at the same one
    if dice.random() < 0.5:
        reset_on_close(client.sock)
    client.close()


# -- who stays ------------------------------------------------------------------------------------


def survive(penstock: Penstock, number: int, stop: threading.Event) -> int:
    """A client with settings of its own, that checks every answer it gets."""
    zone = ZONES[number % len(ZONES)]
    turns = 0
    settings = {"application_name": f"survivor {number}", "TimeZone": zone}
    options = f"-c search_path=schema_{number % 3}"
    look = (
        "current_setting('application_name'), current_setting('TimeZone'), current_setting('search_path'),"
        " current_setting('work_mem'), current_user"
    )
    with Raw.logged_in(penstock.port, 60, options=options, **settings) as client:
        while not stop.is_set():
            turns += 1
            mark = f"s{number}.{turns}"
            wanted = [mark, f"survivor {number}", zone, f"schema_{number % 3}", "4MB", "app"]
            if turns % 3 == 0:
                client.send(parse(f"SELECT $1::text, {look}") + bind(mark.encode()) + EXECUTE + SYNC)
                answer = client.until_ready()
            elif turns % 3 == 1:
                answer = client.ask(f"SELECT '{mark}', {look}")
            else:
                client.ask("BEGIN")
                answer = client.ask(f"SELECT '{mark}', {look}")
                client.ask("COMMIT")
            assert [_values(row) for row in rows(answer)] == [wanted], answer
    return turns


def _values(row: bytes) -> list[str]:
    values, at = [], 2
    while at < len(row):
        size = int.from_bytes(row[at : at + 4], "big")
        values.append(row[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return values


@contextmanager
def survivors(penstock: Penstock, server: EmbeddedPostgres, bound: int) -> Iterator[None]:
    """While the body runs, others work and the server is watched; afterwards both must have been content."""
    stop = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        jobs: list[Future[int]] = [pool.submit(survive, penstock, number, stop) for number in range(6)]
        jobs.append(pool.submit(watch, server, bound, stop))
        try:
            yield
        finally:
            stop.set()
        for job in jobs:
            assert job.result(60) > 0


@pytest.fixture
def table(server: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    server.execute("CREATE TABLE vanished (what text)")
    yield server
    server.execute("DROP TABLE vanished")


# -- the tests ------------------------------------------------------------------------------------


def _many(penstock: Penstock, server: EmbeddedPostgres, count: int, seed: int) -> None:
    dice = random.Random(seed)
    with survivors(penstock, server, 3), ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(vanish, penstock, random.Random(dice.random())) for _ in range(count)]
        for job in jobs:
            job.result(120)
    pool_now = at_rest(penstock, patience=40)
    assert pool_now["opened"] <= 3
    assert pool_now["drops"]["abandoned"] == 0
    until(lambda: penstock.metric("penstock_clients") == 0)


def test_a_hundred_clients_vanish_and_nobody_else_notices(
    make_proxy: Make, postgres: EmbeddedPostgres, table: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=3, wait_timeout="60s")
    _many(penstock, postgres, 100, random.SystemRandom().randrange(1 << 30))
    assert table.execute("SELECT count(*) FROM vanished").fetchone() == (0,)


@pytest.mark.soak
@pytest.mark.parametrize("pool_mode", ["transaction", "session"])
def test_a_thousand_clients_vanish_and_nobody_else_notices(
    make_proxy: Make, postgres: EmbeddedPostgres, table: psycopg.Connection[Any], pool_mode: str
) -> None:
    if pool_mode == "transaction":
        penstock = make_proxy(trusting(), max=3, wait_timeout="60s")
        _many(penstock, postgres, 1000, random.SystemRandom().randrange(1 << 30))
    else:
        penstock = make_proxy(trusting(), max=3, wait_timeout="60s", pool_mode="session")
        dice = random.Random(random.SystemRandom().randrange(1 << 30))
        with ThreadPoolExecutor(4) as pool:
            for job in [pool.submit(vanish, penstock, random.Random(dice.random())) for _ in range(1000)]:
                job.result(120)
        assert at_rest(penstock, patience=40)["opened"] <= 3
    assert table.execute("SELECT count(*) FROM vanished").fetchone() == (0,)


@pytest.mark.parametrize("how", HOW, ids=lambda how: how.__name__)
def test_the_only_session_serves_the_next_client(
    make_proxy: Make, table: psycopg.Connection[Any], how: Callable[[Raw, random.Random], None]
) -> None:
    penstock = make_proxy(trusting(), max=1)
    dice = random.Random(7)
    for sharply in (False, True):
        client = Raw.logged_in(penstock.port)
        how(client, dice)
        if sharply:
            reset_on_close(client.sock)
        client.close()
        with Raw.logged_in(penstock.port) as other:
            assert other.value("SELECT 'mine'") == "mine"
            assert other.value("SELECT count(*) FROM vanished") == "0"
            assert other.value("SHOW work_mem") == "4MB"
            assert other.value("SELECT count(*) FROM pg_listening_channels()") == "0"
    assert at_rest(penstock)["opened"] == 1


def test_session_mode_recovers_from_them_all_as_well(
    make_proxy: Make, table: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=1, pool_mode="session")
    dice = random.Random(7)
    for how in HOW:
        client = Raw.logged_in(penstock.port)
        how(client, dice)
        client.close()
        with Raw.logged_in(penstock.port) as other:
            assert other.value("SELECT count(*) FROM vanished") == "0", how.__name__
            assert other.value("SHOW work_mem") == "4MB"
    assert at_rest(penstock)["opened"] == 1


@pytest.mark.parametrize("tool", ["psql", "pgbench"])
def test_programs_that_are_killed_lose_no_session(
    make_proxy: Make, postgres: EmbeddedPostgres, folder: Any, tool: str
) -> None:
    program = shutil.which(tool) or lacking(f"there is no {tool}")
    penstock = make_proxy(max=3, wait_timeout="60s")
    script = folder / "script.sql"
    script.write_text("BEGIN;\nSELECT repeat('x', 100000);\nSELECT pg_sleep(0.001);\nCOMMIT;\n")
    words = {
        "psql": [program, "-X", "-q", "-c", LARGE, "-c", "SELECT pg_sleep(30)"],
        "pgbench": [program, "-n", "-f", str(script), "-c", "8", "-T", "60", "-M", "extended"],
    }[tool]
    dice = random.Random(11)
    with directly(postgres) as own:
        for _ in range(10):
            process = subprocess.Popen(
                [*words, penstock.dsn()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            until(lambda: pool_of(penstock)["busy"])
            time.sleep(dice.random() * 0.2)  # at any moment
            kill(process)
            assert len(sessions_on(own)) <= 3
    assert at_rest(penstock)["opened"] <= 3


def test_a_query_of_a_vanished_client_is_cancelled_on_the_server(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=1)
    client = Raw.logged_in(penstock.port)
    client.send(query("SELECT pg_sleep(30)"))
    pid = until(lambda: [pid for pid, state, _ in sessions_on(server) if state == "active"])[0]
    begun = time.monotonic()
    client.close()
    with Raw.logged_in(penstock.port) as other:
        assert other.value("SELECT pg_backend_pid()") == str(pid)
    assert time.monotonic() - begun < 10
    assert not [state for _, state, _ in sessions_on(server) if state == "active"]


def test_the_slot_is_taken_until_the_server_has_really_ended_the_query(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=1, wait_timeout="30s")
    client = Raw.logged_in(penstock.port)
    client.send(query("SELECT pg_sleep(30)"))
    pid = until(lambda: [pid for pid, state, _ in sessions_on(server) if state == "active"])[0]
    os.kill(pid, signal.SIGSTOP)  # this server process listens to nobody for a while
    try:
        client.close()
        until(lambda: penstock.events("client_closed"))
        with ThreadPoolExecutor(1) as pool, Raw.logged_in(penstock.port) as other:
            job = pool.submit(other.value, "SELECT 'served'")
            wait_for(penstock, waiting=1)
            for _ in range(20):
                now = pool_of(penstock)
                assert now["opened"] + now["closing"] + now["opening"] == 1
                assert len(sessions_on(server)) == 1
                time.sleep(0.05)
            os.kill(pid, signal.SIGCONT)
            assert job.result(20) == "served"
    finally:
        os.kill(pid, signal.SIGCONT)
    at_rest(penstock)


def test_a_waiting_client_that_vanishes_leaves_the_queue(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1, getmode="wait")
    with Raw.logged_in(penstock.port) as holder:
        holder.ask("BEGIN")
        clients = [Raw.logged_in(penstock.port) for _ in range(5)]
        for client in clients:
            client.send(query("SELECT 'waiting'"))
        wait_for(penstock, waiting=5)
        for client in clients[:3]:
            client.close()
        wait_for(penstock, waiting=2)
        # These two stop being read at their second piece, and vanish unseen.
        for client in clients[3:]:
            client.send(query("SELECT 'more'"))
            client.send(query("SELECT 'and more'"))
        for client in clients[3:]:
            client.close()
        holder.ask("COMMIT")
        assert holder.value("SELECT 'still here'") == "still here"
    assert at_rest(penstock)["opened"] == 1


def test_what_was_sent_before_a_goodbye_is_done_even_if_it_had_to_wait(
    make_proxy: Make, table: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=1, getmode="wait")
    with Raw.logged_in(penstock.port) as holder:
        holder.ask("BEGIN")
        client = Raw.logged_in(penstock.port)
        client.send(query("INSERT INTO vanished VALUES ('said goodbye')") + TERMINATE)
        wait_for(penstock, waiting=1)
        client.close()
        holder.ask("COMMIT")
    until(lambda: table.execute("SELECT count(*) FROM vanished").fetchone() == (1,))
    at_rest(penstock)


def test_a_client_that_stops_reading_holds_back_its_own_session_only(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=2)
    with Raw.logged_in(penstock.port) as slow, Raw.logged_in(penstock.port) as other:
        slow.send(query(LARGE))
        for number in range(20):
            assert other.value(f"SELECT {number}") == str(number)
        assert pool_of(penstock)["busy"] == 1
        assert len(rows(slow.until_ready())) == 20_000
    at_rest(penstock)


def test_a_client_that_vanishes_while_its_output_is_full_is_cleaned_up(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1)
    client = Raw.logged_in(penstock.port)
    # More answers than fit into all buffers, none of them read; the settings differ, so each is prepared.
    client.ask("SET TimeZone = 'Asia/Tokyo'")
    client.send(query(LARGE) * 3)
    wait_for(penstock, busy=1)
    client.close()
    with Raw.logged_in(penstock.port) as other:
        assert other.value("SELECT 'next'") == "next"
    at_rest(penstock)

"""The server goes away, comes back, or says no: what clients are told, and that all heals by itself."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from integration.looking import at_rest, directly, pool_of, sessions_on, trusting, until, wait_for
from integration.raw import Raw, error_of, query, rows, startup
from proxy.embedded import EmbeddedPostgres
from servers import Penstock, free_port

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]

HELLO = startup(user="app", database="app")
TERMINATE_ALL = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE backend_type = 'client backend' AND application_name <> 'the tests'"
)


@pytest.fixture(scope="module")
def mortal() -> Iterator[EmbeddedPostgres]:
    """A server that tests may stop and start."""
    with EmbeddedPostgres(options={"max_connections": "20"}) as server:
        yield server


@pytest.fixture
def alive(mortal: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """The same, running before and after the test."""
    yield mortal
    mortal.halt()
    mortal.start()


def _ready(penstock: Penstock) -> bool:
    return penstock.http("/readyz").status == 200


# -- single sessions die --------------------------------------------------------------------------


class Worker:
    """A client that works on, and connects again where it may be cut off: inside a transaction only."""

    def __init__(self, penstock: Penstock, number: int) -> None:
        self.penstock = penstock
        self.number = number
        self.done = self.failed = 0
        self.client = Raw.logged_in(penstock.port, 60)

    def turn(self) -> None:
        mark = f"c{self.number}.{self.done}"
        try:
            answer = self._outside(mark) if self.number % 2 else self._inside(mark)
        except (EOFError, ConnectionError):
            assert self.number % 2 == 0
            self.failed += 1
            self.client.close()
            self.client = Raw.logged_in(self.penstock.port, 60)
            return
        if any(kind == b"E" for kind, _ in answer):
            assert error_of(answer)["C"] in {"57P01", "08006", "25P02"}, error_of(answer)
            self.failed += 1
        else:
            assert [row[6:].decode() for row in rows(answer)] == [mark]
            self.done += 1

    def _outside(self, mark: str) -> list[tuple[bytes, bytes]]:
        return self.client.ask(f"SELECT '{mark}'")

    def _inside(self, mark: str) -> list[tuple[bytes, bytes]]:
        answer = self.client.ask("BEGIN")
        if answer[-1] == (b"Z", b"T"):
            answer = self.client.ask(f"SELECT '{mark}'")
            self.client.ask("ROLLBACK")
        return answer


def _work(penstock: Penstock, number: int, stop: threading.Event) -> tuple[int, int]:
    worker = Worker(penstock, number)
    try:
        while not stop.is_set():
            worker.turn()
    finally:
        worker.client.close()
    return worker.done, worker.failed


def test_every_session_is_ended_while_fifty_clients_work_and_the_pool_heals(
    make_proxy: Make, postgres: EmbeddedPostgres
) -> None:
    penstock = make_proxy(trusting(), max=8, wait_timeout="60s")
    stop = threading.Event()
    with directly(postgres) as own, ThreadPoolExecutor(50) as pool:
        jobs = [pool.submit(_work, penstock, number, stop) for number in range(50)]
        try:
            for _ in range(5):
                seen = pool_of(penstock)["acquire"]["count"]
                until(lambda seen=seen: pool_of(penstock)["acquire"]["count"] > seen + 100)
                own.execute(TERMINATE_ALL)
        finally:
            stop.set()
        outcomes = [job.result(60) for job in jobs]
    assert sum(failed for _, failed in outcomes) > 0
    assert all(done > 0 for done, _ in outcomes)
    assert at_rest(penstock)["opened"] <= 8
    holders = [Raw.logged_in(penstock.port) for _ in range(8)]
    for holder in holders:
        holder.ask("BEGIN")
    assert pool_of(penstock)["busy"] == 8  # every slot can be had again
    for holder in holders:
        holder.close()
    at_rest(penstock)


def test_a_session_that_ends_right_behind_an_answer_takes_nothing_from_its_client(
    make_proxy: Make, postgres: EmbeddedPostgres
) -> None:
    """The proxy is stopped meanwhile, so that it reads the answer and the server's last words at once."""
    penstock = make_proxy(trusting(), max=1)
    with Raw.logged_in(penstock.port) as client, directly(postgres) as server:
        pid = int(client.value("SELECT pg_backend_pid()"))
        client.send(query("SELECT 'answered' FROM pg_sleep(0.3)"))
        until(lambda: any(row[:2] == (pid, "active") for row in sessions_on(server)))
        os.kill(penstock.pid, signal.SIGSTOP)
        try:
            until(lambda: any(row[:2] == (pid, "idle") for row in sessions_on(server)))
            server.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        finally:
            os.kill(penstock.pid, signal.SIGCONT)
        assert rows(client.until_ready()) == [b"\0\1\0\0\0\x08answered"]
        # asyncpg, for one, is of no use any more when it is told of an error that it has not asked for.
        answer = client.ask("SELECT pg_backend_pid()")
        assert [kind for kind, _ in answer] == [b"T", b"D", b"C", b"Z"]
        assert int(rows(answer)[0][6:]) != pid
    assert at_rest(penstock)["drops"]["server_fatal"] == 1


def test_a_client_in_a_transaction_gets_an_error_and_others_go_on(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=2)
    with Raw.logged_in(penstock.port) as inside, Raw.logged_in(penstock.port) as outside:
        outside.ask("SELECT 1")
        inside.ask("BEGIN")
        server.execute(TERMINATE_ALL)
        said = inside.to_the_end()
        assert error_of(said)["S"] == "FATAL"
        assert error_of(said)["C"] in ("57P01", "08006")
        assert outside.value("SELECT 'goes on'") == "goes on"
    at_rest(penstock)


def test_a_running_statement_is_answered_by_an_error_and_its_client_stays(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=2)
    with Raw.logged_in(penstock.port) as client:
        client.send(query("SELECT pg_sleep(60)"))
        until(
            lambda: server.execute(
                "SELECT 1 FROM pg_stat_activity"
                " WHERE query LIKE '%pg_sleep(60)%' AND application_name <> 'the tests'"
            ).fetchone()
        )
        server.execute(TERMINATE_ALL)
        answer = client.until_ready()
        assert error_of(answer)["C"] in ("57P01", "08006")
        assert answer[-1] == (b"Z", b"I")
        assert client.value("SELECT 'still here'") == "still here"
    at_rest(penstock)


def test_a_session_that_was_killed_while_idle_is_never_handed_out(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=4, min=4)
    wait_for(penstock, idle=4)
    with Raw.logged_in(penstock.port) as client:
        for _ in range(20):
            pid = client.value("SELECT pg_backend_pid()")
            server.execute("SELECT pg_terminate_backend(%s, 5000)", (int(pid),))
            # The server has ended that session; it must not serve anybody any more.
            assert client.value("SELECT pg_backend_pid()") != pid
    assert pool_of(penstock)["drops"]["server_fatal"] + pool_of(penstock)["drops"]["server_closed"] >= 20
    wait_for(penstock, idle=4)


def test_a_session_that_dies_while_settings_are_put_on_it_does_not_take_its_client_along(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=1, wait_timeout="60s")
    stop = threading.Event()

    def kill_all_the_time() -> None:
        with directly(penstock.server) as own:
            while not stop.is_set():
                own.execute(TERMINATE_ALL)
                time.sleep(0.003)

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(kill_all_the_time)
        try:
            clients = []
            while len(clients) < 3:
                try:
                    zone = ("UTC", "Asia/Tokyo", "America/Lima")[len(clients)]
                    clients.append(Raw.logged_in(penstock.port, TimeZone=zone))
                except (AssertionError, EOFError, ConnectionError):
                    continue
            for turn in range(200):
                answer = clients[turn % 3].ask("SHOW TimeZone")
                values = [body[6:].decode() for kind, body in answer if kind == b"D"]
                assert values in ([], [("UTC", "Asia/Tokyo", "America/Lima")[turn % 3]])
        finally:
            stop.set()
        job.result(20)
    for client in clients:
        until(lambda client=client: client.ask("SELECT 1")[-2][0] == b"C")
        client.close()
    at_rest(penstock)


# -- the whole server stops -----------------------------------------------------------------------


def test_the_server_stops_and_starts_while_clients_come_and_go(
    make_proxy: Make, alive: EmbeddedPostgres
) -> None:
    penstock = make_proxy(server=alive, max=4, wait_timeout="10s")
    until(lambda: _ready(penstock))
    stop = threading.Event()
    refusals: list[tuple[str, str]] = []

    def come_and_go(number: int) -> int:
        served = 0
        while not stop.is_set():
            try:
                with psycopg.connect(penstock.dsn(), autocommit=True, connect_timeout=20) as client:
                    for _ in range(5):
                        assert client.execute("SELECT %s::int", (number,)).fetchone() == (number,)
                        served += 1
            except psycopg.Error as error:
                refusals.append((error.sqlstate or "", str(error)))
        return served

    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(come_and_go, number) for number in range(6)]
        try:
            for crash in (False, True):
                seen = penstock.metric("penstock_queries_total")
                until(lambda seen=seen: penstock.metric("penstock_queries_total") > seen + 50)
                alive.halt(crash=crash)
                told = len(refusals)
                until(lambda: not _ready(penstock))
                until(lambda told=told: len(refusals) > told)
                assert "latest open failed" in penstock.http("/readyz").text
                alive.start()
                until(lambda: _ready(penstock))
        finally:
            stop.set()
        assert all(job.result(60) > 0 for job in jobs)
    at_rest(penstock)
    assert any("the server is not available" in text for _, text in refusals)
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        assert client.execute("SELECT 'healed'").fetchone() == ("healed",)


def test_a_connected_client_outlives_a_restart_of_the_server(
    make_proxy: Make, alive: EmbeddedPostgres
) -> None:
    penstock = make_proxy(trusting(), server=alive, max=2)
    until(lambda: _ready(penstock))
    with Raw.logged_in(penstock.port) as client:
        assert client.value("SELECT 1") == "1"
        alive.halt()
        until(lambda: pool_of(penstock)["opened"] == 0)
        said = client.error("SELECT 1")
        assert said["S"] == "ERROR"
        assert said["C"] == "08006"
        assert "the server is not available" in said["M"]
        assert "pools.app.backend" in said["H"]
        alive.start()
        until(lambda: _ready(penstock))
        assert client.value("SELECT 2") == "2"
    at_rest(penstock)


def test_it_starts_without_its_database_and_recovers_by_itself(
    make_proxy: Make, alive: EmbeddedPostgres
) -> None:
    alive.halt()
    penstock = make_proxy(server=alive, max=2)
    assert penstock.http("/livez").status == 200
    assert penstock.http("/startupz").status == 200
    until(lambda: penstock.http("/readyz").status == 503)
    with pytest.raises(psycopg.OperationalError, match="the server is not available"):
        psycopg.connect(penstock.dsn())
    alive.start()
    until(lambda: _ready(penstock))
    with psycopg.connect(penstock.dsn()) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_takes_the_connection_and_says_nothing_fails_by_connect_timeout(
    make_proxy: Make,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = trusting().replace("$backend", f"postgresql://app:x@127.0.0.1:{silent.getsockname()[1]}/app")
        penstock = make_proxy(text, max=1, connect_timeout="300ms")
        until(lambda: "connect_timeout" in penstock.http("/readyz").text)
        with Raw(penstock.port) as client:
            client.send(HELLO)
            assert error_of(client.to_the_end())["C"] == "08006"
    assert pool_of(penstock)["busy"] == 0


def test_a_server_that_talks_nonsense_is_not_believed(make_proxy: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as liar:
        stop = threading.Event()

        def lie() -> None:
            liar.settimeout(0.1)
            while not stop.is_set():
                try:
                    peer, _ = liar.accept()
                except TimeoutError:
                    continue
                with peer:
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(lie)
            try:
                text = trusting().replace(
                    "$backend", f"postgresql://app:x@127.0.0.1:{liar.getsockname()[1]}/app?sslmode=disable"
                )
                penstock = make_proxy(text, max=1)
                until(lambda: penstock.events("open_failed"))
                assert penstock.http("/readyz").status == 503
            finally:
                stop.set()
            job.result(10)


# -- the server says no ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "sqlstate"),
    [
        ("postgresql://app:wrong@127.0.0.1:{port}/app", "28P01"),
        ("postgresql://app:{password}@127.0.0.1:{port}/nowhere", "3D000"),
        ("postgresql://app:{password}@127.0.0.1:{port}/app?DateStyle=nonsense", "22023"),
    ],
)
def test_what_the_server_says_at_connect_is_passed_on(
    make_proxy: Make, postgres: EmbeddedPostgres, backend: str, sqlstate: str
) -> None:
    where = backend.format(port=postgres.port, password=postgres.password)
    penstock = make_proxy(trusting().replace("$backend", where))
    with Raw(penstock.port) as client:
        client.send(HELLO)
        said = error_of(client.to_the_end())
    assert said["C"] == sqlstate, said
    assert said["S"] == "FATAL"
    assert penstock.http("/readyz").status == 503
    log = "\n".join(penstock.log)
    assert "wrong" not in log.replace("wrong@", "")
    assert postgres.password not in log


def test_too_many_connections_on_the_server_is_told_in_its_words(
    make_proxy: Make, alive: EmbeddedPostgres
) -> None:
    with directly(alive) as own:
        own.execute("CREATE ROLE plain LOGIN PASSWORD 'plain' CONNECTION LIMIT 1")
        try:
            text = trusting().replace("$backend", f"postgresql://plain:plain@127.0.0.1:{alive.port}/app")
            penstock = make_proxy(text, server=alive, max=3, wait_timeout="2s")
            with (
                Raw.logged_in(penstock.port, user="plain") as first,
                Raw.logged_in(penstock.port, user="plain") as second,
            ):
                assert first.value("SELECT 1") == "1"
                first.ask("BEGIN")
                # There is a session to wait for, so this one waits its time.
                assert second.error("SELECT 1")["C"] == "53300"
                assert "too many connections" in penstock.http("/readyz").text
                first.ask("COMMIT")
                assert second.value("SELECT 2") == "2"
            penstock.stop()
        finally:
            until(
                lambda: (
                    own.execute("SELECT 1 FROM pg_stat_activity WHERE usename = 'plain'").fetchone() is None
                )
            )
            own.execute("DROP ROLE plain")


def test_nobody_listens_where_the_server_should_be(make_proxy: Make) -> None:
    text = trusting().replace("$backend", f"postgresql://app:x@127.0.0.1:{free_port()}/app")
    penstock = make_proxy(text)
    with Raw(penstock.port) as client:
        client.send(HELLO)
        said = error_of(client.to_the_end())
    assert said["C"] == "08006"
    assert "cannot connect" in said["M"]

"""The daemon as an operator meets it: signals, probes, limits, logs, sockets, and what strangers send."""

import contextlib
import json
import random
import resource
import shutil
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from integration.looking import at_rest, pool_of, run, sessions_on, trusting, until, wait_for
from integration.raw import EXECUTE, SYNC, Raw, bind, error_of, message, parse, query, rows, startup
from proxy.embedded import EmbeddedPostgres
from proxy.embedded.binaries import EmbeddedUnavailable
from servers import Penstock, lacking

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
SECRET = "hunter2-and-more"


# -- stopping -------------------------------------------------------------------------------------


def test_term_tells_idle_clients_and_lets_a_running_transaction_finish(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=2)
    with (
        Raw.logged_in(penstock.port) as idle,
        Raw.logged_in(penstock.port) as busy,
        Raw.logged_in(penstock.port) as fresh,
    ):
        idle.ask("SELECT 1")
        busy.ask("BEGIN")
        busy.send(query("SELECT pg_sleep(0.5)"))
        wait_for(penstock, busy=1)
        penstock.signal(signal.SIGTERM)
        for client in (idle, fresh):
            assert error_of(client.to_the_end())["C"] == "57P01"
        assert penstock.http("/readyz").status == 503
        assert penstock.http("/livez").status == 200
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", penstock.port), timeout=5)
        assert b"E" not in [kind for kind, _ in busy.until_ready()]
        assert busy.value("SELECT 'still served'") == "still served"
        answer = busy.ask("COMMIT")
        assert answer[-1] == (b"Z", b"I")
        assert error_of(busy.to_the_end())["C"] == "57P01"
        assert penstock.wait() == 0


def test_term_waits_for_a_statement_without_a_transaction_and_for_those_who_queue(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1)
    with Raw.logged_in(penstock.port) as running, Raw.logged_in(penstock.port) as waiting:
        running.send(query("SELECT pg_sleep(0.5), 'done'"))
        wait_for(penstock, busy=1)
        waiting.send(query("SELECT 'served'"))
        wait_for(penstock, waiting=1)
        penstock.signal(signal.SIGTERM)
        for client in (running, waiting):
            assert len(rows(client.until_ready())) == 1
            assert error_of(client.to_the_end())["C"] == "57P01"
        assert penstock.wait(15) == 0


def test_term_ends_a_session_mode_client_when_its_query_is_done(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=2, pool_mode="session")
    with Raw.logged_in(penstock.port) as idle, Raw.logged_in(penstock.port) as busy:
        idle.ask("SELECT 1")
        busy.send(query("SELECT pg_sleep(0.5), 'done'"))
        wait_for(penstock, busy=2)
        penstock.signal(signal.SIGTERM)
        assert error_of(idle.to_the_end())["C"] == "57P01"
        assert len(rows(busy.until_ready())) == 1
        assert error_of(busy.to_the_end())["C"] == "57P01"
        assert penstock.wait(15) == 0


def test_a_client_that_is_refused_while_draining_is_not_waited_for(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1, wait_timeout="300ms")
    with Raw.logged_in(penstock.port) as holder, Raw.logged_in(penstock.port) as waiting:
        holder.ask("BEGIN")
        waiting.send(query("SELECT 1"))
        wait_for(penstock, waiting=1)
        penstock.signal(signal.SIGTERM)
        assert [error_of([said])["C"] for said in waiting.to_the_end() if said[0] == b"E"] == [
            "53300",
            "57P01",
        ]
        holder.ask("COMMIT")
        assert penstock.wait(15) == 0


def test_a_second_term_stops_at_once(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=2)
    with Raw.logged_in(penstock.port) as client:
        client.ask("BEGIN")
        penstock.signal(signal.SIGTERM)
        until(lambda: penstock.events("drain_started"))
        assert penstock.process is not None
        assert penstock.process.poll() is None
        begun = time.monotonic()
        penstock.signal(signal.SIGTERM)
        assert error_of(client.to_the_end())["C"] == "57P01"
        assert penstock.wait() == 0
        assert time.monotonic() - begun < 10


def test_drain_timeout_ends_those_who_do_not_finish(make_proxy: Make) -> None:
    penstock = make_proxy("drain_timeout = '500ms'\n" + trusting(), max=2)
    with Raw.logged_in(penstock.port) as inside, Raw.logged_in(penstock.port) as running:
        inside.ask("BEGIN")
        running.send(query("SELECT pg_sleep(60)"))
        wait_for(penstock, busy=2)
        penstock.signal(signal.SIGTERM)
        for client in (inside, running):
            said = error_of(client.to_the_end())
            assert said["C"] == "57P01"
            assert "drain_timeout" in said["H"]
        assert penstock.wait(15) == 0


def test_it_says_goodbye_to_the_server(make_proxy: Make) -> None:
    with EmbeddedPostgres(options={"log_connections": "on", "log_disconnections": "on"}) as server:
        penstock = make_proxy(trusting(), server=server, max=4, min=2)
        clients = [Raw.logged_in(penstock.port) for _ in range(4)]
        for client in clients:
            client.ask("BEGIN")
        for client in clients:
            client.ask("COMMIT")
        assert penstock.stop() == 0
        for client in clients:
            client.close()
        until(lambda: server.log.count("disconnection:") >= 4)
        assert "unexpected EOF" not in server.log
        assert "could not receive data" not in server.log


def test_hup_is_answered_in_the_log_and_ends_nothing(penstock: Penstock) -> None:
    penstock.signal(signal.SIGHUP)
    until(lambda: penstock.events("configuration_reloaded"))
    assert penstock.http("/livez").status == 200


# -- looking --------------------------------------------------------------------------------------


def test_promtool_finds_nothing_wrong_with_the_metrics(make_proxy: Make) -> None:
    promtool = shutil.which("promtool") or lacking("there is no promtool (apt-get install prometheus)")
    penstock = make_proxy(trusting(), max=1, getmode="nowait")
    with Raw.logged_in(penstock.port) as client, Raw.logged_in(penstock.port) as other:
        client.ask("BEGIN")
        other.error("SELECT 1")
        done = run(promtool, "check", "metrics", text=penstock.http("/metrics").text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stdout + done.stderr


def test_the_endpoints_answer_and_count_what_went_on(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=2)
    until(lambda: penstock.http("/readyz").status == 200)
    with Raw.logged_in(penstock.port) as client:
        for _ in range(5):
            client.ask("SELECT repeat('x', 1000)")
        assert penstock.metric("penstock_clients", listener="main", state="idle") == 1
        client.ask("BEGIN")
        assert penstock.metric("penstock_clients", listener="main", state="active") == 1
        assert penstock.metric("penstock_pool_busy", pool="app") == 1
        client.ask("COMMIT")
    assert penstock.metric("penstock_queries_total", pool="app") == 7
    assert penstock.metric("penstock_transactions_total", pool="app") == 6
    assert penstock.metric("penstock_bytes_total", pool="app", direction="to_client") > 5000
    for path, status in (
        ("/", 200),
        ("/livez", 200),
        ("/startupz", 200),
        ("/nowhere", 404),
        ("/metrics", 200),
    ):
        assert penstock.http(path).status == status
    assert "app" in penstock.http("/").text


# -- limits ---------------------------------------------------------------------------------------


def test_one_client_more_than_max_clients_is_refused_at_login(make_proxy: Make) -> None:
    penstock = make_proxy(trusting("max_clients = 3"), max=1)
    clients = [Raw.logged_in(penstock.port) for _ in range(3)]
    with Raw(penstock.port) as one_more:
        one_more.send(startup(user="app", database="app"))
        said = error_of(one_more.to_the_end())
    assert (said["S"], said["C"]) == ("FATAL", "53300")
    assert "max_clients" in said["H"]
    clients.pop().close()
    until(lambda: penstock.metric("penstock_clients", listener="main") == 2)
    Raw.logged_in(penstock.port).close()
    assert penstock.metric("penstock_client_refusals_total", reason="max_clients") == 1
    for client in clients:
        client.close()


def test_many_who_log_in_at_once_do_not_get_beyond_max_clients(make_proxy: Make) -> None:
    penstock = make_proxy(
        '[listeners.main]\nprotocol = "postgres"\naddress = "127.0.0.1:$port"\n'
        'max_clients = 3\n[pools.app]\nbackend = "$backend"\n[http]\naddress = "127.0.0.1:$http"\n'
    )
    results: list[object] = []
    ready = threading.Barrier(12)

    def log_in() -> None:
        ready.wait(20)
        try:
            results.append(psycopg.connect(penstock.dsn()))
        except psycopg.OperationalError as error:
            results.append(str(error))

    threads = [threading.Thread(target=log_in) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    inside = [result for result in results if isinstance(result, psycopg.Connection)]
    assert len(inside) == 3
    assert all("too many clients" in str(result) for result in results if result not in inside)
    for client in inside:
        client.close()


def test_the_last_descriptors_are_kept_for_probes(make_proxy: Make) -> None:
    limit = 128
    penstock = make_proxy(
        trusting("max_clients = 20\nlogin_timeout = '30s'"),
        max=2,
        before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
    )
    strangers: list[socket.socket] = []
    try:
        told = []
        while len(strangers) < limit + 20:
            strangers.append(socket.create_connection(("127.0.0.1", penstock.port), timeout=10))
        for sock in strangers:
            sock.settimeout(0.02)
            try:
                told.append(sock.recv(1000))
            except TimeoutError:
                continue
        assert told
        assert all(b"53300" in text for text in told)
        for path in ("/livez", "/metrics", "/api/v1/pools"):
            assert penstock.http(path).status == 200
        assert penstock.metric("penstock_client_refusals_total", reason="descriptors") == len(told)
        for sock in strangers:
            sock.close()
        until(lambda: penstock.metric("penstock_clients", state="login") == 0)
        with Raw.logged_in(penstock.port) as client:
            assert client.value("SELECT 1") == "1"
    finally:
        for sock in strangers:
            sock.close()


def test_idle_transaction_timeout_ends_who_sits_in_a_transaction_and_nobody_else(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=3, idle_transaction_timeout="500ms")
    with (
        Raw.logged_in(penstock.port) as sitter,
        Raw.logged_in(penstock.port) as worker,
        Raw.logged_in(penstock.port) as idle,
    ):
        sitter.ask("BEGIN")
        worker.ask("BEGIN")
        worker.send(query("SELECT pg_sleep(2)"))
        said = error_of(sitter.to_the_end())
        assert said["C"] == "25P03"
        assert "idle_transaction_timeout" in said["H"]
        assert b"E" not in [kind for kind, _ in worker.until_ready()]
        worker.ask("COMMIT")
        assert idle.value("SELECT 1") == "1"
    assert penstock.events("client_closed")[0]["reason"] == "idle_transaction_timeout"
    at_rest(penstock)


def test_a_connection_that_says_nothing_is_closed_after_login_timeout(make_proxy: Make) -> None:
    penstock = make_proxy(trusting("login_timeout = '500ms'"))
    with Raw(penstock.port) as silent, Raw(penstock.port) as half:
        half.send(startup(user="app", database="app")[:10])
        for client in (silent, half):
            said = client.to_the_end()
            assert not said or error_of(said)["C"] == "57P05"
    assert penstock.metric("penstock_client_refusals_total", reason="login_timeout") == 2
    assert penstock.metric("penstock_clients", state="login") == 0


def test_a_slow_uploader_holds_no_session(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1)
    small = query("SELECT '" + "x" * 10_000 + "'")
    extended = parse("SELECT 1") + bind() + EXECUTE + SYNC
    with Raw.logged_in(penstock.port) as slow, Raw.logged_in(penstock.port) as other:
        for half, rest in (
            (small[:5000], small[5000:]),
            (small[:3], small[3:]),
            (extended[:9], extended[9:]),
        ):
            slow.send(half)
            for number in range(10):
                assert other.value(f"SELECT {number}") == str(number)
                assert pool_of(penstock)["busy"] == 0
            slow.send(rest)
            assert len(rows(slow.until_ready())) == 1


# -- strangers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0",
        b"\xff" * 100,
        struct.pack("!ii", 0x7FFFFFFF, 196608),
        struct.pack("!ii", 8, 196608),
        struct.pack("!ii", 8, 0x00020000),
        struct.pack("!ii", 8, 80877103) + b"early",
        struct.pack("!ii", 16, 80877102) + b"wrong key"[:8],
    ],
)
def test_garbage_on_the_port_is_answered_or_closed_and_harms_nobody(make_proxy: Make, garbage: bytes) -> None:
    penstock = make_proxy(trusting(), max=1)
    with Raw(penstock.port) as stranger:
        stranger.send(garbage)
        assert stranger.is_closed()
    with Raw.logged_in(penstock.port) as client:
        assert client.value("SELECT 1") == "1"


@pytest.mark.parametrize(
    "garbage",
    [
        message(b"Q", b"")[:1] + struct.pack("!i", 3),
        b"Q" + struct.pack("!i", -1),
        b"Q" + struct.pack("!i", 0x7FFFFFFF) + b"SELECT",
        message(b"z", b"what is this"),
        message(b"p", b"a password, now?"),
        b"\0" * 100,
        query("SELECT 1") + message(b"z", b"behind a query"),
    ],
)
def test_a_client_that_breaks_the_protocol_is_told_and_closed(make_proxy: Make, garbage: bytes) -> None:
    penstock = make_proxy(trusting("max_message_bytes = 100000"), max=1)
    with Raw.logged_in(penstock.port) as client:
        client.send(garbage)
        said = client.to_the_end()
        assert error_of([said[-1]])["C"] == "08P01", said
    until(lambda: [entry["reason"] for entry in penstock.events("client_closed")] == ["protocol_error"])
    with Raw.logged_in(penstock.port) as other:
        assert other.value("SELECT 1") == "1"
    at_rest(penstock)


def test_a_client_that_breaks_the_protocol_while_it_waits_is_closed_as_well(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1, getmode="wait")
    with Raw.logged_in(penstock.port) as holder, Raw.logged_in(penstock.port) as client:
        holder.ask("BEGIN")
        client.send(query("SELECT 1") + message(b"z", b"behind a query"))
        assert error_of(client.to_the_end())["C"] == "08P01"
        wait_for(penstock, waiting=0, busy=1)
        holder.ask("COMMIT")
    at_rest(penstock)


def test_random_bytes_after_the_login_never_hurt_anybody_else(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=2)
    dice = random.Random(5)
    kinds = b"QPBEDCSHFdcfXpz\0"
    with Raw.logged_in(penstock.port) as other:
        for turn in range(60):
            with Raw.logged_in(penstock.port) as client:
                for _ in range(dice.randrange(1, 6)):
                    kind = kinds[(at := dice.randrange(len(kinds))) : at + 1]
                    body = dice.randbytes(dice.choice((0, 1, 4, 50)))
                    with contextlib.suppress(ConnectionError):  # it may have been closed by now
                        client.send(message(kind, body))
            assert other.value(f"SELECT 'turn {turn}'") == f"turn {turn}"
    assert at_rest(penstock)["opened"] <= 2


# -- logs and secrets -----------------------------------------------------------------------------


def test_every_line_of_the_log_is_json_and_every_end_has_its_reason(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(trusting(), max=2)
    with Raw.logged_in(penstock.port, application_name="new\nline\x1b[31m") as client:
        client.ask("SELECT 1")
        for pid, _, _ in sessions_on(server):
            server.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    Raw.logged_in(penstock.port).close()
    penstock.stop()
    entries = [json.loads(line) for line in penstock.log]
    assert all(entry["timestamp"] and entry["level"] and entry["event"] for entry in entries)
    closed = penstock.events("client_closed") + penstock.events("session_dropped")
    assert len(closed) >= 3
    assert all(entry["reason"] for entry in closed)
    connected = {entry["client"] for entry in penstock.events("client_connected")}
    assert connected == {entry["client"] for entry in penstock.events("client_closed")}


@pytest.fixture
def guarded() -> Iterator[EmbeddedPostgres]:
    """A server whose password is easy to look for."""
    server = EmbeddedPostgres(password=SECRET)
    try:
        server.start()
    except EmbeddedUnavailable as reason:
        lacking(str(reason))
    yield server
    server.stop()


def test_no_secret_is_shown_anywhere(make_proxy: Make, guarded: EmbeddedPostgres) -> None:
    text = """
        [listeners.main]
        protocol = "postgres"
        address = "127.0.0.1:$port"
        [pools.app]
        backend = "$backend"
        [pools.wrong]
        backend = "postgresql://other:wrong-$secret@127.0.0.1:$server_port/app"
        [users.ann]
        password = "ann-$secret"
        [http]
        address = "127.0.0.1:$http"
        [log]
        format = "json"
        level = "debug"
    """.replace("$secret", SECRET).replace("$server_port", str(guarded.port))
    penstock = make_proxy(text, server=guarded)
    with psycopg.connect(penstock.dsn()) as client:
        client.execute("SELECT 1")
    for user, database, password in (
        ("ann", "app", f"ann-{SECRET}"),
        ("other", "wrong", f"wrong-{SECRET}"),
        ("app", "app", "no"),
    ):
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(penstock.dsn(user, database, password))
        assert SECRET not in str(caught.value)
    shown = [penstock.http(path).text for path in ("/", "/metrics", "/api/v1/pools", "/readyz")]
    penstock.stop()
    for text in [*shown, "\n".join(penstock.log)]:
        assert SECRET not in text


# -- sockets --------------------------------------------------------------------------------------


def test_the_unix_socket_is_removed_at_the_end_and_a_stale_one_replaced(penstock: Penstock) -> None:
    path = penstock.socket_dir / f".s.PGSQL.{penstock.port}"
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o777
    penstock.stop()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert path.is_socket()
    penstock.start()
    with psycopg.connect(penstock.socket_dsn()) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    penstock.stop()
    assert not path.exists()


@pytest.mark.parametrize("what", ["live", "file"])
def test_a_socket_that_is_in_use_or_none_at_all_is_left_alone(
    penstock: Penstock, make_proxy: Make, what: str
) -> None:
    path = penstock.socket_dir / f".s.PGSQL.{penstock.port}"
    if what == "file":
        penstock.stop()
        path.write_text("precious")
    text = f"""
        [listeners.other]
        protocol = "postgres"
        address = "unix:{path}"
        [pools.app]
        backend = "$backend"
        [http]
        address = "off"
        [log]
        format = "json"
    """
    second = make_proxy(text, wait=False)
    second.checked = False
    assert second.wait() == 1
    assert "listeners.other.address" in second.events("start_failed")[0]["error"]
    assert not [line for line in second.log if "Traceback" in line]
    if what == "file":
        assert path.read_text() == "precious"
    else:
        with psycopg.connect(penstock.socket_dsn()) as client:
            assert client.execute("SELECT 1").fetchone() == (1,)


def test_an_address_that_is_taken_is_said_in_one_line(penstock: Penstock, make_proxy: Make) -> None:
    text = trusting().replace("127.0.0.1:$port", f"127.0.0.1:{penstock.port}")
    second = make_proxy(text, wait=False)
    second.checked = False
    assert second.wait() == 1
    assert "listeners.main.address" in second.events("start_failed")[0]["error"]
    assert not [line for line in second.log if "Traceback" in line or "never" in line]

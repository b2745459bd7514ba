"""Raw TCP with real sockets: what passes, how each side's end is passed on, what becomes of a session."""

import random
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from integration.far import PATIENCE, Far, connected, echo, read_all, read_exactly, reset_on_close
from integration.looking import at_rest, pool_of, run, until, wait_for
from proxy.embedded import EmbeddedPostgres
from servers import Certificates, Penstock, debian_programs, free_port, lacking

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
MakeFar = Callable[..., Far]

PLAIN = """
[listeners.main]
protocol = "tcp"
address = "127.0.0.1:$port"
pool = "app"
LISTENER

[pools.app]
backend = "BACKEND"
$pool

[http]
address = "127.0.0.1:$http"

[log]
format = "json"
level = "debug"
"""


class Nobody:
    """In place of a PostgreSQL that these tests do not need."""

    def dsn(self) -> str:
        return ""


@pytest.fixture
def make_far() -> Iterator[MakeFar]:
    made: list[Far] = []

    def make(play: Any = echo, **more: Any) -> Far:
        made.append(Far(play, **more))
        return made[-1]

    yield make
    for far in made:
        far.stop()


@pytest.fixture
def make_tcp(make_proxy: Make) -> Make:
    """Penstock before a server: ``make_tcp(far, listener="...", max=2)``."""

    def make(far: Far | str, listener: str = "", more: str = "", **pool: object) -> Penstock:
        url = far if isinstance(far, str) else far.url
        text = PLAIN.replace("LISTENER", listener).replace("BACKEND", url) + more
        return make_proxy(text, server=Nobody(), **pool)

    return make


def is_reset(sock: socket.socket) -> bool:
    """The next thing that comes is a RST."""
    sock.settimeout(PATIENCE)
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def is_turned_away(penstock: Penstock) -> bool:
    """A new client is reset, perhaps before it knows that it is connected."""
    try:
        with connected(penstock.port) as sock:
            return is_reset(sock)
    except ConnectionResetError:
        return True


# -- bytes and ends ---------------------------------------------------------------------------------


def test_bytes_pass_both_ways_and_so_does_the_end_of_one_direction(make_tcp: Make, make_far: MakeFar) -> None:
    far = make_far()
    penstock = make_tcp(far, max=2)
    with connected(penstock.port) as sock:
        sock.sendall(b"hello")
        assert read_exactly(sock, 5) == b"hello"
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"bye"
    until(lambda: far.ends == ["end"])
    assert at_rest(penstock)["drops"]["spent"] == 1


def test_much_passes_whole_however_slowly_it_is_taken(make_tcp: Make, make_far: MakeFar) -> None:
    penstock = make_tcp(make_far())
    data = random.Random(1).randbytes(8_000_000)
    with connected(penstock.port) as sock:

        def send() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(0.3)  # both buffers fill up meanwhile
        assert read_all(sock) == data + b"bye"
        sender.join()


def test_the_server_may_end_its_side_first_and_go_on_listening(make_tcp: Make, make_far: MakeFar) -> None:
    heard: list[bytes] = []

    def play(sock: socket.socket) -> None:
        read_exactly(sock, 1)
        sock.sendall(b"last words")
        sock.shutdown(socket.SHUT_WR)
        heard.append(read_all(sock))

    far = make_far(play)
    penstock = make_tcp(far)
    with connected(penstock.port) as sock:
        sock.sendall(b"?")
        assert read_all(sock) == b"last words"
        sock.sendall(b"still here")
    until(lambda: heard == [b"still here"])
    at_rest(penstock)


def test_a_server_that_closes_closes_the_client(make_tcp: Make, make_far: MakeFar) -> None:
    def play(sock: socket.socket) -> None:
        sock.sendall(read_exactly(sock, 4))

    penstock = make_tcp(make_far(play))
    with connected(penstock.port) as sock:
        sock.sendall(b"once")
        assert read_all(sock) == b"once"
    at_rest(penstock)


def test_a_reset_by_the_client_reaches_the_server_as_one(make_tcp: Make, make_far: MakeFar) -> None:
    far = make_far()
    penstock = make_tcp(far)
    with connected(penstock.port) as sock:
        sock.sendall(b"hello")
        read_exactly(sock, 5)
        reset_on_close(sock)
    until(lambda: far.ends == ["ConnectionResetError"])
    at_rest(penstock)


def test_a_reset_by_the_server_reaches_the_client_as_one(make_tcp: Make, make_far: MakeFar) -> None:
    def play(sock: socket.socket) -> None:
        read_exactly(sock, 1)
        reset_on_close(sock)

    penstock = make_tcp(make_far(play))
    with connected(penstock.port) as sock:
        sock.sendall(b"!")
        assert is_reset(sock)
    at_rest(penstock)


def test_a_client_that_half_closed_and_is_reset_later_is_seen(make_tcp: Make, make_far: MakeFar) -> None:
    stop = threading.Event()

    def play(sock: socket.socket) -> None:
        read_all(sock)
        stop.wait(PATIENCE)

    far = make_far(play)
    penstock = make_tcp(far)
    sock = socket.create_connection(("127.0.0.1", penstock.port))
    sock.sendall(b"a question")
    sock.shutdown(socket.SHUT_WR)
    wait_for(penstock, busy=1)
    reset_on_close(sock)
    sock.close()
    wait_for(penstock, busy=0)
    stop.set()
    at_rest(penstock)


# -- sessions ---------------------------------------------------------------------------------------


def test_sessions_are_connected_before_anybody_needs_them_and_replaced_when_spent(
    make_tcp: Make, make_far: MakeFar
) -> None:
    far = make_far()
    penstock = make_tcp(far, min=2, max=4)
    until(lambda: far.accepted == 2)
    with connected(penstock.port) as sock:
        sock.sendall(b"x")
        read_exactly(sock, 1)
        assert far.accepted == 2
    wait_for(penstock, opened=2, idle=2, closing=0)
    assert far.accepted == 3


def test_a_client_that_says_nothing_leaves_its_session_as_new(make_tcp: Make, make_far: MakeFar) -> None:
    far = make_far()
    penstock = make_tcp(far, min=1, max=1)
    until(lambda: far.accepted == 1)
    for _ in range(3):
        with connected(penstock.port):
            wait_for(penstock, busy=1)
        wait_for(penstock, busy=0, idle=1)
    with connected(penstock.port) as sock:
        sock.sendall(b"x")
        assert read_exactly(sock, 1) == b"x"
        assert far.accepted == 1
        assert far.ends == []


@pytest.mark.parametrize("kept", [0, 1], ids=["connected for the client", "connected before"])
def test_a_server_may_speak_first(make_tcp: Make, make_far: MakeFar, kept: int) -> None:
    def play(sock: socket.socket) -> None:
        sock.sendall(b"220 welcome\r\n")
        echo(sock)

    far = make_far(play)
    penstock = make_tcp(far, min=kept, max=2)
    if kept:
        until(lambda: far.accepted == 1)
        time.sleep(0.1)  # the greeting has been read by now, or is in the socket: both must do
    for _ in range(2):
        with connected(penstock.port) as sock:
            assert read_exactly(sock, 13) == b"220 welcome\r\n"
            sock.sendall(b"x")
            assert read_exactly(sock, 1) == b"x"
    at_rest(penstock)


def test_a_greeting_without_end_is_not_kept_without_bound(make_tcp: Make, make_far: MakeFar) -> None:
    size = 40_000_000

    def play(sock: socket.socket) -> None:
        sock.sendall(bytes(size))

    far = make_far(play)
    penstock = make_tcp(far, min=1, max=1)
    until(lambda: far.accepted == 1)
    time.sleep(0.3)
    assert far.ends == []
    with connected(penstock.port) as sock:
        assert len(read_all(sock)) == size


def test_an_idle_session_that_the_server_ends_is_replaced(make_tcp: Make, make_far: MakeFar) -> None:
    gate = threading.Event()

    def play(sock: socket.socket) -> None:
        if far.accepted == 1:
            gate.wait(PATIENCE)
            return
        echo(sock)

    far = make_far(play)
    penstock = make_tcp(far, min=1, max=1)
    wait_for(penstock, idle=1)
    gate.set()
    until(lambda: far.accepted == 2)
    with connected(penstock.port) as sock:
        sock.sendall(b"x")
        assert read_exactly(sock, 1) == b"x"


def test_whoever_waits_keeps_what_it_sent_even_its_end(make_tcp: Make, make_far: MakeFar) -> None:
    penstock = make_tcp(make_far(), max=1)
    with connected(penstock.port) as first, connected(penstock.port) as second:
        first.sendall(b"1")
        assert read_exactly(first, 1) == b"1"
        wait_for(penstock, waiting=1)
        second.sendall(b"2")
        time.sleep(0.05)
        second.sendall(b"3" * 500_000)
        second.shutdown(socket.SHUT_WR)
        first.close()
        assert read_all(second) == b"2" + b"3" * 500_000 + b"bye"
    at_rest(penstock)


def test_whoever_waits_and_goes_is_taken_out_of_the_queue(make_tcp: Make, make_far: MakeFar) -> None:
    penstock = make_tcp(make_far(), max=1)
    with connected(penstock.port) as first:
        first.sendall(b"1")
        read_exactly(first, 1)
        with connected(penstock.port):
            wait_for(penstock, waiting=1)
        wait_for(penstock, waiting=0)
        with connected(penstock.port) as third:
            third.sendall(b"3")
            wait_for(penstock, waiting=1)
            reset_on_close(third)
        wait_for(penstock, waiting=0)


def test_a_full_pool_resets_the_client_and_says_so(make_tcp: Make, make_far: MakeFar) -> None:
    penstock = make_tcp(make_far(), max=1, getmode="nowait")
    with connected(penstock.port) as first:
        first.sendall(b"1")
        read_exactly(first, 1)
        assert is_turned_away(penstock)
    assert penstock.metric("penstock_client_refusals_total", reason="pool") == 1
    [refused] = penstock.events("client_refused")
    assert "opened=1/1 busy=1" in refused["detail"]


def test_a_server_that_is_down_resets_the_client_and_says_so(make_tcp: Make) -> None:
    penstock = make_tcp(f"tcp://127.0.0.1:{free_port()}", max=1)
    assert is_turned_away(penstock)
    assert penstock.metric("penstock_client_refusals_total", reason="pool") == 1
    assert "cannot connect" in penstock.events("client_refused")[-1]["detail"]


def test_a_client_more_than_max_clients_is_turned_away(make_tcp: Make, make_far: MakeFar) -> None:
    penstock = make_tcp(make_far(), listener="max_clients = 1")
    with connected(penstock.port) as first:
        first.sendall(b"1")
        read_exactly(first, 1)
        with connected(penstock.port) as second:
            assert second.recv(1) == b""
    assert penstock.metric("penstock_client_refusals_total", reason="max_clients") == 1


def test_a_drain_lets_go_of_who_is_idle_and_cuts_the_others_in_the_end(
    make_tcp: Make, make_far: MakeFar
) -> None:
    penstock = make_tcp(make_far(), more="", max=2)
    penstock.stop()
    penstock.config.write_text('drain_timeout = "300ms"\n' + penstock.config.read_text())
    penstock.start()
    with connected(penstock.port) as idle, connected(penstock.port) as busy:
        busy.sendall(b"1")
        read_exactly(busy, 1)
        wait_for(penstock, busy=2)
        penstock.signal(signal.SIGTERM)
        assert idle.recv(1) == b""
        assert read_all(busy) == b""
    assert penstock.wait() == 0


def test_a_client_that_is_silent_for_long_may_be_closed(make_tcp: Make, make_far: MakeFar) -> None:
    penstock = make_tcp(make_far(), max=1, idle_transaction_timeout="300ms")
    with connected(penstock.port) as sock:
        for _ in range(4):
            sock.sendall(b"x")
            assert read_exactly(sock, 1) == b"x"
            time.sleep(0.1)
        assert sock.recv(1) == b""
    at_rest(penstock)
    assert penstock.events("client_closed")[0]["reason"] == "idle_transaction_timeout"


def test_a_new_configuration_holds_for_connections_to_come(make_tcp: Make, make_far: MakeFar) -> None:
    penstock = make_tcp(make_far(), max=2)
    with connected(penstock.port) as before:
        assert _round_trip(before)
        text = penstock.config.read_text().replace('pool = "app"', 'pool = "app"\nproxy_protocol = "require"')
        penstock.config.write_text(text)
        penstock.signal(signal.SIGHUP)
        until(lambda: penstock.events("configuration_reloaded"))
        with connected(penstock.port) as after:
            after.sendall(b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n")
            assert _round_trip(after)
        assert _round_trip(before)
    assert penstock.events("client_connected")[1]["peer"] == "203.0.113.7:4711"


# -- ways to connect --------------------------------------------------------------------------------


def trusting(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.ca)
    return context


@pytest.mark.parametrize("behind", ["tcp", "tls", "unix"])
def test_every_kind_of_client_reaches_every_kind_of_server(
    make_proxy: Make, make_far: MakeFar, certificates: Certificates, folder: Path, behind: str
) -> None:
    far = make_far(
        path=folder / "far" if behind == "unix" else None,
        certificates=certificates if behind == "tls" else None,
    )
    certificate, key = certificates.server
    secure = free_port()
    more = f"""
[listeners.secure]
protocol = "tcp"
address = "127.0.0.1:{secure}"
pool = "app"
tls_mode = "require"
tls_cert_file = "{certificate}"
tls_key_file = "{key}"

[listeners.socket]
protocol = "tcp"
address = "unix:$socket"
pool = "app"
"""
    text = PLAIN.replace("LISTENER", "").replace("BACKEND", far.url) + more
    penstock = make_proxy(text, server=Nobody(), min=2, max=4)
    wait_for(penstock, idle=2)
    with connected(penstock.port) as plain:
        assert _round_trip(plain)
    with (
        connected(secure) as raw,
        trusting(certificates).wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        assert _round_trip(tls)
    with socket.socket(socket.AF_UNIX) as local:
        local.connect(f"{penstock.socket_dir}/.s.PGSQL.{penstock.port}")
        assert _round_trip(local)
    at_rest(penstock)
    assert pool_of(penstock)["opened"] == 2
    assert len(penstock.events("client_closed")) == 3


def _round_trip(sock: socket.socket) -> bool:
    sock.settimeout(PATIENCE)
    sock.sendall(b"x" * 300_000)
    return read_exactly(sock, 300_000) == b"x" * 300_000


@pytest.mark.parametrize("behind", ["tcp", "tls"])
def test_what_was_sent_before_an_end_arrives_through_tls(
    make_tcp: Make, make_far: MakeFar, certificates: Certificates, behind: str
) -> None:
    size = 12_000_000
    heard: list[int] = []

    def play(sock: socket.socket) -> None:
        if read_exactly(sock, 1) == b"D":
            sock.sendall(bytes(size))
        else:
            heard.append(len(read_all(sock)))

    certificate, key = certificates.server
    listener = f'tls_mode = "require"\ntls_cert_file = "{certificate}"\ntls_key_file = "{key}"'
    penstock = make_tcp(make_far(play, certificates=certificates if behind == "tls" else None), listener)
    context = trusting(certificates)
    with connected(penstock.port) as raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
        tls.sendall(b"D")
        time.sleep(0.3)  # the server is done long before the client reads
        assert len(read_all(tls)) == size
    with connected(penstock.port) as raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
        tls.sendall(b"U" + bytes(size))
        tls.unwrap()
    until(lambda: heard == [size])
    at_rest(penstock)


def test_tls_clients_who_cannot_do_it_are_refused(
    make_tcp: Make, make_far: MakeFar, certificates: Certificates
) -> None:
    certificate, key = certificates.server
    listener = f'tls_mode = "require"\ntls_cert_file = "{certificate}"\ntls_key_file = "{key}"'
    penstock = make_tcp(make_far(), listener=listener)
    with connected(penstock.port) as sock:
        sock.sendall(b"this is no TLS at all\r\n")
        try:
            assert read_all(sock)[:1] in (b"", b"\x15")
        except ConnectionResetError:
            pass
    until(lambda: penstock.metric("penstock_client_refusals_total", reason="tls") == 1)
    context = trusting(certificates)
    with connected(penstock.port) as raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
        assert _round_trip(tls)
        tls.unwrap()
    at_rest(penstock)


def test_a_server_whose_certificate_is_a_stranger_s_is_not_used(
    make_tcp: Make, make_far: MakeFar, certificates: Certificates
) -> None:
    far = make_far(certificates=certificates)
    penstock = make_tcp(far.url.replace(str(certificates.ca), str(certificates.stranger_ca)), max=1)
    assert is_turned_away(penstock)
    assert "certificate verify failed" in penstock.events("client_refused")[-1]["detail"]


# -- protocols that keep nothing between clients ------------------------------------------------------


def lines(sock: socket.socket) -> None:
    """A small protocol of lines, like Redis's: PING, RESET, and SLOW, which is answered late."""
    file = sock.makefile("rb")
    for line in file:
        word = line.strip()
        if word == b"SLOW":
            time.sleep(0.2)
        sock.sendall({b"PING": b"+PONG\r\n", b"RESET": b"+RESET\r\n"}.get(word, b"+" + word + b"\r\n"))


STATELESS = r"""
share = "stateless"
reset_script = { send = "RESET\r\n", expect = '+RESET\r\n' }
ping_script = { send = 'PING\x0d\n', expect = "+PONG\r\n" }
ping_interval = "always"
"""


def stateless(make_proxy: Make, far: Far, **pool: object) -> Penstock:
    text = PLAIN.replace("LISTENER", "").replace("BACKEND", f'{far.url}"\n{STATELESS}\n#"')
    return make_proxy(text, server=Nobody(), **pool)


def test_a_session_of_a_stateless_protocol_serves_many_clients(make_proxy: Make, make_far: MakeFar) -> None:
    far = make_far(lines)
    penstock = stateless(make_proxy, far, min=1, max=1)
    for number in range(5):
        with connected(penstock.port) as sock:
            sock.sendall(b"%d\r\n" % number)
            assert read_exactly(sock, 4) == b"+%d\r\n" % number
    pool = at_rest(penstock)
    assert far.accepted == 1
    assert pool["drops"]["spent"] == 0


def test_what_is_left_open_by_a_client_never_reaches_the_next(make_proxy: Make, make_far: MakeFar) -> None:
    far = make_far(lines)
    penstock = stateless(make_proxy, far, min=1, max=1)
    with connected(penstock.port) as sock:
        sock.sendall(b"1\r\n")
        read_exactly(sock, 4)
        sock.sendall(b"SLOW\r\n")
    with connected(penstock.port) as sock:
        sock.sendall(b"mine\r\n")
        assert read_exactly(sock, 7) == b"+mine\r\n"
    assert at_rest(penstock)["drops"]["spent"] == 1
    assert far.accepted == 2


def test_an_answer_that_is_still_under_way_fails_the_reset(make_proxy: Make, make_far: MakeFar) -> None:
    far = make_far(lines)
    penstock = stateless(make_proxy, far, min=1, max=1)
    with connected(penstock.port) as sock:
        # The server has spoken last when the client leaves, and yet owes an answer.
        sock.sendall(b"1\r\nSLOW\r\n")
        assert read_exactly(sock, 4) == b"+1\r\n"
    with connected(penstock.port) as sock:
        sock.sendall(b"mine\r\n")
        assert read_exactly(sock, 7) == b"+mine\r\n"
    assert at_rest(penstock)["drops"]["reset_failed"] == 1


# -- the PROXY protocol -----------------------------------------------------------------------------


def test_a_header_says_where_a_connection_comes_from(make_tcp: Make, make_far: MakeFar) -> None:
    penstock = make_tcp(make_far(), listener='proxy_protocol = "require"', max=2)
    v1 = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
    v2 = bytes.fromhex("0d0a0d0a000d0a515549540a2121") + (39).to_bytes(2, "big")
    v2 += socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + bytes.fromhex("123456780400 00")
    for header in (v1, v2):
        with connected(penstock.port) as sock:
            for byte in header[:-1]:
                sock.sendall(bytes((byte,)))
            sock.sendall(header[-1:] + b"hello")
            assert read_exactly(sock, 5) == b"hello"
    peers = [entry["peer"] for entry in penstock.events("client_connected")]
    assert peers == ["203.0.113.7:4711", "[2001:db8::1]:4660"]


def test_tls_begins_behind_the_header(make_tcp: Make, make_far: MakeFar, certificates: Certificates) -> None:
    certificate, key = certificates.server
    listener = f"""
proxy_protocol = "require"
tls_mode = "require"
tls_cert_file = "{certificate}"
tls_key_file = "{key}"
"""
    penstock = make_tcp(make_far(), listener=listener, max=2)
    context = trusting(certificates)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with connected(penstock.port) as sock:
        head = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                # The first time, header and ClientHello are in one packet.
                sock.sendall(head + outgoing.read())
                head = b""
                came = sock.recv(65536)
                assert came
                incoming.write(came)
            else:
                break
        tls.write(b"hello")
        sock.sendall(outgoing.read())
        answer = b""
        while not answer:
            came = sock.recv(65536)
            assert came
            incoming.write(came)
            try:
                answer = tls.read(5)
            except ssl.SSLWantReadError:
                continue
        assert answer == b"hello"
    assert penstock.events("client_connected")[0]["peer"] == "203.0.113.7:4711"


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\n", b"PROXY TCP4 1.2.3.4\r\n", b"\r\n\r\n\0\r\nQUIX"])
def test_who_brings_no_header_is_refused(make_tcp: Make, make_far: MakeFar, head: bytes) -> None:
    penstock = make_tcp(make_far(), listener='proxy_protocol = "require"')
    with connected(penstock.port) as sock:
        sock.sendall(head)
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass
    assert penstock.metric("penstock_client_refusals_total", reason="protocol_error") == 1


def test_who_is_still_at_the_door_does_not_hold_up_the_end(make_tcp: Make, make_far: MakeFar) -> None:
    penstock = make_tcp(make_far(), listener='proxy_protocol = "require"', max=1)
    with connected(penstock.port) as silent:
        silent.sendall(b"PROXY ")
        time.sleep(0.1)
        penstock.signal(signal.SIGTERM)
        assert penstock.wait(5) == 0


def test_a_header_that_does_not_come_is_not_waited_for(make_tcp: Make, make_far: MakeFar) -> None:
    penstock = make_tcp(make_far(), listener='proxy_protocol = "require"\nlogin_timeout = "200ms"')
    with connected(penstock.port) as silent, connected(penstock.port) as slow:
        slow.sendall(b"PROXY ")
        assert silent.recv(1) == b""
        try:
            assert slow.recv(1) == b""
        except ConnectionResetError:
            pass
    assert penstock.metric("penstock_client_refusals_total", reason="login_timeout") == 2


@pytest.mark.parametrize(
    ("version", "begin"), [("v1", b"PROXY TCP4 127.0.0.1 "), ("v2", b"\r\n\r\n\0\r\nQUIT\n")]
)
def test_a_server_is_told_who_its_client_is(
    make_tcp: Make, make_far: MakeFar, version: str, begin: bytes
) -> None:
    far = make_far()
    penstock = make_tcp(far, send_proxy=version, min=1, max=2)
    with connected(penstock.port) as sock:
        own = sock.getsockname()[1]
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        heard = read_all(sock)
    assert heard.startswith(begin)
    assert heard.endswith(b"hellobye")
    assert (b" %d " % own if version == "v1" else own.to_bytes(2, "big")) in heard
    at_rest(penstock)


# -- PostgreSQL, unread -------------------------------------------------------------------------------

CHAIN = """
[listeners.outer]
protocol = "tcp"
address = "127.0.0.1:$port"
pool = "through"

[pools.through]
backend = "tcp://127.0.0.1:INNER"
send_proxy = "v2"
min = 1
max = 8

[listeners.inner]
protocol = "postgres"
address = "127.0.0.1:INNER"
proxy_protocol = "require"

[pools.app]
backend = "$backend"

[http]
address = "127.0.0.1:$http"

[log]
format = "json"
level = "debug"
"""


def test_postgres_passes_through_and_through_a_second_listener_with_headers(
    make_proxy: Make, postgres: EmbeddedPostgres
) -> None:
    penstock = make_proxy(CHAIN.replace("INNER", str(free_port())))
    for _ in range(3):
        with psycopg.connect(penstock.dsn()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            own = socket.socket(fileno=connection.fileno())
            name = own.getsockname()
            own.detach()
        peers = [
            entry["peer"] for entry in penstock.events("client_connected") if entry["listener"] == "inner"
        ]
        assert f"{name[0]}:{name[1]}" in peers
    at_rest(penstock)
    at_rest(penstock, "through")


@pytest.mark.tls
def test_psql_passes_through_with_its_own_tls(make_tcp: Make, debian_postgres: EmbeddedPostgres) -> None:
    programs = debian_programs()
    psql = shutil.which("psql", path=str(programs)) if programs is not None else None
    if psql is None:
        lacking("there is no psql")
    server = debian_postgres
    penstock = make_tcp(f"tcp://127.0.0.1:{server.port}", min=1, max=2)
    dsn = f"postgresql://{server.user}:{server.password}@127.0.0.1:{penstock.port}/{server.database}"
    for _ in range(2):
        done = run(
            psql, f"{dsn}?sslmode=require", "-Atc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        )
        assert (done.returncode, done.stdout) == (0, "t\n"), done.stderr
    at_rest(penstock)

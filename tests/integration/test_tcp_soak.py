"""Many connections of raw TCP that end in every way, at once; afterwards nothing is left of them."""

import concurrent.futures
import os
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.far import PATIENCE, Far, echo, read_all, read_exactly, reset_on_close
from integration.looking import at_rest, until, wait_for
from servers import Certificates, Penstock, free_port

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]

MANY = """
[listeners.main]
protocol = "tcp"
address = "127.0.0.1:$port"
pool = "app"
max_clients = 2000

[listeners.secure]
protocol = "tcp"
address = "127.0.0.1:SECURE"
pool = "secure"
max_clients = 2000
tls_mode = "require"
tls_cert_file = "CERT"
tls_key_file = "KEY"

[pools.app]
backend = "PLAIN"
min = 3
max = 20

[pools.secure]
backend = "TLS"
min = 3
max = 20

[http]
address = "127.0.0.1:$http"

[log]
format = "json"
level = "debug"
"""


class Nobody:
    """In place of a PostgreSQL that this test does not need."""

    def dsn(self) -> str:
        return ""


def whimsical(sock: socket.socket) -> None:
    """Echo, but a client may ask to be reset or to be hung up on."""
    first = sock.recv(1)
    if first == b"R":
        reset_on_close(sock)
        return
    if first == b"C":
        return
    sock.sendall(first)
    echo(sock)


@pytest.fixture
def fars(certificates: Certificates) -> Iterator[tuple[Far, Far]]:
    both = Far(whimsical), Far(whimsical, certificates=certificates)
    yield both
    for far in both:
        far.stop()


def visit(port: int, context: ssl.SSLContext | None, seed: int) -> str:
    """One client: what it does, and how it ends, is by chance."""
    chance = random.Random(seed)
    how = chance.choice(
        ["talk", "half-close", "reset", "silent", "be reset", "be closed", "reset while asking"]
    )
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    try:
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname="localhost")
        _act(sock, how, chance, context is None)
    except (ConnectionError, ssl.SSLError):
        # What a reset comes to depends on what was under way; that nothing stays is looked at below.
        assert how != "talk"
    finally:
        sock.close()
    return how


def _act(sock: socket.socket, how: str, chance: random.Random, plain: bool) -> None:
    data = b"x" * chance.randrange(1, 100_000)
    if how == "silent":
        return
    if how in ("be reset", "be closed"):
        sock.sendall(b"R" if how == "be reset" else b"C")
        read_all(sock)
        return
    sock.sendall(data)
    if how == "reset while asking":
        reset_on_close(sock)
        return
    if how == "half-close" and plain:
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == data + b"bye"
        return
    assert read_exactly(sock, len(data)) == data
    if how == "reset":
        reset_on_close(sock)


def descriptors(penstock: Penstock) -> int:
    return len(os.listdir(f"/proc/{penstock.pid}/fd"))


def descriptors_at_rest(penstock: Penstock) -> int:
    """As many as stay: the visit that looked at the pools may still be on its way out."""
    fewest = descriptors(penstock)
    for _ in range(20):
        time.sleep(0.05)
        fewest = min(fewest, descriptors(penstock))
    return fewest


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.soak)])
def test_whatever_connections_do_nothing_is_left_of_them(
    make_proxy: Make, fars: tuple[Far, Far], certificates: Certificates, folder: Path, count: int
) -> None:
    plain, secure = fars
    certificate, key = certificates.server
    secure_port = free_port()
    text = MANY.replace("SECURE", str(secure_port)).replace("CERT", str(certificate)).replace("KEY", str(key))
    text = text.replace("PLAIN", plain.url).replace("TLS", secure.url)
    penstock = make_proxy(text, server=Nobody())
    for pool in ("app", "secure"):
        wait_for(penstock, pool, idle=3)
    before = descriptors_at_rest(penstock)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.ca)
    with concurrent.futures.ThreadPoolExecutor(50) as crowd:
        visits = [
            crowd.submit(
                visit, penstock.port if seed % 3 else secure_port, None if seed % 3 else context, seed
            )
            for seed in range(count)
        ]
        for done in concurrent.futures.as_completed(visits):
            done.result()
    for pool in ("app", "secure"):
        at_rest(penstock, pool)
        wait_for(penstock, pool, opened=3, idle=3)
    until(lambda: descriptors(penstock) == before, f"{before} descriptors, as before")
    assert penstock.metric("penstock_clients") == 0

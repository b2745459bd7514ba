"""Versions of the protocol on both sides, and cancel requests that go through several Penstocks."""

import asyncio
import contextlib
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import psycopg
import pytest

from integration.far import Far, read_exactly
from integration.looking import at_rest, directly, sessions_on, trusting, until, wait_for
from integration.raw import PATIENCE, Raw, message, query
from proxy.embedded import EmbeddedPostgres
from proxy.embedded.binaries import find_programs
from servers import USUAL, Certificates, Penstock, lacking

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
NEWEST = {"max_protocol_version": "latest", "min_protocol_version": "3.2"}


def _ask(penstock: Penstock, version: int, **parameters: str) -> Raw:
    # Log in with this version of the startup packet.
    client = Raw(penstock.port)
    pairs = {"user": "app", "database": "app"} | parameters
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in pairs.items()) + b"\0"
    client.send(struct.pack("!ii", len(body) + 8, version) + body)
    return client


def _runs(server: EmbeddedPostgres, text: str) -> bool:
    with directly(server) as connection:
        return any(state == "active" and text in query for _, state, query in sessions_on(connection))


def _cancelled(client: psycopg.Connection, server: EmbeddedPostgres, text: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(client.execute, text)
        until(lambda: _runs(server, text))
        client.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            job.result(20)
    assert client.execute("SELECT 1").fetchone() == (1,)


def test_libpq_18_speaks_3_2_with_its_long_cancel_keys(
    penstock: Penstock, postgres: EmbeddedPostgres
) -> None:
    if psycopg.pq.version() < 180000:
        lacking("this psycopg has an older libpq")
    for bounds, spoken in ((NEWEST, 30002), ({"max_protocol_version": "3.2"}, 30002), ({}, 30000)):
        with psycopg.connect(penstock.dsn(**bounds), autocommit=True) as client:
            assert client.pgconn.full_protocol_version == spoken
            _cancelled(client, postgres, f"SELECT pg_sleep(60), {spoken}")
    at_rest(penstock)


def test_psql_18_is_cancelled_by_ctrl_c_with_a_long_key(
    penstock: Penstock, postgres: EmbeddedPostgres
) -> None:
    with subprocess.Popen(
        [find_programs() / "psql", "-X", "-c", "SELECT pg_sleep(60), 18", penstock.dsn(**NEWEST)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        until(lambda: _runs(postgres, "pg_sleep(60), 18"))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert "canceling statement due to user request" in err


def test_a_client_that_asks_for_more_is_told_what_is_spoken(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1)
    for version, options, spoken, length in (
        (0x30000, {"_pq_.x": "1"}, 0x30000, 8),
        (0x30002, {"_pq_.x": "1"}, 0x30002, 36),
        (0x3270F, {"_pq_.x": "1", "_pq_.y": ""}, 0x30002, 36),
    ):
        with _ask(penstock, version, **options) as client:
            answer = client.until_ready()
            assert answer[0] == (
                b"v",
                struct.pack("!ii", spoken, len(options)) + b"".join(f"{name}\0".encode() for name in options),
            )
            assert [len(body) for kind, body in answer if kind == b"K"] == [length]
            assert client.value("SELECT 1") == "1"
    with _ask(penstock, 0x40000) as client:
        assert client.read()[0] == b"E"


@pytest.mark.parametrize("bounds", ["max_protocol_version=latest&min_protocol_version=3.2", ""])
def test_a_server_is_asked_for_what_its_url_says(
    make_proxy: Make, postgres: EmbeddedPostgres, bounds: str
) -> None:
    penstock = make_proxy(USUAL.replace("$backend", f"{postgres.dsn()}?{bounds}"), max=2)
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        _cancelled(client, postgres, "SELECT pg_sleep(60), 'server'")
    assert not penstock.events("cancel_failed")


def test_an_older_server_negotiates_or_is_refused(
    make_proxy: Make, debian_postgres: EmbeddedPostgres
) -> None:
    url = f"{debian_postgres.dsn()}?sslmode=require&max_protocol_version=3.2"
    other = USUAL + f'[pools.new]\nbackend = "{url}&min_protocol_version=3.2"\n'
    penstock = make_proxy(other.replace("$backend", url), server=debian_postgres)
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        _cancelled(client, debian_postgres, "SELECT pg_sleep(60), 'older'")
        with pytest.raises(psycopg.OperationalError, match=r"min_protocol_version=3\.2"):
            psycopg.connect(penstock.dsn(database="new"))


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("answer", [b"", message(b"E", b"SFATAL\0C08P01\0Mbad packet header\0\0")])
def test_a_server_that_knows_3_0_only_is_asked_again(
    make_proxy: Make, postgres: EmbeddedPostgres, answer: bytes
) -> None:
    asked: list[int] = []

    def old(sock: socket.socket) -> None:
        head = read_exactly(sock, 8)
        length, version = struct.unpack("!ii", head)
        asked.append(version)
        if version == 0x30002:
            sock.sendall(answer)  # as poolers did that were older than the version
            return
        with socket.create_connection(("127.0.0.1", postgres.port), timeout=PATIENCE) as real:
            real.sendall(head + read_exactly(sock, length - 8))
            back = threading.Thread(target=_pump, args=(real, sock))
            back.start()
            _pump(sock, real)
            back.join()

    far = Far(old)
    try:
        url = f"{postgres.dsn()}?sslmode=disable&max_protocol_version=3.2"
        penstock = make_proxy(USUAL.replace("$backend", url.replace(f":{postgres.port}/", f":{far.port}/")))
        with psycopg.connect(penstock.dsn()) as one, psycopg.connect(penstock.dsn()) as two:
            assert one.execute("SELECT 1").fetchone() == two.execute("SELECT 1").fetchone()
        penstock.stop()
    finally:
        far.stop()
    assert asked.count(0x30002) == 1
    assert asked[1:] == [0x30000] * (len(asked) - 1)
    assert not penstock.events("open_failed")


# -- a chain --------------------------------------------------------------------------------------


@pytest.fixture
def chain(make_proxy: Make, postgres: EmbeddedPostgres) -> Iterator[tuple[Penstock, Penstock]]:
    """(near, far): the near one's server is the far one, whose pool has a single session."""
    far = make_proxy(max=1)
    near = make_proxy(USUAL.replace("$backend", far.dsn(**NEWEST)), max=2)
    yield near, far
    assert not near.events("cancel_failed")
    assert not far.events("cancel_refused")
    at_rest(near)
    at_rest(far)


def test_a_cancel_goes_through_to_the_server(
    chain: tuple[Penstock, Penstock], postgres: EmbeddedPostgres
) -> None:
    near, _ = chain
    with psycopg.connect(near.dsn(), autocommit=True) as client:
        _cancelled(client, postgres, "SELECT pg_sleep(60), 'chained'")


def test_a_cancel_finds_a_query_that_waits_in_either_one(chain: tuple[Penstock, Penstock]) -> None:
    near, far = chain
    with ThreadPoolExecutor(3) as pool, psycopg.connect(far.dsn()) as holder:
        clients = [psycopg.connect(near.dsn(), autocommit=True) for _ in range(3)]
        holder.execute("SELECT 1")
        jobs = [pool.submit(client.execute, "SELECT 1") for client in clients[:2]]
        wait_for(far, waiting=2)
        jobs.append(pool.submit(clients[2].execute, "SELECT 1"))
        wait_for(near, waiting=1)
        for client, job in reversed(list(zip(clients, jobs, strict=True))):
            client.cancel_safe()
            with pytest.raises(psycopg.errors.QueryCanceled):
                job.result(20)
        holder.rollback()
        for client in clients:
            assert client.execute("SELECT 2").fetchone() == (2,)
            client.close()


async def test_a_timeout_of_asyncpg_cancels_through_the_chain(
    chain: tuple[Penstock, Penstock], postgres: EmbeddedPostgres
) -> None:
    near, _ = chain
    client = await asyncpg.connect(near.dsn(), statement_cache_size=0)
    try:
        with pytest.raises(asyncio.TimeoutError):
            await client.fetchval("SELECT pg_sleep(60), 'timed'", timeout=0.5)
        assert await client.fetchval("SELECT 3") == 3
    finally:
        await client.close()
    until(lambda: not _runs(postgres, "'timed'"))


@pytest.mark.tls
def test_with_tls_on_every_leg(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    certificate, key = certificates.server
    secured = f'tls_mode = "require"\ntls_cert_file = "{certificate}"\ntls_key_file = "{key}"\n'
    text = USUAL.replace("[listeners.socket]", f"{secured}\n[listeners.socket]")
    far = make_proxy(
        text.replace("$backend", f"{debian_postgres.dsn()}?sslmode=require"), server=debian_postgres, max=1
    )
    url = far.dsn(sslmode="verify-full", sslrootcert=str(certificates.ca), **NEWEST)
    near = make_proxy(
        text.replace("$backend", url.replace("127.0.0.1", "localhost")), server=debian_postgres, max=1
    )
    with psycopg.connect(near.dsn(sslmode="require", **NEWEST), autocommit=True) as client:
        _cancelled(client, debian_postgres, "SELECT pg_sleep(60), 'secured'")
    assert not near.events("cancel_failed")
    assert not far.events("cancel_refused")


def test_a_cancel_that_races_the_end_of_its_query_hits_no_other(
    make_proxy: Make, postgres: EmbeddedPostgres
) -> None:
    far = make_proxy(trusting(), max=1)
    near = make_proxy(trusting().replace("$backend", far.dsn(max_protocol_version="3.2")), max=1)
    stop = threading.Event()

    def victim() -> int:
        done = 0
        with Raw.logged_in(near.port) as client:
            while not stop.is_set():
                client.send(query("SELECT 'v', pg_sleep(0.002)"))
                canceller = threading.Thread(target=client.cancel, args=(near.port,))
                canceller.start()
                client.until_ready()
                canceller.join()
                done += 1
        return done

    def bystander() -> int:
        turns = 0
        with Raw.logged_in(near.port) as client:
            while not stop.is_set():
                turns += 1
                assert client.value(f"SELECT 'b{turns}' FROM pg_sleep(0.001)") == f"b{turns}"
        return turns

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(victim), pool.submit(victim), pool.submit(bystander), pool.submit(bystander)]
        try:
            deadline = time.monotonic() + 1.5
            until(lambda: time.monotonic() > deadline or any(job.done() for job in jobs))
        finally:
            stop.set()
        assert all(job.result(30) > 0 for job in jobs)
    at_rest(near)
    at_rest(far)

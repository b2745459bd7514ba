import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.observe import door, http
from proxy.observe.http import StatusServer

REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
async def server(daemon: Any) -> AsyncIterator[StatusServer]:
    server = StatusServer(("127.0.0.1", 0), daemon)
    await server.start()
    yield server
    await server.stop()


async def ask(server: StatusServer, request: bytes = REQUEST) -> bytes:
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def test_a_visit_ends_with_its_answer(server: StatusServer) -> None:
    answer = await ask(server)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in answer


async def test_a_second_request_in_the_same_visit_is_not_answered(server: StatusServer) -> None:
    assert (await ask(server, REQUEST * 3)).count(b"HTTP/1.1 ") == 1


async def test_who_sends_nothing_is_shown_out(server: StatusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "STAY", 0.1)
    for beginning in (b"", b"GET /livez HTTP/1.1\r\nX: "):
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(beginning)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()


async def test_who_does_not_read_is_shown_out(server: StatusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    much = 16 * 1024 * 1024  # more than the kernel keeps for one connection
    monkeypatch.setattr(door, "STAY", 0.2)
    monkeypatch.setattr(http, "choose", lambda accept: (lambda registry: b"x" * much, "text/plain"))
    loop = asyncio.get_running_loop()
    with socket.socket() as deaf:
        deaf.setblocking(False)
        await loop.sock_connect(deaf, server.address)
        await loop.sock_sendall(deaf, REQUEST.replace(b"/livez", b"/metrics"))
        await asyncio.sleep(0.5)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := await asyncio.wait_for(loop.sock_recv(deaf, 1 << 20), 5):
                received += len(data)
    assert received < much
    assert (await ask(server)).startswith(b"HTTP/1.1 200")


async def test_idle_visitors_do_not_keep_others_out(server: StatusServer) -> None:
    idle = [await asyncio.open_connection(*server.address) for _ in range(door.ROOM + 20)]
    assert (await ask(server)).startswith(b"HTTP/1.1 200")
    for reader, _ in idle[:20]:  # the oldest made room
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
    assert not idle[-1][0].at_eof()
    for _, writer in idle:
        writer.close()


async def test_a_crowd_is_let_in_at_a_pace(server: StatusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "BURST", 5.0)
    monkeypatch.setattr(door, "PACE", 20.0)
    begin = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*(ask(server) for _ in range(15)))
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert asyncio.get_running_loop().time() - begin > 0.3


async def test_a_flood_of_scrapes_is_given_the_same_answer_again(server: StatusServer, daemon: Any) -> None:
    scrape = REQUEST.replace(b"/livez", b"/metrics")
    for _ in range(80):
        assert (await ask(server, scrape)).startswith(b"HTTP/1.1 200")
    assert daemon.asked < 80


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 600_000 + b"\r\n\r\n",
        b"\r\n" * 20_000,
    ],
)
async def test_nonsense_is_answered_or_cut_and_never_logged(
    server: StatusServer, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="uvicorn")
    try:
        answer = await ask(server, request_bytes)
    except ConnectionResetError:
        answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert (await ask(server)).startswith(b"HTTP/1.1 200")
    assert not [record for record in caplog.records if record.name != "asyncio"]


async def test_an_upgrade_and_a_body_are_ignored(server: StatusServer) -> None:
    upgrade = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert (await ask(server, upgrade)).startswith(b"HTTP/1.1 200")
    body = b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000
    assert (await ask(server, body)).startswith(b"HTTP/1.1 200")


async def test_it_answers_when_every_descriptor_is_taken(server: StatusServer) -> None:
    loop = asyncio.get_running_loop()
    await ask(server)
    visitors = [socket.socket() for _ in range(6)]
    for visitor in visitors:
        visitor.setblocking(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), hard))
        with pytest.raises(OSError) as full:  # noqa: PT012
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        assert full.value.errno == errno.EMFILE
        for visitor in visitors:
            await asyncio.wait_for(loop.sock_connect(visitor, server.address), 5)
            await loop.sock_sendall(visitor, REQUEST.replace(b"/livez", b"/metrics"))
            answer = b""
            while data := await asyncio.wait_for(loop.sock_recv(visitor, 65536), 5):
                answer += data
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"\nprocess_open_fds 200.0\n" in answer or b"\nprocess_open_fds 19" in answer
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for visitor in visitors:
            visitor.close()


async def test_stopping_does_not_wait_for_visitors_and_leaks_no_descriptor(daemon: Any) -> None:
    first = StatusServer(("127.0.0.1", 0), daemon)  # the loop opens one for good at its first visit
    await first.start()
    await ask(first)
    await first.stop()
    before = len(os.listdir("/proc/self/fd"))
    server = StatusServer(("127.0.0.1", 0), daemon)
    await server.start()
    idle = [await asyncio.open_connection(*server.address) for _ in range(5)]
    await ask(server)
    begin = asyncio.get_running_loop().time()
    await server.stop()
    assert asyncio.get_running_loop().time() - begin < 2
    for _, writer in idle:
        writer.close()
    await asyncio.sleep(0.2)
    assert len(os.listdir("/proc/self/fd")) <= before

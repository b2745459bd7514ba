"""The two ends of the control socket, talking to each other over a real one."""

import asyncio
import functools
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control.orders import Orders
from proxy.control.client import NotDone, as_text, ask
from proxy.control.server import ControlServer


@pytest.fixture
def orders() -> Orders:
    return Orders()


@pytest.fixture
async def path(folder: Path, orders: Orders) -> AsyncIterator[str]:
    """A control socket on which ``orders`` are taken."""
    server = ControlServer(f"{folder}/control.sock", orders)
    await server.start()
    yield f"{folder}/control.sock"
    await server.stop()


async def tell(path: str, command: str, **said: Any) -> Any:
    return await asyncio.to_thread(functools.partial(ask, path, command, timeout=20, **said))


async def raw(path: str, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_command_is_obeyed_and_answered(path: str, orders: Orders) -> None:
    orders.answer = [{"pool": "app", "busy": 3}]
    assert await tell(path, "pools") == [{"pool": "app", "busy": 3}]
    assert await tell(path, "set", pool="app", values={"max": "3"}) == orders.answer
    assert orders.heard == [("pools",), ("set", "app", {"max": "3"})]


async def test_a_refusal_is_the_daemons_own_sentence(path: str, orders: Orders) -> None:
    orders.refusal = 'there is no pool "öl"'
    with pytest.raises(NotDone, match='there is no pool "öl"'):
        await tell(path, "show", pool="öl")
    with pytest.raises(NotDone, match="there is no such command"):
        await tell(path, "explode")


async def test_only_the_owner_may_open_the_socket(path: str) -> None:
    mode = os.stat(path).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_the_socket_goes_with_the_server_and_a_stale_one_is_replaced(
    folder: Path, orders: Orders
) -> None:
    path = f"{folder}/control.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    server = ControlServer(path, orders)
    await server.start()
    assert await tell(path, "reload") == "done"
    await server.stop()
    assert not os.path.exists(path)
    await server.stop()


async def test_a_socket_in_use_and_a_file_are_left_alone(path: str, folder: Path, orders: Orders) -> None:
    with pytest.raises(OSError, match=r"control\.address: .*another process listens"):
        await ControlServer(path, orders).start()
    assert await tell(path, "reload") == "done"
    file = folder / "precious"
    file.write_text("text")
    with pytest.raises(OSError, match="is not a socket"):
        await ControlServer(str(file), orders).start()
    assert file.read_text() == "text"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /v1/pools HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"404"),
        (b"POST /v1/pools HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{x}", b"409"),
        (b"POST /v1/pools HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n\xff\xff", b"409"),
        (b"POST /v1/pools HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n" + b"[" * 9, b"409"),
        (
            b"POST /v1/pools HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b" " * 200000,
            b"409",
        ),
        (b"rubbish\r\n\r\n", b"400"),
    ],
)
async def test_what_is_no_command_changes_nothing(
    path: str, orders: Orders, request_: bytes, status: bytes
) -> None:
    answer = await raw(path, request_.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n"))
    assert answer.split(b" ", 2)[1] == status, answer
    assert orders.heard == []
    assert await tell(path, "reload") == "done"


def test_no_daemon_is_said_in_a_sentence(folder: Path) -> None:
    path = f"{folder}/control.sock"
    with pytest.raises(NotDone, match=f"no daemon listens on {path}"):
        ask(path, "pools")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
        with pytest.raises(NotDone, match=f"no daemon listens on {path}"):
            ask(path, "pools")
        stale.listen()
        with pytest.raises(NotDone, match=r"did not answer within 0\.2s"):
            ask(path, "pools", timeout=0.2)


async def test_something_else_on_the_socket_is_said_in_a_sentence(folder: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"-ERR what?\r\n")
        writer.close()

    async with await asyncio.start_unix_server(answer, f"{folder}/other.sock"):
        with pytest.raises(NotDone, match="does not answer as Penstock does"):
            await tell(f"{folder}/other.sock", "pools")


def test_answers_are_text_for_people() -> None:
    assert as_text("a sentence") == "a sentence"
    assert as_text({"max": 3, "getmode": "wait", "client_may_set": ["a", "b"], "x": None}) == (
        'max = 3\ngetmode = "wait"\nclient_may_set = ["a", "b"]\nx = null'
    )
    assert as_text([]) == "none"
    table = as_text([{"session": 1, "user": "ann\x1b[2J", "since": 1.5}, {"session": 20, "user": ""}])
    assert table.splitlines() == [
        "session  user        since",
        "1        ann\\x1b[2J  1.5",
        "20       -           -",
    ]

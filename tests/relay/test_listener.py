"""Where clients are accepted: what every connection gets from the socket that listens."""

import asyncio
import socket
from typing import Any

import pytest

from proxy.relay.house import Commons, House
from proxy.relay.listener import Listener
from proxy.relay.sockets import KeepAlive
from relay.stage import Scene
from relay.test_entrance import Desk

OPTIONS = {
    "keepalive": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    "idle": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    "interval": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    "count": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    "user_timeout": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    "nodelay": (socket.IPPROTO_TCP, socket.TCP_NODELAY),
}


def listener(keepalive: KeepAlive) -> Listener:
    house = House("main", Commons(1_000_000, 0), 10, False, keepalive, None)
    return Listener(house, Desk(Scene()), "127.0.0.1", 0, "", 0o600, 10.0)


async def accepted(made: Listener) -> dict[str, int]:
    """The options of a connection that has just been accepted."""
    reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
    await reader.readline()
    entrance: Any = next(iter(made.house.entering))
    sock = entrance._transport.get_extra_info("socket")
    found = {name: sock.getsockopt(*option) for name, option in OPTIONS.items()}
    writer.close()
    await writer.wait_closed()
    while made.house.entering:
        await asyncio.sleep(0.001)
    return found


@pytest.mark.parametrize("uv", [False, True])
def test_an_accepted_connection_has_the_options_of_the_listener_also_after_a_reload(uv: bool) -> None:
    async def scene() -> None:
        made = listener(KeepAlive(idle=31.0, interval=7.0, count=4, user_timeout=21.0))
        await made.start()
        try:
            expected = {"idle": 31, "interval": 7, "count": 4, "user_timeout": 21_000, "nodelay": 1}
            found = await accepted(made)
            assert found.pop("keepalive")
            assert {**found, "nodelay": int(bool(found["nodelay"]))} == expected
            made.adopt(listener(KeepAlive(enabled=False, user_timeout=0.0)))
            found = await accepted(made)
            assert not found["keepalive"]
            assert not found["user_timeout"]
            made.adopt(listener(KeepAlive(idle=9.0)))
            found = await accepted(made)
            assert found["keepalive"]
            assert (found["idle"], found["user_timeout"]) == (9, 60_000)
        finally:
            made.stop_accepting()
            made.stop()

    if uv:
        import uvloop

        uvloop.run(scene())
    else:
        asyncio.run(scene())

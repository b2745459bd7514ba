"""A client whose bytes mean nothing, step by step: its session, its queue, and the ends of both sides."""

from typing import Any

import pytest

from proxy.pool.limits import NOWAIT, WAIT
from proxy.reasons import CloseReason, DropReason
from proxy.relay.opener import SocketOpener
from proxy.relay.pipe import Pipe
from proxy.relay.proxy_header import V1, Origin
from proxy.tcp.client import TcpClient
from proxy.tcp.session import TcpSession
from relay.stage import Scene, Transport, turns


class PipeScene(Scene):
    """A pool of sessions that keep nothing apart, and its clients."""

    def __init__(self, pool_mode: str, **limits: Any) -> None:
        super().__init__(pool_mode, **limits)
        opener = SocketOpener([self.endpoint], lambda session: TcpSession(False, None, None))
        opener.pool = self.pool
        self.pool.opening._opener = opener

    def pipe(self, ahead: bytes = b"", ended: bool = False) -> tuple[Pipe, Transport]:
        transport = Transport()
        origin = Origin(2, "192.0.2.1", 1, "192.0.2.2", 2)
        pipe = Pipe(
            len(self.transports) + 1, transport, self.pool, self.key, TcpClient(), self._ended, origin
        )
        transport.protocol = pipe
        self.transports.append(transport)
        pipe.welcomed(ahead, ended)
        return pipe, transport


@pytest.fixture
def make_scene(make_scene: Any) -> Any:
    return lambda **limits: make_scene("session", PipeScene, **limits)


def end(transport: Transport) -> bool:
    """The other side will say no more."""
    keep: bool = transport.protocol.eof_received()
    if not keep:
        transport.lose()
    return keep


async def test_a_session_is_held_from_the_first_moment_on(make_scene: Any) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.pipe()
    assert scene.shows(busy=1)
    wire.say(b"abc")
    assert server.take() == b"abc"
    server.say(b"def")
    assert wire.take() == b"def"


async def test_what_nobody_used_goes_back(make_scene: Any) -> None:
    scene = make_scene()
    await scene.warm()
    _, wire = scene.pipe()
    assert not end(wire)
    await turns()
    assert scene.shows(idle=1)
    assert scene.ended == [(1, CloseReason.CLIENT_LEFT)]


async def test_what_was_used_is_dropped(make_scene: Any) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.pipe(b"abc")
    assert end(wire)
    assert server.ended
    server.say(b"def")
    assert not end(server)
    assert wire.take() == b"def"
    assert wire.closed
    assert scene.ended == [(1, CloseReason.SERVER_LEFT)]
    await turns()
    assert scene.pool.counters.drops[DropReason.SPENT] == 1


async def test_the_end_of_the_server_s_side_is_passed_on(make_scene: Any) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.pipe(b"abc")
    assert end(server)
    assert wire.ended
    wire.say(b"more")
    assert server.take() == b"abcmore"
    assert not end(wire)
    await turns()
    assert server.closed


async def test_a_greeting_comes_before_everything_else(make_scene: Any) -> None:
    scene = make_scene()
    server = await scene.warm()
    server.say(b"hello ")
    server.say(b"there")
    _, wire = scene.pipe(b"abc")
    assert wire.take() == b"hello there"
    assert server.take() == b"abc"


async def test_a_waiter_keeps_what_it_sent_and_its_end(make_scene: Any) -> None:
    scene = make_scene(getmode=WAIT, max=1)
    first = await scene.warm()
    _, holder = scene.pipe(b"1")
    _, wire = scene.pipe(b"2", ended=True)
    assert wire.paused
    assert scene.shows(busy=1, waiting=1)
    holder.lose()
    await turns()
    first.lose()
    await turns()
    assert scene.server is not first
    assert scene.server.take() == b"2"
    assert scene.server.ended


async def test_a_waiter_that_sent_nothing_and_ends_leaves(make_scene: Any) -> None:
    scene = make_scene(getmode=WAIT, max=1)
    await scene.warm()
    scene.pipe(b"1")
    _, wire = scene.pipe()
    assert not end(wire)
    assert scene.shows(busy=1)


async def test_a_refusal_breaks_the_connection(make_scene: Any) -> None:
    scene = make_scene(getmode=NOWAIT, max=1)
    await scene.warm()
    scene.pipe(b"1")
    _, wire = scene.pipe(b"2")
    assert wire.closed
    assert scene.ended == [(2, CloseReason.REFUSED)]


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_broken_connection_breaks_the_other(make_scene: Any, side: str) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.pipe(b"abc")
    (wire if side == "client" else server).lose(ConnectionResetError("reset"))
    other = server if side == "client" else wire
    assert other.closed
    assert other.ours.getsockopt(1, 13, 8) == b"\x01\0\0\0\0\0\0\0"
    reason = CloseReason.CLIENT_GONE if side == "client" else CloseReason.SESSION_LOST
    assert scene.ended == [(1, reason)]


async def test_a_session_that_an_operator_takes_breaks_the_client(make_scene: Any) -> None:
    scene = make_scene()
    await scene.warm()
    pipe, wire = scene.pipe(b"abc")
    assert pipe.session is not None
    scene.pool.expel(pipe.session, DropReason.CLOSED, "taken")
    assert wire.closed
    assert scene.ended == [(1, CloseReason.SESSION_LOST)]


async def test_a_slow_side_stops_the_reading_of_the_other(make_scene: Any) -> None:
    scene = make_scene()
    server = await scene.warm()
    pipe, wire = scene.pipe(b"abc")
    pipe.pause_writing()
    assert server.paused
    pipe.resume_writing()
    assert not server.paused
    scene.backend.pause_writing()
    assert wire.paused
    scene.backend.resume_writing()
    assert not wire.paused


async def test_a_session_is_told_who_its_client_is_before_anything_else(make_scene: Any) -> None:
    scene = make_scene()
    server = await scene.warm()
    scene.endpoint.send_proxy = V1
    _, wire = scene.pipe(b"abc")
    assert server.take() == b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nabc"
    wire.lose()
    assert scene.pool.counters.drops[DropReason.SPENT] == 1


async def test_a_drain_ends_who_has_said_nothing(make_scene: Any) -> None:
    scene = make_scene()
    await scene.warm()
    pipe, wire = scene.pipe()
    pipe.drain()
    assert wire.closed
    assert scene.ended == [(1, CloseReason.DRAIN)]


async def test_a_client_that_only_listens_and_is_reset_is_found_by_the_sweep(make_scene: Any) -> None:
    scene = make_scene()
    await scene.warm()
    pipe, wire = scene.pipe(b"abc")
    assert end(wire)
    pipe.look_for_hangup()
    assert scene.ended == []
    wire.hang_up()
    pipe.look_for_hangup()
    assert scene.ended == [(1, CloseReason.CLIENT_GONE)]

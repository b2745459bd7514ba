"""A client that has a session of its own from its welcome to its end."""

import asyncio
from collections.abc import Callable
from typing import Any

from proxy.codec import SessionCodec
from proxy.errors import BackendError, PoolError
from proxy.reasons import CloseReason
from proxy.reception import Guest
from proxy.relay.tied import Tied
from proxy.steps import Conversation
from relay.stage import LineClient, Scene, Transport, turns
from relay.test_entrance import Desk, Hall

Make = Callable[..., Scene]


class Soloist(Guest):
    """A guest that must have a session of its own before it is welcomed."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene.pool, "app", "app", LineClient())
        self.codec.keeps = True  # type: ignore[attr-defined]
        self.private = "solo"
        self.learned = False

    def welcome(self, cancel_key: bytes) -> bytes | None:
        return b"welcome\n" if self.learned else None

    def turn_away(self, error: PoolError | BackendError) -> bytes:
        return f"turned away: {type(error).__name__}\n".encode()

    def learn(self, session: SessionCodec) -> None:
        self.learned = True


class Stage(Desk):
    """A desk that takes everybody for a soloist."""

    def log_in(self, *_: Any, **__: Any) -> Conversation[Any]:
        yield b"who?\n"
        return Soloist(self.scene)


def hall_of(scene: Scene) -> Hall:
    hall = Hall(scene)
    hall.desk = Stage(scene)
    return hall


async def tied(scene: Scene) -> tuple[Hall, Transport, Tied]:
    """One that is in, and its session."""
    hall = hall_of(scene)
    wire = hall.knock()
    wire.say(b"me\n")
    await hall.settle()
    assert wire.take() == b"who?\nwelcome\n"
    (client,) = hall.house.clients
    assert isinstance(client, Tied)
    return hall, wire, client


async def test_its_session_is_new_and_ends_with_it(make_scene: Make) -> None:
    scene = make_scene(max=2)
    first = await scene.warm()
    _, wire, _ = await tied(scene)
    assert scene.server is not first
    assert scene.shows(busy=1, idle=1)
    wire.say(b"q1\n")
    assert scene.server.take() == b"q1\n"
    scene.server.say(b"row\nZ\n")
    assert wire.take() == b"row\nZ\n"
    assert scene.shows(busy=1, idle=1)  # no release at the end of a unit of work: it is for life
    wire.say(b"X")
    assert scene.shows(closing=1, idle=1)
    await turns()
    assert scene.server.take() == b"farewell\n"
    assert scene.pool.counters.drops["replication"] == 1


async def test_what_it_runs_when_it_goes_is_cancelled(make_scene: Make) -> None:
    scene = make_scene(max=1)
    _, wire, _ = await tied(scene)
    server = scene.server
    wire.say(b"q1\n")
    wire.lose(ConnectionResetError())
    assert scene.shows(closing=1)
    await turns()
    assert scene.server is not server
    assert scene.server.take() == b"cancel\n"
    assert server.take() == b"q1\nfarewell\n"


async def test_with_no_room_it_is_turned_away(make_scene: Make) -> None:
    scene = make_scene(max=1, getmode=1)
    held = await scene.pool.acquire(scene.key)
    hall = hall_of(scene)
    wire = hall.knock()
    wire.say(b"me\n")
    await hall.settle()
    assert wire.take() == b"who?\nturned away: PoolBusy\n"
    scene.pool.release(held)


async def test_one_that_leaves_before_its_welcome_leaves_no_session(make_scene: Make) -> None:
    scene = make_scene(max=1)
    held = await scene.pool.acquire(scene.key)
    hall = hall_of(scene)
    wire = hall.knock()
    wire.say(b"me\n")
    await turns()
    assert scene.shows(busy=1, waiting=1)
    wire.lose()
    scene.pool.release(held)  # it makes room for one that nobody will have
    scene.server.lose()
    await hall.settle()
    assert scene.shows(closing=1)
    assert scene.pool.counters.drops["replication"] == 1


async def test_a_drain_leaves_it_until_somebody_ends_it(make_scene: Make) -> None:
    scene = make_scene(max=1)
    hall, wire, client = await tied(scene)
    client.drain()
    assert scene.shows(busy=1)
    client.end(CloseReason.DRAIN)
    assert wire.take() == b"fatal drain\n"
    assert not hall.house.clients
    assert scene.shows(closing=1)


async def test_its_session_s_end_is_its_own(make_scene: Make) -> None:
    scene = make_scene(max=1)
    hall, wire, _ = await tied(scene)
    scene.server.lose()
    assert wire.take() == b"fatal session_lost\n"
    assert not hall.house.clients
    await asyncio.sleep(0)
    assert scene.shows()

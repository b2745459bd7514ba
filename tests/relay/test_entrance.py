"""The login of one connection, broken off at every step, and the registry that it ends in."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy.codec import SessionCodec
from proxy.errors import BackendError, PoolError, RemoteProtocolError
from proxy.pool.limits import NOWAIT, WAIT
from proxy.reasons import CloseReason, RefusalReason
from proxy.reception import CancelTarget, Guest, Reception, Refused
from proxy.relay.entrance import Entrance
from proxy.relay.house import Commons, House
from proxy.relay.sockets import KeepAlive
from proxy.steps import Conversation, Work
from relay.stage import LineClient, Scene, Transport, turns

Make = Callable[..., Scene]


class Visitor(Guest):
    """A guest whose settings a session must show once, where it has a name."""

    def __init__(self, scene: Scene, name: str, known: set[str]) -> None:
        super().__init__(scene.pool, "app", "app", LineClient(name))
        self.reply = b"proven\n"
        self.known = known

    def welcome(self, cancel_key: bytes) -> bytes | None:
        name = self.codec.name  # type: ignore[attr-defined]
        return None if name not in self.known else b"welcome\n"

    def turn_away(self, error: PoolError | BackendError) -> bytes:
        return b"turned away\n"

    def learn(self, session: SessionCodec) -> None:
        self.known.add(self.codec.name)  # type: ignore[attr-defined]


class Desk(Reception):
    """Says who it is in one line: ``login NAME``, ``cancel KEY``, or something to refuse or to crash at.

    ``quick NAME`` logs in, too, and nobody but the client is waited for.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.known = {""}
        self.rest: Any = b""  # received beyond the login

    def log_in(
        self, local: bool, refusal: Callable[[], Any], caller: Any = None
    ) -> Conversation[Guest | CancelTarget]:
        line: bytes = yield b"who?\n"
        while not line.endswith(b"\n"):
            line += yield b""
        word, _, rest = line.decode().strip().partition(" ")
        if word == "refuse":
            raise Refused("refused", b"go away\n", RefusalReason.AUTH)
        if word == "break":
            raise RemoteProtocolError("broken")
        if word == "crash":
            raise ZeroDivisionError
        if word == "cancel":
            return CancelTarget(bytes.fromhex(rest))
        no = refusal()
        if no is not None:
            raise Refused(no[1], b"full\n", no[3])
        if word != "quick":
            yield Work(lambda: None)
        visitor = Visitor(self.scene, rest, self.known)
        visitor.rest = self.rest
        return visitor

    def turn_away(self, sqlstate: str, text: str, hint: str) -> bytes:
        return f"fatal {sqlstate}\n".encode()


class Hall:
    """A house with a desk."""

    def __init__(self, scene: Scene, max_clients: int = 10, login_timeout: float = 10.0) -> None:
        self.scene = scene
        self.commons = Commons(1_000_000, 0)
        self.house = House("main", self.commons, max_clients, True, KeepAlive(), None)
        self.desk = Desk(scene)
        self.login_timeout = login_timeout

    def knock(self) -> Transport:
        """A connection is accepted."""
        transport = Transport()
        transport.protocol = entrance = Entrance(self.house, self.desk, self.login_timeout)
        self.scene.transports.append(transport)
        entrance.connection_made(transport)
        return transport

    async def settle(self) -> None:
        """Wait until nobody is at the door any more."""
        async with asyncio.timeout(10):
            while self.house.entering:
                await asyncio.sleep(0.001)


async def test_a_login_ends_in_a_client(make_scene: Make) -> None:
    scene = make_scene()
    hall = Hall(scene)
    server = await scene.warm()
    wire = hall.knock()
    assert wire.take() == b"who?\n"
    wire.say(b"login \n")
    await hall.settle()
    assert wire.take() == b"proven\nwelcome\n"
    wire.say(b"q1\n")
    server.say(b"Z\n")
    assert wire.take() == b"Z\n"
    assert hall.house.states()["idle"] == 1


async def test_a_login_that_waits_for_nobody_ends_in_the_step_of_its_last_word(make_scene: Make) -> None:
    scene = make_scene()
    hall = Hall(scene)
    server = await scene.warm()
    before, timer = asyncio.all_tasks(), hall.house._alarm._handle
    wires = [hall.knock() for _ in range(3)]
    for wire in wires:
        wire.take()
        wire.say(b"quick \n")
        assert wire.take() == b"proven\nwelcome\n"
    assert asyncio.all_tasks() == before
    assert timer is None  # there is one for all of them, set by the first
    assert not hall.house.entering
    wires[0].say(b"q1\n")
    server.say(b"Z\n")
    assert wires[0].take() == b"Z\n"


async def test_what_such_a_client_sent_with_its_last_word_is_not_lost(make_scene: Make) -> None:
    scene = make_scene()
    hall = Hall(scene)
    server = await scene.warm()
    wire = hall.knock()
    hall.desk.rest = b"q1\n"
    wire.say(b"quick \n")
    assert server.take() == b"q1\n"
    server.say(b"Z\n")
    assert wire.take().endswith(b"Z\n")


async def test_a_crash_when_the_client_is_let_in_closes_the_connection(
    make_scene: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    hall = Hall(make_scene())
    wire = hall.knock()
    hall.desk.rest = None  # no bytes at all
    wire.say(b"quick \n")
    assert wire.closed
    assert not hall.house.entering
    assert "task_crashed" in capsys.readouterr().out
    wire.lose()
    assert not hall.house.clients


async def test_each_login_has_its_own_deadline_though_one_timer_serves_them_all(make_scene: Make) -> None:
    hall = Hall(make_scene())
    wires = []
    for timeout in (10.0, 0.05, 0.3):
        hall.login_timeout = timeout
        wires.append(hall.knock())
    async with asyncio.timeout(10):
        while len(hall.house.entering) > 2:
            await asyncio.sleep(0.001)
    assert [wire.closed for wire in wires] == [False, True, False]
    async with asyncio.timeout(10):
        while len(hall.house.entering) > 1:
            await asyncio.sleep(0.001)
    assert [wire.closed for wire in wires] == [False, True, True]
    assert hall.house.refusals[RefusalReason.LOGIN_TIMEOUT] == 2
    wires[0].say(b"quick \n")
    assert hall.house.clients


async def test_what_was_sent_ahead_of_the_welcome_is_not_lost(make_scene: Make) -> None:
    scene = make_scene()
    hall = Hall(scene)
    server = await scene.warm()
    wire = hall.knock()
    wire.say(b"login \n")
    wire.say(b"q1\n")
    await hall.settle()
    assert server.take() == b"q1\n"
    assert not wire.paused
    server.say(b"Z\n")


async def test_a_session_shows_a_client_s_settings_before_its_welcome(make_scene: Make) -> None:
    scene = make_scene()
    hall = Hall(scene)
    server = await scene.warm()
    wire = hall.knock()
    wire.say(b"login ann\n")
    async with asyncio.timeout(10):
        while not server.written:
            await asyncio.sleep(0.001)
    assert server.take() == b"prepare ann\n"
    assert wire.take() == b"who?\nproven\n"
    server.say(b"ok\n")
    await hall.settle()
    assert wire.take() == b"welcome\n"
    assert scene.shows(idle=1)


@pytest.mark.parametrize("how", ["says no", "is lost", "is lost with its answer"])
async def test_a_session_that_fails_meanwhile_turns_the_client_away_once(make_scene: Make, how: str) -> None:
    scene = make_scene()
    hall = Hall(scene)
    server = await scene.warm()
    wire = hall.knock()
    wire.say(b"login ann\n")
    async with asyncio.timeout(10):
        while not server.written:
            await asyncio.sleep(0.001)
    if how != "is lost":
        server.say(b"no\n" if how == "says no" else b"ok\n")
    if how != "says no":
        server.lose()
    await hall.settle()
    assert wire.take() == b"who?\nproven\nturned away\n"
    assert wire.closed
    if how == "says no":
        server.say(b"ok\n")
        await turns()
        assert scene.shows(idle=1)
    assert hall.house.refusals[RefusalReason.POOL] == 1


async def test_a_full_pool_turns_the_client_away(make_scene: Make) -> None:
    scene = make_scene(getmode=NOWAIT)
    hall = Hall(scene)
    server = await scene.warm()
    _, holder = scene.client()
    holder.say(b"q1\n")
    wire = hall.knock()
    wire.say(b"login ann\n")
    await hall.settle()
    assert wire.take().endswith(b"turned away\n")
    server.say(b"Z\n")


@pytest.mark.parametrize(
    ("line", "answer", "reason"),
    [
        (b"refuse\n", b"go away\n", RefusalReason.AUTH),
        (b"break\n", b"fatal 08P01\n", RefusalReason.PROTOCOL),
    ],
)
async def test_who_is_refused_is_told_counted_and_closed(
    make_scene: Make, line: bytes, answer: bytes, reason: RefusalReason
) -> None:
    hall = Hall(make_scene())
    wire = hall.knock()
    wire.take()
    wire.say(line)
    await hall.settle()
    assert wire.take() == answer
    assert wire.closed
    assert hall.house.refusals[reason] == 1


async def test_a_crash_of_ours_closes_the_connection(
    make_scene: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    hall = Hall(make_scene())
    wire = hall.knock()
    wire.say(b"crash\n")
    await hall.settle()
    await turns()
    assert wire.closed
    assert "task_crashed" in capsys.readouterr().out


async def test_who_says_nothing_is_told_and_closed_after_login_timeout(make_scene: Make) -> None:
    hall = Hall(make_scene(), login_timeout=0.01)
    wire = hall.knock()
    await hall.settle()
    assert wire.take() == b"who?\nfatal 57P05\n"
    assert wire.closed


async def test_login_timeout_covers_the_wait_for_a_session(make_scene: Make) -> None:
    scene = make_scene(getmode=WAIT)
    hall = Hall(scene, login_timeout=0.05)
    server = await scene.warm()
    _, holder = scene.client()
    holder.say(b"q1\n")
    wire = hall.knock()
    wire.say(b"login ann\n")
    await hall.settle()
    assert wire.take().endswith(b"fatal 57P05\n")
    assert scene.shows(busy=1)
    server.say(b"Z\n")
    assert scene.shows(idle=1)


async def test_login_timeout_while_a_session_is_being_prepared_drops_that_session(make_scene: Make) -> None:
    scene = make_scene()
    hall = Hall(scene, login_timeout=0.05)
    await scene.warm()
    wire = hall.knock()
    wire.say(b"login ann\n")
    await hall.settle()
    assert wire.closed
    assert scene.shows(closing=1)


async def test_max_clients_holds_for_those_who_log_in_at_the_same_time(make_scene: Make) -> None:
    scene = make_scene()
    hall = Hall(scene, max_clients=2)
    await scene.warm()
    wires = [hall.knock() for _ in range(5)]
    for wire in wires:
        wire.say(b"login \n")
    await hall.settle()
    assert len(hall.house.clients) == 2
    answers = sorted(wire.take() for wire in wires)
    assert answers == [b"who?\nproven\nfatal 53300\n"] * 3 + [b"who?\nproven\nwelcome\n"] * 2
    assert hall.house.refusals[RefusalReason.MAX_CLIENTS] == 3


@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize("name", ["", "ann"])
async def test_a_client_that_vanishes_at_any_step_of_its_login_leaves_nothing(
    make_scene: Make, name: str, after: int
) -> None:
    scene = make_scene()
    hall = Hall(scene)
    server = await scene.warm()
    wire = hall.knock()
    wire.say(f"login {name}\n".encode())
    for _ in range(after):
        await asyncio.sleep(0.0005)
        if server.written == b"prepare ann\n" and after % 2:
            server.take()
            server.say(b"ok\n")
    wire.lose()
    for _ in range(50):
        await asyncio.sleep(0.0005)
        if server.take() == b"prepare ann\n":
            server.say(b"ok\n")
    await hall.settle()
    assert not hall.house.clients
    assert not hall.commons.by_cancel_key
    assert scene.shows(idle=1)


@pytest.mark.parametrize("after", range(6))
async def test_the_daemon_may_end_a_login_at_any_step(make_scene: Make, after: int) -> None:
    scene = make_scene()
    hall = Hall(scene)
    await scene.warm()
    wire = hall.knock()
    wire.say(b"login \n")
    for _ in range(after):
        await asyncio.sleep(0.0005)
    for entrance in list(hall.house.entering):
        entrance.end()
    for client in list(hall.house.clients):
        client.end(CloseReason.DRAIN_TIMEOUT)
    assert wire.closed
    wire.lose()
    await hall.settle()
    assert not hall.house.clients


async def test_a_cancel_request_reaches_the_client_with_that_key_and_no_other(make_scene: Make) -> None:
    scene = make_scene(getmode=WAIT)
    hall = Hall(scene)
    server = await scene.warm()
    wires = []
    for _ in range(3):
        wire = hall.knock()
        wire.say(b"login \n")
        wires.append(wire)
    await hall.settle()
    for number, wire in enumerate(wires):
        wire.take()
        wire.say(f"q{number}\n".encode())
    keys = list(hall.house.clients.values())
    assert len(set(keys)) == 3
    for key in (keys[1], b"no such."):
        request = hall.knock()
        request.say(b"cancel " + key.hex().encode() + b"\n")
        await hall.settle()
        assert request.closed
    assert [wire.take() for wire in wires] == [b"", b"cancelled\n", b""]
    server.say(b"Z\n")
    server.say(b"Z\n")
    assert [wire.take() for wire in wires] == [b"Z\n", b"", b"Z\n"]


async def test_who_comes_in_while_the_daemon_drains_is_ended(make_scene: Make) -> None:
    scene = make_scene()
    hall = Hall(scene)
    await scene.warm()
    wire = hall.knock()
    wire.say(b"login \n")
    hall.commons.draining = True
    await hall.settle()
    assert wire.closed
    assert not hall.house.clients

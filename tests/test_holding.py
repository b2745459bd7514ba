"""Who holds what, as it is shown: real clients on paper sockets, whoever they say they are."""

import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from proxy.holding import MOST, holders
from proxy.relay.client import Client
from proxy.relay.house import Commons, House
from proxy.relay.sockets import KeepAlive
from relay.stage import LineClient, Scene, Transport, turns


class Lodge:
    """A house with the clients of one pool, and the parts that the daemon would have."""

    def __init__(self, **limits: Any) -> None:
        self.scene = Scene(**{"max": 8, **limits})
        keepalive = KeepAlive(enabled=False, idle=0.0, interval=0.0, count=0, user_timeout=0.0)
        self.house = House("main", Commons(1000, 32), 100, False, keepalive, None)
        listener = SimpleNamespace(house=self.house)
        self.parts: Any = SimpleNamespace(pools={"app": self.scene.pool}, listeners={"main": listener})

    def admit(self, name: str = "", user: str = "ann") -> tuple[Client, Transport]:
        client, transport = self.scene.client()
        client.ended = self.house.client_ended
        assert isinstance(client.codec, LineClient)
        client.codec.label = lambda: name  # type: ignore[method-assign]
        self.house.admit(client, self.house.new_cancel_key(), "10.0.0.9:4711", user, False)
        return client, transport


@pytest.fixture
async def make_lodge() -> AsyncIterator[Callable[..., Lodge]]:
    lodges: list[Lodge] = []

    def make(**limits: Any) -> Lodge:
        lodges.append(Lodge(**limits))
        return lodges[-1]

    yield make
    for lodge in lodges:
        for transport in [*lodge.scene.transports, *lodge.scene.endpoint.made]:
            if transport.ours.fileno() >= 0:
                transport.lose()
        await turns()
        await lodge.scene.pool.drain()


async def test_each_busy_session_is_shown_with_its_client(make_lodge: Callable[..., Lodge]) -> None:
    lodge = make_lodge()
    await lodge.scene.warm()
    client, transport = lodge.admit("nightly <b>", "bob")
    transport.say(b"q1\n")
    found = holders(lodge.parts, "app")
    assert found is not None
    (holder,) = found.holders
    assert client.session is not None
    assert (holder.session, holder.client) == (client.session.number, client.number)
    assert (holder.user, holder.peer, holder.application_name) == ("bob", "10.0.0.9:4711", "nightly <b>")
    assert (holder.database, holder.session_user, holder.endpoint) == ("app", "app", "app")
    assert holder.state == "active"
    assert 0.0 <= holder.held < 60.0


async def test_there_is_no_such_pool(make_lodge: Callable[..., Lodge]) -> None:
    assert holders(make_lodge().parts, "other") is None


async def test_whoever_logs_in_holds_a_session_without_being_a_client(make_lodge: Any) -> None:
    lodge = make_lodge()
    pool = lodge.scene.pool
    session = await pool.acquire(lodge.scene.key)
    found = holders(lodge.parts, "app")
    assert [(holder.client, holder.state, holder.user) for holder in found.holders] == [(0, "login", "")]
    pool.release(session)
    assert holders(lodge.parts, "app").holders == ()


async def test_those_who_hold_longest_come_first_and_no_more_than_are_asked_for(make_lodge: Any) -> None:
    lodge = make_lodge()
    pool = lodge.scene.pool
    sessions = [await pool.acquire(lodge.scene.key) for _ in range(4)]
    for since, session in zip((5.0, 50.0, 20.0, 1.0), sessions, strict=True):
        session.busy_since = time.monotonic() - since
    found = holders(lodge.parts, "app", 3)
    assert found.busy == 4
    assert [round(holder.held) for holder in found.holders] == [50, 20, 5]
    assert MOST == 1000
    for session in sessions:
        pool.release(session)


async def test_a_long_name_is_cut(make_lodge: Callable[..., Lodge]) -> None:
    lodge = make_lodge()
    await lodge.scene.warm()
    _, transport = lodge.admit("x" * 5000)
    transport.say(b"q1\n")
    found = holders(lodge.parts, "app")
    assert found is not None
    assert found.holders[0].application_name == "x" * 100 + "..."


# -- those who hold too long --------------------------------------------------------------------


async def test_a_long_hold_is_told_once_for_each_hold(make_lodge: Callable[..., Lodge]) -> None:
    lodge = make_lodge(hold_warning=5.0)
    await lodge.scene.warm()
    client, transport = lodge.admit("nightly", "bob")
    transport.say(b"q1\n")
    session = client.session
    assert session is not None
    since = session.busy_since
    with structlog.testing.capture_logs() as log:
        lodge.house.warn_of_long_holds(since + 4.9)
        assert log == []
        for later in (5.0, 6.0, 100.0):
            lodge.house.warn_of_long_holds(since + later)
    assert log == [
        {
            "event": "session_held_long", "log_level": "warning", "listener": "main", "pool": "app",
            "session": session.number, "client": client.number, "user": "bob",
            "application_name": "nightly", "held": 5.0,
        }
    ]  # fmt: skip
    session.busy_since = since + 200.0  # given back, and held again
    with structlog.testing.capture_logs() as log:
        lodge.house.warn_of_long_holds(since + 204.0)
        lodge.house.warn_of_long_holds(since + 205.0)
    assert [entry["held"] for entry in log] == [5.0]


async def test_without_hold_warning_nobody_is_told_anything(make_lodge: Callable[..., Lodge]) -> None:
    lodge = make_lodge()
    await lodge.scene.warm()
    _, transport = lodge.admit()
    transport.say(b"q1\n")
    with structlog.testing.capture_logs() as log:
        lodge.house.warn_of_long_holds(1e12)
    assert log == []

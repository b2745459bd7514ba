"""The shell of a hub: the session that it holds, who waits for it, and how it gets another."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.codec import SessionCodec
from proxy.errors import RemoteProtocolError
from proxy.hearing import HubCodec
from proxy.holding import holders
from proxy.reasons import CloseReason, DropReason
from proxy.relay.backend import SocketBackend
from proxy.relay.hub import Hubs, ListenHub
from proxy.relay.link import READY
from proxy.steps import Conversation
from relay.stage import LineClient, LineSession, Scene, turns


class LineHub(HubCodec):
    """What the line protocol knows of a hub: each ``Z`` is an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = True
        self.keeps = False
        self.was_heard = b""
        self.log: list[str] = []

    def ready(self, session: SessionCodec, heard: list[bytes]) -> Conversation[None]:
        assert isinstance(session, LineSession)
        return session._ask(b"ready\n")

    def taken(self, session: SessionCodec) -> None:
        self.asked, self.answered = int(self.keeps), 0
        self.log.append("taken")

    def heard(self, data: bytes) -> None:
        if b"nonsense" in data:
            raise RemoteProtocolError("nonsense")
        self.was_heard += data
        self.answered += data.count(b"Z")

    def is_wanted(self) -> bool:
        return self.wanted

    def parting(self, session: SessionCodec) -> Conversation[None]:
        assert isinstance(session, LineSession)
        return session._ask(b"unlisten\n")

    def lost(self, detail: str) -> bool:
        self.log.append(f"lost: {detail}")
        return self.keeps and self.wanted

    def restored(self) -> None:
        self.log.append("restored")

    def abandon(self, detail: str) -> None:
        self.log.append(f"abandoned: {detail}")


class Stage:
    """A pool with one session that a hub holds."""

    def __init__(self, **limits: Any) -> None:
        self.scene = Scene(**{"max": 2, **limits})
        self.hubs = Hubs(self.scene.pool, linger=0.0)
        self.codec = LineHub()
        hub = self.hubs.make(self.codec)
        assert isinstance(hub, ListenHub)
        self.hub = hub

    async def give(self) -> None:
        session = await self.scene.pool.acquire(self.scene.key)
        assert isinstance(session.backend, SocketBackend)
        assert self.hub.reserve()
        self.hub.take(session, session.backend)


@pytest.fixture
async def stage() -> Stage:
    return Stage()


async def test_what_the_session_says_is_heard_and_what_is_asked_is_sent(stage: Stage) -> None:
    await stage.give()
    stage.hub.say(b"listen\n")
    assert stage.scene.server.take() == b"listen\n"
    stage.scene.server.say(b"news\n")
    assert stage.codec.was_heard == b"news\n"
    assert stage.scene.shows(busy=1)


async def test_who_looks_sees_what_the_session_is_for(stage: Stage) -> None:
    await stage.give()
    parts: Any = SimpleNamespace(pools={"app": stage.scene.pool}, listeners={})
    found = holders(parts, "app")
    assert found is not None
    assert [holder.state for holder in found.holders] == ["listen"]


async def test_whoever_waits_for_an_answer_waits_for_its_own(stage: Stage) -> None:
    await stage.give()
    first = asyncio.ensure_future(stage.hub.until(1))
    second = asyncio.ensure_future(stage.hub.until(2))
    await turns()
    stage.scene.server.say(b"Z")
    assert await first
    assert not second.done()
    assert await stage.hub.until(1)
    stage.scene.server.lose()
    assert not await second
    assert not await stage.hub.until(1)


async def test_whoever_waits_too_long_is_told(stage: Stage) -> None:
    stage = Stage(wait_timeout=0.0)
    await stage.give()
    assert not await stage.hub.until(1)


async def test_whoever_waits_and_is_cancelled_leaves_nothing(stage: Stage) -> None:
    await stage.give()
    waiting = asyncio.ensure_future(stage.hub.until(1))
    await turns()
    waiting.cancel()
    stage.scene.server.say(b"Z")
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_one_session_at_least_is_left_for_those_who_do_more(stage: Stage) -> None:
    other = stage.hubs.make(LineHub())
    assert stage.hub.reserve()
    assert not stage.hub.reserve(), "it is coming"
    assert not other.reserve()
    waiting = asyncio.ensure_future(stage.hub.settled())
    await turns()
    stage.hub.unreserve()
    await waiting
    assert other.reserve()
    assert not Stage(max=1).hub.reserve()
    closed = Stage()
    closed.scene.pool.shut()
    assert not closed.hub.reserve()


async def test_when_nobody_listens_the_session_goes_home(stage: Stage) -> None:
    await stage.give()
    stage.codec.wanted = False
    stage.hub.deserted()
    await turns()
    assert stage.scene.server.take() == b"unlisten\n"
    stage.scene.server.say(b"ok\n")
    await turns()
    assert stage.scene.shows(idle=1)
    assert not stage.hubs.all


async def test_when_somebody_listens_again_in_time_it_stays(stage: Stage) -> None:
    await stage.give()
    stage.codec.wanted = False
    stage.hub.deserted()
    stage.codec.wanted = True
    await turns()
    assert stage.scene.server.take() == b""
    assert stage.scene.shows(busy=1)


async def test_a_session_that_will_not_be_silent_is_recovered(stage: Stage) -> None:
    await stage.give()
    stage.hubs.stop()
    await turns()
    stage.scene.server.say(b"no\n")
    await turns()
    assert stage.scene.shows(care=1)


async def test_a_hub_that_nobody_wants_any_more_gives_back_what_it_is_given(stage: Stage) -> None:
    stage.codec.wanted = False
    await stage.give()
    await turns()
    assert stage.scene.server.take() == b"unlisten\n"


async def test_a_lost_session_is_not_replaced_unless_that_is_wanted(stage: Stage) -> None:
    await stage.give()
    stage.scene.server.lose()
    await turns()
    assert stage.codec.log == ["taken", "lost: the server closed the connection"]
    assert not stage.hubs.all
    assert stage.scene.shows()


async def test_nonsense_drops_the_session(stage: Stage) -> None:
    await stage.give()
    stage.scene.server.say(b"nonsense")
    assert stage.codec.log == ["taken", "lost: nonsense"]
    assert stage.scene.counts()["busy"] == 0


async def test_an_operator_may_take_the_session_away(stage: Stage) -> None:
    await stage.give()
    session = stage.hub.session
    assert session is not None
    stage.scene.pool.expel(session, DropReason.CLOSED, "closed by the operator")
    assert stage.codec.log == ["taken", "lost: closed by the operator"]


async def test_with_keep_another_session_is_made_ready_and_taken(stage: Stage) -> None:
    stage.codec.keeps = True
    await stage.give()
    stage.scene.server.lose()
    await turns()
    assert stage.scene.server.take() == b"ready\n"
    stage.scene.server.say(b"ok\n")
    await turns()
    assert stage.codec.log[-1] == "taken", "it does not listen yet"
    stage.scene.server.say(b"Z")
    await turns()
    assert stage.codec.log[-1] == "restored"
    stage.scene.server.say(b"more\n")
    assert stage.codec.was_heard == b"Zmore\n"
    assert stage.scene.shows(busy=1)


async def test_with_keep_a_session_that_somebody_gives_is_as_good(stage: Stage) -> None:
    stage.codec.keeps = True
    await stage.give()
    stage.scene.server.lose()
    await turns()
    late = stage.scene.server
    await stage.give()
    late.say(b"ok\n")
    await turns()
    assert stage.codec.log.count("taken") == 2
    stage.hub.backend.data_received(b"Z")  # type: ignore[union-attr]
    await turns()
    assert stage.codec.log[-1] == "restored"
    assert stage.scene.shows(busy=1, idle=1)


async def test_with_keep_and_no_session_the_clients_are_let_go(stage: Stage) -> None:
    stage.codec.keeps = True
    await stage.give()
    stage.scene.pool.shut()
    stage.scene.server.lose()
    await turns()
    assert stage.codec.log[-1].startswith("abandoned: the server closed the connection; and then: ")
    assert not stage.hubs.all


async def test_a_client_gives_its_session_away(stage: Stage) -> None:
    client, transport = stage.scene.client()
    await stage.scene.warm()
    client.data_received(b"q\n")
    stage.scene.server.take()
    codec = client.codec
    assert isinstance(codec, LineClient)
    codec.again = True
    codec.gift = lambda: stage.hub  # type: ignore[method-assign]
    stage.scene.server.say(b"row Z\n")
    await turns()
    assert stage.scene.server.take() == b"prepare \n"
    stage.scene.server.say(b"ok\n")
    await turns()
    assert stage.codec.log == ["taken"]
    assert client.backend is None
    assert client.phase == READY
    assert stage.scene.shows(busy=1)
    assert transport.take() == b"row Z\ntold \n"


async def test_a_client_is_told_at_once_or_when_it_has_caught_up(stage: Stage) -> None:
    client, transport = stage.scene.client()
    codec = client.codec
    codec.take_news = lambda: b"news\n"  # type: ignore[method-assign]
    client.tell()
    assert transport.take() == b"news\n"
    codec.news = True
    client.pause_writing()
    client.tell()
    assert transport.take() == b""
    client.resume_writing()
    assert transport.take() == b"news\n"


async def test_a_client_that_must_connect_again_is_told_why(stage: Stage) -> None:
    client, transport = stage.scene.client()
    codec = client.codec
    assert isinstance(codec, LineClient)
    await stage.scene.warm()
    client.data_received(b"b\n")
    codec.doom = CloseReason.LISTEN_LOST
    client.tell()
    assert not transport.closed, "it is in a transaction"
    stage.scene.server.say(b"row Z\n")
    codec.news = True
    client.data_received(b"e\n")
    stage.scene.server.say(b"row Z\n")
    assert transport.closed
    assert transport.take().endswith(b"fatal listen_lost\n")
    assert stage.scene.shows(idle=1)

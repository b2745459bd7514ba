"""A session's socket and its conversations: who hears what, and what is left when one is broken off."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy.errors import BackendError
from proxy.pool.session import IDLE
from proxy.reasons import DropReason
from proxy.relay.talk import Talk
from proxy.steps import Conversation, StartTls, Work
from relay.stage import LineSession, Scene, turns

Make = Callable[..., Scene]


@pytest.mark.parametrize("care", ["ping", "reset", "recover"])
@pytest.mark.parametrize("after", range(5))
async def test_care_that_is_broken_off_at_any_step_leaves_the_socket_in_order(
    make_scene: Make, care: str, after: int
) -> None:
    scene = make_scene()
    server = await scene.warm()
    backend = scene.backend
    task = asyncio.ensure_future(getattr(backend, care)())
    for step in range(after):
        if step == 2:
            server.say(b"half of an answer\n")
        await turns(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.holder is None
    assert backend._talk is None
    # Whoever took care of it drops it now; the pool does so on any failure.
    session = await scene.pool.acquire(scene.key)
    scene.pool.release(session)


async def test_a_conversation_hears_what_came_before_it_began(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    session = await scene.pool.acquire(scene.key)
    scene.pool.recover(session)
    server.say(b"early ok\n")
    await turns()
    assert scene.shows(idle=1)
    assert server.take() == b"settle\n"


async def test_a_session_that_is_lost_with_the_last_word_of_a_conversation_is_lost(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    scene.pool.reset(await scene.pool.acquire(scene.key))
    await turns()
    server.say(b"ok\n")
    server.lose()
    await turns()
    assert scene.shows()


async def test_a_session_that_says_goodbye_behind_its_last_answer_is_not_trusted(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    scene.pool.reset(await scene.pool.acquire(scene.key))
    await turns()
    server.say(b"ok\n")
    server.say(b"bye\n")
    await turns()
    assert scene.shows(closing=1)
    assert scene.pool.counters.drops[DropReason.RESET_FAILED] == 1


async def test_a_conversation_on_a_lost_session_fails_at_once(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    backend = scene.backend
    server.lose()
    for care in (backend.ping, backend.reset, backend.recover):
        with pytest.raises(BackendError, match="the server closed the connection"):
            await care()
    assert backend.is_gone()
    backend.abandon()
    await backend.close()


async def test_close_says_goodbye_and_waits_for_the_server(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    task = asyncio.ensure_future(scene.backend.close())
    await turns()
    assert server.take() == b"farewell\n"
    assert not task.done()
    server.lose()
    await task


async def test_a_close_without_words_ends_the_stream(
    make_scene: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene()
    server = await scene.warm()
    monkeypatch.setattr(LineSession, "farewell", lambda self: b"")
    task = asyncio.ensure_future(scene.backend.close())
    await turns()
    assert server.ended
    assert not server.closed
    server.lose()
    await task


async def test_what_an_idle_session_says_is_noted_and_what_a_closing_one_says_is_not(
    make_scene: Make,
) -> None:
    scene = make_scene()
    server = await scene.warm()
    codec = scene.backend.codec
    assert isinstance(codec, LineSession)
    server.say(b"news\n")
    assert codec.noted == [b"news\n"]
    assert scene.backend.session.state == IDLE
    server.say(b"bye\n")
    server.say(b"more\n" * 1000)
    assert len(codec.noted) == 2


# -- talks ----------------------------------------------------------------------------------------


class Owner:
    """Notes what a talk wants of its connection."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.held = False
        self.tls: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    def say(self, data: bytes) -> None:
        self.said.append(data)

    def hold(self) -> None:
        self.held = True

    async def start_tls(self, step: StartTls) -> bytes | None:
        return await self.tls


async def test_a_talk_says_what_is_yielded_and_is_told_what_came() -> None:
    def conversation() -> Conversation[bytes]:
        first: bytes = yield b"hello"
        second: bytes = yield b""
        return first + second

    owner = Owner()
    talk = Talk(conversation(), owner)
    talk.begin()
    talk.feed(b"a")
    talk.feed(b"b")
    assert await talk.future == b"ab"
    assert owner.said == [b"hello"]
    talk.feed(b"c")
    talk.fail(BackendError("too late to matter"))
    assert await talk.future == b"ab"


async def test_what_arrives_during_work_is_kept_for_the_next_step() -> None:
    def conversation() -> Conversation[Any]:
        result = yield Work(lambda: 42)
        received = yield b"done"
        return result, received

    talk = Talk(conversation(), Owner())
    talk.begin()
    talk.feed(b"ea")
    talk.feed(b"rly")
    assert await talk.future == (42, b"early")


async def test_what_a_conversation_did_not_ask_for_is_left_for_whoever_comes_next() -> None:
    def conversation() -> Conversation[object]:
        return (yield Work(lambda: 42))

    talk = Talk(conversation(), Owner())
    talk.begin()
    talk.feed(b"ahead")
    assert await talk.future == 42
    assert talk.early == b"ahead"


async def test_reading_stops_before_tls_begins() -> None:
    def conversation() -> Conversation[object]:
        return (yield StartTls(b"S"))

    owner = Owner()
    talk = Talk(conversation(), owner)
    talk.begin()
    assert owner.said == [b"S"]
    assert owner.held
    owner.tls.set_result(b"certificate")
    assert await talk.future == b"certificate"


@pytest.mark.parametrize("step", ["work", "tls", "nonsense"])
async def test_a_step_that_fails_fails_the_talk(step: str) -> None:
    def crash() -> object:
        raise OSError("it did not work")

    def conversation() -> Conversation[object]:
        kinds: dict[str, Any] = {"work": Work(crash), "tls": StartTls(), "nonsense": 42}
        return (yield kinds[step])

    owner = Owner()
    if step == "tls":
        owner.tls.set_exception(OSError("it did not work"))
    talk = Talk(conversation(), owner)
    talk.begin()
    with pytest.raises(Exception, match=r"it did not work|yielded 42|got int"):
        await talk.future


async def test_a_talk_that_is_given_up_closes_its_conversation() -> None:
    closed = False

    def conversation() -> Conversation[None]:
        nonlocal closed
        try:
            yield b"hello"
        finally:
            closed = True

    talk = Talk(conversation(), Owner())
    talk.begin()
    talk.fail(BackendError("gone"))
    assert closed
    talk.feed(b"late")
    with pytest.raises(BackendError, match="gone"):
        await talk.future

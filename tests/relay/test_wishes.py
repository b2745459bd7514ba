"""What a client wants of its pool reaches the pool, and what a session is like is noted as it comes home."""

from collections.abc import Callable

import pytest

from proxy.pool.limits import TAGS_EXACT
from relay.stage import LineSession, Scene, turns

Make = Callable[..., Scene]


async def test_a_client_without_wishes_is_not_picky(make_scene: Make) -> None:
    client, _ = make_scene().client()
    assert not client.picky
    assert client.key is client.pool.key("app", "app")


async def test_what_a_client_wants_is_what_it_waits_for(make_scene: Make) -> None:
    scene, state = make_scene(), object()
    client, _ = scene.client(wants_new=True, affinity="k", priority=0, cclass="web", tag=state)
    assert (client.wants_new, client.affinity, client.tag, client.priority) == (True, "k", state, 0)
    picky, codec = [client.picky], client.codec
    assert client.key is scene.pool.key("app", "app", "web")
    codec.wants_new, codec.affinity, codec.tag, codec.cclass = False, "", None, ""
    client.adopt_terms()
    picky.append(client.picky)
    assert picky == [True, False]
    assert client.key is scene.pool.key("app", "app")
    for field, value in [("wants_new", True), ("affinity", "k")]:
        assert scene.client(**{field: value})[0].picky


async def test_settings_are_a_wish_only_where_sessions_are_told_apart_by_them(make_scene: Make) -> None:
    """Nearly every client has some, its application_name: it goes the warm way all the same."""
    assert not make_scene().client(tag=object())[0].picky
    assert make_scene(tags=TAGS_EXACT).client(tag=object())[0].picky


async def test_who_was_in_the_queue_when_the_terms_changed_asks_by_the_new_ones_next_time(
    make_scene: Make,
) -> None:
    scene = make_scene()
    server = await scene.warm()
    client, wire = scene.client()
    client.terms_changed = True
    client.codec.wants_new = True
    assert not client.wants_new
    wire.say(b"q1\n")
    assert client.wants_new
    assert not client.terms_changed
    server.say(b"Z\n")
    await turns(3)


async def test_a_session_is_noted_to_be_in_the_state_in_which_it_comes_home(
    make_scene: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = object()
    monkeypatch.setattr(LineSession, "tag", lambda session: state)
    scene = make_scene(tags=TAGS_EXACT)
    server = await scene.warm()
    _, wire = scene.client(tag=state)
    session = scene.backend.session
    session.tag = None
    wire.say(b"q1\n")
    server.say(b"Z\n")
    assert session.tag is state


async def test_a_session_that_is_sent_something_at_each_release_serves_nobody_before_its_answer(
    make_scene: Make,
) -> None:
    scene = make_scene()
    server = await scene.warm()
    scene.pool.resets = True
    _, one = scene.client()
    _, two = scene.client()
    one.say(b"q1\n")
    two.say(b"q2\n")
    server.take()
    server.say(b"Z\n")
    await turns()
    assert server.take() == b"reset\n"
    server.say(b"ok\n")
    await turns()
    assert server.take() == b"q2\n"


async def test_a_session_that_is_never_sent_anything_comes_home_as_it_is(make_scene: Make) -> None:
    scene = make_scene("session")
    server = await scene.warm()
    scene.pool.resets = False
    _, wire = scene.client(keeps=True)
    wire.say(b"q1\n")
    server.say(b"Z\n")
    server.take()
    wire.say(b"X\n")
    await turns()
    assert server.take() == b""
    assert scene.shows(idle=1)


@pytest.mark.parametrize("heard", [b"", b"bye\n"])
async def test_a_ping_by_peek_sends_nothing(
    make_scene: Make, monkeypatch: pytest.MonkeyPatch, heard: bytes
) -> None:
    monkeypatch.setattr(LineSession, "pings_by_peek", lambda session: True)
    scene = make_scene(ping_interval=0.0, peek=False)
    server = await scene.warm()
    server.take()
    if heard:
        server.theirs.send(heard)
    _, wire = scene.client()
    wire.say(b"q1\n")
    await turns()
    assert server.take() == (b"farewell\n" if heard else b"q1\n")

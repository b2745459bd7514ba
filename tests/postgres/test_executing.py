"""One execution in one read: rewritten before there is a session, and never otherwise than with one."""

import pytest

from postgres.playbook import (
    BOUND,
    PARSED,
    ModelServer,
    Scene,
    bind,
    cut,
    describe,
    execute,
    new_session,
    parse,
    sync,
)
from proxy.postgres.messages import message, query, ready

IDLE = ready(73)
ONCE = bind("name"), execute(), sync()


def prepared() -> Scene:
    """A client whose session has its statement."""
    scene = Scene()
    scene.client(parse("SELECT 1", "name"), sync()).server(PARSED, IDLE)
    scene.server_got()
    scene.client_got()
    return scene


def ours(scene: Scene) -> bytes:
    return next(iter(scene.session.prepared)).name


@pytest.mark.parametrize("between", [b"", describe("", "P")])
def test_it_needs_no_second_look(between: bytes) -> None:
    scene = prepared()
    scene.client(bind("name"), between, execute(), sync())
    assert not scene.codec.more
    kinds = "BDES" if between else "BES"
    sent = cut(scene.server_got())
    assert [kind for kind, _ in sent] == list(kinds)
    assert sent[0][1].startswith(b"\0" + ours(scene) + b"\0")
    scene.server(BOUND, IDLE)
    assert (scene.client_told(), scene.is_linked, scene.codec.queries) == (["2", "Z I"], False, 1)


def test_what_waits_for_a_session_is_what_that_will_get() -> None:
    scene = prepared()
    scene.full = True
    scene.client(*ONCE)
    assert scene.is_waiting
    scene.grant()
    assert [kind for kind, _ in cut(scene.server_got())] == ["B", "E", "S"]
    scene.server(BOUND, IDLE)
    assert scene.client_told() == ["2", "Z I"]


def test_a_session_without_the_statement_is_given_it_first() -> None:
    scene = prepared()
    scene.session = new_session(scene.profiles)
    scene.client(*ONCE)
    sent = cut(scene.server_got())
    assert [kind for kind, _ in sent] == ["P", "B", "E", "S"]
    scene.server(PARSED, BOUND, IDLE)
    assert (scene.client_told(), scene.releases) == (["2", "Z I"], 2)


def test_a_session_that_used_another_one_last_has_it_all_the_same() -> None:
    scene = prepared()
    scene.client(parse("SELECT 2", "other"), sync()).server(PARSED, IDLE)
    scene.server_got()
    first, second = scene.session.prepared
    scene.client(*ONCE)
    assert [kind for kind, _ in cut(scene.server_got())] == ["B", "E", "S"]
    assert list(scene.session.prepared) == [second, first], "the longest unused is the first to go"


def test_the_client_s_settings_come_first() -> None:
    scene = prepared()
    scene.client(query("SET application_name = 'x'"))
    model = ModelServer()
    scene.server(model.feed(scene.server_got()))
    scene.session = new_session(scene.profiles)
    scene.client(*ONCE)
    assert scene.prepared == 1
    assert [kind for kind, _ in cut(scene.server_got())] == ["P", "B", "E", "S"]


def test_a_refusal_answers_it_as_any_other() -> None:
    scene = prepared()
    scene.full = True
    scene.client(*ONCE).refuse()
    told = scene.client_told()
    assert (len(told), told[-1]) == (2, "Z I")
    assert not scene.codec.outstanding()
    scene.full = False
    scene.client(*ONCE)
    assert [kind for kind, _ in cut(scene.server_got())] == ["B", "E", "S"], "nothing of it is left over"


@pytest.mark.parametrize(
    "messages",
    [
        (bind("name"), execute()),
        (bind("name"), execute(), sync(), sync()),
        (bind("name"), execute(), bind("name"), execute(), sync()),
        (bind("name"), describe("name"), execute(), sync()),
        (bind("name", "portal"), execute("portal"), sync()),
        (bind("name"), message(b"D", b"P\0\0"), message(b"E", b""), sync()),
        (bind("name"), message(b"D", b"P" + bytes(200)), sync()),
        (bind("name"), execute(), query("SELECT 1")),
    ],
)
def test_whatever_is_of_another_shape_is_looked_at_with_its_session(messages: tuple[bytes, ...]) -> None:
    scene = prepared()
    scene.full = True
    scene.client(*messages)
    assert scene.codec.more
    assert scene.codec.out == b""
    assert scene.codec.used is None


def test_cut_at_any_byte_it_is_the_same() -> None:
    whole = b"".join(ONCE)
    for at in range(1, len(whole)):
        scene = prepared()
        scene.client(whole[:at]).client(whole[at:])
        assert [kind for kind, _ in cut(scene.server_got())] == ["B", "E", "S"]
        scene.server(BOUND, IDLE)
        assert (scene.client_told(), scene.is_linked) == (["2", "Z I"], False)

"""What a client asks is noted while it is watched, and everything passes as it does otherwise."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.playbook import (
    ModelServer,
    Scene,
    bind,
    cut,
    done,
    execute,
    failed,
    parse,
    selected,
    sync,
)
from proxy.asked import Asked
from proxy.postgres.messages import query as simple
from proxy.postgres.messages import ready


def watched(scene: Scene) -> list[Asked]:
    asked: list[Asked] = []
    scene.codec.watch(asked)
    return asked


def texts(asked: list[Asked]) -> list[bytes]:
    return [one.text() for one in asked]


def test_a_query_is_noted_and_what_came_of_it() -> None:
    scene = Scene()
    asked = watched(scene)
    scene.client(simple("BEGIN"), simple("SELECT no"))
    assert texts(asked) == [b"BEGIN", b"SELECT no"]
    assert [one.number for one in asked] == [0, 1]
    scene.server(done("SELECT 7"), ready(84))
    assert (scene.codec.replied(), asked[0].rows, asked[0].failed) == (1, 7, "")
    scene.server(failed("42703"))
    assert (asked[0].failed, asked[1].failed) == ("", "42703")


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_prepared_statement_is_known_by_its_text(mode: str) -> None:
    scene = Scene(mode)
    asked = watched(scene)
    scene.client(parse("SELECT $1", "s1"), sync())
    assert [one.count for one in asked] == [0]
    server = ModelServer()
    scene.server(server.feed(scene.server_got()))
    asked.clear()
    scene.client(bind("s1"), execute(), bind("s1"), execute(), sync())
    assert texts(asked) == [b"SELECT $1"]
    assert asked[0].count == 2


def test_an_unnamed_statement_is_known_by_its_text_on_another_session() -> None:
    scene = Scene()
    asked = watched(scene)
    server = ModelServer()
    scene.client(parse("SELECT 5"), sync())
    scene.server(server.feed(scene.server_got()))
    assert asked == []
    scene.client(bind(), execute(), sync())
    assert texts(asked) == [b"SELECT 5"]


def test_a_refusal_leaves_nothing_noted() -> None:
    scene = Scene(full=True)
    asked = watched(scene)
    scene.client(simple("SELECT 1"))
    assert texts(asked) == [b"SELECT 1"]
    scene.refuse()
    assert asked == []


def test_nobody_notes_where_nobody_watches() -> None:
    scene = Scene()
    asked = watched(scene)
    scene.codec.watch(None)
    scene.client(simple("SELECT 1"))
    assert asked == []
    assert not scene.codec.aside


STREAMS = st.lists(
    st.sampled_from(
        [
            simple("SELECT 1"),
            simple("BEGIN"),
            simple("COMMIT"),
            parse("SELECT 2") + bind() + execute() + sync(),
            parse("SELECT 3", "s") + bind("s") + execute() + sync(),
            bind("s") + execute() + sync(),
            bind() + execute() + sync(),
            sync(),
            simple("SELECT nothing FROM nowhere"),
        ]
    ),
    max_size=8,
)


@given(STREAMS, st.lists(st.integers(0, 400), max_size=4))
def test_to_be_watched_changes_nothing_of_what_passes(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(messages)
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    found = []
    for is_watched in (False, True):
        scene, server = Scene(), ModelServer()
        if is_watched:
            watched(scene)
        log = []
        for begin, end in pairwise(places):
            scene.client(data[begin:end])
            sent = scene.server_got()
            answer = server.feed(sent)
            if answer:
                scene.server(answer)
            log.append((sent, scene.client_got()))
        found.append(log)
    assert _plain(found[0]) == _plain(found[1])


def _plain(log: list[tuple[bytes, bytes]]) -> list[tuple[list[tuple[str, bytes]], bytes]]:
    # Names of ours are numbered through, whoever asks, and their lengths with them.
    names: dict[bytes, bytes] = {}

    def name(match: re.Match[bytes]) -> bytes:
        return names.setdefault(match[0], b"name %d" % len(names))

    return [
        ([(kind, re.sub(rb"penstock_\d+", name, body)) for kind, body in cut(sent)], told)
        for sent, told in log
    ]


def test_what_is_left_is_forgotten_when_the_session_goes() -> None:
    scene = Scene()
    asked = watched(scene)
    scene.client(simple("SELECT 1"))
    scene.server(selected("1"))
    assert asked == []

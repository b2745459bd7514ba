"""What Penstock says itself: refusals of what waits, last words, and the answer when a session has died."""

import pytest

from postgres.playbook import (
    BOUND,
    COPY_IN,
    PARSED,
    Scene,
    bind,
    copy_data,
    copy_done,
    done,
    execute,
    failed,
    flush,
    new_session,
    notice,
    parse,
    selected,
    sync,
    told,
    unnamed,
)
from proxy.errors import PoolBusy, PoolClosed, PoolError, PoolTimeout, QueueFull
from proxy.postgres.answers import fatal, refusal
from proxy.postgres.messages import error, query, read_fields, ready
from proxy.reasons import CloseReason


@pytest.mark.parametrize(
    ("waiting", "words"),
    [
        ([query("a")], ["E 53300", "Z I"]),
        ([query("a"), query("b")], ["E 53300", "Z I"] * 2),
        ([unnamed("a"), query("b")], ["E 53300", "Z I"] * 2),
        ([query("COPY IN"), copy_data(), copy_done(), query("b")], ["E 53300", "Z I"] * 2),
        ([parse("a"), bind(), execute(), flush()], ["E 53300"]),
        ([query("a"), parse("b"), bind()], ["E 53300", "Z I", "E 53300"]),
    ],
)
def test_a_refusal_answers_each_thing_that_is_owed_an_answer_once(
    waiting: list[bytes], words: list[str]
) -> None:
    scene = Scene(full=True).client(*waiting).refuse()
    assert scene.client_told() == words
    # The client goes on: what is left of an open segment is skipped to its Sync.
    open_segment = words[-1] != "Z I"
    scene.client(execute(), sync() if open_segment else b"")
    if open_segment:
        assert scene.client_told() == ["Z I"]
        scene.client(query("SELECT 1"))
    assert scene.is_waiting


def test_a_refusal_in_the_middle_of_a_long_message_drops_the_rest() -> None:
    long = query("SELECT " + "x" * 60_000)
    scene = Scene(full=True).client(long[:30_000]).refuse()
    assert scene.client_told() == ["E 53300", "Z I"]
    assert not scene.client(long[30_000:]).is_waiting
    assert scene.client(query("SELECT 1")).is_waiting
    assert scene.grant().server_got() == query("SELECT 1")


@pytest.mark.parametrize(
    ("cause", "sqlstate", "hint"),
    [
        (PoolBusy("full", "picture"), "53300", "timedwait"),
        (PoolTimeout("late", "picture"), "53300", "pools.app.wait_timeout"),
        (QueueFull("long", "picture"), "53300", "pools.app.max_waiting"),
        (PoolClosed("over", "picture"), "57P01", "Connect again"),
    ],
)
def test_a_refusal_shows_the_picture_and_the_setting_to_change(
    cause: PoolError, sqlstate: str, hint: str
) -> None:
    fields = read_fields(refusal("app", cause)[5:])
    assert (fields["S"], fields["C"], fields["D"]) == ("ERROR", sqlstate, "picture")
    assert hint in fields["H"]


def test_the_server_s_own_words_are_passed_on_as_an_error_of_this_query() -> None:
    codec = Scene(full=True).client(query("a")).codec
    answer = codec.backend_refused(
        "3D000", "no database", {"S": "FATAL", "C": "3D000", "M": "no database", "R": "x"}
    )
    assert told(answer) == ["E 3D000", "Z I"]
    assert b"SERROR\0" in answer
    assert b"FATAL" not in answer


def test_a_cancel_while_it_waits_is_answered_as_a_cancel() -> None:
    scene = Scene(full=True).client(query("a"))
    assert told(scene.codec.canceled()) == ["E 57014", "Z I"]


@pytest.mark.parametrize("reason", list(CloseReason))
def test_there_are_last_words_for_every_end(reason: CloseReason) -> None:
    fields = read_fields(fatal(reason, "because")[5:])
    assert fields["S"] == "FATAL"
    assert fields["D"] == "because"


# -- a session that died ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([query("a")], ["E 08006", "Z I"]),
        ([query("a"), unnamed("b")], ["E 08006", "Z I"] * 2),
        ([parse("a"), bind()], ["E 08006"]),
        ([query("a"), parse("b")], ["E 08006", "Z I", "E 08006"]),
        ([query("COPY IN"), copy_data(), copy_done()], ["E 08006", "Z I"]),
    ],
)
def test_outside_a_transaction_the_client_loses_only_its_answers(
    asked: list[bytes], words: list[str]
) -> None:
    scene = Scene().client(*asked)
    scene.lose_session()
    assert scene.client_told() == words
    if words[-1] != "Z I":
        assert scene.client(execute(), sync()).client_told() == ["Z I"]
    scene.server_got()
    scene.client(query("SELECT 1")).server(selected("1"))
    assert scene.releases == 1


def test_a_copy_that_was_running_is_answered_and_its_late_data_dropped() -> None:
    scene = Scene().client(query("COPY IN")).server(COPY_IN).client(copy_data())
    scene.client_got()
    scene.lose_session()
    assert scene.client_told() == ["E 08006", "Z I"]
    scene.server_got()
    assert scene.client(copy_data(), copy_done()).server_got() == b""
    assert not scene.codec.copy_in


def test_the_last_words_of_the_server_are_the_answer() -> None:
    scene = Scene().client(query("a"), query("b")).server(error("FATAL", "57P01", "going down"))
    scene.lose_session()
    assert scene.client_told() == ["E 57P01", "Z I", "E 08006", "Z I"]


GOING = error("FATAL", "57P01", "going down")


@pytest.mark.parametrize("at", range(len(GOING) + 1))
def test_a_session_that_ends_behind_the_last_answer_is_not_the_client_s_loss(at: int) -> None:
    """The server may be told to end a session right behind its answer, and one read may have both."""
    scene = Scene().client(query("SELECT 1")).server(selected("1") + GOING[:at])
    if at == 0:
        assert not scene.is_linked
        return
    if at < len(GOING):
        scene.server(GOING[at:])
    assert scene.client_told() == told(selected("1"))
    assert not scene.is_linked
    assert scene.releases == 0
    assert scene.session.last_words() == "going down"
    scene.session = new_session(scene.profiles)
    assert scene.client(query("SELECT 2")).server(selected("2")).client_got() == selected("2")
    assert scene.releases == 1


@pytest.mark.parametrize(("mode", "status"), [("transaction", "T"), ("transaction", "E"), ("session", "I")])
def test_a_session_that_ends_in_the_hands_of_its_client_tells_the_client(mode: str, status: str) -> None:
    scene = Scene(mode).client(query("BEGIN")).server(done("BEGIN"), ready(ord(status)), GOING)
    assert scene.client_told() == ["C BEGIN", f"Z {status}", "E 57P01"]
    assert scene.lose_session() is None


def test_where_it_is_not_certain_what_is_owed_the_client_cannot_go_on() -> None:
    scene = Scene().client(parse("COPY IN"), bind(), execute(), sync()).server(PARSED, BOUND, COPY_IN)
    scene.server(failed("57014"))
    assert scene.codec.doubt
    assert scene.lose_session() is None


@pytest.mark.parametrize("status", "TE")
def test_inside_a_transaction_the_client_cannot_go_on(status: str) -> None:
    scene = Scene().client(query("BEGIN")).server(done("BEGIN"), ready(ord(status)))
    assert scene.lose_session() is None


def test_in_session_mode_the_client_cannot_go_on() -> None:
    assert Scene("session").client(query("a")).lose_session() is None


@pytest.mark.parametrize("half", [notice()[:9], notice("x" * 30_000)[:20_000]])
def test_in_the_middle_of_a_message_the_client_cannot_go_on(half: bytes) -> None:
    assert Scene().client(query("a")).server(half).lose_session() is None


def test_a_statement_in_flight_when_the_session_died_is_not_prepared() -> None:
    scene = Scene().client(parse("a"), sync())
    scene.lose_session()
    scene.client_got()
    assert scene.client(bind(), sync()).client_told() == ["E 26000", "Z I"]

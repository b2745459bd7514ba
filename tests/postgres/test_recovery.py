"""How what a vanished client left running is ended; and where that is not certain."""

import pytest

from postgres.playbook import (
    CAP,
    COPY_IN,
    ModelServer,
    Scene,
    bind,
    converse,
    copy_data,
    copy_done,
    done,
    execute,
    flush,
    notice,
    parse,
    row,
    selected,
    sync,
    terminate,
    unnamed,
)
from proxy.errors import BackendError, RemoteProtocolError
from proxy.postgres.messages import READY_IDLE, TERMINATE, parameter_status, query

WRITE = "WRITE it"


def abandoned(*said: bytes, mode: str = "transaction") -> tuple[Scene, ModelServer]:
    """A client that said these, each answered by the model, and vanished; its recovery is under way."""
    scene, model = Scene(mode), ModelServer()
    for message in said:
        scene.client(message)
        back = model.feed(scene.server_got())
        if back and scene.is_linked:
            scene.server(back)
    scene.vanish()
    return scene, model


def recovered(scene: Scene, model: ModelServer) -> None:
    assert scene.recovered == [True]
    converse(scene.recovery, model.feed)
    converse(scene.session.settle(), model.feed)
    assert model.is_resting()


@pytest.mark.parametrize(
    "said",
    [
        [query("BEGIN"), query(WRITE)],
        [query("BEGIN"), query("FAIL")],
        [query("BEGIN"), parse(WRITE) + bind() + execute() + flush()],
        [parse(WRITE) + bind() + execute()],
        [execute("nosuch")],
        [query("COPY IN"), copy_data()],
        [query("COPY IN")],
        [query("BEGIN"), query("COPY IN"), copy_data()],
        [parse("COPY IN") + bind() + execute() + flush(), copy_data()],
        [parse("COPY IN") + bind() + execute() + flush(), copy_data(), copy_done()],
    ],
)
def test_what_was_not_ended_is_ended_and_never_committed(said: list[bytes]) -> None:
    scene, model = abandoned(*said)
    recovered(scene, model)
    assert model.committed == []


def test_what_was_owed_is_read_and_thrown_away() -> None:
    scene, model = Scene(), ModelServer()
    scene.client(query(WRITE), unnamed("SELECT 1"), query("FAIL")).vanish()
    assert scene.codec.must_cancel
    going = [scene.server_got()]
    converse(scene.recovery, lambda sent: model.feed(going.pop() + sent if going else sent))
    converse(scene.session.settle(), model.feed)
    assert model.is_resting()
    assert model.committed == ["it"]


def test_a_copy_that_begins_after_its_client_went_is_failed() -> None:
    scene, model = Scene(), ModelServer()
    scene.client(query("COPY IN"), copy_data()).vanish()
    going = [scene.server_got()]
    converse(scene.recovery, lambda sent: model.feed(going.pop() + sent if going else sent))
    converse(scene.session.settle(), model.feed)
    assert model.is_resting()


@pytest.mark.parametrize("said", [unnamed("COPY IN"), query("COPY IN") + sync()])
def test_a_copy_whose_end_cannot_be_told_is_given_up(said: bytes) -> None:
    scene = Scene().client(said)
    scene.vanish()
    with pytest.raises(BackendError):
        converse(scene.recovery, lambda sent: COPY_IN)


def test_answers_are_drained_however_they_are_cut() -> None:
    answers = selected("1") + notice() + row("x" * 5_000) + done("SELECT 1") + READY_IDLE
    for size in (1, 2, 5, 6, 7, 100, 4_096, len(answers)):
        scene = Scene().client(query("a"), query("b"))
        scene.vanish()
        pieces = [answers[at : at + size] for at in range(0, len(answers), size)]
        converse(scene.recovery, lambda sent, pieces=pieces: pieces.pop(0))  # type: ignore[misc]
        assert not pieces


def test_the_rest_of_a_message_that_was_cut_is_drained() -> None:
    long = row("x" * 50_000)
    scene = Scene().client(query("a")).server(long[:20_000])
    scene.vanish()
    converse(scene.recovery, lambda sent: long[20_000:] + READY_IDLE)


def test_a_notice_behind_the_last_answer_is_harmless() -> None:
    scene = Scene().client(query("a"))
    scene.vanish()
    half = parameter_status("application_name", "x")
    converse(scene.recovery, lambda sent: READY_IDLE + notice() + half[:8])
    model = ModelServer()
    rest = [half[8:]]
    converse(scene.session.settle(), lambda sent: (rest.pop() if rest else b"") + model.feed(sent))
    assert scene.session.reported["application_name"] == "x"


@pytest.mark.parametrize("answer", [READY_IDLE * 2, b"Z\0\0\0\5x", b"D\0\0\0\1xx", READY_IDLE + row("x")])
def test_answers_that_make_no_sense_end_the_session(answer: bytes) -> None:
    scene = Scene().client(query("a"))
    scene.vanish()
    with pytest.raises(RemoteProtocolError):
        converse(scene.recovery, lambda sent: answer)


@pytest.mark.parametrize(
    "scene",
    [
        Scene().client(parse("a"), query("b")),
        Scene().client(query("COPY IN")).server(COPY_IN).client(sync()),
        Scene().client(parse("COPY IN"), bind(), execute(), sync()).server(COPY_IN),
    ],
)
def test_where_the_count_is_not_certain_there_is_no_way_back(scene: Scene) -> None:
    scene.vanish()
    assert scene.recovered == [False]


def test_a_session_cut_in_the_middle_of_a_message_is_not_even_told_goodbye() -> None:
    scene = Scene(cap=CAP).client(query("x" * 50_000)[:20_000])
    assert scene.session.farewell() == TERMINATE
    scene.vanish()
    assert scene.recovered == [False]
    assert scene.session.farewell() == b""


def test_what_is_drained_may_have_changed_any_setting() -> None:
    scene = Scene().client(query("SET application_name = mine"))
    scene.vanish()
    converse(scene.recovery, lambda sent: done("SET") + READY_IDLE)
    assert scene.session.touched_by == scene.codec.number
    assert scene.session.deep


def test_who_says_goodbye_has_asked_for_what_it_sent_before() -> None:
    scene = Scene().client(query("a"), terminate())
    assert scene.recovered == [True]
    assert not scene.codec.must_cancel


def test_a_transaction_in_statement_mode_is_rolled_back_without_a_cancel() -> None:
    scene, model = abandoned(query("BEGIN; " + WRITE), mode="statement")
    assert not scene.codec.must_cancel
    recovered(scene, model)
    assert model.committed == []


def test_a_client_that_left_nothing_gives_its_session_back_as_it_is() -> None:
    scene = Scene("session").client(query("SELECT 1")).server(selected("1"))
    scene.vanish()
    assert scene.releases == 1

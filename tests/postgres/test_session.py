"""One session: pings, resets, settling, taking over for a client, and what it says while nobody holds it."""

from typing import Any

import pytest

from postgres.playbook import (
    DEFAULTS,
    ModelServer,
    Scene,
    bind,
    converse,
    done,
    failed,
    new_codec,
    new_session,
    notice,
    notification,
    parse,
    row,
    sync,
    told,
)
from proxy.errors import BackendError, PingFailed, RemoteProtocolError
from proxy.postgres.messages import READY_IDLE, TERMINATE, error, parameter_status, query, ready
from proxy.postgres.profile import Profiles
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.session_login import Opened
from proxy.postgres.upkeep import Upkeep

RENAMED = parameter_status("application_name", "x")


def session() -> PgSessionCodec:
    return new_session(Profiles())


def answers(*replies: bytes) -> Any:
    left = list(replies)
    return lambda sent: left.pop(0)


def logged_in(rest: bytes) -> PgSessionCodec:
    def login() -> Any:
        yield b""
        return Opened(dict(DEFAULTS), 1, b"abcd", False, "trust", rest)

    opened = PgSessionCodec(Profiles(), login)
    converse(opened.log_in(), lambda sent: b"x")
    return opened


def test_what_the_server_says_behind_its_welcome_is_noted() -> None:
    opened = logged_in(RENAMED + notice()[:7])
    assert opened.reported["application_name"] == "x"
    assert opened.defaults["application_name"] == ""
    assert opened.unlinked(notice()[7:]) == ""
    with pytest.raises(RemoteProtocolError, match="going down"):
        logged_in(error("FATAL", "57P01", "going down"))


# -- ping, reset, settle ----------------------------------------------------------------------------


def test_a_ping_is_an_empty_query_and_any_error_fails_it() -> None:
    converse(session().ping(), ModelServer().feed)
    with pytest.raises(PingFailed, match="no"):
        converse(session().ping(), answers(failed() + READY_IDLE))


def test_answers_may_come_in_pieces_and_with_what_comes_at_any_time() -> None:
    reply = notice() + RENAMED + b"I\0\0\0\4" + notification() + READY_IDLE
    pinged = session()
    converse(pinged.ping(), answers(*(reply[at : at + 3] for at in range(0, len(reply), 3))))
    assert pinged.reported["application_name"] == "x"


def test_a_message_that_began_while_nobody_held_it_ends_in_a_conversation() -> None:
    pinged = session()
    assert pinged.unlinked(RENAMED[:9]) == ""
    converse(pinged.ping(), answers(RENAMED[9:] + READY_IDLE + notice()[:9]))
    assert pinged.reported["application_name"] == "x"
    assert pinged.unlinked(notice()[9:]) == ""
    assert pinged.tail == b""


@pytest.mark.parametrize("more", [READY_IDLE, row("x"), error("FATAL", "57P01", "going down")])
def test_more_than_was_asked_for_ends_the_session(more: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        converse(session().ping(), answers(READY_IDLE + more))


def test_a_reset_leaves_nothing_of_anybody() -> None:
    reset = session()
    reset.touched_by, reset.deep, reset.unnamed = 3, True, b"P"
    reset.profile = reset.profiles.of({"timezone": "CET"})
    converse(reset.reset(), ModelServer().feed)
    assert (reset.touched_by, reset.deep, reset.unnamed) == (0, False, None)
    assert reset.profile is reset.profiles.empty


def test_a_reset_that_fails_is_a_failure() -> None:
    with pytest.raises(BackendError, match="DISCARD ALL failed"):
        converse(session().reset(), answers(failed("25001") + READY_IDLE))


@pytest.mark.parametrize("status", [84, 69])
def test_settling_rolls_back_and_proves_that_nothing_is_left(status: int) -> None:
    settled, model = session(), ModelServer()
    settled.status = status
    settled.unnamed = b"P"
    model.feed(query("BEGIN; WRITE it") + (query("FAIL") if status == 69 else b""))
    converse(settled.settle(), model.feed)
    assert model.is_resting()
    assert model.committed == []
    assert settled.unnamed is settled


def test_settling_survives_a_cancel_that_comes_late() -> None:
    settled = session()
    settled.status = 84
    late = failed("57014")
    converse(settled.settle(), answers(late + ready(84), done("ROLLBACK") + READY_IDLE, READY_IDLE))
    converse(session().settle(), answers(late + READY_IDLE, READY_IDLE))
    with pytest.raises(BackendError, match="rest"):
        converse(session().settle(), answers(*[late + READY_IDLE] * 3))
    with pytest.raises(BackendError, match="roll back"):
        converse(session().settle(), answers(failed("XX000") + READY_IDLE))


# -- taking over for a client -----------------------------------------------------------------------


def test_a_client_finds_its_settings_on_a_session_that_has_others() -> None:
    profiles, model = Profiles(), ModelServer()
    mine, yours = profiles.of({"application_name": "me"}), profiles.of({"timezone": "CET"})
    adopted = new_session(profiles)
    assert told(converse(adopted.adopt(mine, 1), model.feed)) == ["S application_name=me"]
    words = told(converse(adopted.adopt(yours, 2), model.feed))
    assert sorted(words) == ["S TimeZone=CET", "S application_name="]
    assert model.settings == {"application_name": "", "TimeZone": "CET"}
    assert adopted.profile is yours
    assert adopted.unnamed is adopted


@pytest.mark.parametrize(("deep", "clean"), [(False, "RESET ALL"), (True, "DISCARD ALL")])
def test_what_one_client_touched_is_cleaned_for_another(deep: bool, clean: str) -> None:
    touched = session()
    touched.touched_by, touched.deep = 1, deep
    sent: list[bytes] = []
    model = ModelServer()
    converse(touched.adopt(touched.profiles.empty, 2), lambda said: sent.append(said) or model.feed(said))  # type: ignore[func-returns-value]
    assert clean.encode() in sent[0]
    assert (touched.touched_by, touched.deep) == (0, False)


def test_what_a_client_touched_stays_for_itself() -> None:
    touched = session()
    touched.touched_by, touched.deep = 1, True
    assert converse(touched.adopt(touched.profiles.empty, 1), answers()) == b""
    assert (touched.touched_by, touched.deep) == (1, True)


def test_settings_that_the_server_refuses_are_refused_in_its_words() -> None:
    adopted = session()
    before = adopted.profile
    with pytest.raises(BackendError, match="no nosuch") as caught:
        converse(
            adopted.adopt(adopted.profiles.of({"nosuch": "x"}), 1),
            answers(failed("22023", "no nosuch") + READY_IDLE),
        )
    assert caught.value.sqlstate == "22023"
    assert adopted.profile is before


def test_no_text_of_a_client_becomes_sql() -> None:
    adopted = session()
    sent: list[bytes] = []
    evil = "x'; DROP TABLE t; --"
    model = ModelServer()
    converse(
        adopted.adopt(adopted.profiles.of({"application_name": evil}), 1),
        lambda said: sent.append(said) or model.feed(said),  # type: ignore[func-returns-value]
    )
    assert model.settings["application_name"] == evil
    assert not any(message.startswith(b"Q") for message in sent)


def test_joining_tells_whether_the_session_must_be_prepared() -> None:
    profiles = Profiles()
    for touched_by, startup, due in [
        (0, {}, False),
        (1, {}, False),
        (2, {}, True),
        (0, {"timezone": "CET"}, True),
    ]:
        held = new_session(profiles)
        held.touched_by = touched_by
        assert new_codec(profiles, number=1, **startup).join(held) is due


def test_half_a_message_reaches_the_client_that_joins() -> None:
    scene = Scene()
    assert scene.session.unlinked(RENAMED[:9]) == ""
    scene.client(query("SELECT 1")).server(RENAMED[9:], READY_IDLE)
    assert scene.client_told() == ["S application_name=x", "Z I"]
    scene = Scene(timezone="CET")
    assert scene.session.unlinked(notice()[:9]) == ""
    first = [notice()[9:]]
    model = ModelServer()
    assert scene.codec.join(scene.session)
    converse(
        scene.codec.prepare(), lambda sent: (first.pop() if first else b"") + model.feed(sent) + notice()[:7]
    )
    assert scene.codec.back_tail == notice()[:7]
    assert scene.session.tail == b""


def test_half_a_message_stays_with_the_session_when_its_holder_lets_go() -> None:
    scene = Scene()
    assert scene.session.unlinked(notice()[:9]) == ""
    scene.codec.join(scene.session)
    scene.codec.part()
    assert scene.codec.back_tail == b""
    assert scene.session.unlinked(notice()[9:]) == ""
    assert scene.session.tail == b""


def test_a_client_that_must_be_prepared_brings_its_unnamed_statement() -> None:
    # Preparing uses the unnamed statement of the session.
    scene = Scene().client(parse("a"), sync()).server(b"1\0\0\0\4", READY_IDLE)
    scene.session.touched_by = 99
    scene.server_got()
    assert scene.client(bind(), sync()).server_got() == parse("a") + bind() + sync()
    assert scene.prepared == 1


# -- while nobody holds it --------------------------------------------------------------------------


def test_what_comes_at_any_time_is_harmless_however_it_is_cut() -> None:
    said = notice() + RENAMED + notification() + notice("x" * 10_000)
    for size in (1, 3, 50, 9_999, len(said)):
        idle = session()
        for at in range(0, len(said), size):
            assert idle.unlinked(said[at : at + size]) == ""
        assert idle.reported["application_name"] == "x"
        assert idle.tail == b""


@pytest.mark.parametrize(
    "said",
    [
        error("FATAL", "57P01", "going down"),
        READY_IDLE,
        row("x"),
        b"N\0\0\0\1",
        b"N\7\0\0\0",
        b"S\0\0\0\6x\0",
        notice("x" * 70_000)[:66_000],
    ],
)
def test_anything_else_ends_the_session(said: bytes) -> None:
    assert session().unlinked(said)


# -- the end ----------------------------------------------------------------------------------------


def test_goodbye_is_terminate_unless_a_message_was_cut() -> None:
    leaving = session()
    assert leaving.farewell() == TERMINATE
    leaving.mute = True
    assert leaving.farewell() == b""


def test_a_cancel_carries_the_key_of_the_session_and_waits_for_the_end() -> None:
    conversation = session().cancel()
    assert next(conversation) == b"\0\0\0\x10\x04\xd2\x16\x2e" + (4711).to_bytes(4, "big") + b"abcd"
    assert conversation.send(b"?") == b""


def test_a_cancel_goes_through_tls_where_the_session_does() -> None:
    encrypted = session()
    encrypted.tls, encrypted.pid = True, 0xFFFFFFFF
    conversation = encrypted.cancel()
    assert next(conversation) == b"\0\0\0\x08\x04\xd2\x16\x2f"
    step = conversation.send(b"S")
    assert step is not None
    assert not isinstance(step, bytes)
    assert b"\xff\xff\xff\xffabcd" in conversation.send(None)
    conversation = encrypted.cancel()
    next(conversation)
    with pytest.raises(RemoteProtocolError, match="refuses TLS"):
        conversation.send(b"N")


# -- a transaction that is begun ahead --------------------------------------------------------------------


def begun() -> tuple[PgSessionCodec, ModelServer]:
    held, model = session(), ModelServer()
    converse(held.begin(), model.feed)
    assert held.begun
    assert model.status == "T"
    return held, model


def test_a_transaction_is_begun_ahead_and_begun_anew() -> None:
    held, model = begun()
    model.executed.clear()
    converse(held.begin(), model.feed)
    assert model.executed == ["ROLLBACK", "BEGIN"]
    assert held.begun
    assert model.status == "T"
    converse(held.ping(), model.feed)
    assert held.begun


def test_to_begin_ends_the_unnamed_statement() -> None:
    held = session()
    held.unnamed = parse("SELECT 1")
    converse(held.begin(), ModelServer().feed)
    assert held.unnamed is held


@pytest.mark.parametrize("reply", [failed("57014") + READY_IDLE, done("BEGIN") + READY_IDLE])
def test_a_begin_that_fails_is_told(reply: bytes) -> None:
    held = session()
    with pytest.raises(BackendError, match="BEGIN failed"):
        converse(held.begin(), answers(reply))
    assert not held.begun


@pytest.mark.parametrize("reply", [failed("57014") + ready(69), done("ROLLBACK") + ready(84)])
def test_one_that_cannot_be_ended_is_told(reply: bytes) -> None:
    held, _ = begun()
    with pytest.raises(BackendError, match="cannot roll back"):
        converse(held.begin(), answers(reply))


def test_it_is_rolled_back_before_the_session_is_wiped_or_settled() -> None:
    for care in (PgSessionCodec.reset, PgSessionCodec.settle):
        held, model = begun()
        model.executed.clear()
        converse(care(held), model.feed)
        assert model.executed[0] == "ROLLBACK"
        assert not held.begun
        assert model.is_resting()


def test_a_ping_that_finds_it_ended_has_failed() -> None:
    held, _ = begun()
    with pytest.raises(PingFailed, match="closed"):
        converse(held.ping(), answers(done("ROLLBACK") + READY_IDLE))


def test_a_ping_command_runs_outside_of_it() -> None:
    held, model = begun()
    held.upkeep = Upkeep(ping_command="SELECT ping")
    model.executed.clear()
    converse(held.ping(), model.feed)
    assert model.executed == ["ROLLBACK", "SELECT ping"]
    assert not held.begun


def test_the_settings_of_a_client_are_set_outside_of_it() -> None:
    profiles = Profiles()
    held, model = new_session(profiles), ModelServer()
    converse(held.begin(), model.feed)
    codec = new_codec(profiles, application_name="x")
    assert codec.join(held)
    model.executed.clear()
    converse(codec.prepare(), model.feed)
    assert model.executed == ["ROLLBACK", "CONFIG application_name = x"]
    assert model.is_resting()
    assert model.settings["application_name"] == "x"

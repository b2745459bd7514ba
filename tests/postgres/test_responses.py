"""What a session says: framing, when it goes home, COPY, settings, what comes at any time."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postgres.playbook import (
    BOUND,
    COPY_IN,
    COPY_OUT,
    PARSED,
    Scene,
    bind,
    columns,
    copy_data,
    copy_done,
    copy_fail,
    done,
    execute,
    failed,
    flush,
    notice,
    notification,
    parse,
    row,
    selected,
    sync,
    unnamed,
)
from proxy.codec import FORWARD, PREPARE
from proxy.errors import RemoteProtocolError
from proxy.postgres.messages import READY_IDLE, message, parameter_status, query, ready

COPY = query("COPY IN")
COPY_EXTENDED = parse("COPY IN") + bind() + execute()
COPIED = done("COPY 1")


def asked(*messages: bytes, **options: Any) -> Scene:
    """A client that has sent these, on a session that has not answered yet."""
    scene = Scene(**options).client(*(messages or (query("SELECT 1"),)))
    scene.server_got()
    return scene


def test_in_session_mode_the_session_stays() -> None:
    scene = asked(mode="session").server(selected("1"))
    assert scene.is_linked
    assert scene.codec.is_clean()


@pytest.mark.parametrize("status", "TE")
def test_an_open_transaction_keeps_the_session(status: str) -> None:
    scene = asked().server(selected("1", status))
    assert scene.is_linked
    assert scene.codec.is_holding_idle()
    assert not scene.codec.is_running()
    assert not scene.codec.is_clean()


def test_statement_mode_refuses_a_transaction_and_the_client_goes_on() -> None:
    scene = asked(query("BEGIN"), mode="statement").server(done("BEGIN"), ready(84))
    assert scene.client_told() == ["C BEGIN", "E 0A000", "Z I"]
    assert scene.recovered == [True]
    scene.client(query("SELECT 1")).server(selected("1"))
    assert scene.releases == 1


# -- nonsense ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nonsense",
    [
        READY_IDLE,  # behind the one that was owed
        b"Z\0\0\0\4",
        b"Z\0\0\0\6II",
        b"Z\0\0\0\5x",
        b"Z\0\1\0\0",
        b"x\0\0\0\4",
        b"x\0\0\0\x50",
        b"D\0\0\0\3",
        b"D\xff\xff\xff\xff",
        b"R\0\0\0\x08\0\0\0\0",
    ],
)
def test_nonsense_of_the_server_is_a_protocol_error(nonsense: bytes) -> None:
    scene = asked(query("a"), parse("b")).server(READY_IDLE)
    with pytest.raises(RemoteProtocolError):
        scene.server(nonsense)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_whatever_the_server_says_nothing_but_a_protocol_error_is_raised(data: st.DataObject) -> None:
    valid = (
        notice() + PARSED + selected("1") + parameter_status("a", "b") + failed() + COPY_IN + done("SET")
        + message(b"W", b"\0\0\0") + selected("2")
    )  # fmt: skip
    broken = bytearray(data.draw(st.one_of(st.just(valid), st.binary(max_size=60))))
    for _ in range(data.draw(st.integers(0, 3))):
        if broken:
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    scene = asked(query("a"), unnamed("b"), parse("c", "named"))
    for start in range(0, len(broken), 11):
        try:
            if scene.is_linked:
                scene.server(bytes(broken[start : start + 11]))
        except RemoteProtocolError:
            return


# -- pieces -----------------------------------------------------------------------------------------

ANSWERS = (
    notice()
    + selected("1", "T")
    + parameter_status("application_name", "x")
    + PARSED
    + BOUND
    + done("SET")
    + ready(84)
    + COPY_IN
    + failed()
    + ready(69)
    + done("ROLLBACK")
    + notification()
    + READY_IDLE
)
ASKED = (query("a"), unnamed("b"), COPY, query("ROLLBACK"))


@given(st.lists(st.integers(0, len(ANSWERS)), max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_cut_of_a_session_s_bytes_gives_the_same_result(cuts: list[int]) -> None:
    whole, scene = asked(*ASKED), asked(*ASKED)
    whole.server(ANSWERS)
    cuts = sorted(cuts)
    for start, end in zip([0, *cuts], [*cuts, len(ANSWERS)], strict=True):
        if start < end:
            scene.server(ANSWERS[start:end])
    told = ANSWERS.replace(notification(), b"")  # the client does not listen
    assert scene.client_got() == whole.client_got() == told
    assert scene.codec.profile is not scene.codec.startup_profile
    assert scene.releases == whole.releases == 1


@pytest.mark.parametrize("kind", [b"D", b"E", b"N", b"d"])
def test_a_hundred_megabytes_pass_to_the_client_and_are_not_gathered(kind: bytes) -> None:
    codec = asked().codec
    piece, size = b"x" * 262_144, 100 << 20
    codec.server(kind + (size + 4).to_bytes(4, "big"))
    tracemalloc.start()
    for _ in range(size // len(piece)):
        assert codec.server(piece) == FORWARD
        assert codec.out is piece
    assert tracemalloc.get_traced_memory()[1] < 3 << 20
    tracemalloc.stop()
    assert codec.server(selected("1")) != FORWARD


@pytest.mark.parametrize("late", [notice(), notification(), parameter_status("application_name", "x")])
def test_what_comes_at_any_time_may_be_cut_in_half_behind_the_last_ready(late: bytes) -> None:
    for at in range(1, len(late)):
        scene = asked().server(selected("1"), late[:at])
        assert scene.is_linked
        scene.server(late[at:])
        assert scene.releases == 1, f"cut at {at}"
        told = b"" if late == notification() else late  # the client does not listen
        assert scene.client_got() == selected("1") + told


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_a_notification_is_for_a_client_that_listens_on_its_session(mode: str) -> None:
    scene = asked(query("LISTEN channel"), mode=mode).server(notification(), done("LISTEN"))
    assert scene.client_told() == (["A"] if mode == "session" else []) + ["C LISTEN"]
    scene.server(notification())
    assert scene.client_told() == ["A"]


def test_a_long_notice_cut_behind_the_last_ready_keeps_the_session_until_it_has_passed() -> None:
    long = notice("x" * 50_000)
    scene = asked().server(selected("1"), long[:20_000]).server(long[20_000:40_000])
    assert scene.is_linked
    assert scene.server(long[40_000:]).releases == 1


def test_a_client_that_goes_on_behind_a_cut_notice_keeps_its_session() -> None:
    scene = asked().server(selected("1"), notice()[:9]).client(query("SELECT 2"))
    scene.server(notice()[9:])
    assert scene.is_linked
    assert scene.server(selected("2")).releases == 1


def test_an_uncertain_session_is_given_up_when_the_notice_has_passed() -> None:
    scene = asked(parse("a"), query("b"), query("c"))
    scene.server(failed("22012"), READY_IDLE).server(done("x"), READY_IDLE, notice()[:9])
    assert scene.recovered == []
    scene.server(notice()[9:])
    assert scene.recovered == [False]
    scene.client(query("SELECT 1")).server(selected("1"))
    assert scene.client_got().endswith(selected("1"))


def test_an_uncertain_session_stays_with_the_transaction_that_is_open_on_it() -> None:
    scene = asked(query("BEGIN")).server(done("BEGIN"), ready(84))
    scene.client(parse("a"), query("b"), query("c"))
    scene.server(failed("22012"), ready(69)).server(failed("25P02"), ready(69))
    assert scene.is_linked
    scene.client(query("COMMIT")).server(done("COMMIT"), READY_IDLE)
    assert scene.recovered == [False]


# -- COPY -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [(copy_done(), COPIED), (copy_fail(), failed("57014"))])
def test_a_copy_by_simple_query_ends_with_its_ready(end: tuple[bytes, bytes]) -> None:
    scene = asked(COPY).server(COPY_IN)
    assert scene.codec.is_holding_idle()
    scene.client(copy_data(), copy_data()).client(end[0]).server(end[1], READY_IDLE)
    assert scene.releases == 1


def test_a_copy_sent_in_one_go_ends_with_its_ready() -> None:
    scene = asked(COPY, copy_data(), copy_done(), query("SELECT 1")).server(COPY_IN, COPIED, READY_IDLE)
    assert scene.is_linked
    assert scene.server(selected("1")).releases == 1
    assert scene.recovered == []


def test_two_copies_in_one_query() -> None:
    scene = asked(query("COPY IN; COPY IN")).server(COPY_IN).client(copy_data(), copy_done())
    scene.server(COPIED, COPY_IN).client(copy_data(), copy_done()).server(COPIED, READY_IDLE)
    assert scene.releases == 1


def test_the_sync_that_is_read_inside_a_copy_is_not_answered() -> None:
    scene = asked(COPY_EXTENDED, sync()).server(PARSED, BOUND, COPY_IN)
    scene.client(copy_data(), copy_done(), sync()).server(COPIED)
    assert scene.is_linked
    assert scene.server(READY_IDLE).releases == 1


def test_a_copy_behind_a_flush_is_answered_at_its_sync() -> None:
    scene = asked(COPY_EXTENDED, flush()).server(PARSED, BOUND, COPY_IN).client(copy_data(), copy_done())
    assert scene.client(sync()).server(COPIED, READY_IDLE).releases == 1


def test_an_extended_copy_sent_in_one_go_is_answered_at_its_sync() -> None:
    scene = asked(COPY_EXTENDED, copy_data(), copy_done(), sync())
    scene.server(PARSED, BOUND, COPY_IN, COPIED)
    assert scene.is_linked
    assert scene.server(READY_IDLE).releases == 1


def test_an_extended_copy_behind_another_unit_is_told_from_it() -> None:
    scene = asked(unnamed("a"), COPY_EXTENDED, copy_data(), copy_done(), sync())
    scene.server(PARSED, BOUND, done("x"), READY_IDLE, PARSED, BOUND, COPY_IN, COPIED)
    assert scene.is_linked
    assert scene.server(READY_IDLE).releases == 1


def test_when_a_copy_fails_after_its_sync_may_have_been_answered_the_session_is_not_reused() -> None:
    # An error before the server reads anything: it answers both Syncs, and the first is not the last.
    scene = asked(COPY_EXTENDED, sync()).server(PARSED, BOUND, COPY_IN)
    scene.client(copy_data(), copy_done(), sync()).server(failed(), READY_IDLE)
    assert scene.releases == 0
    assert scene.recovered == [False]


def test_a_parse_behind_a_copy_is_counted_in_its_segment() -> None:
    scene = asked(COPY_EXTENDED, sync()).server(PARSED, BOUND, COPY_IN)
    scene.client(copy_data(), copy_done(), parse("SELECT 1"), sync())
    scene.server(COPIED, PARSED, READY_IDLE)
    assert scene.codec.parse == parse("SELECT 1")
    assert scene.session.unnamed is scene.codec.parse


def test_copy_data_that_comes_late_is_ignored() -> None:
    scene = asked(COPY).server(COPY_IN).client(copy_data()).server(failed(), READY_IDLE)
    assert scene.releases == 1
    scene.server_got()
    scene.client(copy_data() * 3, copy_done(), query("SELECT 1"))
    assert scene.server_got() == query("SELECT 1")
    assert scene.server(selected("1")).releases == 2


def test_copy_data_that_comes_late_in_a_transaction_is_left_to_the_server() -> None:
    scene = asked(query("BEGIN")).server(done("BEGIN"), ready(84)).client(COPY).server(COPY_IN)
    scene.server(failed(), ready(69)).client(copy_data(), copy_done(), query("ROLLBACK"))
    assert scene.server(done("ROLLBACK"), READY_IDLE).releases == 1


def test_a_session_goes_home_when_the_late_message_in_pieces_has_passed() -> None:
    long = copy_data(b"x" * 50_000)
    scene = asked(COPY).server(COPY_IN).client(long[:9_000]).server(failed(), READY_IDLE)
    assert scene.is_linked
    assert scene.client(long[9_000:30_000]).is_linked
    scene.client(long[30_000:], copy_done())
    assert scene.releases == 1
    scene.client(query("SELECT 1")).server(selected("1"))
    assert scene.releases == 2


def test_a_client_that_goes_on_behind_the_late_message_keeps_its_session() -> None:
    long = copy_data(b"x" * 50_000)
    scene = asked(COPY).server(COPY_IN).client(long[:9_000]).server(failed(), READY_IDLE)
    scene.client(long[9_000:], copy_done(), query("SELECT 1"))
    assert scene.is_linked
    assert scene.server(selected("1")).releases == 1


def test_when_the_session_dies_behind_a_late_message_its_rest_goes_nowhere() -> None:
    long = copy_data(b"x" * 50_000)
    scene = asked(COPY).server(COPY_IN).client(long[:9_000]).server(failed(), READY_IDLE)
    scene.server_got()
    scene.lose_session()
    scene.client(long[9_000:], copy_done())
    assert scene.server_got() == b""
    assert not scene.is_linked
    assert scene.client(query("SELECT 1")).server(selected("1")).releases == 1


def test_a_copy_out_is_only_passed_on() -> None:
    scene = asked(query("COPY OUT")).server(COPY_OUT, copy_data(), copy_data(), copy_done(), COPIED)
    assert scene.is_linked
    assert scene.server(READY_IDLE).releases == 1


def test_replication_makes_the_session_uncertain() -> None:
    scene = asked().server(message(b"W", b"\0\0\0"), READY_IDLE)
    assert scene.recovered == [False]


# -- settings ---------------------------------------------------------------------------------------


def test_what_a_client_sets_holds_on_every_session() -> None:
    scene = asked(query("SET application_name = me"))
    scene.server(done("SET"), parameter_status("application_name", "me"), READY_IDLE)
    assert scene.codec.profile.settings == {"application_name": "me"}
    assert scene.session.profile is scene.codec.profile
    assert scene.session.reported["application_name"] == "me"
    assert scene.session.touched_by == 7
    assert not scene.session.deep


@pytest.mark.parametrize("name", ["server_version", "is_superuser", "in_hot_standby"])
def test_what_is_the_server_s_to_say_is_no_choice_of_the_client(name: str) -> None:
    scene = asked().server(parameter_status(name, "x"), selected("1"))
    assert scene.codec.profile is scene.codec.startup_profile
    assert scene.session.reported[name] == "x"


@pytest.mark.parametrize("tag", ["LISTEN", "PREPARE"])
def test_what_only_a_full_reset_undoes_is_noted(tag: str) -> None:
    session = asked().server(done(tag), READY_IDLE).session
    assert (session.touched_by, session.deep) == (7, True)


@pytest.mark.parametrize(
    "tag", ["SELECT 1", "INSERT 0 1", "PREPARE TRANSACTION", "LOCK TABLE", "DELETE 1", "X"]
)
def test_what_changes_nothing_for_others_is_not_noted(tag: str) -> None:
    assert asked().server(done(tag), READY_IDLE).session.touched_by == 0


@pytest.mark.parametrize("tag", ["RESET", "DISCARD ALL"])
def test_reset_goes_back_to_what_the_client_asked_for_at_login(tag: str) -> None:
    scene = asked(application_name="mine")
    scene.server(parameter_status("TimeZone", "CET"), done("SET"), READY_IDLE)
    scene.client(query(tag + " ALL"))
    scene.server(done(tag), parameter_status("TimeZone", "UTC"), parameter_status("application_name", ""))
    scene.server(READY_IDLE)
    assert scene.codec.profile is scene.codec.startup_profile
    assert scene.session.profile is scene.profiles.empty


def test_reset_of_one_setting_leaves_the_others() -> None:
    scene = asked(query("SET timezone = CET")).server(
        parameter_status("TimeZone", "CET"), done("SET"), READY_IDLE
    )
    scene.client(query("RESET statement_timeout")).server(done("RESET"), READY_IDLE)
    assert scene.codec.profile.settings == {"timezone": "CET"}


def test_a_reset_that_was_rolled_back_changes_nothing() -> None:
    scene = asked(query("SET timezone = CET")).server(
        parameter_status("TimeZone", "CET"), done("SET"), READY_IDLE
    )
    scene.client(query("BEGIN; RESET ALL")).server(
        done("RESET"), parameter_status("TimeZone", "UTC"), ready(84)
    )
    scene.client(query("ROLLBACK")).server(done("ROLLBACK"), parameter_status("TimeZone", "CET"), READY_IDLE)
    assert scene.codec.profile.settings == {"timezone": "CET"}


def test_in_session_mode_a_reset_puts_the_settings_of_the_login_back() -> None:
    scene = asked(query("RESET ALL"), mode="session", application_name="mine")
    scene.session.reported["application_name"] = "mine"
    scene.server(done("RESET"), parameter_status("application_name", ""), READY_IDLE)
    assert scene.flags & PREPARE
    # That is done with a statement that takes the place of the client's.
    scene.session.unnamed = scene.session
    scene.codec.parse = parse("SELECT 1")
    scene.server_got()
    assert scene.client(bind(), sync()).server_got() == parse("SELECT 1") + bind() + sync()


def test_a_reset_inside_a_transaction_prepares_the_session_when_it_has_ended() -> None:
    scene = asked(query("BEGIN; RESET ALL"), mode="session", application_name="mine")
    scene.server(done("RESET"), parameter_status("application_name", ""), ready(84))
    assert not scene.flags & PREPARE
    scene.client(query("COMMIT")).server(done("COMMIT"), READY_IDLE)
    assert scene.flags & PREPARE


def test_rows_that_look_like_commands_are_rows() -> None:
    scene = asked().server(columns(), row("SET"), row("RESET"), done("SELECT 2"), READY_IDLE)
    assert scene.session.touched_by == 0

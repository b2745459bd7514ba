"""What a client sends: framing, what is owed, the unnamed statement, messages in pieces."""

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postgres.playbook import (
    BOUND,
    PARSED,
    Scene,
    bind,
    call,
    close,
    copy_data,
    describe,
    done,
    execute,
    failed,
    flush,
    new_session,
    parse,
    selected,
    sync,
    terminate,
    told,
    unnamed,
)
from proxy.codec import FORWARD
from proxy.postgres.messages import READY_IDLE, message, query, ready
from proxy.postgres.state import UNTOUCHED
from proxy.reasons import CloseReason

SMALL = "SELECT small"
RAN_TOLD = ["C SELECT 1", "Z I"]
RAN = PARSED + BOUND + done("SELECT 1") + READY_IDLE


def test_a_simple_query_takes_a_session_and_its_answer_gives_it_back() -> None:
    scene = Scene()
    scene.client(query("SELECT 1"))
    assert scene.is_linked
    assert scene.server_got() == query("SELECT 1")
    scene.server(selected("1"))
    assert not scene.is_linked
    assert scene.client_got() == selected("1")
    assert (scene.codec.queries, scene.codec.transactions) == (1, 1)


def test_the_bytes_received_are_forwarded_as_the_object_that_they_are() -> None:
    scene = Scene().client(query("BEGIN"))
    data = query("SELECT 1") + unnamed(SMALL)
    assert scene.codec.client(data) == FORWARD
    assert scene.codec.out is data
    answer = done("BEGIN") + ready(84)
    assert scene.codec.server(answer) == FORWARD
    assert scene.codec.out is answer


@pytest.mark.parametrize("text", ["", "SELECT 1; SELECT 2", "VACUUM"])
def test_one_query_is_owed_one_ready_however_many_statements_it_has(text: str) -> None:
    scene = Scene().client(query(text)).server(done("A"), done("B"), message(b"I", b""))
    assert scene.is_linked
    scene.server(READY_IDLE)
    assert scene.releases == 1


def test_a_transaction_keeps_its_session_until_it_ends() -> None:
    scene = Scene().client(query("BEGIN")).server(done("BEGIN"), ready(84))
    scene.client(unnamed(SMALL)).server(failed(), ready(69)).client(query("ROLLBACK"))
    assert scene.releases == 0
    scene.server(done("ROLLBACK"), READY_IDLE)
    assert scene.releases == 1


def test_a_flush_without_sync_keeps_the_session() -> None:
    scene = Scene().client(parse(SMALL), bind(), execute(), flush())
    scene.server(PARSED, BOUND, done("SELECT 1"))
    assert scene.is_linked
    assert scene.codec.is_holding_idle()
    scene.client(sync()).server(READY_IDLE)
    assert scene.releases == 1


def test_several_syncs_in_flight_are_each_waited_for() -> None:
    scene = Scene().client(unnamed("a"), unnamed("b"), query("c"))
    scene.server(RAN, PARSED, failed(), READY_IDLE)
    assert scene.is_linked
    scene.server(done("SELECT 1"), READY_IDLE)
    assert scene.releases == 1


def test_what_follows_the_last_sync_keeps_the_session() -> None:
    scene = Scene().client(unnamed("a"), parse("b")).server(RAN)
    assert scene.is_linked
    scene.client(bind(), execute(), sync()).server(RAN)
    assert scene.releases == 1


def test_a_function_call_is_owed_a_ready() -> None:
    scene = Scene().client(call()).server(message(b"V", b"\xff\xff\xff\xff"))
    assert scene.is_linked
    assert scene.server(READY_IDLE).releases == 1


@pytest.mark.parametrize("intruder", [query("SELECT 1"), call()])
def test_a_query_where_a_sync_was_due_is_certain_once_it_is_answered(intruder: bytes) -> None:
    """It is the only one owed a ReadyForQuery, and gets one (asyncpg's COPY does this)."""
    scene = Scene().client(parse(SMALL), intruder).server(PARSED, done("SELECT 1"), READY_IDLE)
    assert (scene.recovered, scene.releases) == ([], 1)


@pytest.mark.parametrize("intruder", [query("SELECT 1"), call()])
@pytest.mark.parametrize("error", [failed("22012"), failed("22012", "x" * 50_000)])
def test_a_query_where_a_sync_was_due_is_uncertain_behind_an_error(intruder: bytes, error: bytes) -> None:
    """The server may have skipped it, and then the ReadyForQuery is that of what came behind."""
    scene = Scene().client(parse(SMALL), intruder, query("SELECT 2"))
    scene.server(error, READY_IDLE).server(done("SELECT 1"), READY_IDLE)
    assert scene.recovered == [False]


@pytest.mark.parametrize("intruder", [query("SELECT 1"), call()])
def test_a_query_where_a_sync_was_due_is_certain_when_no_error_came_before_its_ready(
    intruder: bytes,
) -> None:
    """Nothing was skipped then, whatever else is owed (pgjdbc's autosave does this)."""
    scene = Scene().client(query("SELECT 0"), parse(SMALL), intruder, query("SELECT 2"))
    scene.server(failed("22012"), READY_IDLE, PARSED, done("SELECT 1"), READY_IDLE)
    assert scene.is_linked
    assert scene.server(failed("22012"), READY_IDLE).releases == 1
    assert scene.recovered == []


def test_the_error_that_makes_it_uncertain_is_one_of_its_own_segment() -> None:
    scene = Scene().client(query("SELECT 0"), parse(SMALL), query("SELECT 1"), query("SELECT 2"))
    scene.server(done("SELECT 1"), READY_IDLE, failed("22012"), READY_IDLE)
    assert scene.server(done("SELECT 1"), READY_IDLE).recovered == [False]


def test_several_queries_where_a_sync_was_due_are_uncertain_together() -> None:
    scene = Scene().client(parse(SMALL), query("SELECT 1"), parse(SMALL), query("SELECT 2"))
    scene.server(PARSED, done("SELECT 1"), READY_IDLE, PARSED, done("SELECT 1"), READY_IDLE)
    assert scene.recovered == [False]


@pytest.mark.parametrize("intruder", [query("SELECT 1"), call()])
def test_a_client_that_vanishes_behind_such_a_query_costs_the_session(intruder: bytes) -> None:
    scene = Scene().client(parse(SMALL), intruder)
    assert not scene.codec.is_clean()
    assert scene.codec.is_holding_idle()
    assert scene.codec.recovery() is None


def test_a_sync_of_an_idle_client_is_answered_without_a_session() -> None:
    scene = Scene(full=True).client(sync(), flush(), sync())
    assert scene.client_got() == READY_IDLE * 2
    assert not scene.is_waiting


def test_terminate_ends_the_client_and_what_came_before_it_is_done() -> None:
    scene = Scene().client(query("SELECT 1"), terminate(), b"never looked at")
    assert scene.is_closed
    assert scene.codec.closing is CloseReason.CLIENT_LEFT
    assert scene.server_got() == query("SELECT 1")
    assert not scene.codec.must_cancel


# -- nonsense ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nonsense",
    [
        b"Q\0\0\0\3",
        b"Q\xff\xff\xff\xff",
        b"Q\0\0\0\0\0",
        b"z\0\0\0\4",
        b"p\0\0\0\5x",
        b"\0\0\0\10\4\xd2\x16\x2f",
        b"Q\x7f\xff\xff\xff",
    ],
)
def test_nonsense_ends_the_client_with_a_protocol_error(nonsense: bytes) -> None:
    scene = Scene(cap=1 << 20).client(nonsense)
    assert scene.is_closed
    assert scene.client_told() == ["E 08P01"]
    assert scene.codec.closing is CloseReason.PROTOCOL_ERROR
    assert scene.server_got() == b""


@pytest.mark.parametrize("kind", "PBDECHSFdcf")
def test_messages_without_their_body_are_left_to_the_server(kind: str) -> None:
    scene = Scene().client(query("BEGIN"))
    scene.client(message(kind.encode(), b""))
    assert not scene.is_closed


def test_what_came_before_nonsense_is_forwarded() -> None:
    scene = Scene().client(query("SELECT 1"), b"z\0\0\0\4")
    assert scene.server_got() == query("SELECT 1")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(min_size=0, max_size=40), max_size=8), st.booleans())
def test_random_bytes_of_a_client_never_raise(chunks: list[bytes], full: bool) -> None:
    scene = Scene(full=full)
    for chunk in chunks:
        if not scene.is_closed:
            scene.client(chunk)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_mutated_messages_of_a_client_never_raise(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(["SET penstock.getmode = 'nowait'", "SELECT 1", "x; SHOW penstock.x"]))
    valid = unnamed(text) + query(text) + parse("x", "named") + describe() + close() + bind() + copy_data()
    broken = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at] = data.draw(st.integers(0, 255))
    scene = Scene()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(broken)), max_size=5)))
    for start, end in zip([0, *cuts], [*cuts, len(broken)], strict=True):
        if not scene.is_closed:
            scene.client(bytes(broken[start:end]))


# -- pieces -----------------------------------------------------------------------------------------

MIXED = (
    query("SELECT 1")
    + unnamed("SELECT 2")
    + query("/* */ SET penstock.getmode = 'nowait'")
    + parse("x", "named")
    + bind("named")
    + sync()
    + query("COPY IN")
    + copy_data(b"x" * 50)
    + sync()
    + close()
    + sync()
)


@given(st.lists(st.integers(0, len(MIXED)), max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_cut_of_a_client_s_bytes_gives_the_same_result(cuts: list[int]) -> None:
    whole = Scene().client(query("BEGIN"), MIXED)
    scene = Scene().client(query("BEGIN"))
    cuts = sorted(cuts)
    for start, end in zip([0, *cuts], [*cuts, len(MIXED)], strict=True):
        scene.client(MIXED[start:end])
    assert scene.server_got() == whole.server_got()
    assert scene.codec.owed == whole.codec.owed


def test_every_byte_may_come_alone() -> None:
    scene = Scene().client(query("BEGIN"))
    scene.server_got()
    data = unnamed(SMALL) + query("SELECT 1") + message(b"Q", b"x" * 20_000 + b"\0")
    for at in range(len(data)):
        scene.client(data[at : at + 1])
    assert scene.server_got() == data


def test_an_empty_read_changes_nothing() -> None:
    scene = Scene().client(b"").client(query("SELECT 1")[:7]).client(b"")
    assert scene.client_got() == scene.server_got() == b""
    scene.client(query("SELECT 1")[7:]).client(b"")
    assert scene.server_got() == query("SELECT 1")


def test_a_small_message_is_whole_before_a_session_is_taken() -> None:
    whole = message(b"Q", b"x" * 16_000 + b"\0")
    scene = Scene().client(whole[:15_000])
    assert not scene.is_linked
    assert scene.client(whole[15_000:]).server_got() == whole


@pytest.mark.parametrize("kind", [b"d", b"Q", b"B"])
def test_a_hundred_megabytes_pass_in_pieces_and_are_not_gathered(kind: bytes) -> None:
    scene = Scene().client(query("COPY IN") if kind == b"d" else query("BEGIN"))
    codec = scene.codec
    piece, size = b"x" * 262_144, 100 << 20
    head = kind + (size + 4).to_bytes(4, "big")
    scene.client(parse("SELECT 1", "known")).server(PARSED)
    beginning = b"portal\0known\0" + b"x" * 1_010
    codec.client(head + beginning)
    passed = len(beginning)
    tracemalloc.start()
    while passed < size:
        step = piece[: size - passed]
        assert codec.client(step) == FORWARD
        assert codec.out is step or len(step) < len(piece)
        passed += len(step)
    assert tracemalloc.get_traced_memory()[1] < 3 << 20
    tracemalloc.stop()
    assert codec.need == 0


def test_what_is_forwarded_in_pieces_is_looked_at_by_its_beginning() -> None:
    scene = Scene()
    text = b"SET penstock.getmode = 'nowait' /*" + b"x" * 40_000 + b"*/\0"
    whole = message(b"Q", text)
    for at in range(0, len(whole), 5_000):
        scene.client(whole[at : at + 5_000])
    assert scene.client_told()[-1] == "Z I"
    assert scene.server_got() == b""


# -- the unnamed statement --------------------------------------------------------------------------


def prepared(text: str = SMALL) -> Scene:
    """A client that has an unnamed statement, between two units."""
    scene = Scene()
    scene.client(parse(text), describe(), sync()).server(PARSED, READY_IDLE)
    assert scene.releases == 1
    scene.server_got(), scene.client_got()
    return scene


def test_the_unnamed_statement_is_there_on_the_same_session() -> None:
    scene = prepared().client(bind(), execute(), sync())
    assert scene.server_got() == bind() + execute() + sync()


def test_on_another_session_the_unnamed_statement_is_prepared_again_unseen() -> None:
    scene = prepared()
    scene.session = new_session(scene.profiles)
    scene.client(bind(), execute(), sync())
    assert scene.server_got() == parse(SMALL) + bind() + execute() + sync()
    scene.server(RAN)
    assert scene.client_told() == ["2", "C SELECT 1", "Z I"]
    assert scene.releases == 2
    scene.client(bind(), execute(), sync())
    assert scene.server_got() == bind() + execute() + sync()


def test_the_parse_sent_again_is_the_one_that_held_when_it_was_used() -> None:
    scene = prepared()
    scene.session = new_session(scene.profiles)
    scene.client(bind(), execute(), sync(), unnamed("other"), query("SELECT 1"))
    assert scene.server_got().startswith(parse(SMALL) + bind())
    scene.server(RAN, RAN, done("SELECT 1"), READY_IDLE)
    assert scene.client_told() == ["2", *RAN_TOLD, "1", "2", *RAN_TOLD, *RAN_TOLD]


def test_when_the_parse_sent_again_fails_the_client_sees_why_and_keeps_its_statement() -> None:
    scene = prepared()
    scene.session = new_session(scene.profiles)
    scene.client(bind(), execute(), sync(), unnamed("SELECT next"))
    scene.server(failed("42P01"), READY_IDLE, RAN)
    assert scene.client_told() == ["E 42P01", "Z I", "1", "2", "C SELECT 1", "Z I"]
    scene = prepared()
    scene.session = new_session(scene.profiles)
    scene.client(bind(), execute(), sync()).server(failed("42P01"), READY_IDLE)
    scene.server_got()
    scene.client(bind(), execute(), sync())
    assert scene.server_got().startswith(parse(SMALL))


def test_in_a_transaction_the_statement_of_an_earlier_unit_is_prepared_again_in_its_place() -> None:
    scene = prepared()
    scene.session = new_session(scene.profiles)
    scene.client(parse("BEGIN", "")[:-2] + b"\0\0")  # a Parse, so the earlier statement is gone
    assert scene.codec.parse == parse("BEGIN")
    scene = prepared()
    scene.session = new_session(scene.profiles)
    scene.client(execute("cursor"), flush()).server(message(b"s", b""))
    scene.client(bind(), execute(), sync())
    assert scene.server_got() == execute("cursor") + flush() + parse(SMALL) + bind() + execute() + sync()
    scene.server(PARSED, BOUND, done("SELECT 1"), READY_IDLE)
    assert scene.client_told() == ["s", "2", "C SELECT 1", "Z I"]


@pytest.mark.parametrize("use", [bind(), describe()])
def test_a_client_without_an_unnamed_statement_never_meets_another_s(use: bytes) -> None:
    scene = Scene(full=True).client(use, execute(), sync())
    assert scene.client_told() == ["E 26000", "Z I"]
    scene = Scene()
    scene.session.unnamed = parse("SELECT secret")
    scene.client(execute("x"), use)
    assert use not in scene.server_got()


@pytest.mark.parametrize("definition", [parse("SELECT mine"), close()])
def test_a_statement_that_may_have_been_skipped_is_not_relied_on(definition: bytes) -> None:
    # The server skips the definition after the error, and still holds another client's statement.
    scene = Scene()
    scene.session.unnamed = parse("SELECT secret")
    scene.client(execute("nosuch"), definition, sync(), bind(), execute(), sync())
    if definition[:1] == b"P":
        assert scene.server_got().endswith(definition + sync())
        scene.server(failed("34000"), READY_IDLE)
        assert scene.client_told() == ["E 34000", "Z I", "E 26000", "Z I"]
    else:
        assert bind() + execute() not in scene.server_got()


def test_after_the_statement_was_skipped_the_client_has_none() -> None:
    scene = Scene().client(execute("nosuch"), parse(SMALL), sync()).server(failed("34000"), READY_IDLE)
    scene.client_got()
    assert scene.codec.parse is None
    assert scene.session.unnamed is scene.session
    assert scene.client(bind(), sync()).client_told() == ["E 26000", "Z I"]


def test_a_statement_confirmed_in_its_own_unit_is_used_without_a_look() -> None:
    scene = Scene().client(query("BEGIN")).server(done("BEGIN"), ready(84))
    scene.client(parse(SMALL), sync()).server(PARSED, ready(84))
    scene.server_got()
    scene.client(bind(), execute(), sync())
    assert scene.server_got() == bind() + execute() + sync()


def test_a_simple_query_ends_the_unnamed_statement() -> None:
    scene = prepared().client(query("SELECT 1")).server(done("SELECT 1"), READY_IDLE)
    scene.client_got()
    assert scene.session.unnamed is None
    assert scene.client(bind(), sync()).client_told() == ["E 26000", "Z I"]


@pytest.mark.parametrize("size", [20_000, 300_000, 1_000_000])
def test_a_large_parse_is_remembered_too(size: int) -> None:
    large = parse("x" * size)
    scene = Scene()
    for at in range(0, len(large), 9_999):
        scene.client(large[at : at + 9_999])
    scene.client(sync()).server(PARSED, READY_IDLE)
    scene.server_got()
    scene.session = new_session(scene.profiles)
    assert scene.client(bind(), sync()).server_got() == large + bind() + sync()


def test_a_parse_too_large_to_remember_works_on_its_session_only() -> None:
    large = parse("x" * 1_100_000)
    scene = Scene()
    scene.client(large[:50_000]).client(large[50_000:], sync()).server(PARSED, READY_IDLE)
    assert scene.session.unnamed is scene.codec.large
    scene.client_got(), scene.server_got()
    assert scene.client(bind(), sync()).client_told() == ["E 26000", "Z I"]
    # Whoever already holds the session that has it may use it.
    scene.client(execute("cursor"), flush())
    scene.client(bind(), execute(), sync())
    assert scene.server_got() == execute("cursor") + flush() + bind() + execute() + sync()


def test_a_large_statement_in_flight_is_waited_for() -> None:
    large = parse("x" * 1_100_000)
    scene = Scene().client(query("BEGIN")).server(done("BEGIN"), ready(84))
    scene.client(large[:50_000]).client(large[50_000:], sync(), bind(), execute(), sync())
    assert scene.server_got().endswith(sync())
    scene.server(PARSED, ready(84))
    assert scene.server_got() == bind() + execute() + sync()


def test_a_client_refused_while_it_waits_has_prepared_nothing() -> None:
    scene = Scene(full=True).client(parse(SMALL), sync())
    assert scene.is_waiting
    assert told(scene.refuse().client_got()) == ["E 53300", "Z I"]
    assert scene.codec.parse is None
    assert scene.codec.holds == UNTOUCHED


def test_a_client_refused_while_it_waits_keeps_what_it_had() -> None:
    scene = prepared()
    scene.full = True
    scene.client(bind(), execute(), sync()).refuse()
    scene.client_got()
    scene.client(bind(), execute(), sync())
    scene.session = new_session(scene.profiles)
    assert scene.grant().server_got() == parse(SMALL) + bind() + execute() + sync()


def test_a_session_whose_holder_was_never_heard_is_not_said_to_have_its_statement() -> None:
    # The client cancelled while its settings were being made: its Parse never went out.
    scene = Scene().client(parse(SMALL), sync())
    scene.codec.part()
    assert scene.session.unnamed is scene.session


def test_reading_slowly_costs_no_more_than_reading_fast() -> None:
    scene = Scene().client(query("SELECT 1"), query("SET penstock.getmode = 'nowait'"))
    began = time.perf_counter()
    for _ in range(30_000):
        scene.client(b"x" * 30)
    assert time.perf_counter() - began < 2.0
    assert len(scene.codec.held) == 900_000
    assert scene.client(b"x" * 200_000).is_closed

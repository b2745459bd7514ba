"""A BEGIN that the server has not seen, message by message: what is answered here, and what is sent when."""

import pytest

from postgres.playbook import (
    BOUND,
    PARSED,
    ModelServer,
    Scene,
    bind,
    call,
    close,
    converse,
    copy_data,
    copy_done,
    describe,
    done,
    execute,
    flush,
    notice,
    parse,
    selected,
    sync,
    terminate,
    unnamed,
)
from proxy.codec import PAUSE
from proxy.errors import PoolBusy
from proxy.postgres.begin import AHEAD, DEFER
from proxy.postgres.messages import parameter_status, query
from proxy.postgres.state import DEFERRED, NOT_DEFERRED, REFUSED
from proxy.reasons import CloseReason

BEGUN = ["C BEGIN", "Z T"]
AHEAD_OF_IT = parse("BEGIN") + bind() + execute()


def open_scene(full: bool = False, mode: str = "transaction", text: str = "BEGIN") -> Scene:
    scene = Scene(mode, full=full, begin=DEFER).client(query(text))
    assert scene.client_told()[-1] == "Z T"
    assert not scene.is_linked
    assert not scene.is_waiting
    return scene


def refused(first: bytes = b"") -> Scene:
    """A client whose first statement was refused."""
    scene = open_scene(full=True).client(first or query("SELECT 1")).refuse()
    assert scene.client_told() == ["E 53300", "Z E"]
    assert scene.codec.deferred == REFUSED
    return scene


def served(scene: Scene, model: ModelServer) -> Scene:
    """Let the model answer what was sent."""
    return scene.server(model.feed(scene.server_got()))


# -- BEGIN ----------------------------------------------------------------------------------------


def test_begin_is_answered_here_and_goes_ahead_of_the_first_statement() -> None:
    scene, model = open_scene(), ModelServer()
    scene.client(query("WRITE a"))
    assert scene.is_linked
    sent = scene.server_got()
    assert sent == AHEAD_OF_IT + query("WRITE a")
    scene.server(model.feed(sent))
    assert scene.client_told() == ["C INSERT 0 1", "Z T"]
    assert model.status == "T"
    data = query("SELECT 1")
    scene.client(data)
    assert scene.codec.out is data  # nothing is looked at any more
    served(scene, model)
    served(scene.client(query("COMMIT")), model)
    assert model.committed == ["a"]
    assert not scene.is_linked
    assert scene.codec.deferred == NOT_DEFERRED


def test_begin_of_the_extended_protocol_is_answered_message_by_message() -> None:
    scene = Scene(begin=DEFER).client(parse("BEGIN") + describe() + bind() + describe(kind="P"))
    assert scene.client_told() == []
    scene.client(execute() + sync())
    assert scene.client_told() == ["1", "t", "n", "2", "n", *BEGUN]
    assert not scene.is_linked
    scene.client(bind() + execute() + sync())  # the statement that the client prepared
    assert scene.server_got() == AHEAD_OF_IT + parse("BEGIN") + bind() + execute() + sync()


@pytest.mark.parametrize("end", ["COMMIT", "END", "ROLLBACK", "ABORT"])
@pytest.mark.parametrize("frame", [query, unnamed])
def test_an_end_with_nothing_before_it_is_answered_here(end: str, frame: object) -> None:
    scene = open_scene().client(frame(end))  # type: ignore[operator]
    tag = "C COMMIT" if end in ("COMMIT", "END") else "C ROLLBACK"
    assert scene.client_told()[-2:] == [tag, "Z I"]
    assert not scene.is_linked
    assert scene.codec.queries == 2


@pytest.mark.parametrize(
    "first", ["COMMIT AND CHAIN", "SAVEPOINT x", "PREPARE TRANSACTION 'x'", "BEGIN", "COMMIT; SELECT 1", ""]
)
def test_anything_else_is_a_first_statement(first: str) -> None:
    scene = open_scene().client(query(first))
    assert scene.server_got() == AHEAD_OF_IT + query(first)


@pytest.mark.parametrize(
    "first",
    [
        query("BEGIN; SELECT 1"),
        query("BEGIN -- comment"),
        query("BEGIN") + query("SELECT 1"),
        query("BEGIN") + b"Q\0",
        unnamed("BEGIN") + query("SELECT 1"),
        parse("BEGIN") + bind() + execute() + flush(),
        parse("BEGIN") + bind() + execute() + unnamed("SELECT 1"),
        parse("BEGIN") + sync(),
    ],
)
def test_what_gains_nothing_or_is_not_certain_goes_as_it_came(first: bytes) -> None:
    scene = Scene(begin=DEFER).client(first)
    assert scene.is_linked
    assert first.startswith(scene.server_got())


@pytest.mark.parametrize("mode", ["session", "statement"])
def test_only_transaction_mode_defers(mode: str) -> None:
    assert Scene(mode, begin=DEFER).client(query("BEGIN")).is_linked


def test_a_client_follows_its_pool_when_that_changes_its_mind() -> None:
    scene = open_scene()
    scene.codec.terms.begin = 0
    served(scene.client(query("COMMIT")).client(query("BEGIN")), ModelServer())
    assert scene.is_linked


def test_messages_about_nothing_stay_here() -> None:
    scene = open_scene().client(sync(), flush(), copy_data(), copy_done(), sync())
    assert scene.client_told() == ["Z T", "Z T"]
    scene.client(query("SET penstock.getmode = 'nowait'"), query("SHOW penstock.getmode"))
    assert scene.client_told() == ["C SET", "Z T", "T", "D nowait", "C SHOW", "Z T"]
    scene.client(unnamed("SHOW penstock.getmode"))
    assert scene.client_told() == ["1", "2", "D nowait", "C SHOW", "Z T"]
    assert not scene.is_linked
    scene.client(terminate())
    assert scene.is_closed
    assert scene.codec.closing is CloseReason.CLIENT_LEFT


def test_a_wrong_setting_of_ours_fails_the_transaction() -> None:
    scene = open_scene().client(query("SET penstock.getmode = 'never'"))
    assert scene.client_told() == ["E 22023", "Z E"]
    scene.client(query("SELECT 1"), unnamed("COMMIT"))
    assert scene.client_told() == ["E 25P02", "Z E", "1", "2", "C ROLLBACK", "Z I"]


def test_a_named_statement_runs_inside_the_transaction() -> None:
    scene, model = open_scene(), ModelServer()
    served(scene.client(parse("SELECT 1", "name") + bind("name") + execute() + sync()), model)
    assert scene.client_told() == ["1", "2", "D 1", "C SELECT 1", "Z T"]
    assert model.status == "T"


def test_a_client_that_is_idle_in_it_holds_nothing() -> None:
    codec = open_scene().codec
    assert not codec.is_holding_idle()
    assert not codec.is_running()


# -- the first statement --------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(1, 60))
def test_the_answer_to_begin_is_swallowed_however_it_is_cut(step: int) -> None:
    scene, model = open_scene(), ModelServer()
    scene.client(unnamed("SELECT 1"))
    answer = model.feed(scene.server_got())
    for at in range(0, len(answer), step):
        scene.server(answer[at : at + step])
    assert scene.client_told() == ["1", "2", "D 1", "C SELECT 1", "Z T"]


def test_nobody_takes_the_unnamed_statement_for_what_it_was_before_begin() -> None:
    scene = open_scene()
    scene.session.unnamed = parse("SELECT 1")
    scene.client(call())
    assert scene.session.unnamed is scene.session


def test_what_the_server_says_between_comes_through() -> None:
    scene = open_scene().client(query("SELECT 1"))
    change = parameter_status("TimeZone", "Mars")
    scene.server(
        notice() + PARSED + change + BOUND + notice() + done("BEGIN") + notice() + selected("1", "T")
    )
    assert scene.client_told() == ["N", "S TimeZone=Mars", "N", "N", "T", "D 1", "C SELECT 1", "Z T"]
    assert scene.session.reported["TimeZone"] == "Mars"


def test_units_behind_the_first_wait_until_begin_is_certain() -> None:
    scene, model = open_scene(), ModelServer()
    scene.client(unnamed("WRITE a") + unnamed("WRITE b") + query("COMMIT"))
    first = scene.server_got()
    assert first == AHEAD_OF_IT + unnamed("WRITE a")
    assert scene.codec.client(query("SELECT 1")) == PAUSE
    answer = model.feed(first)
    scene.server(answer[:30])
    assert scene.server_got() == unnamed("WRITE b") + query("COMMIT") + query("SELECT 1")


def test_where_begin_fails_nothing_runs_and_the_transaction_has_failed() -> None:
    scene, model = open_scene(text="BEGIN READ WRITE"), ModelServer()
    model.is_standby = True
    scene.client(query("WRITE a") + query("WRITE b") + sync())
    served(scene, model)
    assert scene.client_told() == ["E 25006", "Z E", "E 25P02", "Z E", "Z E"]
    assert not scene.is_linked
    assert scene.recovered == [True]
    assert not scene.codec.must_cancel
    scene.client(query("COMMIT"))
    assert scene.client_told() == ["C ROLLBACK", "Z I"]
    assert not model.committed
    assert not scene.server_got()


def test_where_begin_fails_before_the_sync_the_rest_of_the_unit_is_skipped() -> None:
    scene, model = open_scene(text="BEGIN READ WRITE"), ModelServer()
    model.is_standby = True
    scene.client(parse("WRITE a") + bind() + flush())
    served(scene, model)
    assert scene.client_told() == ["E 25006"]
    scene.client(execute() + sync() + query("ROLLBACK"))
    assert scene.client_told() == ["Z E", "C ROLLBACK", "Z I"]


@pytest.mark.parametrize("kind", ["simple", "extended", "open", "call"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_client_that_vanishes_with_begin_unanswered_leaves_a_session_that_can_be_had(
    kind: str, fails: bool
) -> None:

    scene, model = open_scene(text="BEGIN READ WRITE"), ModelServer()
    model.is_standby = fails
    scene.client(
        {
            "simple": query("WRITE a"),
            "extended": unnamed("WRITE a"),
            "open": parse("WRITE a") + bind(),
            "call": call(),
        }[kind]
    )
    coming = [model.feed(scene.server_got())]
    scene.vanish()
    assert scene.recovery is not None
    converse(scene.recovery, lambda sent: coming.pop() + model.feed(sent) if coming else model.feed(sent))
    converse(scene.session.settle(), model.feed)
    assert model.is_resting()
    assert not model.committed


# -- refused --------------------------------------------------------------------------------------


def test_a_refused_first_statement_fails_the_transaction_until_it_is_rolled_back() -> None:
    scene = refused()
    scene.client(query("SELECT 1"), unnamed("SELECT 1"), query(""), call(), sync())
    assert scene.client_told() == ["E 25P02", "Z E", "E 25P02", "Z E", "I", "Z E", "E 25P02", "Z E", "Z E"]
    scene.client(query("ROLLBACK TO x"), query("COMMIT"))
    assert scene.client_told() == ["E 3B001", "Z E", "C ROLLBACK", "Z I"]
    assert scene.codec.deferred == NOT_DEFERRED
    scene.full = False
    scene.client(query("SELECT 1"))
    assert scene.server_got() == query("SELECT 1")


def test_what_was_sent_behind_a_refused_statement_is_answered() -> None:
    scene = open_scene(full=True).client(
        unnamed("WRITE a") + query("WRITE b") + unnamed("COMMIT") + query("BEGIN")
    )
    scene.refuse()
    told = scene.client_told()
    assert told == ["E 53300", "Z E", "E 25P02", "Z E", "1", "2", "C ROLLBACK", "Z I", *BEGUN]
    assert scene.codec.deferred == DEFERRED


def test_a_refusal_before_the_sync_skips_to_it() -> None:
    scene = open_scene(full=True).client(parse("SELECT 1") + bind() + flush()).refuse()
    assert scene.client_told() == ["E 53300"]
    scene.client(execute(), sync())
    assert scene.client_told() == ["Z E"]


def test_other_ways_to_have_no_session_are_the_same() -> None:
    for refuse in (
        lambda codec: codec.canceled(),
        lambda codec: codec.backend_refused("08006", "down", {}),
        lambda codec: codec.refuse(PoolBusy("every slot is taken", "the picture")),
    ):
        scene = open_scene(full=True).client(query("SELECT 1"))
        assert refuse(scene.codec).endswith(b"Z\0\0\0\5E")
        assert scene.codec.deferred == REFUSED


def test_messages_of_the_extended_protocol_in_a_failed_transaction() -> None:
    def asked(*messages: bytes) -> list[str]:
        return refused().client(*messages).client_told()

    assert asked(parse("") + describe() + bind() + describe(kind="P") + execute() + sync()) == [
        *["1", "t", "n", "2", "n", "I", "Z E"]
    ]
    assert asked(bind() + execute() + sync()) == ["E 26000", "Z E"]
    assert asked(bind("name") + execute() + sync()) == ["E 26000", "Z E"]
    assert asked(describe(kind="P") + sync()) == ["E 34000", "Z E"]
    assert asked(execute() + sync()) == ["E 34000", "Z E"]
    assert asked(close() + close("x") + sync()) == ["3", "3", "Z E"]
    assert asked(parse("SELECT 1", "name") + sync()) == ["E 25P02", "Z E"]
    assert asked(parse("COMMIT", "name") + describe("name") + bind("name") + execute() + sync()) == [
        *["1", "t", "n", "2", "C ROLLBACK", "Z I"]
    ]
    assert asked(parse("COMMIT", "name") + close("name") + bind("name") + sync()) == [
        *["1", "3", "E 26000", "Z E"]
    ]
    assert asked(parse("COMMIT") + close() + bind() + sync()) == ["1", "3", "E 26000", "Z E"]
    assert asked(unnamed("SHOW penstock.getmode")) == ["E 25P02", "Z E"]
    assert asked(query("SHOW penstock.getmode")) == ["E 25P02", "Z E"]
    assert asked(query("PREPARE TRANSACTION 'x'")) == ["C ROLLBACK", "Z I"]


def test_the_same_segment_may_go_on_behind_the_rollback() -> None:
    scene = refused()
    scene.full = False
    scene.client(parse("ROLLBACK") + bind() + execute() + unnamed("SELECT 1"))
    assert scene.client_told() == ["1", "2", "C ROLLBACK"]
    assert scene.server_got() == unnamed("SELECT 1")


def test_a_string_that_rolls_back_first_runs_the_rest() -> None:
    scene = refused()
    scene.full = False
    scene.client(query("ROLLBACK; SELECT 'a;b'; SELECT 2"))
    assert scene.client_told() == ["C ROLLBACK"]
    assert scene.server_got() == query("SELECT 'a;b';SELECT 2")
    assert refused().client(query("SELECT 1; ROLLBACK")).client_told() == ["E 25P02", "Z E"]


def test_a_chain_begins_the_next_transaction() -> None:
    scene = refused().client(query("COMMIT AND CHAIN"))
    assert scene.client_told() == ["C ROLLBACK", "Z T"]
    scene.full = False
    scene.client(query("SELECT 1"))
    assert scene.server_got() == AHEAD_OF_IT + query("SELECT 1")
    scene = refused()
    scene.full = False
    scene.client(query("ROLLBACK AND CHAIN; SELECT 1"))
    assert scene.server_got() == AHEAD_OF_IT + query("SELECT 1")


def test_a_long_statement_in_a_failed_transaction_is_refused_and_cut() -> None:
    scene = refused()
    for long in (query("SELECT " + "x" * 50_000), query("ROLLBACK; SELECT " + "x" * 50_000)):
        for at in range(0, len(long), 9_000):
            scene.client(long[at : at + 9_000])
        assert scene.client_told() == ["E 25P02", "Z E"]
    scene.client(query("ROLLBACK"))
    assert scene.client_told() == ["C ROLLBACK", "Z I"]


def test_a_session_that_dies_before_it_has_answered_fails_the_transaction() -> None:
    scene = open_scene().client(query("SELECT 1"))
    assert scene.lose_session() is not None
    assert scene.client_told() == ["E 08006", "Z E"]
    scene.client(query("SELECT 1"), query("ROLLBACK"))
    assert scene.client_told() == ["E 25P02", "Z E", "C ROLLBACK", "Z I"]


def test_a_session_that_dies_later_takes_its_client_along() -> None:
    scene, model = open_scene(), ModelServer()
    served(scene.client(query("SELECT 1")), model)
    scene.client(query("SELECT 1"))
    assert scene.lose_session() is None


# -- ahead ----------------------------------------------------------------------------------------


def begun_scene() -> tuple[Scene, ModelServer]:

    scene, model = Scene(begin=AHEAD), ModelServer()
    converse(scene.session.begin(), model.feed)
    assert model.status == "T"
    return scene, model


def test_a_transaction_begun_ahead_is_used_without_another_word() -> None:
    scene, model = begun_scene()
    scene.client(query("BEGIN"))
    assert scene.client_told() == BEGUN
    scene.client(query("WRITE a"))
    assert not scene.session.begun
    sent = scene.server_got()
    assert sent == query("WRITE a")
    scene.server(model.feed(sent))
    assert scene.client_told() == ["C INSERT 0 1", "Z T"]


@pytest.mark.parametrize("begin", ["", "BEGIN READ ONLY"])
def test_one_that_does_not_fit_is_rolled_back_before_anything_is_sent(begin: str) -> None:
    scene, model = begun_scene()
    if begin:
        scene.client(query(begin))
    scene.client(query("SELECT 1"))
    assert scene.prepared == 1
    assert not scene.session.begun
    ahead = parse(begin) + bind() + execute() if begin else b""
    assert scene.server_got() == ahead + query("SELECT 1")
    assert model.status == "T"  # the scene has a server of its own for that conversation


def test_units_behind_the_first_follow_on_a_begun_session_too() -> None:
    scene, model = begun_scene()
    scene.client(query("BEGIN"))
    scene.client(query("COPY IN") + copy_data() + copy_done() + query("COMMIT"))
    served(scene, model)
    served(scene, model)
    assert scene.client_told() == [*BEGUN, "G", "C COPY 1", "Z T", "C COMMIT", "Z I"]


def test_a_begun_session_that_dies_before_it_has_answered_fails_the_transaction() -> None:
    scene, _ = begun_scene()
    scene.client(query("BEGIN"))
    scene.client(query("SELECT 1"))
    assert scene.lose_session() is not None
    assert scene.client_told() == [*BEGUN, "E 08006", "Z E"]

"""Refusals in their place, statements of our own, and what is held back for them."""

import pytest

from postgres.playbook import (
    BOUND,
    PARSED,
    ModelServer,
    Scene,
    bind,
    call,
    close,
    copy_data,
    describe,
    done,
    execute,
    flush,
    parse,
    sync,
    terminate,
    told,
    unnamed,
)
from proxy.postgres.messages import READY_IDLE, query, ready

SET = "SET penstock.getmode = 'nowait'"
SHOW = "SHOW penstock.getmode"
NAMED = parse("SELECT 1", "named") + bind("named") + execute() + sync()


def one(text: str) -> list[str]:
    return ["T", f"D {text}", "C SELECT 1", "Z I"]


def served(scene: Scene, model: ModelServer) -> list[str]:
    """Let the model answer all that was forwarded; what the client was told by then."""
    while scene.is_linked:
        going = scene.server_got()
        if not going:
            break
        back = model.feed(going)
        if back:
            scene.server(back)
    return scene.client_told()


# -- named statements where a session may hold none ---------------------------------------------------


def without_names(full: bool = False) -> Scene:
    scene = Scene(full=full)
    scene.codec.statements.cache = 0
    return scene


def test_a_named_parse_is_refused_without_a_session_and_the_client_goes_on() -> None:
    scene = without_names(full=True).client(NAMED)
    assert scene.client_told() == ["E 0A000", "Z I"]
    assert scene.client(query("SELECT 1")).is_waiting


def test_the_refusal_says_which_setting_to_change() -> None:
    assert b"pools.app.stmt_cache" in without_names(full=True).client(NAMED).client_got()


def test_a_named_parse_in_a_transaction_fails_the_transaction() -> None:
    scene, model = without_names().client(query("BEGIN")), ModelServer()
    assert served(scene, model) == ["C BEGIN", "Z T"]
    scene.client(NAMED, query("SELECT 1"), query("ROLLBACK"))
    assert served(scene, model) == ["E 0A000", "Z E", "E 25P02", "Z E", "C ROLLBACK", "Z I"]
    assert scene.releases == 1


def test_a_named_parse_in_a_pipeline_is_refused_in_its_place() -> None:
    scene = without_names().client(query("SELECT a"), NAMED, query("SELECT b"))
    assert served(scene, ModelServer()) == [*one("a"), "E 0A000", "Z I", *one("b")]
    assert not scene.codec.faults


def test_a_named_parse_behind_an_error_of_its_segment_is_skipped() -> None:
    scene = without_names().client(execute("nosuch"), NAMED, NAMED)
    assert served(scene, ModelServer()) == ["E 34000", "Z I", "E 0A000", "Z I"]


def test_each_of_many_refusals_gets_its_own_text() -> None:
    scene, model = without_names().client(query("BEGIN")), ModelServer()
    served(scene, model)
    texts = [query(f"SET penstock.wait_timeout = '{n}'") for n in range(1)]
    scene.client(query("SAVEPOINT x"), NAMED * 11, *texts)
    assert served(scene, model).count("E 0A000") == 11


def test_in_session_mode_named_statements_pass() -> None:
    scene = Scene("session").client(NAMED, bind("named"), sync())
    words = served(scene, ModelServer())
    assert words == ["1", "2", "D 1", "C SELECT 1", "Z I", "2", "Z I"]


@pytest.mark.parametrize(("cache", "sqlstate"), [(0, "0A000"), (1, "53400")])
def test_a_large_named_parse_is_refused_and_its_rest_is_cut(cache: int, sqlstate: str) -> None:
    large = parse("x" * 50_000, "named")
    scene = Scene(full=True)
    scene.codec.statements.cache, scene.codec.statements.client_memory = cache, 30_000
    scene.client(large[:20_000])
    assert scene.client_told() == ["E " + sqlstate]
    assert scene.client(large[20_000:], bind("named"), sync()).client_told() == ["Z I"]
    assert not scene.is_waiting


# -- statements of our own --------------------------------------------------------------------------


@pytest.mark.parametrize("text", [SET, "/* who */ set Penstock.GetMode to nowait;", "-- x\n" + SET])
def test_our_setting_is_set_by_a_simple_query(text: str) -> None:
    scene = Scene(full=True).client(query(text))
    assert scene.client_told() == ["C SET", "Z I"]
    assert scene.codec.getmode == "nowait"
    assert scene.settings_changed == 1
    assert scene.client(query(SHOW)).client_told() == ["T", "D nowait", "C SHOW", "Z I"]


def test_a_timeout_is_set_shown_and_put_back() -> None:
    scene = Scene(full=True)
    assert scene.client(query("SHOW penstock.wait_timeout")).client_told()[1] == "D 30s"
    scene.client(query("SET penstock.wait_timeout = '250ms'"))
    assert scene.codec.wait_timeout == 0.25
    scene.client_got()
    assert scene.client(query("SHOW penstock.wait_timeout")).client_told()[1] == "D 250ms"
    scene.client(query("SET penstock.wait_timeout = DEFAULT"), query("SET penstock.getmode = DEFAULT"))
    assert (scene.codec.wait_timeout, scene.codec.getmode) == (-1.0, "")


def test_our_setting_is_set_by_the_extended_protocol() -> None:
    scene = Scene(full=True).client(
        parse(SET), describe(), bind(), describe("", "P"), execute(), flush(), sync()
    )
    assert scene.client_told() == ["1", "t", "n", "2", "n", "C SET", "Z I"]
    assert scene.codec.getmode == "nowait"
    scene.client(parse(SHOW), sync()).client(bind(), execute(), close(), sync())
    assert scene.client_told() == ["1", "Z I", "2", "D nowait", "C SHOW", "3", "Z I"]
    assert not scene.is_waiting


def test_our_statement_prepared_once_runs_again() -> None:
    scene = Scene(full=True).client(parse(SHOW), sync())
    scene.client(bind(), execute(), sync()).client(bind(), execute(), sync())
    assert scene.client_told().count("D timedwait") == 2
    scene.client(close(), sync())
    assert scene.codec.own is None or scene.is_waiting


@pytest.mark.parametrize("end", [unnamed("SELECT 1"), query("SELECT 1")])
def test_another_statement_takes_the_place_of_ours(end: bytes) -> None:
    scene = Scene().client(parse(SHOW), sync(), end)
    assert scene.codec.own is None
    assert not scene.codec.aside
    assert scene.server_got() == end


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("SET penstock.getmode = 'sideways'", "22023"),
        ("SET penstock.wait_timeout = 'soon'", "22023"),
        ("SET penstock.nosuch = 1", "0A000"),
        ("SET LOCAL penstock.getmode = 'nowait'", "0A000"),
        ("RESET penstock.getmode", "0A000"),
        ("SELECT 1; " + SET, "0A000"),
        (SET + "; SELECT 1", "0A000"),
    ],
)
def test_what_we_cannot_do_is_a_clear_error_and_never_forwarded(text: str, sqlstate: str) -> None:
    scene = Scene(full=True).client(query(text))
    assert scene.client_told() == [f"E {sqlstate}", "Z I"]
    scene.client(parse(text), bind(), execute(), sync())
    assert scene.client_told() == [f"E {sqlstate}", "Z I"]
    scene = Scene()
    model = ModelServer()
    scene.client(query("BEGIN"))
    served(scene, model)
    scene.client(query(text))
    assert served(scene, model) == [f"E {sqlstate}", "Z E"]


def test_our_setting_in_a_transaction_and_in_a_failed_one() -> None:
    scene, model = Scene().client(query("BEGIN")), ModelServer()
    served(scene, model)
    assert scene.client(query(SET)).client_told() == ["C SET", "Z T"]
    scene.client(query("FAIL"))
    served(scene, model)
    scene.client(query(SHOW))
    assert served(scene, model) == ["E 25P02", "Z E"]
    scene.client(parse(SHOW), bind(), execute(), sync())
    assert served(scene, model)[-1] == "Z E"
    assert scene.codec.getmode == "nowait"


def test_our_setting_in_a_pipeline_waits_for_its_turn() -> None:
    scene = Scene().client(
        query("SELECT a"), query(SET), query("SELECT b"), parse(SHOW), bind(), execute(), sync()
    )
    assert scene.server_got() == query("SELECT a")
    assert scene.client(flush()).server_got() == b""
    model = ModelServer()
    scene.server(model.feed(query("SELECT a")))
    assert scene.releases == 1
    assert scene.server_got() == query("SELECT b")
    scene.server(model.feed(query("SELECT b")))
    words = scene.client_told()
    assert [word for word in words if word[:1] in "CD"] == [
        "D a", "C SELECT 1", "C SET", "D b", "C SELECT 1", "D nowait", "C SHOW",
    ]  # fmt: skip
    assert not scene.codec.blocked
    assert not scene.codec.answering
    assert scene.releases == 2


def test_what_was_held_back_is_looked_at_when_the_session_is_refused() -> None:
    scene = Scene(full=True).client(query("SELECT a"), query(SET))
    assert scene.refuse().client_told() == ["E 53300", "Z I", "C SET", "Z I"]


def test_what_was_held_back_is_looked_at_when_the_session_dies() -> None:
    scene = Scene().client(query("SELECT a"), query(SET))
    scene.lose_session()
    assert scene.client_told() == ["E 08006", "Z I", "C SET", "Z I"]


@pytest.mark.parametrize("message", [parse(SET), query(SET)])
def test_our_setting_inside_a_segment_is_out_of_place(message: bytes) -> None:
    scene = Scene().client(parse("SELECT 1"), message, sync())
    scene.server(ModelServer().feed(scene.server_got()))
    assert "E 0A000" in scene.client_told()
    assert scene.codec.getmode == ""


def test_another_statement_inside_our_segment_is_out_of_place() -> None:
    scene = Scene(full=True).client(parse(SET), parse("SELECT 1"), bind(), sync())
    assert scene.client_told() == ["1", "E 0A000", "Z I"]


def test_a_segment_of_ours_that_is_not_ended_does_not_hold_up_a_query() -> None:
    scene = Scene().client(parse(SHOW), bind(), query("SELECT 1"))
    assert scene.server_got() == query("SELECT 1")
    assert scene.client_told() == ["1", "2"]
    scene = Scene().client(parse(SHOW), call())
    assert scene.server_got() == call()


def test_a_simple_setting_ends_the_unnamed_statement_of_a_held_session() -> None:
    scene, model = Scene().client(unnamed("BEGIN")), ModelServer()
    served(scene, model)
    scene.client(query(SET), bind(), execute(), sync())
    assert served(scene, model) == ["C SET", "Z T", "E 26000", "Z E"]


def test_while_skipping_to_sync_everything_else_is_dropped() -> None:
    scene = without_names(full=True).client(parse("x", "named"))
    scene.client(query("SELECT 1"), bind(), copy_data(), call(), flush(), execute())
    assert scene.client_told() == ["E 0A000"]
    assert scene.client(sync(), sync()).client_told() == ["Z I", "Z I"]
    assert scene.client(parse("x", "named"), terminate()).is_closed


def test_late_copy_data_of_a_client_without_a_session_is_dropped() -> None:
    scene = Scene(full=True).client(copy_data(b"x" * 40_000)[:20_000])
    assert not scene.is_waiting
    scene.client(copy_data(b"x" * 40_000)[20_000:], query("SELECT 1"))
    assert scene.is_waiting
    assert scene.codec.out == query("SELECT 1")


def test_an_error_that_only_looks_like_ours_is_passed_on() -> None:
    scene = without_names().client(NAMED)
    assert scene.client_told() == ["E 0A000", "Z I"]
    scene.client(query("SELECT 1"))
    assert told(ModelServer().feed(query("EXECUTE penstock_refused_1_"))) == ["E 26000", "Z I"]
    scene.server(ModelServer().feed(query("EXECUTE penstock_refused_1_")))
    assert scene.client_told() == ["E 26000", "Z I"]


def test_a_violation_in_statement_mode_is_told_once_nothing_is_owed() -> None:
    scene = Scene("statement").client(query("BEGIN"), query("SELECT 1")).server(done("BEGIN"), ready(84))
    assert scene.client_told() == ["C BEGIN", "Z T"]
    scene.server(done("SELECT 1"), ready(84))
    assert scene.client_told() == ["C SELECT 1", "E 0A000", "Z I"]
    assert scene.recovered == [True]


def test_the_rest_of_a_message_whose_session_was_given_up_goes_nowhere() -> None:
    long = copy_data(b"x" * 50_000)
    scene = Scene("statement").client(query("BEGIN; COPY IN")).server(done("BEGIN"), b"G\0\0\0\7\0\0\0")
    scene.client(long[:9_000]).server(b"E\0\0\0\4", ready(69))
    scene.server_got()
    scene.client(long[9_000:], query("SELECT 1"))
    assert scene.server_got() == query("SELECT 1")


def test_our_settings_leave_the_plain_path_plain() -> None:
    scene = Scene().client(query(SET), parse(SHOW), bind(), execute(), sync(), unnamed("SELECT 1"))
    assert scene.server_got() == unnamed("SELECT 1")
    scene.server(PARSED, BOUND, done("SELECT 1"), READY_IDLE)
    assert scene.releases == 1
    assert not scene.codec.aside

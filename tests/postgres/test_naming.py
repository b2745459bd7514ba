"""Named prepared statements where sessions change hands: what reaches the session, and what the client reads.

That whole clients read what a server of their own would say is in test_relaying.py.
"""

from postgres.playbook import (
    BOUND,
    CLOSED,
    NO_PARAMETERS,
    PARSED,
    ModelServer,
    Scene,
    bind,
    close,
    columns,
    cut,
    describe,
    done,
    execute,
    failed,
    flush,
    new_codec,
    new_session,
    parse,
    sync,
    told,
)
from proxy.codec import FORWARD
from proxy.postgres.messages import error, message, query, ready
from proxy.postgres.profile import Profiles
from proxy.postgres.statements import Statements

IDLE, OPEN = ready(73), ready(84)


class Pair:
    """Two clients of one pool, one after the other on one session or each on its own."""

    def __init__(self, cache: int = 10) -> None:
        self.ann, self.bob = Scene(), Scene()
        self.bob.codec.statements = self.ann.codec.statements
        self.bob.session = self.ann.session
        self.ann.codec.statements.cache = cache
        self.model = ModelServer()

    def say(self, scene: Scene, *messages: bytes) -> list[str]:
        scene.client(*messages)
        while scene.is_linked:
            going = scene.server_got()
            back = self.model.feed(going)
            if back:
                scene.server(back)
            elif not going:
                break
        return scene.client_told()

    def names(self) -> set[str]:
        return {name for name in self.model.statements if name.startswith("penstock_")}


def test_the_second_client_s_statement_is_the_first_one_s() -> None:
    pair = Pair()
    assert pair.say(pair.ann, parse("SELECT 1", "a"), bind("a"), execute(), sync()) == [
        *["1", "2", "D 1", "C SELECT 1", "Z I"]
    ]
    # No session is needed to prepare what a server has taken before.
    assert pair.say(pair.bob, parse("SELECT 1", "b"), sync()) == ["1", "Z I"]
    assert not pair.bob.releases
    assert pair.say(pair.bob, bind("b"), execute(), sync()) == ["2", "D 1", "C SELECT 1", "Z I"]
    assert len(pair.names()) == 1


def test_a_session_that_lacks_it_is_given_it_and_the_client_does_not_notice() -> None:
    pair = Pair()
    pair.say(pair.ann, parse("SELECT 1", "a"), sync())
    pair.ann.session, pair.model = new_session(pair.ann.profiles), ModelServer()
    assert pair.say(pair.ann, bind("a"), execute(), bind("a"), execute(), sync()) == [
        *["2", "D 1", "C SELECT 1"] * 2,
        "Z I",
    ]


def test_the_longest_unused_gives_way() -> None:
    pair = Pair(cache=2)
    for text in ("one", "two", "three"):
        pair.say(pair.ann, parse(f"SELECT {text}", text), sync())
    assert {pair.model.statements[name] for name in pair.names()} == {"SELECT two", "SELECT three"}
    assert pair.say(pair.ann, bind("one"), execute(), sync()) == ["2", "D one", "C SELECT 1", "Z I"]
    assert {pair.model.statements[name] for name in pair.names()} == {"SELECT three", "SELECT one"}


def test_a_bind_keeps_its_portal_its_parameters_and_its_rest() -> None:
    scene = Scene().client(query("BEGIN")).server(done("BEGIN"), OPEN)
    scene.client(parse("SELECT 1", "name"), sync()).server(PARSED, OPEN)
    scene.server_got()
    rest = b"\0\x01\0\0\0\x01\0\0\0\x03abc\0\0"
    scene.client(message(b"B", b"portal\0name\0" + rest), message(b"B", b"\0name\0" + rest), sync())
    first, second, _ = cut(scene.server_got())
    ours = next(iter(scene.session.prepared)).name
    assert first == ("B", b"portal\0" + ours + b"\0" + rest)
    assert second == ("B", b"\0" + ours + b"\0" + rest)


def test_a_hundred_binds_in_one_read_are_one_write() -> None:
    scene = Scene().client(query("BEGIN")).server(done("BEGIN"), OPEN)
    scene.client(parse("SELECT 1", "name"), sync()).server(PARSED, OPEN)
    scene.server_got()
    assert scene.codec.client((bind("name") + execute()) * 100 + sync()) == FORWARD
    assert [kind for kind, _ in cut(scene.codec.out)] == ["B", "E"] * 100 + ["S"]


def test_what_is_not_confirmed_is_not_built_on() -> None:
    # Where the server skips the Parse, a direct connection would not run the Bind either.
    scene = Scene().client(execute("nosuch"), parse("SELECT 1", "a"), sync(), bind("a"), execute(), sync())
    assert [kind for kind, _ in cut(scene.server_got())] == ["E", "P", "S"]
    scene.server(failed("34000"), IDLE)
    assert scene.client_told() == ["E 34000", "Z I", "E 26000", "Z I"]


def test_errors_speak_of_the_client_s_name() -> None:
    scene = Scene().client(parse("SELECT 1", "mine"), sync())
    ours = next(iter(scene.session.prepared)).name.decode()
    scene.server(PARSED, IDLE).client(bind("mine"), sync())
    scene.server(error("ERROR", "08P01", f'prepared statement "{ours}" requires 1'), IDLE)
    assert b'prepared statement "mine" requires 1' in scene.client_got()


def test_errors_speak_of_the_name_that_was_meant_though_it_means_another_statement_by_now() -> None:
    scene = Scene().client(parse("SELECT 1", "mine"), sync())
    ours = next(iter(scene.session.prepared)).name.decode()
    scene.server(PARSED, IDLE)
    scene.client(bind("mine"), execute(), close("mine"), parse("SELECT 2", "mine"), sync())
    scene.server(error("ERROR", "08P01", f'prepared statement "{ours}" requires 1'), IDLE)
    assert b'prepared statement "mine" requires 1' in scene.client_got()


def test_names_that_are_taken_or_unknown_are_refused_as_the_server_does() -> None:
    pair = Pair()
    pair.say(pair.ann, parse("SELECT 1", "a"), sync())
    assert pair.say(pair.ann, parse("SELECT 2", "a"), sync()) == ["E 42P05", "Z I"]
    assert pair.say(pair.ann, parse("WRONG", "a"), sync()) == ["E 42601", "Z I"]
    assert pair.say(pair.ann, bind("b"), execute(), sync()) == ["E 26000", "Z I"]
    assert pair.say(pair.ann, describe("b"), sync()) == ["E 26000", "Z I"]
    assert pair.say(pair.ann, bind("a"), execute(), sync()) == ["2", "D 1", "C SELECT 1", "Z I"]


def test_a_close_needs_no_session_and_leaves_the_statement_to_others() -> None:
    pair = Pair()
    pair.say(pair.ann, parse("SELECT 1", "a"), sync())
    pair.say(pair.bob, parse("SELECT 1", "a"), sync())
    releases = pair.ann.releases
    assert pair.say(pair.ann, close("a"), sync()) == ["3", "Z I"]
    assert pair.ann.releases == releases
    assert pair.say(pair.ann, bind("a"), sync()) == ["E 26000", "Z I"]
    assert pair.say(pair.bob, bind("a"), execute(), sync()) == ["2", "D 1", "C SELECT 1", "Z I"]


def test_deallocate_takes_the_client_s_name_and_nobody_else_s() -> None:
    pair = Pair()
    for scene in (pair.ann, pair.bob):
        pair.say(scene, parse("SELECT 1", "a"), sync())
    assert pair.say(pair.ann, query('deallocate prepare "a";')) == ["C DEALLOCATE", "Z I"]
    assert pair.say(pair.ann, bind("a"), sync()) == ["E 26000", "Z I"]
    assert pair.say(pair.bob, parse("DEALLOCATE a"), bind(), execute(), sync()) == [
        *["1", "2", "C DEALLOCATE", "Z I"]
    ]
    assert pair.say(pair.bob, bind("a"), sync()) == ["E 26000", "Z I"]
    assert pair.say(pair.bob, query("DEALLOCATE a")) == ["E 26000", "Z I"]


def test_deallocate_all_takes_the_client_s_and_the_session_s() -> None:
    pair = Pair()
    for scene in (pair.ann, pair.bob):
        pair.say(scene, parse("SELECT 1", "a"), sync())
    assert pair.say(pair.ann, query("DEALLOCATE ALL")) == ["C DEALLOCATE ALL", "Z I"]
    assert not pair.names()
    assert pair.say(pair.ann, bind("a"), sync()) == ["E 26000", "Z I"]
    assert pair.say(pair.bob, bind("a"), execute(), sync()) == ["2", "D 1", "C SELECT 1", "Z I"]


def test_what_was_described_and_is_different_now_is_an_error_as_on_a_session_that_had_it() -> None:
    scene = Scene().client(parse("SELECT 1", "a"), describe("a"), sync())
    scene.server(PARSED, NO_PARAMETERS, columns(), IDLE)
    assert scene.client_told() == ["1", "t", "T", "Z I"]
    scene.session = new_session(scene.profiles)
    scene.server_got()
    scene.client(bind("a"), execute(), sync())
    # The server is asked first, and nothing runs before it has answered.
    assert [kind for kind, _ in cut(scene.server_got())] == ["P", "D", "H"]
    other = message(b"T", b"\0\x01other\0" + b"\0" * 18)
    scene.server(PARSED, NO_PARAMETERS[:3])
    scene.server(NO_PARAMETERS[3:], other)
    assert not scene.client_got()
    assert [kind for kind, _ in cut(scene.server_got())] == ["B", "E", "S"]
    scene.server(failed("26000", "penstock_refused_1_"), IDLE)
    got = scene.client_got()
    assert told(got) == ["E 0A000", "Z I"]
    assert b"RRevalidateCachedQuery\0" in got
    # Who prepares the same text again has another statement; the old one goes, for others were told the same.
    scene.client(parse("SELECT 1", "b"), sync())
    assert [kind for kind, _ in cut(scene.server_got())] == ["C", "P", "S"]


def test_what_was_described_and_is_the_same_goes_on() -> None:
    pair = Pair()
    pair.say(pair.ann, parse("SELECT 1", "a"), describe("a"), sync())
    pair.ann.session, pair.model = new_session(pair.ann.profiles), ModelServer()
    assert pair.say(pair.ann, bind("a"), execute(), sync(), bind("a"), execute(), sync()) == [
        *["2", "D 1", "C SELECT 1", "Z I"] * 2
    ]


def test_the_same_columns_of_another_table_are_the_same() -> None:
    scene = Scene().client(parse("SELECT 1", "a"), describe("a"), sync())
    scene.server(PARSED, NO_PARAMETERS, columns(), IDLE)
    scene.session = new_session(scene.profiles)
    scene.client_got()
    scene.server_got()
    scene.client(bind("a"), execute(), sync())
    moved = message(b"T", b"\0\x01x\0" + b"\0\0\0\x07\0\x01" + b"\0" * 12)
    scene.server(PARSED, NO_PARAMETERS, moved)
    scene.server(BOUND, done("SELECT 0"), IDLE)
    assert scene.client_told() == ["2", "C SELECT 0", "Z I"]


def test_an_error_instead_of_the_description_lets_the_client_go_on() -> None:
    scene = Scene().client(parse("SELECT 1", "a"), describe("a"), sync())
    scene.server(PARSED, NO_PARAMETERS, columns(), IDLE)
    scene.client_got()
    scene.session = new_session(scene.profiles)
    scene.client(bind("a"), execute(), sync()).server(failed("42P01"))
    scene.server(IDLE)
    assert scene.client_told() == ["E 42P01", "Z I"]
    assert scene.releases == 2


def test_an_altered_table_makes_new_statements_of_old_texts() -> None:
    pair = Pair()
    pair.say(pair.ann, parse("SELECT 1", "a"), sync())
    pair.ann.client(query("ALTER TABLE t")).server(done("ALTER TABLE"), IDLE)
    pair.ann.client_got()
    pair.ann.server_got()
    assert pair.say(pair.bob, parse("SELECT 1", "b"), sync()) == ["1", "Z I"]
    assert len(pair.names()) == 2


def test_what_a_client_had_is_given_back_when_it_leaves() -> None:
    statements = Statements(memory=4_000)
    profiles = Profiles()
    first = new_codec(profiles, statements=statements)
    made = statements.take(b"SELECT 1" + b"x" * 1_000 + b"\0\0\0", "")
    assert made is not None
    first.named[b"a"] = made
    assert statements.take(b"y" * 2_600, "") is None
    first.leave()
    assert statements.take(b"y" * 2_600, "") is not None
    assert len(statements) == 1


def test_the_same_text_under_another_search_path_is_another_statement() -> None:
    statements = Statements()
    assert statements.take(b"SELECT 1\0\0\0", "a") is not statements.take(b"SELECT 1\0\0\0", "b")


def test_a_close_of_an_unnamed_portal_and_flushes_pass() -> None:
    scene = Scene().client(parse("SELECT 1", "a"), flush(), bind("a"), close("", "P"), sync())
    assert [kind for kind, _ in cut(scene.server_got())] == ["P", "H", "B", "C", "S"]
    scene.server(PARSED, BOUND, CLOSED, IDLE)
    assert scene.client_told() == ["1", "2", "3", "Z I"]

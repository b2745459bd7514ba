"""What the operator wants done to one session: at its login, at a release, in a ping, and for a client."""

from collections.abc import Callable
from typing import Any

import pytest

from postgres.playbook import DEFAULTS, ModelServer, converse, done, failed, row, told
from proxy.errors import BackendError, OpenFailed, PingFailed
from proxy.postgres.messages import READY_IDLE, query, ready
from proxy.postgres.profile import Profiles
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.session_login import Opened
from proxy.postgres.upkeep import Upkeep

INIT = "SET TimeZone = Asia"


class Server:
    """Remembers what it is sent; ``model`` answers."""

    def __init__(self, model: ModelServer | None = None) -> None:
        self.model = model or ModelServer()
        self.sent: list[bytes] = []

    def __call__(self, data: bytes) -> bytes:
        if not data:
            return b"x"  # the login
        self.sent.append(data)
        return self.model.feed(data)


def opened(server: Callable[[bytes], bytes], upkeep: Upkeep, *noted: Any) -> PgSessionCodec:
    def login() -> Any:
        yield b""
        return Opened(dict(DEFAULTS), 4711, b"abcd", False, "trust", b"")

    session = PgSessionCodec(Profiles(), login, upkeep, *noted)
    converse(session.log_in(), server)
    return session


def script(*replies: bytes) -> Callable[[bytes], bytes]:
    left = list(replies)
    return lambda sent: left.pop(0)


# -- new sessions -----------------------------------------------------------------------------------


def test_a_new_session_is_made_ready_before_anybody_hears_of_it() -> None:
    server, heard = Server(), list[dict[str, str]]()
    session = opened(server, Upkeep(INIT), heard.append)
    assert server.sent == [query(INIT)]
    assert heard == [{**DEFAULTS, "TimeZone": "Asia"}]
    assert session.defaults["TimeZone"] == "Asia"
    assert session.tag() is None


def test_a_session_that_cannot_be_made_ready_is_a_failed_open_in_the_server_s_words() -> None:
    with pytest.raises(OpenFailed, match="session_init failed: no such thing") as caught:
        opened(script(b"x", failed("42P01", "no such thing") + READY_IDLE), Upkeep(INIT))
    assert (caught.value.sqlstate, caught.value.fields["C"]) == ("42P01", "42P01")
    with pytest.raises(OpenFailed, match="session_init left a transaction open"):
        opened(script(b"x", done("BEGIN") + ready(84)), Upkeep("BEGIN"))


# -- wiping -----------------------------------------------------------------------------------------


def test_whatever_wipes_is_followed_by_what_makes_it_ready() -> None:
    server = Server()
    session = opened(server, Upkeep(INIT, role="writer"))
    model = server.model
    for touched, deep in [(1, False), (1, True)]:
        session.touched_by, session.deep = touched, deep
        model.settings["application_name"] = "left over"
        answers = script(done("RESET") + READY_IDLE + done("RESET") + READY_IDLE + done("SET") + READY_IDLE)
        server.sent.clear()

        def answer(data: bytes, answers: Any = answers) -> bytes:
            server.sent.append(data)
            return bytes(answers(data))

        converse(session.adopt(session.profiles.empty, 2), answer)
        clean = "DISCARD ALL" if deep else "SET SESSION AUTHORIZATION DEFAULT;RESET ALL"
        assert server.sent == [query(clean) + query("RESET ROLE") + query(INIT)]
        assert session.touched_by == 0
    server.sent.clear()
    converse(session.reset(), script(done("DISCARD ALL") + READY_IDLE, 2 * (done("SET") + READY_IDLE)))


def test_what_session_init_has_set_is_there_again_behind_a_client_that_set_it_too() -> None:
    server = Server()
    session = opened(server, Upkeep(INIT))
    converse(session.adopt(session.profiles.of({"timezone": "CET"}), 1), server)
    assert server.model.settings["TimeZone"] == "CET"
    words = told(converse(session.adopt(session.profiles.empty, 2), server))
    assert words[-1] == "S TimeZone=Asia"
    assert server.model.settings["TimeZone"] == "Asia"
    server.sent.clear()
    # Where nothing is taken away nothing is wiped.
    converse(session.adopt(session.profiles.of({"application_name": "x"}), 2), server)
    assert not any(b"RESET" in sent for sent in server.sent)


def test_where_it_cannot_be_made_ready_again_nobody_may_have_the_session() -> None:
    session = opened(Server(), Upkeep(INIT))
    session.touched_by = 1
    with pytest.raises(BackendError, match="session_init failed: no"):
        converse(
            session.adopt(session.profiles.empty, 2),
            script(done("RESET") + READY_IDLE + failed() + READY_IDLE),
        )
    with pytest.raises(BackendError, match="session_init failed: no"):
        converse(session.settle(), script())


def test_nothing_is_wiped_where_the_operator_wants_nothing() -> None:
    session = opened(Server(), Upkeep(reset="none"))
    session.touched_by = 1
    assert converse(session.adopt(session.profiles.empty, 2), script()) == b""
    assert session.tag() is None


# -- at a release -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "touched_by"),
    [("SELECT 1", 7), ("RESET", -1), ("SET", -1), ("DISCARD TEMP", 7), ("DISCARD ALL", 0)],
)
def test_sql_of_the_operator_wipes_as_far_as_it_says_that_it_did(tag: str, touched_by: int) -> None:
    session = opened(Server(), Upkeep(reset="something"))
    session.touched_by = 7
    converse(session.reset(), script(row("1") + done(tag) + READY_IDLE))
    assert session.touched_by == touched_by
    # What is not certain to be wiped is wiped for the next client.
    assert (session.tag() is session) is (touched_by != 0)


def test_sql_of_the_operator_that_fails_or_stays_open_costs_the_session() -> None:
    session = opened(Server(), Upkeep(reset="something"))
    with pytest.raises(BackendError, match="reset failed: no"):
        converse(session.reset(), script(failed() + READY_IDLE))
    session = opened(Server(), Upkeep(reset="BEGIN"))
    with pytest.raises(BackendError, match="reset left a transaction open"):
        converse(session.reset(), script(done("BEGIN") + ready(84)))


# -- tags -------------------------------------------------------------------------------------------


def test_the_tag_of_a_session_is_the_settings_that_it_carries() -> None:
    server = Server()
    session = opened(server, Upkeep())
    wanted = session.profiles.of({"application_name": "x"})
    converse(session.adopt(wanted, 1), server)
    assert session.tag() is wanted
    session.touched_by = 1
    assert session.tag() is session
    converse(session.adopt(session.profiles.empty, 2), server)
    assert session.tag() is None


def test_a_fixup_is_run_behind_the_difference_and_only_where_there_was_one() -> None:
    server = Server()
    session = opened(server, Upkeep(tag_fixup="SELECT fix"))
    wanted = session.profiles.of({"application_name": "x"})
    converse(session.adopt(wanted, 1), server)
    assert server.sent[-1] == query("SELECT fix")
    assert server.model.executed[-1] == "SELECT fix"
    server.sent.clear()
    assert converse(session.adopt(wanted, 2), server) == b""
    assert server.sent == []
    session.touched_by = 3
    converse(session.adopt(wanted, 2), server)
    assert server.sent[-1] == query("SELECT fix")


def test_a_fixup_that_fails_is_told_in_the_server_s_words_and_costs_the_session() -> None:
    session = opened(Server(), Upkeep(tag_fixup="FAIL"))
    model = ModelServer()
    with pytest.raises(BackendError, match="tag_fixup failed") as caught:
        converse(session.adopt(session.profiles.of({"application_name": "x"}), 1), model.feed)
    assert caught.value.fields["M"].startswith("tag_fixup failed: ")
    with pytest.raises(BackendError, match="tag_fixup failed"):
        converse(session.settle(), script())


def test_a_setting_that_the_server_refuses_runs_no_fixup_and_costs_no_session() -> None:
    session = opened(Server(), Upkeep(tag_fixup="SELECT fix"))
    with pytest.raises(BackendError, match="no"):
        converse(session.adopt(session.profiles.of({"nosuch": "x"}), 1), script(failed("42704") + READY_IDLE))
    converse(session.settle(), script(READY_IDLE))


# -- pings ------------------------------------------------------------------------------------------


def test_a_ping_is_the_operator_s_query() -> None:
    server = Server()
    session = opened(server, Upkeep(ping_command="SELECT 7"))
    session.unnamed = object()
    converse(session.ping(), server)
    assert server.sent == [query("SELECT 7")]
    assert session.unnamed is session
    assert not session.pings_by_peek()
    assert opened(Server(), Upkeep(ping_command="peek")).pings_by_peek()
    with pytest.raises(PingFailed, match="left a transaction open"):
        converse(session.ping(), script(done("BEGIN") + ready(84)))

"""The question to the server behind a unit of work, and what becomes of the session then."""

from typing import Any

import pytest

from postgres.playbook import (
    CAP,
    SHOWN,
    bind,
    converse,
    done,
    execute,
    failed,
    milliseconds,
    new_session,
    parse,
    permit,
    sync,
    told,
)
from proxy.codec import FORWARD, PREPARE, RELEASE, REPLY
from proxy.errors import BackendError
from proxy.postgres.effects import KINDS
from proxy.postgres.messages import error, message, parameter_status, query, ready
from proxy.postgres.profile import TRACKED, Profiles
from proxy.postgres.relaying import PgClientCodec
from proxy.postgres.state import STATEMENT_MODE, TRANSACTION_MODE
from proxy.postgres.state_rules import StateRules
from proxy.postgres.terms import Terms

IDLE = ready(ord("I"))
PINNED = dict.fromkeys(KINDS, "pin") | {"settings": "allow"}


def line(*values: str | None) -> bytes:
    """A DataRow."""
    body = len(values).to_bytes(2, "big")
    for value in values:
        body += b"\xff\xff\xff\xff" if value is None else len(value).to_bytes(4, "big") + value.encode()
    return message(b"D", body)


class Held:
    """One client with a session, and the server's side of it."""

    def __init__(self, mode: int = TRANSACTION_MODE, rules: StateRules | None = None, **startup: str) -> None:
        self.rules = rules or StateRules(PINNED, by_statement=mode == STATEMENT_MODE)
        self.rules.note_reported(frozenset({"timezone", "application_name"}))
        profiles = Profiles()
        terms = Terms("app", SHOWN, permit, milliseconds)
        terms.rules = self.rules
        self.codec = PgClientCodec(7, mode, terms, profiles, profiles.of(startup), CAP)
        self.session = new_session(profiles)
        self.session.profile = self.codec.profile
        self.asked: list[bytes] = []
        self.told = b""

    def runs(self, text: str, tag: str = "", more: bytes = b"", status: str = "I") -> int:
        """A Query and its answer; the flags that follow from it, without FORWARD."""
        return self.sends(query(text), more + done(tag or text.split()[0]) + ready(ord(status)))

    def sends(self, data: bytes, answer: bytes) -> int:
        assert self.codec.client(data) == FORWARD
        if self.codec.session is None:
            assert not self.codec.join(self.session)
        return self.codec.server(answer) & ~FORWARD

    def settles(self, *rows: bytes, more: bytes = b"") -> int:
        """The server answers the question with these; the flags of the look behind it."""

        def answer(sent: bytes) -> bytes:
            self.asked.append(sent)
            if sent.startswith(b"Q") and b"UNION" not in sent and b"SELECT" not in sent:
                return done("SET") + IDLE
            if sent.startswith(b"P"):
                return message(b"1", b"") + IDLE
            return more + b"".join(rows) + IDLE

        self.told = converse(self.codec.prepare(), answer)
        return self.codec.client(b"")

    def goes(self) -> Any:
        """The session goes home."""
        assert self.codec.is_clean()
        self.codec.part()
        return self.session


def test_nothing_is_asked_where_nothing_is_left() -> None:
    held = Held()
    assert held.runs("SELECT 1") == RELEASE
    assert held.runs("DROP TABLE t", "DROP TABLE") == RELEASE
    assert held.runs("SET TimeZone = 'UTC'", "SET") == RELEASE
    assert held.runs("SET enable_seqscan = off", "SET") == RELEASE
    assert held.goes().touched_by == 7


@pytest.mark.parametrize(
    ("text", "letter", "kind", "end"),
    [
        ("CREATE TEMP TABLE t (a int)", "t", "temp_tables", "DROP TABLE t"),
        ("SELECT pg_advisory_lock(1)", "a", "advisory_locks", "SELECT pg_advisory_unlock(1)"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "h", "hold_cursors", "CLOSE c"),
        ("PREPARE p AS SELECT 1", "p", "sql_prepare", "DEALLOCATE p"),
        ("LISTEN x", "l", "listen", "UNLISTEN x"),
    ],
)
def test_a_client_is_pinned_while_the_server_says_so(text: str, letter: str, kind: str, end: str) -> None:
    held = Held()
    assert held.runs(text) == PREPARE
    assert held.settles(line(letter, None, None)) == 0
    assert held.codec.pinned() == kind
    assert held.rules.counts[kind, "pinned"] == held.rules.held[kind] == 1
    assert not held.codec.is_clean()
    assert held.codec.is_at_rest()
    assert held.runs("SELECT 1") == 0
    assert held.runs(end) == PREPARE
    assert held.settles(line(letter, None, None)) == 0
    assert held.rules.counts[kind, "pinned"] == 1
    assert held.runs(end) == PREPARE
    assert held.settles() == RELEASE
    assert held.rules.held[kind] == 0
    session = held.goes()
    assert session.touched_by == session.deep == session.littered == 0


def test_inside_a_transaction_nobody_is_asked() -> None:
    held = Held()
    assert held.runs("BEGIN", status="T") == 0
    assert held.runs("CREATE TEMP TABLE t (a int)", status="T") == 0
    assert held.runs("COMMIT") == PREPARE
    assert held.settles() == RELEASE


def test_what_comes_meanwhile_goes_on_to_the_same_session() -> None:
    held = Held()
    assert held.runs("SELECT pg_advisory_lock(1)") == PREPARE
    converse(held.codec.prepare(), lambda _: IDLE)
    assert held.codec.client(query("SELECT 2")) == FORWARD
    assert held.codec.client(b"") == 0
    assert held.codec.server(done("SELECT 1") + IDLE) == FORWARD | RELEASE


def test_the_unnamed_statement_is_sent_again_behind_the_question() -> None:
    held = Held()
    once = parse("SELECT pg_advisory_lock(1)")
    use = bind() + execute() + sync()
    answers = message(b"2", b"") + done("SELECT 1") + IDLE
    assert held.sends(once + use, message(b"1", b"") + answers) == PREPARE
    assert held.settles(line("a", None, None)) == 0
    # Nothing is parsed, and yet it is known what runs.
    assert held.codec.client(use) == FORWARD
    assert held.codec.out.startswith(once)
    assert held.codec.server(message(b"1", b"") + answers) & ~FORWARD == PREPARE


def test_where_the_server_does_not_answer_it_is_taken_to_be_there() -> None:
    held = Held()
    assert held.runs("SELECT pg_advisory_lock(1)") == PREPARE
    assert held.settles(failed("42501")) == 0
    assert held.codec.pinned() == "advisory_locks"


def test_a_late_cancel_may_hit_the_question() -> None:
    held = Held()
    assert held.runs("SELECT pg_advisory_lock(1)") == PREPARE
    answers = [failed("57014") + IDLE, IDLE]
    converse(held.codec.prepare(), lambda _: answers.pop(0))
    assert held.codec.client(b"") == RELEASE


def test_what_the_server_says_meanwhile_reaches_the_client() -> None:
    held = Held()
    assert held.runs("LISTEN x") == PREPARE
    said = message(b"A", b"\0\0\0\x01x\0\0") + parameter_status("TimeZone", "Asia/Tokyo")
    assert held.settles(line("l", None, None), more=said) == 0
    assert told(held.told) == ["A", "S TimeZone=Asia/Tokyo"]


@pytest.mark.parametrize("rows", [[line("t")], [b"D\0\0\0\x06\0\0"]])
def test_a_row_that_is_cut_short_is_an_error(rows: list[bytes]) -> None:
    held = Held()
    assert held.runs("CREATE TEMP TABLE t (a int)") == PREPARE
    with pytest.raises(Exception, match="cut short"):
        held.settles(*rows)
    held.codec.part()
    assert held.session.littered


def test_settings_that_are_not_reported_follow_their_client() -> None:
    held = Held(search_path="app", extra_float_digits="0")
    assert held.runs("SET search_path = other", "SET") == PREPARE
    rows = [
        line("s", "search_path", "other"),
        line("s", "extra_float_digits", "0"),
        line("s", "role", "none"),
    ]
    assert held.settles(*rows) == 16 | RELEASE  # TERMS: it wants another tag
    assert held.codec.profile.settings == {"search_path": "other", "extra_float_digits": "0"}
    assert held.session.profile is held.codec.profile
    # Back to the login's, on the session it holds as on all others.
    assert held.runs("RESET search_path", "RESET") == PREPARE
    assert held.settles(line("s", "extra_float_digits", "0")) & RELEASE
    assert held.asked[-1].startswith(b"P")
    assert held.codec.profile.settings == {"search_path": "app", "extra_float_digits": "0"}
    assert held.session.profile is held.codec.profile


def test_what_session_init_has_set_is_nobodys() -> None:
    held = Held()
    held.session.baseline = {"statement_timeout": "5"}
    assert held.runs("SELECT set_config('lock_timeout', '7', false)") == PREPARE
    assert held.settles(line("s", "lock_timeout", "7"), line("s", "statement_timeout", "5")) & RELEASE
    assert held.codec.profile.settings == {"lock_timeout": "7"}
    assert held.goes().touched_by == 7


def test_settings_with_a_dot_are_asked_for_by_their_names() -> None:
    held = Held(rules=StateRules(PINNED | {"settings": "pin"}, TRACKED))
    assert held.runs("SET app.tenant = 5", "SET") == PREPARE
    assert held.settles(line("s", "app.tenant", "5")) == 0
    assert b"'app.tenant'" in held.asked[0]
    assert held.codec.pinned() == "settings"
    assert held.runs("RESET app.tenant", "RESET") == PREPARE
    assert held.settles(line("s", "app.tenant", "")) == RELEASE


def test_a_client_that_goes_while_it_is_pinned_leaves_its_session_to_be_wiped() -> None:
    held = Held()
    assert held.runs("CREATE TEMP TABLE t (a int)") == PREPARE
    held.settles(line("t", None, None))
    assert held.codec.recovery() is not None
    held.codec.part()
    assert held.session.littered
    assert held.rules.held["temp_tables"] == 0
    sent: list[bytes] = []

    def answer(data: bytes) -> bytes:
        sent.append(data)
        return done("x") + IDLE

    converse(held.session.settle(), answer)
    assert b"DISCARD ALL" in sent[-1]
    assert not held.session.littered


def test_load_cannot_be_undone() -> None:
    held = Held()
    assert held.sends(query("LOAD 'x'"), failed() + IDLE) == RELEASE
    assert held.runs("LOAD 'x'") == PREPARE
    assert held.settles() == 0
    assert held.asked == []
    assert held.runs("DISCARD ALL") & PREPARE
    held.settles()
    assert held.codec.pinned() == "load"
    assert held.codec.recovery() is None


GOING = error("FATAL", "57P01", "going down")


def test_a_session_that_ends_before_it_could_be_asked_takes_its_client_with_it() -> None:
    """What the client has set is known to nobody: on another session it would be missed."""
    held = Held()
    answer = done("SET") + IDLE
    assert held.sends(query("SET statement_timeout = '1s'"), answer + GOING) == PREPARE
    assert held.codec.out == answer
    with pytest.raises(BackendError, match="going down"):
        held.settles()


def test_a_session_that_ends_and_need_not_be_asked_goes_home_with_its_last_words() -> None:
    held = Held(rules=StateRules(PINNED | {"advisory_locks": "allow"}))
    answer = done("SELECT 1") + IDLE
    assert held.sends(query("SELECT pg_advisory_lock(1)"), answer + GOING) == RELEASE
    assert held.codec.out == answer
    assert held.session.last_words() == "going down"


def test_a_session_that_dies_takes_a_pinned_client_with_it() -> None:
    held = Held()
    assert held.runs("CREATE TEMP TABLE t (a int)") == PREPARE
    held.settles(line("t", None, None))
    assert held.codec.session_lost() is None


def test_what_is_allowed_is_wiped_before_another_client_comes() -> None:
    held = Held(rules=StateRules(dict.fromkeys(KINDS, "allow")))
    assert held.runs("CREATE TEMP TABLE t (a int)") == RELEASE
    session = held.goes()
    assert session.deep
    assert session.touched_by == 7


def test_a_dry_run_counts() -> None:
    held = Held(rules=StateRules(PINNED, dry_run=True))
    assert held.runs("CREATE TEMP TABLE t (a int)") == PREPARE
    assert held.settles(line("t", None, None)) == RELEASE
    assert held.rules.counts["temp_tables", "would_pin"] == 1
    assert held.goes().deep


@pytest.mark.parametrize("mode", [TRANSACTION_MODE, STATEMENT_MODE])
def test_a_refusal_names_the_setting(mode: int) -> None:
    rules = StateRules(dict.fromkeys(KINDS, "refuse"), by_statement=mode == STATEMENT_MODE)
    held = Held(mode, rules)
    assert held.codec.client(query("LOAD 'x'")) == REPLY
    assert told(held.codec.reply) == ["E 0A000", "Z I"]
    assert b"pools.app.on_load" in held.codec.reply
    assert held.codec.client(parse("LISTEN x") + bind() + execute() + sync()) == REPLY
    assert told(held.codec.reply) == ["E 0A000", "Z I"]
    assert rules.counts["load", "refused"] == rules.counts["listen", "refused"] == 1


def test_only_settings_that_stay_behind_are_refused() -> None:
    held = Held(rules=StateRules(PINNED | {"settings": "refuse"}))
    assert held.codec.client(query("SET enable_seqscan = off")) == REPLY
    assert held.codec.client(query("SELECT set_config('enable_seqscan', 'off', false)")) == REPLY
    assert held.runs("SET LOCAL enable_seqscan = off", "SET") == RELEASE
    assert held.runs("SET TimeZone = 'UTC'", "SET") == RELEASE
    assert held.runs("SET search_path = x", "SET") == PREPARE
    held.settles()
    assert held.runs("RESET ALL", "RESET") == PREPARE

"""What a pool and a listener get from PostgreSQL: keys, sessions, welcomes, last words."""

import pytest

from logins import run
from postgres.playbook import DEFAULTS, TERMS_OF_POOL, converse, new_session, told
from proxy.errors import LoginFailed, PoolTimeout
from proxy.postgres import messages as m
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.client_login import Admitted
from proxy.postgres.front import Front
from proxy.postgres.guest import PgGuest
from proxy.postgres.served import Served
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.startup import Startup
from proxy.reception import CancelTarget

APP = Account("app", password="secret")
WELCOME = (
    m.authentication(m.AUTH_OK)
    + b"".join(m.parameter_status(name, value) for name, value in DEFAULTS.items())
    + m.message(b"K", b"\0\0\0\1abcd")
    + m.READY_IDLE
)


def served(database: str = "orders", **accounts: Account) -> Served:
    return Served("app", "transaction", TERMS_OF_POOL, APP, database, "disable", {}, accounts)


def guest(pool: Served, settings: dict[str, str] | None = None, **wishes: str) -> PgGuest:
    startup = Startup(
        "app", "orders", settings or {}, {f"penstock.{name}": text for name, text in wishes.items()}
    )
    return PgGuest(Admitted(startup, APP, pool, "trust", False, b"before", b"rest"), pool, 1 << 20)


def opened(pool: Served) -> PgSessionCodec:
    session = pool.begin("orders", "app")
    assert isinstance(session, PgSessionCodec)
    converse(session.log_in(), lambda sent: WELCOME)
    return session


def test_a_client_is_served_as_itself_unless_the_operator_says_otherwise() -> None:
    pool = served()
    assert pool.key_for(APP, "any") == ("orders", "app")
    assert pool.key_for(Account("ann", password="x"), "any") == ("orders", "ann")
    assert pool.key_for(Account("bob", password="x", run_as="app"), "any") == ("orders", "app")
    assert served("").key_for(APP, "any") == ("any", "app")


def test_a_session_logs_in_as_the_user_of_its_key() -> None:
    pool = served(ann=Account("ann", password="x"))
    conversation = pool.begin("orders", "ann").log_in()
    assert b"user\0ann\0" in next(conversation)


def test_nobody_is_welcomed_before_a_session_has_shown_what_to_say() -> None:
    pool = served()
    visitor = guest(pool)
    assert visitor.welcome(b"\0" * 8) is None
    opened(pool)
    welcome = visitor.welcome(b"\0\0\0\7kkkk")
    assert welcome is not None
    words = told(welcome)
    assert words[0] == "R"
    assert words[-2:] == ["K", "Z I"]
    assert m.message(b"K", b"\0\0\0\7kkkk") in welcome
    assert (visitor.reply, visitor.rest) == (b"before", b"rest")


def test_an_application_name_needs_no_session_of_its_own() -> None:
    pool = served()
    opened(pool)
    welcome = guest(pool, {"application_name": "mine"}).welcome(b"12345678")
    assert welcome is not None
    assert "S application_name=mine" in told(welcome)


def test_other_settings_are_learned_once_for_all_who_want_the_same() -> None:
    pool = served()
    session = opened(pool)
    first = guest(pool, {"timezone": "CET", "application_name": "first"})
    assert first.welcome(b"12345678") is None
    session.reported.update({"TimeZone": "CET", "application_name": "first"})
    first.learn(session)
    second = guest(pool, {"timezone": "CET"}).welcome(b"12345678")
    assert second is not None
    assert "S TimeZone=CET" in told(second)
    assert "S application_name=" in told(second)


def test_what_was_learned_is_forgotten_when_the_server_has_changed() -> None:
    pool = served()
    session = opened(pool)
    visitor = guest(pool, {"timezone": "CET"})
    visitor.learn(session)
    conversation = pool.begin("orders", "app").log_in()
    next(conversation)
    with pytest.raises(StopIteration):
        conversation.send(WELCOME.replace(b"UTC", b"GMT"))
    assert visitor.welcome(b"12345678") is None


def test_what_is_learned_cannot_fill_the_memory() -> None:
    pool = served()
    session = new_session(pool.profiles)
    for number in range(2_500):
        guest(pool, {"timezone": str(number)}).learn(session)
    assert len(pool._welcomes) <= 1_024


def test_a_guest_has_the_terms_it_asked_for_and_a_number_of_its_own() -> None:
    pool = served()
    one = guest(pool, getmode="nowait", wait_timeout="250ms").codec
    assert (one.getmode, one.wait_timeout) == ("nowait", 0.25)
    two = guest(pool).codec
    assert (two.getmode, two.wait_timeout) == ("", -1.0)
    assert 0 < one.number < two.number  # type: ignore[attr-defined]


def test_who_cannot_be_welcomed_is_told_why() -> None:
    visitor = guest(served())
    assert told(visitor.turn_away(PoolTimeout("late", "picture"))) == ["E 53300"]
    refusal = LoginFailed("no such database", "3D000", {"C": "3D000", "M": "no such database"})
    answer = visitor.turn_away(refusal)
    assert told(answer) == ["E 3D000"]
    assert b"SFATAL\0" in answer


def front(pool: Served | None) -> Front:
    return Front("trust", "disable", Directory([APP]), lambda user, database: pool, 1 << 20)


def test_a_listener_leads_a_client_to_its_pool() -> None:
    pool = served()
    script = [m.startup([("user", "app"), ("database", "orders"), ("timezone", "CET")])]
    found = run(front(pool).log_in(False, lambda: None), script).result
    assert isinstance(found, PgGuest)
    assert (found.database, found.user, found.name) == ("orders", "app", "app")
    assert found.codec.startup_profile.settings == {"timezone": "CET"}  # type: ignore[attr-defined]


def test_a_listener_hands_a_cancel_key_on() -> None:
    script = [b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\1abcd"]
    found = run(front(served()).log_in(False, lambda: None), script).result
    assert isinstance(found, CancelTarget)
    assert found.key == b"\0\0\0\1abcd"


def test_a_listener_turns_away_with_a_fatal_error() -> None:
    assert told(front(None).turn_away("53300", "full", "wait")) == ["E 53300"]


def test_a_homogeneous_pool_takes_only_who_runs_as_its_own_user() -> None:
    pool = served()
    ann, bob = Account("ann", password="x"), Account("bob", password="x", run_as="pool")
    assert [pool.may_enter(account) for account in (APP, ann, bob)] == [True, True, True]
    pool.homogeneous = True
    assert [pool.may_enter(account) for account in (APP, ann, bob)] == [True, False, True]


def test_a_client_is_in_the_class_of_its_login() -> None:
    pool = served()
    pool.priority_of = lambda user, name: 2 if (user, name) == ("app", "web") else 1
    assert guest(pool, {"application_name": "web"}).codec.priority == 2
    assert guest(pool).codec.priority == 1


def test_every_session_is_opened_with_the_marks_of_its_pool() -> None:
    pool = served()
    pool.marks = {"label.team": "web", "role": "writer"}
    packet = next(pool.begin("orders", "app").log_in())
    assert b"label.team\0web\0" in packet
    assert b"role\0writer\0" in packet


def test_a_guest_is_welcomed_with_the_settings_of_its_tag() -> None:
    pool = served()
    opened(pool)
    visitor = guest(pool, {"timezone": "CET"}, tag="application_name=tagged")
    assert visitor.welcome(b"12345678") is None
    session = new_session(pool.profiles)
    session.reported.update({"TimeZone": "CET", "application_name": "tagged"})
    visitor.learn(session)
    welcome = visitor.welcome(b"12345678")
    assert welcome is not None
    assert {"S TimeZone=CET", "S application_name=tagged"} <= set(told(welcome))
    assert visitor.codec.tag is pool.profiles.of({"timezone": "CET", "application_name": "tagged"})

"""A replication client and its session: what passes, what is noted of it, and how it is let in."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.playbook import TERMS_OF_POOL, converse, told
from proxy.codec import CLOSE, FORWARD, REPLY
from proxy.errors import BackendError, LoginFailed, PoolTimeout, RemoteProtocolError
from proxy.postgres import messages as m
from proxy.postgres.accounts import Account
from proxy.postgres.client_login import Admitted
from proxy.postgres.replication import (
    ReplicationClient,
    ReplicationGuest,
    ReplicationSession,
    Wishes,
    replication_refused,
)
from proxy.postgres.served import Served
from proxy.postgres.startup import Startup
from proxy.reasons import CloseReason

APP = Account("app", password="secret")
WELCOME = (
    m.authentication(m.AUTH_OK)
    + m.parameter_status("server_version", "18.0")
    + m.message(b"K", b"\0\0\0\1abcd")
    + m.READY_IDLE
)
START = m.query("START_REPLICATION 0/0")
BOTH = m.message(b"W", b"\0\0\0")
WAL = m.message(b"d", b"w" + b"x" * 400)
STATUS = m.message(b"d", b"r" + b"\0" * 33)


def pool() -> Served:
    made = Served("app", "transaction", TERMS_OF_POOL, APP, "orders", "disable", {"work_mem": "1MB"}, {})
    made.marks = {"label.team": "web"}
    return made


def begun(kind: str = "database", **settings: str) -> ReplicationSession:
    session = pool().begin("orders", "app", 0, Wishes(kind, settings))
    assert isinstance(session, ReplicationSession)
    return session


def joined(rest: bytes = b"") -> tuple[ReplicationClient, ReplicationSession]:
    session, client = begun(), ReplicationClient("mine")
    converse(session.log_in(), lambda sent: WELCOME + rest)
    assert not client.join(session)
    return client, session


def test_a_session_is_opened_with_its_client_s_parameters_and_no_others() -> None:
    (sent,) = [next(begun("true", datestyle="ISO").log_in())]
    assert sent == m.startup(
        [("user", "app"), ("database", "orders"), ("datestyle", "ISO"), ("replication", "true")]
    )


def test_it_serves_nobody_else() -> None:
    session = begun()
    for care in (session.ping, session.reset, session.settle):
        with pytest.raises(BackendError):
            converse(care(), lambda sent: b"")


def test_what_the_server_says_before_its_client_listens_is_kept() -> None:
    notice = m.message(b"N", b"SNOTICE\0Mhello\0\0")
    client, session = joined(notice)
    assert client.reply == notice
    assert session.take_kept() == b""
    assert session.unlinked(b"x" * 70_000) == ""
    assert session.is_full()


def test_everything_passes_as_it_is_in_any_pieces() -> None:
    client, _ = joined()
    for data in (START, STATUS, m.message(b"c", b"")):
        assert client.client(data) == FORWARD
        assert client.out == data
    for data in (BOTH + WAL, WAL[:3], WAL[3:]):
        assert client.server(data) == FORWARD
        assert client.out == data
    assert client.client(b"") == 0


def test_a_command_runs_until_the_server_is_ready() -> None:
    client, _ = joined()
    assert not client.is_running()
    client.client(START)
    client.server(BOTH + WAL)
    client.client(STATUS)
    assert client.is_running()
    client.server(m.message(b"C", b"START_STREAMING\0") + m.READY_IDLE)
    assert not client.is_running()
    assert not client.is_clean()
    assert not client.is_holding_idle()


@given(st.lists(st.sampled_from([START, STATUS, m.message(b"c", b"")]), max_size=6), st.data())
def test_where_the_stream_is_cut_changes_nothing(sent: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(sent)
    client, session = joined()
    passed, rest = b"", stream
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        assert client.client(rest[:size]) == FORWARD
        passed, rest = passed + client.out, rest[size:]
    assert passed == stream
    assert client.is_running() is (START in sent)
    client.part()
    assert session.farewell() == m.TERMINATE


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_goodbye_ends_it_wherever_it_is_cut(cut: int) -> None:
    client, session = joined()
    assert client.client(STATUS + m.TERMINATE[:cut]) == FORWARD
    assert client.client(m.TERMINATE[cut:]) == FORWARD | CLOSE
    assert client.closing is CloseReason.CLIENT_LEFT
    client.part()
    assert session.farewell() == b""  # it has it already


def test_a_client_that_breaks_off_in_a_message_leaves_no_goodbye_in_it() -> None:
    client, session = joined()
    client.client(STATUS[:-1])
    client.part()
    assert session.farewell() == b""


@pytest.mark.parametrize("length", [0, 3, 0xFFFFFFFF])
def test_what_cannot_be_a_message_ends_either_side(length: int) -> None:
    client, _ = joined()
    nonsense = b"d" + struct.pack("!I", length)
    with pytest.raises(RemoteProtocolError):
        client.server(nonsense)
    assert client.client(nonsense) == REPLY | CLOSE
    assert told(client.reply) == ["E 08P01"]
    assert client.closing is CloseReason.PROTOCOL_ERROR


def test_last_words_come_between_messages_and_not_behind_those_of_the_server() -> None:
    client, _ = joined()
    assert told(client.fatal(CloseReason.DRAIN, "")) == ["E 57P01"]
    client.server(WAL[:-1])
    assert client.fatal(CloseReason.DRAIN, "") == b""
    client.server(WAL[-1:])
    assert told(client.fatal(CloseReason.SESSION_LOST, "")) == ["E 08006"]
    client.server(m.error("FATAL", "57P01", "terminating walsender"))
    assert client.fatal(CloseReason.SESSION_LOST, "") == b""
    assert client.session_lost() is None


# --- the way in ---


def admitted(kind: str = "database", minor: int = 0, **wishes: str) -> Admitted:
    startup = Startup(
        "app",
        "orders",
        {"application_name": "mine"},
        {f"penstock.{name}": text for name, text in wishes.items()},
        minor=minor,
        replication=kind,
    )
    return Admitted(startup, APP, pool(), "trust", False, b"before", b"rest")


def test_a_guest_is_welcomed_with_what_its_own_session_reports() -> None:
    guest = ReplicationGuest(admitted(minor=2), object(), ("orders", "app"), TERMS_OF_POOL)
    assert guest.welcome(b"k" * 36) is None
    assert isinstance(guest.private, Wishes)
    assert (guest.private.kind, guest.key_length) == ("database", 36)
    assert guest.codec.label() == "mine"
    session = begun()
    converse(session.log_in(), lambda sent: WELCOME)
    guest.learn(session)
    assert told(guest.welcome(b"k" * 36) or b"") == ["R", "S server_version=18.0", "K", "Z I"]
    assert (guest.reply, guest.rest) == (b"before", b"rest")


def test_a_guest_may_choose_how_it_waits() -> None:
    guest = ReplicationGuest(admitted(getmode="nowait"), object(), ("orders", "app"), TERMS_OF_POOL)
    assert guest.codec.getmode == "nowait"


def test_a_guest_is_turned_away_in_the_words_of_the_server() -> None:
    guest = ReplicationGuest(admitted(), object(), ("orders", "app"), TERMS_OF_POOL)
    fields = {"S": "FATAL", "C": "42501", "M": "permission denied to start WAL sender"}
    said = guest.turn_away(LoginFailed("the server did not let it in", "42501", fields))
    assert told(said) == ["E 42501"]
    assert b"Mpermission denied to start WAL sender\0" in said
    assert told(guest.turn_away(PoolTimeout("too late", "picture"))) == ["E 53300"]


def test_a_pool_that_takes_none_says_which_setting_that_is() -> None:
    refusal = replication_refused(admitted())
    assert refusal.reply.startswith(b"before")
    assert b'pools.app.replication = "allow"' in refusal.reply

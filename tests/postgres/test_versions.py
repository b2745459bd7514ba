"""Which minor version is asked of a server, what it may answer, and what is asked of it then."""

import struct
from typing import Any

import pytest

from logins import Pump, run
from proxy.errors import LoginFailed, OpenFailed, RemoteProtocolError
from proxy.postgres import messages as m
from proxy.postgres.accounts import Account
from proxy.postgres.profile import Profiles
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.session_login import Identity, Opened, open_session
from proxy.postgres.versions import Versions, check_key, negotiated
from proxy.steps import Conversation

OLD, NEW = m.PROTOCOL_3_0, m.PROTOCOL_3_2
OK = m.authentication(m.AUTH_OK)
SECRET = b"s" * 32


def key(secret: bytes) -> bytes:
    return m.message(b"K", struct.pack("!i", 4711) + secret)


def offer(version: int, *unknown: str) -> bytes:
    names = b"".join(m.cstring(name) for name in unknown)
    return m.message(b"v", struct.pack("!ii", version, len(unknown)) + names)


def login(versions: Versions) -> Conversation[Opened]:
    return open_session(Identity("app", "orders", Account("app", password="x")), "disable", versions)


def asked(pump: Pump) -> int:
    return int.from_bytes(pump.out[4:8], "big")


def opened(versions: Versions, *script: bytes) -> Opened:
    result = run(login(versions), script).result
    assert isinstance(result, Opened)
    return result


def test_without_more_it_is_3_0_as_libpq_has_it() -> None:
    pump = Pump(open_session(Identity("app", "orders", Account("app", password="x")), "disable"))
    assert asked(pump) == OLD


def test_a_server_that_speaks_3_2_may_give_a_long_key() -> None:
    versions = Versions(NEW)
    assert asked(Pump(login(Versions(NEW)))) == NEW
    assert opened(versions, OK + key(SECRET) + m.READY_IDLE).secret == SECRET
    assert opened(versions, OK + key(b"abcd") + m.READY_IDLE).secret == b"abcd"


@pytest.mark.parametrize("secret", [b"", b"abc", b"s" * 257])
def test_keys_of_other_lengths_are_refused(secret: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        opened(Versions(NEW), OK + key(secret) + m.READY_IDLE)


def test_a_server_that_negotiates_goes_on_with_what_it_speaks() -> None:
    versions = Versions(NEW)
    assert opened(versions, offer(OLD) + OK + key(b"abcd") + m.READY_IDLE).secret == b"abcd"
    with pytest.raises(RemoteProtocolError):  # and that has short keys
        opened(versions, offer(OLD) + OK + key(SECRET) + m.READY_IDLE)
    assert (versions.asks, versions.is_guess) == (NEW, False)


@pytest.mark.parametrize("version", [0x30003, 0x20000, 0, 0x40000])
def test_it_can_only_offer_what_is_not_newer(version: int) -> None:
    with pytest.raises(RemoteProtocolError):
        opened(Versions(NEW), offer(version) + OK + m.READY_IDLE)


def test_it_can_offer_that_once_and_before_anything_else() -> None:
    with pytest.raises(RemoteProtocolError):
        opened(Versions(NEW), offer(OLD) + offer(OLD) + OK + m.READY_IDLE)
    with pytest.raises(RemoteProtocolError):
        negotiated(b"\0\3\0\0", False, NEW, OLD)


def test_less_than_the_operator_insists_on_is_no_session() -> None:
    versions = Versions(NEW, NEW)
    with pytest.raises(OpenFailed, match=r"min_protocol_version=3\.2"):
        opened(versions, offer(OLD) + OK + m.READY_IDLE)
    assert not versions.is_guess


REFUSAL = m.error("FATAL", "0A000", "unsupported frontend protocol 3.2: server supports 1.0 to 3.0")


def test_a_server_that_turns_3_2_away_is_asked_for_3_0() -> None:
    versions = Versions(NEW)
    with pytest.raises(LoginFailed):
        opened(versions, REFUSAL)
    assert (versions.asks, versions.is_guess) == (OLD, True)
    pump = Pump(login(versions))
    assert asked(pump) == OLD
    pump.feed(OK + key(b"abcd") + m.READY_IDLE)
    assert (versions.asks, versions.is_guess) == (OLD, False)


def test_so_is_one_that_only_closes_the_connection() -> None:
    versions = Versions(NEW)
    conversation = login(versions)
    next(conversation)
    conversation.close()
    assert (versions.asks, versions.is_guess) == (OLD, True)


def test_one_that_does_not_take_3_0_either_is_down_and_asked_for_3_2_again() -> None:
    versions = Versions(NEW)
    for wanted in (OLD, NEW):
        conversation = login(versions)
        next(conversation)
        conversation.close()
        assert versions.asks == wanted
    assert not versions.is_guess


@pytest.mark.parametrize(
    "answer", [m.error("FATAL", "57P03", "starting up"), m.error("FATAL", "28000", "no entry"), OK]
)
def test_whoever_has_taken_it_once_is_never_doubted(answer: bytes) -> None:
    versions = Versions(NEW)
    pump = Pump(login(versions))
    try:
        pump.feed(answer)
    except LoginFailed:
        pass
    again = login(versions)
    next(again)
    again.close()
    assert (versions.asks, versions.is_guess) == (NEW, False)


def test_where_the_operator_insists_nothing_older_is_tried() -> None:
    versions = Versions(NEW, NEW)
    with pytest.raises(LoginFailed):
        opened(versions, REFUSAL)
    assert (versions.asks, versions.is_guess) == (NEW, False)


def test_a_session_asks_for_less_only_where_that_may_help() -> None:
    versions = Versions(NEW)
    codec = PgSessionCodec(Profiles(), lambda: login(versions))
    codec.versions = versions
    assert not codec.asks_less()
    conversation: Any = codec.log_in()
    assert next(conversation)[4:8] == NEW.to_bytes(4, "big")
    conversation.close()
    assert codec.asks_less()
    again: Any = codec.log_in()
    assert next(again)[4:8] == OLD.to_bytes(4, "big")


def test_a_key_is_judged_by_the_version() -> None:
    check_key(b"12345678", OLD)
    check_key(b"x" * 260, NEW)
    for body, version in ((b"x" * 36, OLD), (b"x" * 261, NEW), (b"1234567", NEW)):
        with pytest.raises(RemoteProtocolError):
            check_key(body, version)

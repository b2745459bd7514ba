"""What raw TCP knows of a session and of its client: whether anything passed."""

from typing import Any

import pytest

from proxy.codec import FORWARD
from proxy.errors import LocalProtocolError, PoolBusy, PoolError
from proxy.reasons import CloseReason, RefusalReason
from proxy.reception import Guest, Refused
from proxy.steps import StartTls, Work
from proxy.tcp.client import TcpClient
from proxy.tcp.front import TcpFront
from proxy.tcp.script import Script
from proxy.tcp.session import TcpSession


def session(stateless: bool = False, tls: bool = False) -> TcpSession:
    return TcpSession(tls, None, Script(b"RESET", b"OK") if stateless else None)


def test_bytes_pass_as_they_are() -> None:
    client = TcpClient()
    assert client.join(session()) is False
    assert client.client(b"abc") == FORWARD
    assert client.out == b"abc"
    assert client.server(b"def") == FORWARD
    assert client.out == b"def"
    assert client.client(b"") == 0


@pytest.mark.parametrize("stateless", [False, True])
def test_a_session_is_clean_until_something_has_passed(stateless: bool) -> None:
    client, held = TcpClient(), session(stateless)
    assert client.is_clean()
    client.join(held)
    assert client.is_clean()
    client.client(b"?")
    assert not client.is_clean()
    client.server(b"!")
    assert client.is_clean() is stateless
    client.part()
    assert held.used


def test_a_client_that_said_nothing_leaves_no_trace() -> None:
    client, held = TcpClient(), session()
    client.join(held)
    client.part()
    assert not held.used
    assert list(held.reset()) == []


def test_a_greeting_is_kept_for_the_first_client() -> None:
    client, held = TcpClient(), session()
    assert held.unlinked(b"220 ") == ""
    assert held.unlinked(b"welcome") == ""
    assert not held.is_full()
    client.join(held)
    assert client.reply == b"220 welcome"
    assert not client.is_clean()
    assert held.take_kept() == b""


def test_a_greeting_is_kept_up_to_a_bound() -> None:
    held = session()
    held.unlinked(bytes(70_000))
    assert held.is_full()


def test_what_a_used_session_says_unasked_is_its_end() -> None:
    held = session(stateless=True)
    held.used = True
    assert "nobody had asked" in held.unlinked(b"late")


def test_only_what_was_used_is_reset() -> None:
    held = session(stateless=True)
    assert list(held.reset()) == []
    held.used = True
    assert next(held.reset()) == b"RESET"


def test_tls_is_the_whole_login() -> None:
    [step] = session(tls=True).log_in()
    assert isinstance(step, StartTls)
    assert list(session().log_in()) == []


def test_a_ping_without_a_script_sends_nothing() -> None:
    [step] = session().ping()
    assert isinstance(step, Work)
    assert step.call() is None
    assert next(TcpSession(False, Script(b"PING", b"PONG"), None).ping()) == b"PING"


def test_there_are_no_words_for_anything_and_nothing_to_cancel() -> None:
    client, held = TcpClient(), session()
    client.join(held)
    assert client.refuse(PoolBusy("full")) == client.backend_refused("", "", {}) == client.canceled() == b""
    assert client.fatal(CloseReason.DRAIN, "") == held.farewell() == b""
    assert client.session_lost() is None
    assert client.recovery() is None
    assert not client.is_running()
    assert client.is_holding_idle()
    assert list(held.settle()) == list(held.cancel()) == []


def test_sessions_of_other_protocols_are_a_mistake_of_ours() -> None:
    class Other:
        pass

    stranger: Any = Other()
    with pytest.raises((LocalProtocolError, TypeError)):
        TcpClient().join(stranger)


def test_everybody_is_let_in_unless_nobody_is() -> None:
    front = TcpFront("the pool", tls=True)
    assert front.passes_ends()
    assert front.begins_with_tls()
    with pytest.raises(StopIteration) as end:
        next(front.log_in(False, lambda: None))
    guest = end.value.value
    assert isinstance(guest, Guest)
    assert (guest.pool, guest.welcome(b"key"), guest.turn_away(PoolError("full"))) == ("the pool", b"", b"")
    with pytest.raises(Refused) as refused:
        next(front.log_in(False, lambda: ("53300", "too many", "", RefusalReason.MAX_CLIENTS)))
    assert (refused.value.reason, refused.value.reply) == (RefusalReason.MAX_CLIENTS, b"")

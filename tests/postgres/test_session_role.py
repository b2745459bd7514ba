"""What a session is told of its server: at the login, by a report, by an answer, and what means nothing."""

from typing import Any

import pytest

from proxy.errors import BackendError
from proxy.postgres.begin import read_begin
from proxy.postgres.messages import error, message, query, ready
from proxy.postgres.session_role import ServerRole
from proxy.roles import DOUBTED, PRIMARY, READ_ONLY, STANDBY, UNKNOWN


def watched(**reported: str) -> tuple[ServerRole, list[int]]:
    server, told = ServerRole(asks=True), []
    must_ask = server.logged_in(reported)
    assert must_ask is ("in_hot_standby" not in reported)
    server.told = told.append
    return server, told


@pytest.mark.parametrize(
    ("in_recovery", "read_only", "role"),
    [("off", "off", PRIMARY), ("off", "on", READ_ONLY), ("on", "off", STANDBY), ("on", "on", STANDBY)],
)
def test_what_is_reported_at_the_login(in_recovery: str, read_only: str, role: int) -> None:
    server, told = watched(in_hot_standby=in_recovery, default_transaction_read_only=read_only)
    assert server.role == role
    assert told == []


def test_a_promotion_is_told_while_the_session_lives() -> None:
    server, told = watched(in_hot_standby="on", default_transaction_read_only="off")
    server.note("TimeZone", "UTC", True)
    server.note("in_hot_standby", "off", True)
    assert told == [PRIMARY]
    assert server.role == PRIMARY


def test_what_a_client_sets_says_nothing_of_the_server() -> None:
    server, told = watched(in_hot_standby="off", default_transaction_read_only="off")
    server.note("default_transaction_read_only", "on", True)
    assert told == []
    server.note("default_transaction_read_only", "on", False)
    assert told == [READ_ONLY]


def test_a_refused_write_is_a_doubt() -> None:
    server, told = watched(in_hot_standby="off")
    server.refused()
    assert (told, server.role) == ([DOUBTED], PRIMARY)


def test_one_that_nobody_asks_stays_unknown() -> None:
    assert ServerRole().logged_in({}) is False
    assert ServerRole().role == UNKNOWN


def row(*texts: bytes) -> bytes:
    body = len(texts).to_bytes(2, "big")
    return message(b"D", body + b"".join(len(text).to_bytes(4, "big") + text for text in texts))


def answered(server: ServerRole, reply: bytes) -> bytes:
    asking: Any = server.ask()
    sent = next(asking)
    assert sent.startswith(query("SELECT pg_catalog.pg_is_in_recovery()")[:1])
    assert b"pg_catalog.pg_is_in_recovery()" in sent
    half = len(reply) // 2
    assert asking.send(reply[:half]) == b""
    with pytest.raises(StopIteration) as end:
        asking.send(reply[half:])
    rest: bytes = end.value.value
    return rest


@pytest.mark.parametrize(
    ("texts", "role"), [((b"f", b"off"), PRIMARY), ((b"f", b"on"), READ_ONLY), ((b"t", b"off"), STANDBY)]
)
def test_an_older_server_is_asked(texts: tuple[bytes, ...], role: int) -> None:
    server, told = watched()
    assert server.must_ask()
    assert answered(server, message(b"T", b"\0\0") + row(*texts) + ready(73)) == b""
    assert server.role == role
    assert told == [role]


def test_one_that_does_not_answer_that_cannot_be_used() -> None:
    server, _ = watched()
    asking = server.ask()
    next(asking)
    with pytest.raises(BackendError, match="no such function") as caught:
        asking.send(error("ERROR", "42883", "no such function") + ready(73))
    assert caught.value.sqlstate == "42883"
    asking = server.ask()
    next(asking)
    with pytest.raises(BackendError, match="makes no sense"):
        asking.send(ready(73))


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        (b"BEGIN READ ONLY", True),
        (b"begin transaction isolation level repeatable read, read only;", True),
        (b"START TRANSACTION READ ONLY, DEFERRABLE", True),
        (b"BEGIN", False),
        (b"BEGIN READ WRITE", False),
        (b"BEGIN READ ONLY, READ WRITE", False),
        (b"BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY", False),
    ],
)
def test_which_transactions_a_standby_can_run(text: bytes, reads: bool) -> None:
    begin = read_begin(text)
    assert begin is not None
    assert begin.reads is reads

import struct
from typing import Any

import pytest

from logins import messages
from proxy.errors import BackendError, RemoteProtocolError
from proxy.postgres import messages as m
from proxy.postgres.lookup import DEFAULT_QUERY, ask, found, parameters
from proxy.postgres.profile import Profiles
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.verifier import Verifier

DONE = m.message(b"1", b"") + m.message(b"2", b"")
END = m.message(b"C", b"SELECT 1\0") + m.READY_IDLE


def row(*values: bytes | None) -> bytes:
    body = struct.pack("!h", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    return m.message(b"D", body)


def asked(answer: bytes, user: str = "ann", chunk: int = 0) -> Any:
    codec = PgSessionCodec(Profiles(), lambda: iter(()))  # type: ignore[arg-type,return-value]
    conversation = ask(codec, DEFAULT_QUERY, user)
    next(conversation)
    size = chunk or len(answer)
    try:
        for start in range(0, len(answer), size):
            conversation.send(answer[start : start + size])
    except StopIteration as end:
        return end.value
    raise AssertionError("the conversation goes on")


@pytest.mark.parametrize("chunk", [0, 1, 7])
def test_the_secret_of_a_user_also_between_notices_and_parameters(chunk: int) -> None:
    noise = (
        m.message(b"N", b"SNOTICE\0\0")
        + m.message(b"S", b"TimeZone\0UTC\0")
        + m.message(b"A", b"\0\0\0\1x\0\0")
    )
    assert asked(noise + DONE + noise + row(b"ann", b"hush") + noise + END, chunk=chunk) == "hush"


def test_the_name_is_bound_and_never_part_of_the_statement() -> None:
    codec = PgSessionCodec(Profiles(), lambda: iter(()))  # type: ignore[arg-type,return-value]
    user = "'; DROP TABLE x; --"
    parse, bind, execute, sync = messages(next(ask(codec, DEFAULT_QUERY, user)))
    assert parse == (b"P", b"\0" + DEFAULT_QUERY.encode() + b"\0\0\0")
    assert bind == (b"B", b"\0\0\0\0\0\1" + struct.pack("!i", len(user)) + user.encode() + b"\0\0")
    assert (execute[0], sync) == (b"E", (b"S", b""))
    assert user not in DEFAULT_QUERY


@pytest.mark.parametrize(
    ("answer", "secret"),
    [(b"", None), (row(b"ann", None), None), (row(b"ann", b""), None), (row(b"ann", b"x"), "x")],
)
def test_who_is_not_there_or_may_not_log_in_has_no_secret(answer: bytes, secret: str | None) -> None:
    assert asked(DONE + answer + END) == secret


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (row(b"bob", b"hush"), "another user"),
        (row(None, b"hush"), "another user"),
        (row(b"hush"), "one row of two columns"),
        (row(b"ann", b"hush", b"x"), "one row of two columns"),
        (row(b"ann", b"hush") + row(b"ann", b"hush"), "one row of two columns"),
        (row(b"ann", b"hush" * 2000), "more than 4096 bytes"),
        (m.error("ERROR", "42501", "permission denied"), "permission denied"),
        (m.message(b"E", b"\0"), "^"),
    ],
)
def test_an_answer_that_is_none_is_said_without_its_secret(answer: bytes, said: str) -> None:
    with pytest.raises(BackendError, match=said) as wrong:
        asked(DONE + answer + END)
    assert "hush" not in str(wrong.value)


@pytest.mark.parametrize(
    "answer",
    [
        m.message(b"D", b"\0"),
        m.message(b"D", b"\0\2\0\0\0\3ann"),
        m.message(b"D", b"\0\1\0\0\0\3ann\0"),
        m.message(b"D", b"\xff\xff"),
        m.message(b"G", b"\0\0\0"),
        m.message(b"R", b"\0\0\0\0"),
        b"D\x7f\xff\xff\xff",
    ],
)
def test_nonsense_is_a_protocol_error(answer: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        asked(DONE + answer + END)


def test_its_session_is_told_nothing_but_this() -> None:
    assert parameters(5.0) == (
        ("search_path", "pg_catalog"),
        ("statement_timeout", "5000"),
        ("client_encoding", "UTF8"),
    )


def test_a_found_user_may_use_its_pool_only() -> None:
    text = Verifier.make("x", b"0123456789abcdef", 2).text()
    account = found("ann", text, "app")
    assert account is not None
    assert account.verifier == Verifier.parse(text)
    assert account.pools == {"app"}
    assert account.run_as is None
    assert found("ann", None, "app") is None
    with pytest.raises(BackendError, match="a secret that is none"):
        found("ann", "SCRAM-SHA-256$hush", "app")

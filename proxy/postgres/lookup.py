"""Users that the server knows and the configuration does not: how their secret is asked for.

As PgBouncer's ``auth_query``, on a session of our own that carries nothing of any client: the name is a
bound parameter and never part of a statement, and only ``pg_catalog`` is searched, so that what a user has
made cannot stand in for what the query means (CVE-2025-12819). Sans-IO; who waits, and for how long, is
the shell's.
"""

from abc import ABC, abstractmethod
from typing import Final

from proxy.errors import BackendError, RemoteProtocolError
from proxy.postgres.accounts import Account
from proxy.postgres.messages import ERROR_CAP, SYNC, Inbox, cstring, message, read_fields, read_parameter
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.userlist import SECRET_CAP, account_of
from proxy.steps import Conversation

# Nobody is found who may not log in now: without LOGIN, or after VALID UNTIL (CVE-2025-2291).
DEFAULT_QUERY: Final = (
    "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END "
    "FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin"
)

_ROW: Final = 68
_READY: Final = 90
_ERROR: Final = 69
_PARAMETER: Final = 83
# Parse, bind and command complete, notices and notifications, no data: nothing to look at.
_PASSED: Final = frozenset(b"12CNAnI")


class Lookup(ABC):
    """Finds users who are not listed, for one pool.

    ``shape`` is what the verifiers look like that it found: iterations and bytes of salt; None until then.
    Users that it does not find are given stand-ins in this shape.
    """

    shape: tuple[int, int] | None = None

    @abstractmethod
    async def find(self, user: str) -> Account | None:
        """The user's account; None where there is none, or it cannot be told now. Never raises."""

    @abstractmethod
    async def find_again(self, user: str) -> Account | None:
        """As ``find``, when what it returned did not fit: it may have been remembered for too long."""

    @abstractmethod
    def forget(self, user: str) -> None:
        """The server has not let the user in by what is remembered."""


def parameters(timeout: float) -> tuple[tuple[str, str], ...]:
    """What the session is told at its login: nothing of any client, and an end to each query (seconds)."""
    return (
        ("search_path", "pg_catalog"),
        ("statement_timeout", str(int(timeout * 1000))),
        ("client_encoding", "UTF8"),
    )


def ask(codec: PgSessionCodec, statement: str, user: str) -> Conversation[str | None]:
    """Ask for the secret of a user; None where there is no such user, or it has none.

    Raises BackendError with the server's words, or saying what is wrong with the answer, and
    RemoteProtocolError. After a BackendError the session can be used again.
    """
    yield from codec.end_begun()
    codec.unnamed = codec  # nobody's
    inbox = Inbox(ERROR_CAP, codec.tail)
    codec.tail = b""
    send = _question(statement, user)
    rows: list[list[bytes | None]] = []
    wrong: BackendError | None = None
    while True:
        kind, body = yield from inbox.next(send)
        send = b""
        if kind == _READY:
            break
        if kind == _ERROR:
            fields = read_fields(body)
            wrong = wrong or BackendError(fields.get("M", ""), fields.get("C", "XX000"), fields)
        elif kind == _PARAMETER:
            name, value = read_parameter(body)
            codec.reported[name] = value
        elif kind == _ROW:
            if len(rows) < 2:
                rows.append(_columns(body))
        elif kind not in _PASSED:
            raise RemoteProtocolError(f"a message of type {chr(kind)!r} in the answer to auth_query")
    why = codec.unlinked(inbox.rest)
    if why:
        raise RemoteProtocolError(why)
    if wrong is not None:
        raise wrong
    return _secret(rows, user)


def _question(statement: str, user: str) -> bytes:
    name = user.encode("utf-8")
    return (
        message(b"P", b"\0" + cstring(statement) + b"\0\0")
        + message(b"B", b"\0\0\0\0\0\x01" + len(name).to_bytes(4, "big") + name + b"\0\0")
        + message(b"E", b"\0\0\0\0\0")
        + SYNC
    )


def _columns(body: bytes) -> list[bytes | None]:
    """The values of a DataRow. Raises RemoteProtocolError."""
    if len(body) < 2:
        raise RemoteProtocolError("a row that is cut short")
    columns: list[bytes | None] = []
    place = 2
    for _ in range(int.from_bytes(body[:2], "big")):
        size = int.from_bytes(body[place : place + 4], "big", signed=True)
        place += 4
        if place > len(body) or size > len(body) - place:
            raise RemoteProtocolError("a row that is cut short")
        columns.append(None if size < 0 else body[place : place + size])
        place += max(size, 0)
    if place != len(body):
        raise RemoteProtocolError("a row that is longer than its columns")
    return columns


def _secret(rows: list[list[bytes | None]], user: str) -> str | None:
    """The secret in the answer. Raises BackendError."""
    if not rows:
        return None
    if len(rows) > 1 or len(rows[0]) != 2:
        raise BackendError("auth_query must return one row of two columns: the user's name, and its secret")
    name, secret = rows[0]
    if name != user.encode("utf-8"):
        raise BackendError("auth_query returned another user than the one it was asked for")
    if not secret:
        return None
    if len(secret) > SECRET_CAP:
        raise BackendError(f"auth_query returned a secret of more than {SECRET_CAP} bytes")
    return secret.decode("utf-8", "surrogateescape")


def found(user: str, secret: str | None, pool: str) -> Account | None:
    """The account of a user whose secret this is: it may use that pool, and no other.

    Raises BackendError, which repeats nothing, where it is no secret.
    """
    if not secret:
        return None
    try:
        return account_of(user, secret, frozenset({pool}))
    except ValueError as error:
        raise BackendError(f"auth_query returned a secret that is none: {error}") from None

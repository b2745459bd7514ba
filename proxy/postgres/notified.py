"""Notifications as bytes, and questions to a session whose notifications must not be lost on the way.

Sans-IO, cold. Who hears what is decided in listening.py and fanout.py.
"""

import re
from typing import Final

from proxy.errors import BackendError, RemoteProtocolError
from proxy.postgres.messages import ERROR_CAP, Inbox, cstring, message, query, read_fields, read_parameter
from proxy.postgres.session import PgSessionCodec
from proxy.steps import Conversation

MISSED: Final = message(
    b"N",
    b"SWARNING\0VWARNING\0C01000\0M"
    + cstring("notifications may have been lost")
    + b"D"
    + cstring("The session that listened for this client was lost, and another one listens now.")
    + b"\0",
)
_NAME_CAP: Final = 63  # bytes: the server cuts what is longer
_UNLISTEN: Final = re.compile(
    rb'(?is)\bunlisten(?:\s|/\*.*?\*/|--[^\n]*\n)*(\*|"(?:[^"]|"")+"|[a-z_\x80-\xff][a-z0-9_$\x80-\xff]*)'
)
_IDLE: Final = 73
_CHANNELS: Final = query("SELECT pg_catalog.pg_listening_channels()")


def unlistened(text: bytes) -> list[bytes]:
    """The channels that UNLISTEN names in a text, b"*" for all."""
    return [_folded(name) for name in _UNLISTEN.findall(text)]


def _folded(name: bytes) -> bytes:
    if name.startswith(b'"'):
        return name[1:-1].replace(b'""', b'"')[:_NAME_CAP]
    return name.lower()[:_NAME_CAP]


def quoted(name: bytes) -> bytes:
    """A channel's name as an identifier. In no encoding of a client is a quote a part of a letter."""
    return b'"' + name.replace(b'"', b'""') + b'"'


def named(whole: bytes) -> tuple[bytes, bytes]:
    """The channel and the payload of a NotificationResponse. Raises RemoteProtocolError."""
    # A slice that begins behind the end is an error in compiled code.
    parts = whole[9:].split(b"\0") if len(whole) > 9 else []
    if len(parts) != 3 or parts[2]:
        raise RemoteProtocolError("a NotificationResponse is not a number and two strings")
    return parts[0], parts[1]


def statements(verb: bytes, names: list[bytes]) -> bytes:
    """One Query that does this with each name."""
    return message(b"Q", b";".join(verb + b" " + quoted(name) for name in names) + b"\0")


def question(
    session: PgSessionCodec, send: bytes, replies: int, heard: list[bytes]
) -> Conversation[list[bytes]]:
    """Ask a session, outside of a transaction; returns the rows. What it is notified of goes to ``heard``.

    Raises BackendError with the server's words.
    """
    inbox = Inbox(ERROR_CAP, session.tail)
    session.tail = b""
    session.unnamed = session  # nobody's: a simple query ends it
    rows: list[bytes] = []
    failed: dict[str, str] | None = None
    status = _IDLE
    while replies:
        kind, body = yield from inbox.next(send)
        send = b""
        if kind == 90:  # Z
            replies -= 1
            status = body[0] if body else 0
        elif kind == 69:  # E
            failed = failed or read_fields(body)
        elif kind == 68:  # D
            rows.append(body)
        elif kind == 83:  # S
            name, value = read_parameter(body)
            session.reported[name] = value
        elif kind == 65:  # A
            heard.append(message(b"A", body))
    why = session.unlinked(inbox.rest)
    if why:
        raise RemoteProtocolError(why)
    if failed is not None:
        raise BackendError(failed.get("M", ""), failed.get("C", "XX000"), failed)
    if status != _IDLE:
        raise BackendError("a transaction is open", "25001")
    return rows


def channels(session: PgSessionCodec, heard: list[bytes]) -> Conversation[list[bytes]]:
    """What the session listens to. Raises BackendError."""
    rows = yield from question(session, _CHANNELS, 1, heard)
    return [row[6:] for row in rows]  # the count of columns, the length of the only one


def silence(session: PgSessionCodec, heard: list[bytes], replies: int = 1) -> Conversation[None]:
    """Have the session listen to nothing any more. Raises BackendError."""
    yield from question(session, query("UNLISTEN *"), replies, heard)

"""Messages of the PostgreSQL protocol 3: how they are framed, and the few that we write ourselves.

Cold path only: logins, errors, local answers. The warm path (relaying.py) looks at headers in place.
A parser here returns a whole object or raises RemoteProtocolError; every length is checked against a
cap before anything is gathered.
"""

import struct
from collections.abc import Iterable
from typing import Final

from proxy.errors import RemoteProtocolError
from proxy.steps import Conversation, Step

_int = struct.Struct("!i").pack
_two_ints = struct.Struct("!ii").pack

PROTOCOL_3_0: Final = 0x00030000
PROTOCOL_3_2: Final = 0x00030002  # since PostgreSQL 18; it differs in the length of cancel keys only
CANCEL_CODE: Final = 80877102
SSL_CODE: Final = 80877103
GSSENC_CODE: Final = 80877104

ALPN: Final = "postgresql"  # what TLS connections of this protocol agree on
SSL_REQUEST: Final = struct.pack("!ii", 8, SSL_CODE)
SYNC: Final = b"S\x00\x00\x00\x04"
TERMINATE: Final = b"X\x00\x00\x00\x04"
READY_IDLE: Final = b"Z\x00\x00\x00\x05I"

AUTH_OK: Final = 0
AUTH_CLEARTEXT: Final = 3
AUTH_MD5: Final = 5
AUTH_SASL: Final = 10
AUTH_SASL_CONTINUE: Final = 11
AUTH_SASL_FINAL: Final = 12

LOGIN_CAP: Final = 65_536  # bytes: one message before the login is done
ERROR_CAP: Final = 65_536  # bytes: one message that we read ourselves after it
SECRET_CAP: Final = 256  # bytes of a cancel key behind the process id


def message(kind: bytes, body: bytes) -> bytes:
    """Frame one message: its type byte, its length and its body."""
    return kind + _int(len(body) + 4) + body


def cstring(text: str) -> bytes:
    """Encode text as the protocol's zero-terminated string; a zero inside is dropped."""
    return text.replace("\0", "").encode("utf-8", "replace") + b"\0"


def authentication(code: int, body: bytes = b"") -> bytes:
    """Frame an authentication message: AuthenticationOk or one of the requests."""
    return b"R" + _two_ints(len(body) + 8, code) + body


def query(text: str) -> bytes:
    """Frame a simple Query."""
    return message(b"Q", cstring(text))


def ready(status: int) -> bytes:
    """Frame ReadyForQuery with a status byte: I, T or E."""
    return b"Z\x00\x00\x00\x05" + bytes((status,))


def parameter_status(name: str, value: str) -> bytes:
    """Frame a ParameterStatus."""
    return message(b"S", cstring(name) + cstring(value))


def startup(parameters: Iterable[tuple[str, str]], version: int = PROTOCOL_3_0) -> bytes:
    """Frame the startup packet, which has no type byte."""
    body = struct.pack("!i", version)
    body += b"".join(cstring(name) + cstring(value) for name, value in parameters) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def error(
    severity: str,
    sqlstate: str,
    text: str,
    *,
    detail: str = "",
    hint: str = "",
    fields: dict[str, str] | None = None,
) -> bytes:
    """Frame an ErrorResponse. ``fields`` adds or overrides fields by their one-letter codes."""
    all_fields = {"S": severity, "V": severity, "C": sqlstate, "M": text}
    if detail:
        all_fields["D"] = detail
    if hint:
        all_fields["H"] = hint
    if fields:
        all_fields.update(fields)
    body = b"".join(code.encode("ascii") + cstring(value) for code, value in all_fields.items())
    return message(b"E", body + b"\0")


def read_fields(body: bytes) -> dict[str, str]:
    """Read the fields of an ErrorResponse or NoticeResponse; one that is missing is simply not there."""
    fields: dict[str, str] = {}
    for part in body.split(b"\0"):
        if not part:
            break
        fields[chr(part[0])] = part[1:].decode("utf-8", "replace")
    return fields


def read_parameter(body: bytes) -> tuple[str, str]:
    """Read the name and value of a ParameterStatus. Raises RemoteProtocolError."""
    parts = body.split(b"\0")
    if len(parts) != 3 or parts[2]:
        raise RemoteProtocolError("a ParameterStatus message is not two strings")
    return parts[0].decode("utf-8", "replace"), parts[1].decode("utf-8", "replace")


class Inbox:
    """Cuts a received stream into messages, for conversations: ``kind, body = yield from inbox.next()``.

    ``cap`` bounds one message in bytes. What was received beyond the last message taken is in ``rest``.
    """

    def __init__(self, cap: int = LOGIN_CAP, rest: bytes = b"") -> None:
        self.cap = cap
        self.rest = rest

    def next(self, send: bytes = b"") -> Conversation[tuple[int, bytes]]:
        """Send ``send``, then wait for one whole message: its type byte and its body."""
        step: Step = send
        while True:
            found = self.take() if step == b"" else None
            if found is not None:
                return found
            received: bytes = yield step
            self.rest += received
            step = b""

    def take(self) -> tuple[int, bytes] | None:
        """Take one whole message out of what was received, if there is one. Raises RemoteProtocolError."""
        if len(self.rest) < 5:
            return None
        length = int.from_bytes(self.rest[1:5], "big")
        if length < 4 or length > self.cap:
            raise RemoteProtocolError(
                f"a message of type {self.rest[:1]!r} claims {length} bytes; 4 to {self.cap} are allowed here"
            )
        if len(self.rest) < length + 1:
            return None
        kind, body = self.rest[0], self.rest[5 : length + 1]
        self.rest = self.rest[length + 1 :]
        return kind, body

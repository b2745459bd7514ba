"""The packets without a type byte that open a connection, and the `options` inside them.

A packet is bounded and whole before it is read, and is read strictly: what does not fit is Refused with
an error that says what to change. Nothing here knows whether a user or a database exists, and every loop
consumes what it looks at.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from proxy.postgres.messages import (
    CANCEL_CODE,
    GSSENC_CODE,
    PROTOCOL_3_2,
    SECRET_CAP,
    SSL_CODE,
    cstring,
    error,
    message,
)
from proxy.postgres.own import NAMES, listed
from proxy.reasons import RefusalReason
from proxy.reception import Refused

PACKET_CAP: Final = 10_000  # bytes, length word included (PostgreSQL's MAX_STARTUP_PACKET_LENGTH)
NAME_CAP: Final = 63  # bytes of a user's or database's name that PostgreSQL looks at
# The bytes of process id and secret together that clients are given. Those that speak 3.0 expect eight.
SHORT_KEY: Final = 8
LONG_KEY: Final = 4 + 32
NEWEST_MINOR: Final = PROTOCOL_3_2 & 0xFFFF

_OWN: Final = "penstock."
_RESERVED: Final = ("user", "database", "options", "replication")
_SETTING_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*", re.ASCII)
# As PostgreSQL reads them.
_FALSE: Final = ("0", "f", "fa", "fal", "fals", "false", "n", "no", "of", "off")
_TRUE: Final = ("1", "t", "tr", "tru", "true", "y", "ye", "yes", "on")
_SHOWN: Final = 64  # characters of a client's text that an answer repeats


class Request(Enum):
    """A question that comes before the startup packet."""

    TLS = "SSLRequest"
    GSSENC = "GSSENCRequest"


@dataclass(frozen=True)
class CancelKey:
    """A CancelRequest: the process id and secret, in one piece, of the client whose query should end."""

    key: bytes

    def __repr__(self) -> str:
        return "CancelKey(...)"


@dataclass(frozen=True)
class Startup:
    """Who connects, and with what wishes. It is read once and never changes.

    ``settings`` are the parameters for the session, by lower-case name. ``wishes`` are those for its pool,
    our own settings (own.NAMES), unchecked. ``negotiate`` is the NegotiateProtocolVersion message that must
    go out before anything else, or b"". ``minor`` is the version that is spoken then: 2 for protocol 3.2.
    ``replication`` is "" for an ordinary client, "true" for physical replication, which knows no database,
    and "database" for logical replication.
    """

    user: str
    database: str
    settings: dict[str, str]
    wishes: dict[str, str] = field(default_factory=dict)
    negotiate: bytes = b""
    minor: int = 0
    replication: str = ""

    @property
    def key_length(self) -> int:
        """How many bytes of cancel key the client expects."""
        return LONG_KEY if self.minor >= NEWEST_MINOR else SHORT_KEY


def refused(
    log: str,
    sqlstate: str,
    text: str,
    *,
    hint: str = "",
    reason: RefusalReason = RefusalReason.STARTUP,
    before: bytes = b"",
) -> Refused:
    """Build the exception that turns a client away: ``log`` is for us, the rest is for the client.

    ``before`` are bytes that go out ahead of the error.
    """
    return Refused(log, before + error("FATAL", sqlstate, text, hint=hint), reason)


def packet_length(head: bytes) -> int:
    """The whole length in bytes of the packet that begins with these 4 bytes. Raises Refused."""
    length = int.from_bytes(head[:4], "big")
    if not 8 <= length <= PACKET_CAP:
        text = f"a startup packet of {length} bytes; 8 to {PACKET_CAP} are allowed"
        raise refused(text, "08P01", text, reason=RefusalReason.PROTOCOL)
    return length


def read_packet(packet: bytes) -> "Startup | Request | CancelKey":
    """Read one whole packet, length word included. Raises Refused."""
    (code,) = struct.unpack("!i", packet[4:8])
    if code in (SSL_CODE, GSSENC_CODE):
        request = Request.TLS if code == SSL_CODE else Request.GSSENC
        if len(packet) != 8:
            raise _broken(f"the {request.value} packet has {len(packet)} bytes instead of 8")
        return request
    if code == CANCEL_CODE:
        if not SHORT_KEY <= len(packet) - 8 <= 4 + SECRET_CAP:
            text = f"a cancel request whose key has {len(packet) - 8} bytes; 8 to {4 + SECRET_CAP} are legal"
            raise Refused(text, b"", RefusalReason.PROTOCOL)
        return CancelKey(packet[8:])
    major, minor = (code >> 16) & 0xFFFF, code & 0xFFFF
    if major != 3:
        text = f"frontend protocol {major}.{minor} is not supported: this proxy speaks 3.0 to 3.2"
        raise refused(text, "0A000", text, hint="Use a client library that speaks protocol 3.0 or 3.2.")
    return _read_startup(packet[8:], minor)


def _read_startup(body: bytes, minor: int) -> Startup:
    named: dict[str, str] = {}
    settings: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in _pairs(body):
        if name in _RESERVED:
            named[name] = value
        elif name.startswith("_pq_."):
            unknown.append(name)
        else:
            _put(settings, name, value)
    user = _cut(named.get("user", ""))
    if not user:
        text = "the startup packet names no user"
        raise refused(text, "28000", text)
    replication = _replication(named.get("replication", "false"))
    settings = read_options(named.get("options", "")) | settings
    wishes: dict[str, str] = {name: settings.pop(name) for name in NAMES if name in settings}
    database = _cut(named.get("database", "")) or user
    negotiate = _negotiation(minor, unknown)
    return Startup(user, database, settings, wishes, negotiate, min(minor, NEWEST_MINOR), replication)


def read_options(text: str) -> dict[str, str]:
    """Read the `options` parameter: -c name=value, -cname=value and --name=value. Raises Refused."""
    settings: dict[str, str] = {}
    words = iter(split_options(text))
    for word in words:
        if word == "-c":
            setting = next(words, "")
        elif word.startswith("-c") or (word.startswith("--") and len(word) > 2):
            setting = word[2:]
        else:
            raise _bad_option(word)
        name, equals, value = setting.partition("=")
        if not equals:
            raise _bad_option(f"{word} {setting}" if word == "-c" else word)
        _put(settings, name.replace("-", "_"), value)
    return settings


def split_options(text: str) -> list[str]:
    """Cut `options` into words as PostgreSQL does: at white space; a backslash keeps what follows it."""
    words: list[str] = []
    word: list[str] | None = None
    characters: Iterator[str] = iter(text)
    for char in characters:
        if char in " \t\n\r\v\f":
            if word is not None:
                words.append("".join(word))
            word = None
            continue
        word = [] if word is None else word
        word.append(next(characters, "") if char == "\\" else char)
    if word is not None:
        words.append("".join(word))
    return words


def _pairs(body: bytes) -> list[tuple[str, str]]:
    """The names and values of a startup packet: pairs of strings, then one zero byte, then nothing."""
    strings = body.split(b"\0")
    names, values = strings[:-2:2], strings[1:-2:2]
    if len(strings) % 2 or strings[-2:] != [b"", b""] or not all(names):
        raise _broken("the startup packet is not pairs of strings with one terminator at its end")
    try:
        return [(name.decode(), value.decode()) for name, value in zip(names, values, strict=True)]
    except UnicodeDecodeError:
        text = "the startup packet holds text that is not UTF-8"
        raise refused(text, "22021", text) from None


def _put(settings: dict[str, str], name: str, value: str) -> None:
    """Keep one setting; what could be taken for an identity, or for ours when it is not, is refused."""
    lower = name.lower()
    foreign = lower in _RESERVED or lower.startswith("_pq_.") or _SETTING_NAME.fullmatch(name) is None
    if foreign or (lower.startswith(_OWN) and lower not in NAMES):
        text = f'unrecognized configuration parameter "{_shown(name)}"'
        hint = f"Those of this proxy are {listed()}." if lower.startswith(_OWN) else ""
        raise refused(f"a startup packet with an unknown setting {_shown(name)!r}", "42704", text, hint=hint)
    settings[lower] = value


def _replication(value: str) -> str:
    """What kind of replication is asked for: "", "true" or "database"."""
    word = value.lower()
    if value == "database" or word in _FALSE:
        return value if value == "database" else ""
    if word not in _TRUE:
        text = f'invalid value for parameter "replication": "{_shown(value)}"'
        raise refused(text, "22023", text, hint='Valid values are: "false", 0, "true", 1, "database".')
    return "true"


def _negotiation(minor: int, unknown: list[str]) -> bytes:
    """NegotiateProtocolVersion, where the client asked for more than we speak. As PostgreSQL sends it: its
    first number is the whole version that is spoken from now on, then come the options that are not known.
    """
    if minor <= NEWEST_MINOR and not unknown:
        return b""
    names = b"".join(cstring(name) for name in unknown)
    version = (3 << 16) | min(minor, NEWEST_MINOR)
    return message(b"v", struct.pack("!ii", version, len(unknown)) + names)


def _cut(name: str) -> str:
    """A name as PostgreSQL looks it up: its first 63 bytes, never half a character."""
    return name.encode()[:NAME_CAP].decode("utf-8", "ignore")


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _broken(text: str) -> Refused:
    return refused(text, "08P01", text, reason=RefusalReason.PROTOCOL)


def _bad_option(word: str) -> Refused:
    text = f'invalid command-line argument in "options": {_shown(word)}'
    hint = "Only -c name=value and --name=value are understood."
    return refused(f"a startup packet with an unknown option {_shown(word)!r}", "22023", text, hint=hint)

"""The header of the PROXY protocol, versions 1 and 2: who a connection comes from, said by a proxy before us.

Reads one and writes one; no I/O. What is read is not trusted: every length is bounded, and what is not as the
protocol has it is an error, since bytes that were guessed at would become an address in a log.
"""

import socket
import struct
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from proxy.caller import Caller
from proxy.errors import RemoteProtocolError

NO_HEADER: Final = 0
V1: Final = 1
V2: Final = 2
SEND_PROXY: Final = ("off", "v1", "v2")  # the words of the configuration, by number

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = 16  # bytes of a v2 header before its addresses
_LONGEST_LINE: Final = 107  # of v1, with its line break
_LONGEST_REST: Final = 4096  # of v2: addresses and what else is said (TLVs), which is skipped
MOST: Final = _FIXED + _LONGEST_REST
_WORD: Final = b"PROXY "
_UNIX_NAME: Final = 108
_LOCAL: Final = 0
_FAMILIES: Final = {0x11: socket.AF_INET, 0x21: socket.AF_INET6, 0x31: socket.AF_UNIX}
_BYTES: Final = {socket.AF_INET: 12, socket.AF_INET6: 36, socket.AF_UNIX: 2 * _UNIX_NAME}


class Origin:
    """Both ends of a connection: ``family`` is one of socket's; a name of AF_UNIX stands in ``source``."""

    def __init__(
        self, family: int, source: str, source_port: int = 0, target: str = "", target_port: int = 0
    ) -> None:
        self.family = family
        self.source = source
        self.source_port = source_port
        self.target = target
        self.target_port = target_port

    def __str__(self) -> str:
        """The source, as it stands in the log."""
        if self.family == socket.AF_UNIX:
            return "unix"
        host = f"[{self.source}]" if ":" in self.source else self.source
        return f"{host}:{self.source_port}"


def origin_of(peer: object, own: object) -> Origin:
    """The ends of a connection by what the sockets say: ``getpeername`` and ``getsockname``."""
    if not isinstance(peer, tuple) or not isinstance(own, tuple):
        return Origin(
            socket.AF_UNIX, peer if isinstance(peer, str) else "", 0, own if isinstance(own, str) else ""
        )
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    return Origin(family, peer[0].partition("%")[0], peer[1], own[0].partition("%")[0], own[1])


def caller_of(origin: Origin, uid: int) -> Caller:
    """The same for whoever decides about a login; ``uid`` is what the kernel says of the other end, or -1."""
    if origin.family == socket.AF_UNIX:
        return Caller("", "", uid)
    return Caller(origin.source, origin.target, uid)


class HeaderReader:
    """Reads one header. ``origin`` is None where the header names nobody: the connection's own ends hold."""

    def __init__(self) -> None:
        self.done = False
        self.origin: Origin | None = None
        self._head = b""

    def feed(self, data: bytes) -> int:
        """Take of ``data`` what belongs to the header; returns how many bytes that is, and sets ``done``.

        Raises RemoteProtocolError when this is no header.
        """
        taken = 0
        while not self.done and taken < len(data):
            piece = data[taken : taken + self._wanted(data[taken:])]
            taken += len(piece)
            self._head += piece
            self._look()
        return taken

    def _wanted(self, ahead: bytes) -> int:
        """How many of the bytes ahead belong to the header for certain."""
        head = self._head
        if len(head) < len(_WORD):
            return len(_WORD) - len(head)
        if head.startswith(_WORD):
            if head.endswith(b"\r") and ahead.startswith(b"\n"):
                return 1
            end = ahead.find(b"\r\n")
            return len(ahead) if end < 0 else end + 2
        if len(head) < _FIXED:
            return _FIXED - len(head)
        return _FIXED + _rest(head) - len(head)

    def _look(self) -> None:
        head = self._head
        if head.startswith(_WORD):
            line = head.endswith(b"\r\n")
            if len(head) > _LONGEST_LINE or (len(head) == _LONGEST_LINE and not line):
                raise RemoteProtocolError("the PROXY header is longer than a line of version 1 may be")
            if line:
                self.origin = _parse_line(head[:-2])
                self.done = True
        elif not _WORD.startswith(head[: len(_WORD)]):
            if head[: len(SIGNATURE)] != SIGNATURE[: len(head)]:
                raise RemoteProtocolError("the connection does not begin with a PROXY header")
            if len(head) >= _FIXED:
                _check_fixed(head)
                if len(head) == _FIXED + _rest(head):
                    self.origin = _parse_binary(head)
                    self.done = True


def _rest(head: bytes) -> int:
    return int.from_bytes(head[14:_FIXED], "big")


# -- version 1 --------------------------------------------------------------------------------------


def _parse_line(line: bytes) -> Origin | None:
    words = line[len(_WORD) :].split(b" ")
    if words[0] == b"UNKNOWN":
        return None  # whatever follows means nothing
    if words[0] not in (b"TCP4", b"TCP6") or len(words) != 5:
        raise RemoteProtocolError("the PROXY header is not as version 1 has it")
    family = socket.AF_INET if words[0] == b"TCP4" else socket.AF_INET6
    source, target = (_address(family, word) for word in words[1:3])
    source_port, target_port = (_port(word) for word in words[3:])
    return Origin(family, source, source_port, target, target_port)


def _address(family: int, word: bytes) -> str:
    try:
        text = word.decode("ascii")
        if "%" in text:
            raise ValueError
        return str(IPv4Address(text) if family == socket.AF_INET else IPv6Address(text))
    except (ValueError, AddressValueError):
        raise RemoteProtocolError("the PROXY header names an address that is none") from None


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (word[:1] == b"0" and word != b"0") or int(word) > 65535:
        raise RemoteProtocolError("the PROXY header names a port that is none")
    return int(word)


# -- version 2 --------------------------------------------------------------------------------------


def _check_fixed(head: bytes) -> None:
    command, family = head[12], head[13]
    if command >> 4 != 2 or command & 15 > 1:
        raise RemoteProtocolError("the PROXY header has a version or a command that is not known")
    if _rest(head) > _LONGEST_REST:
        raise RemoteProtocolError(f"the PROXY header is longer than {MOST} bytes")
    if command & 15 == _LOCAL:
        return
    known = _FAMILIES.get(family)
    if known is None and family != 0:
        raise RemoteProtocolError("the PROXY header is about a kind of connection that this is not")
    if known is not None and _rest(head) < _BYTES[known]:
        raise RemoteProtocolError("the PROXY header is too short for its addresses")


def _parse_binary(head: bytes) -> Origin | None:
    family = _FAMILIES.get(head[13])
    if head[12] & 15 == _LOCAL or family is None:
        return None
    body = head[_FIXED:]
    if family == socket.AF_UNIX:
        names = body[:_UNIX_NAME], body[_UNIX_NAME : 2 * _UNIX_NAME]
        source, target = (name.rstrip(b"\0").decode("utf-8", "backslashreplace") for name in names)
        return Origin(family, source, 0, target)
    size = 4 if family == socket.AF_INET else 16
    source, target = (
        str((IPv4Address if size == 4 else IPv6Address)(part))
        for part in (body[:size], body[size : 2 * size])
    )
    source_port, target_port = struct.unpack_from("!HH", body, 2 * size)
    return Origin(family, source, source_port, target, target_port)


# -- out --------------------------------------------------------------------------------------------


def header(version: int, origin: Origin) -> bytes:
    """The header of this version that announces where a connection comes from; b"" for NO_HEADER."""
    if version == V1:
        return _line(origin)
    return _binary(origin) if version == V2 else b""


def _line(origin: Origin) -> bytes:
    if origin.family == socket.AF_UNIX:
        return b"PROXY UNKNOWN\r\n"
    kind = "TCP4" if origin.family == socket.AF_INET else "TCP6"
    text = f"PROXY {kind} {origin.source} {origin.target} {origin.source_port} {origin.target_port}\r\n"
    return text.encode("ascii")


def _binary(origin: Origin) -> bytes:
    if origin.family == socket.AF_UNIX:
        kind, names = 0x31, (origin.source, origin.target)
        body = b"".join(name.encode()[:_UNIX_NAME].ljust(_UNIX_NAME, b"\0") for name in names)
    else:
        kind = 0x11 if origin.family == socket.AF_INET else 0x21
        family = socket.AddressFamily(origin.family)
        addresses = socket.inet_pton(family, origin.source) + socket.inet_pton(family, origin.target)
        body = addresses + struct.pack("!HH", origin.source_port, origin.target_port)
    return SIGNATURE + bytes((0x21, kind)) + len(body).to_bytes(2, "big") + body

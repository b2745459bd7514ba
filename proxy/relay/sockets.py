"""Options of a socket that keep a dead peer from holding anything for ever."""

import select
import socket
import struct
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KeepAlive:
    """TCP keepalive and user timeout. Times in seconds; ``user_timeout`` 0 leaves the system's own.

    ``user_timeout`` bounds how long sent data may stay unacknowledged (RFC 5482).
    """

    enabled: bool = True
    idle: float = 60.0
    interval: float = 10.0
    count: int = 6
    user_timeout: float = 60.0


def tune(sock: socket.socket, keepalive: KeepAlive) -> None:
    """Set the options on a connected socket; one that is not TCP is left as it is."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if keepalive.user_timeout:
        milliseconds = int(keepalive.user_timeout * 1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    if keepalive.enabled:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(keepalive.idle)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(keepalive.interval)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, keepalive.count)


def tune_listening(sock: socket.socket, keepalive: KeepAlive) -> None:
    """Set the options on a socket that listens, or set them anew: whatever is accepted on it inherits them.

    So an accepted connection costs none of these calls.
    """
    if sock.family == socket.AF_UNIX:
        return
    tune(sock, keepalive)
    if not keepalive.user_timeout:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
    if not keepalive.enabled:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)


def peer_uid(sock: socket.socket) -> int:
    """The user that the process at the other end of a Unix socket runs as; -1 on any other socket."""
    if sock.family != socket.AF_UNIX:
        return -1
    try:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return -1
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


def has_hung_up(sock: socket.socket) -> bool:
    """The peer has closed its side or is gone; looked at where nobody reads (no event would tell)."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def was_reset(sock: socket.socket) -> bool:
    """The connection is gone altogether, and not only the peer's side of it."""
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return bool(poll.poll(0))


def cut(transport: Any) -> None:
    """End a connection by RST: the peer is told that it broke, and what was not sent yet is lost."""
    # Once it is closing, its descriptor may be somebody else's.
    if not transport.is_closing():
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def place_of(transport: Any) -> str:
    """The address that a transport is connected to; "" for a Unix socket."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""

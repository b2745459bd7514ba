"""Which minor version of the protocol is spoken with a server: what it is asked for, and what it may answer.

Versions are whole numbers, as in a startup packet. Sans-IO; the login around this is in session_login.py.
"""

from typing import Final

from proxy.errors import OpenFailed, RemoteProtocolError
from proxy.postgres.messages import PROTOCOL_3_0, PROTOCOL_3_2, SECRET_CAP

# What a server says that takes the minor version of the startup packet for an offence: PostgreSQL before it
# negotiated (9.3 and its likes, without the updates of 2018), and poolers of that age.
TOO_NEW: Final = ("0A000", "08P01")


class Versions:
    """Which protocol version one server is asked for: whole numbers, as in a startup packet.

    ``most`` and ``least`` are libpq's max_protocol_version and min_protocol_version. A server that turns
    ``most`` away without a word about an older one (PostgreSQL before 9.3, poolers of that age) is asked
    for 3.0 from then on, where ``least`` allows that; unless it has taken ``most`` before.
    """

    def __init__(self, most: int = PROTOCOL_3_0, least: int = PROTOCOL_3_0) -> None:
        self.most = most
        self.least = least
        # Mutable state.
        self.asks = most  # in the next startup packet
        self.is_guess = False  # ... which is less than `most`, to see whether that helps
        self._is_proven = False  # the server has taken `most`

    def taken(self, asked: int) -> None:
        """The server answered a startup packet that asked for this version."""
        self.is_guess = False
        self._is_proven = self._is_proven or asked == self.most

    def turned_away(self, asked: int) -> None:
        """It did not: that may be the version, or it may be down."""
        if asked != self.most:
            self.asks, self.is_guess = self.most, False
        elif not self._is_proven and self.most > self.least == PROTOCOL_3_0:
            self.asks, self.is_guess = PROTOCOL_3_0, True


def negotiated(body: bytes, is_late: bool, asked: int, least: int) -> int:
    """The version that a NegotiateProtocolVersion message offers. Raises OpenFailed, RemoteProtocolError.

    ``is_late``: it came when the login had begun.
    """
    version = int.from_bytes(body[:4], "big")
    if len(body) < 8 or is_late or not PROTOCOL_3_0 <= version <= asked:
        raise RemoteProtocolError("a NegotiateProtocolVersion message came that offers no older version")
    if version < least:
        raise OpenFailed(
            f"the server speaks protocol {_name(version)}, and min_protocol_version={_name(least)} "
            "of its URL insists on more"
        )
    return version


def check_key(key: bytes, version: int) -> None:
    """Raise RemoteProtocolError unless a BackendKeyData message may have this body: process id and secret."""
    most = 8 if version < PROTOCOL_3_2 else 4 + SECRET_CAP
    if not 8 <= len(key) <= most:
        raise RemoteProtocolError(f"a BackendKeyData message of {len(key)} bytes; 8 to {most} are legal")


def _name(version: int) -> str:
    return f"{version >> 16}.{version & 0xFFFF}"

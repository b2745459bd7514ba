"""One connection to a server whose protocol nobody here knows.

It is new as long as nobody has sent anything on it; what the server says by itself until then (a greeting)
is kept for the first client. Afterwards it is spent, unless the user has said that the protocol keeps
nothing between clients, and how to see that nothing is left.
"""

from typing import Final

from proxy.codec import SessionCodec
from proxy.steps import Conversation, StartTls, Work
from proxy.tcp.script import Script

# Kept of what a server says before anybody has asked it; then it is not read any further.
_MOST_KEPT: Final = 65536


class TcpSession(SessionCodec):
    """A session. ``reset_script`` None: it serves one client only."""

    def __init__(self, tls: bool, ping_script: Script | None, reset_script: Script | None) -> None:
        self.kept = b""  # said by the server while nobody held the session
        self.used = False  # something passed between a client and the server
        self._tls = tls
        self._ping_script = ping_script
        self._reset_script = reset_script

    def log_in(self) -> Conversation[None]:
        """TLS, where it is wanted, and nothing else."""
        if self._tls:
            yield StartTls()

    def ping(self) -> Conversation[None]:
        """The script; without one, what has come until now is read, so that an end is seen."""
        if self._ping_script is None:
            # Off the loop and back: the loop has read all its sockets meanwhile.
            yield Work(_nothing)
        else:
            yield from self._ping_script.ping()

    def reset(self) -> Conversation[None]:
        """The script, where anything has passed."""
        if self.used and self._reset_script is not None:
            yield from self._reset_script.reset()

    def settle(self) -> Conversation[None]:
        """Nobody can say what is open, so it is never asked."""
        yield from ()

    def is_reusable(self) -> bool:
        """Another client may have it, once a reset has shown that nothing is left."""
        return self._reset_script is not None

    def unlinked(self, data: bytes) -> str:
        """Keep a greeting; from a session that has been used it is something left over."""
        if self.used:
            return "the server said something that nobody had asked for"
        self.kept += data
        return ""

    def is_full(self) -> bool:
        """The server says more than anybody would call a greeting."""
        return len(self.kept) >= _MOST_KEPT

    def take_kept(self) -> bytes:
        """What the server said before anybody listened, once."""
        kept, self.kept = self.kept, b""
        return kept

    def farewell(self) -> bytes:
        """Only the end of the stream."""
        return b""

    def cancel(self) -> Conversation[None]:
        """There is no such thing."""
        yield from ()


def _nothing() -> None:
    return

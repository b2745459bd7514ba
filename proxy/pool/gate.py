"""The gate before one server's logins: how many of them run side by side, and who is next.

Synchronous, no I/O, no clock. With a slow start the gate lets one through, then twice as many with each
login that works; after a failure it begins anew. So a server that has just come up, or is about to fall
over, is not stormed by everybody who lost a session at the same moment.
"""

from collections import deque

from proxy.pool.limits import Limits
from proxy.pool.session import Key, Session


class Gate:
    """The opens of one endpoint."""

    def __init__(self) -> None:
        self._width = 1
        # Mutable state; a session that is being opened is in exactly one of these.
        self.waiting: deque[Session] = deque()  # first in, first out
        self.inside: set[Session] = set()

    def width(self, limits: Limits) -> int:
        """How many may be inside now."""
        return min(self._width, limits.max_opening) if limits.slow_start else limits.max_opening

    def next(self, limits: Limits) -> Session | None:
        """The session that may be opened now, let in; None when nobody waits or the gate is full."""
        if not self.waiting or len(self.inside) >= self.width(limits):
            return None
        session = self.waiting.popleft()
        self.inside.add(session)
        return session

    def leave(self, session: Session) -> None:
        """The open of this session has ended, either way."""
        self.inside.discard(session)

    def widen(self, limits: Limits) -> None:
        """A login worked."""
        self._width = min(self._width * 2, limits.max_opening)

    def narrow(self) -> None:
        """A login failed because of the server."""
        self._width = 1

    def turn_away(self, key: Key | None = None) -> list[Session]:
        """Take out everybody who waits, or who does for this key."""
        out = [session for session in self.waiting if key is None or session.key is key]
        self.waiting = deque(session for session in self.waiting if session not in out)
        return out

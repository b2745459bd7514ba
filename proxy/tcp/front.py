"""Where raw TCP meets the rest of the house: what a pool and a listener get from this protocol.

Nobody logs in: whoever can connect has a session, and the server sees to its own. No I/O here.
"""

from collections.abc import Callable

from proxy.caller import Caller
from proxy.codec import SessionCodec
from proxy.errors import BackendError, PoolError
from proxy.reasons import RefusalReason
from proxy.reception import CancelTarget, Guest, Reception, Refused
from proxy.steps import Conversation
from proxy.tcp.client import TcpClient

# What the sessions of every pool belong to: there are no databases and no users.
DATABASE = "tcp"
USER = "anybody"


class TcpGuest(Guest):
    """A client; it has nothing to prove."""

    def __init__(self, pool: object) -> None:
        super().__init__(pool, DATABASE, USER, TcpClient())
        self.name = ""

    def welcome(self, cancel_key: bytes) -> bytes | None:
        """Only the server speaks."""
        return b""

    def turn_away(self, error: PoolError | BackendError) -> bytes:
        """There are no words for it."""
        return b""

    def learn(self, session: SessionCodec) -> None:
        """Nothing is told at a login."""


class TcpFront(Reception):
    """One listener's clients, who all get sessions of ``pool``, behind TLS or not."""

    def __init__(self, pool: object, tls: bool) -> None:
        self._pool = pool
        self._tls = tls

    def passes_ends(self) -> bool:
        """Both ends have to see what the other one does."""
        return True

    def begins_with_tls(self) -> bool:
        """Nobody asks for it first."""
        return self._tls

    def log_in(
        self,
        local: bool,
        refusal: Callable[[], tuple[str, str, str, RefusalReason] | None],
        caller: Caller | None = None,
    ) -> Conversation[Guest | CancelTarget]:
        """There is nothing to say. Raises Refused."""
        no = refusal()
        if no is not None:
            raise Refused(no[1], b"", no[3])
        yield from ()
        return TcpGuest(self._pool)

    def turn_away(self, sqlstate: str, text: str, hint: str) -> bytes:
        """There are no words for it."""
        return b""

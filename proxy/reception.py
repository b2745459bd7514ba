"""The contract between a listener, which knows sockets, and the protocols: how a connection becomes a client.

Nothing here does I/O or imports a protocol.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from mypy_extensions import mypyc_attr

from proxy.caller import Caller
from proxy.codec import ClientCodec, SessionCodec
from proxy.errors import BackendError, PoolError, ProtocolError
from proxy.reasons import RefusalReason
from proxy.steps import Conversation


class Refused(ProtocolError):
    """A client is turned away: ``reply`` is sent to it, then its connection is closed.

    ``public`` texts go to the client inside ``reply``; the exception's own text is for our log and
    may say more (which user, which reason), but never a secret.
    """

    def __init__(self, message: str, reply: bytes, reason: RefusalReason) -> None:
        super().__init__(message)
        self.reply = reply
        self.reason = reason


@mypyc_attr(allow_interpreted_subclasses=True)
class Guest(ABC):
    """A client whose login is proven, before it is welcomed.

    ``pool`` is what the listener's lookup returned for it; ``database`` and ``user`` are what its
    sessions must match; ``reply`` is sent before the welcome; ``rest`` was received beyond the login.
    """

    def __init__(self, pool: object, database: str, user: str, codec: ClientCodec) -> None:
        self.pool = pool
        self.database = database
        self.user = user
        self.codec = codec
        self.name = user  # whom the client said to be
        self.reply: bytes = b""
        self.rest: bytes = b""
        self.key_length: int = 8  # bytes of the cancel key that it expects
        # What a session must be opened with that is this client's alone; None: it shares those of the pool.
        self.private: object | None = None

    @abstractmethod
    def welcome(self, cancel_key: bytes) -> bytes | None:
        """The end of the login; None while no session has shown what the client must be told."""

    @abstractmethod
    def turn_away(self, error: PoolError | BackendError) -> bytes:
        """The last words when there is no session to welcome the client with."""

    @abstractmethod
    def learn(self, session: SessionCodec) -> None:
        """A session was prepared with the client's settings: remember what it reports."""


class CancelTarget:
    """Instead of a login, the connection asked to cancel what the client with this key runs."""

    def __init__(self, key: bytes) -> None:
        self.key = key


@mypyc_attr(allow_interpreted_subclasses=True)
class Reception(ABC):
    """What a listener needs of its protocol."""

    def passes_ends(self) -> bool:
        """A client has a session from its first moment on, and either side's end is the other's, as it came:
        one direction only, or both by a reset. Otherwise a session is acquired when there is work for it.
        """
        return False

    def begins_with_tls(self) -> bool:
        """The client speaks TLS from the first byte on; ``log_in`` comes after."""
        return False

    @abstractmethod
    def log_in(
        self,
        local: bool,
        refusal: Callable[[], tuple[str, str, str, RefusalReason] | None],
        caller: Caller | None = None,
    ) -> "Conversation[Guest | CancelTarget]":
        """Talk to a new connection until it has proven who it is. Raises Refused.

        ``refusal`` is asked once the client has said who it is: (sqlstate, text, hint, reason) turns
        it away. ``local``: the connection came over a Unix socket. ``caller`` None: nothing more is known.
        """

    @abstractmethod
    def turn_away(self, sqlstate: str, text: str, hint: str) -> bytes:
        """The last words to a connection that is not even asked who it is."""

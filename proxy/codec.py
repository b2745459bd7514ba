"""The contract between the relay, which knows sockets, and the protocols, which know bytes.

A protocol gives the relay three things. A ``ClientCodec`` for each client sees both directions while
the client holds a session and answers with flags. A ``SessionCodec`` for each session knows what
outlives a client. And *conversations*: plain generators that log in, ping, reset and recover; they
yield bytes to send (or a step that only a shell can take) and are sent what came back. Nothing here
does I/O, reads a clock or imports a protocol.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, TypeAlias, TypeVar

from mypy_extensions import mypyc_attr

from proxy.errors import BackendError, PoolError, ProtocolError
from proxy.reasons import CloseReason, RefusalReason

# What a call of ClientCodec.client or .server found; the bytes lie in the codec's fields.
FORWARD: Final = 1  # `out`: bytes for the other side
REPLY: Final = 2  # `reply`: bytes for the client, from us
RELEASE: Final = 4  # the unit of work is over: the session may go home
CLOSE: Final = 8  # the client leaves, or must (`closing` says why)
TERMS: Final = 16  # the client changed what it wants of the pool: the fields from `getmode` on
RESUME: Final = 32  # the codec kept bytes back until now: call client(b"") again
RECOVER: Final = 128  # as RELEASE, but the session must be recovered (or dropped) first
PAUSE: Final = 256  # the codec keeps what the client sends for now: stop reading it until RESUME
PREPARE: Final = 64  # the session lost the client's settings: prepare it again before going on


class Work:
    """A step of a conversation: run ``call`` off the event loop; its result is sent back."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call


class Wait:
    """A step of a conversation: await ``call()`` on the event loop; its result is sent back.

    What the other side says meanwhile is kept. What the call raises ends the conversation.
    """

    def __init__(self, call: "Callable[[], Awaitable[Any]]") -> None:
        self.call = call


class StartTls:
    """A step of a conversation: the plain stream becomes a TLS stream now.

    ``send`` goes out in the plain first. What is sent back is the peer's certificate in DER, or None
    where it showed none.
    """

    def __init__(self, send: bytes = b"") -> None:
        self.send = send


Step: TypeAlias = bytes | Work | Wait | StartTls
T = TypeVar("T")
# Yields steps. After bytes it is sent the next bytes received (never b""); b"" may be yielded to
# receive only. It returns its result, or raises a ProxyError.
Conversation: TypeAlias = Generator[Step, Any, T]


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
class SessionCodec(ABC):
    """What a protocol knows about one session, whoever holds it."""

    @abstractmethod
    def log_in(self) -> "Conversation[None]":
        """Log in to the server, from the first byte of the connection. Raises OpenFailed."""

    @abstractmethod
    def ping(self) -> "Conversation[None]":
        """Ask the server for a sign of life. Raises PingFailed."""

    @abstractmethod
    def reset(self) -> "Conversation[None]":
        """Wipe what a client may have left. Raises BackendError."""

    @abstractmethod
    def settle(self) -> "Conversation[None]":
        """Roll back what is open, and prove with a round trip that nothing is left. Raises BackendError."""

    def begin(self) -> "Conversation[None]":
        """Begin a transaction ahead of the next client, instead of one that was begun before.

        Only for protocols that know transactions. Raises BackendError.
        """
        raise BackendError("this protocol knows no transaction that could be begun ahead")

    def pings_by_peek(self) -> bool:
        """No ping is sent: the session lives as long as its socket is open and silent."""
        return False

    def tag(self) -> object | None:
        """The state that the session is in, for clients who want it in that one; None: as it was opened."""
        return None

    def is_full(self) -> bool:
        """What the server said while nobody held the session is kept, and no more of it can be."""
        return False

    @abstractmethod
    def unlinked(self, data: bytes) -> str:
        """Look at what the server said while nobody held the session; "" when that is harmless."""

    @abstractmethod
    def farewell(self) -> bytes:
        """The bytes that end the session politely; b"" where the server could not read them."""

    @abstractmethod
    def cancel(self) -> "Conversation[None]":
        """On a connection of its own, ask the server to cancel what the session runs now.

        The server's end of that connection is its only answer, so this conversation does not end by itself.
        """


@mypyc_attr(allow_interpreted_subclasses=True)
class ClientCodec(ABC):
    """What a protocol knows about one client, from the end of its login to its end.

    ``client`` and ``server`` are the warm path: one call for each read, no object for each message.
    """

    def __init__(self) -> None:
        self.out: bytes = b""
        self.reply: bytes = b""
        self.closing: CloseReason = CloseReason.CLIENT_LEFT
        self.getmode: str = ""  # "" means: as the pool has it
        self.wait_timeout: float = -1.0  # seconds; negative means: as the pool has it
        self.cclass: str = ""  # "" means: the pool's
        self.shard_key: str = ""
        self.wants_new: bool = False  # a session that no client has held
        self.tag: object | None = None  # the state in which it wants a session; None: as it was opened
        self.affinity: str = ""  # it shares a session with whoever names the same
        self.priority: int = 0  # the number of its class
        self.more: bool = False  # `out` is only the beginning: call client(b"") when there is a session
        self.must_cancel: bool = False  # what `recovery` found
        self.queries: int = 0  # counted and taken by the relay
        self.transactions: int = 0

    @abstractmethod
    def client(self, data: bytes) -> int:
        """Read bytes from the client. Returns flags; never raises on what a client may send."""

    @abstractmethod
    def server(self, data: bytes) -> int:
        """Read bytes from the linked session. Raises RemoteProtocolError when they are nonsense."""

    @abstractmethod
    def join(self, session: SessionCodec) -> bool:
        """The client now holds this session; True when it must be prepared first.

        May change ``out``, the bytes that wait to be forwarded.
        """

    @abstractmethod
    def prepare(self) -> "Conversation[bytes]":
        """Give the held session the client's settings; returns bytes for the client. Raises BackendError."""

    @abstractmethod
    def part(self) -> None:
        """The client no longer holds its session."""

    def leave(self) -> None:
        """The client is over, and holds no session: what it had of others is given back. Once only."""
        return

    @abstractmethod
    def is_clean(self) -> bool:
        """Nothing is owed, no transaction is open, no message is cut: the session may be reused."""

    def label(self) -> str:
        """What the client calls itself, for those who look; "" when it does not say. It may be anything."""
        return ""

    @abstractmethod
    def is_running(self) -> bool:
        """The held session runs something for this client that could be cancelled."""

    @abstractmethod
    def recovery(self) -> "Conversation[None] | None":
        """How to end what this client, which has gone, left running on its session; None: it is not certain.

        Sets ``must_cancel`` when the shell should send cancel requests until the conversation has
        ended. The session's ``settle`` follows. The conversation raises BackendError when it fails.
        """

    @abstractmethod
    def is_holding_idle(self) -> bool:
        """A session is held, and it is the client's turn to speak."""

    @abstractmethod
    def refuse(self, error: PoolError) -> bytes:
        """No session for what waits: forget it and return the answer for the client."""

    @abstractmethod
    def backend_refused(self, sqlstate: str, message: str, fields: dict[str, str]) -> bytes:
        """As ``refuse``, when the server could not be reached or said no in its own words."""

    @abstractmethod
    def canceled(self) -> bytes:
        """The client cancelled what waits for a session: forget it and return the answer."""

    @abstractmethod
    def session_lost(self) -> bytes | None:
        """The held session has died: the answer that lets the client go on, or None when it cannot."""

    @abstractmethod
    def fatal(self, reason: CloseReason, detail: str) -> bytes:
        """The last words to a client whose connection we close."""


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
        self, local: bool, refusal: Callable[[], tuple[str, str, str, RefusalReason] | None]
    ) -> "Conversation[Guest | CancelTarget]":
        """Talk to a new connection until it has proven who it is. Raises Refused.

        ``refusal`` is asked once the client has said who it is: (sqlstate, text, hint, reason) turns
        it away. ``local``: the connection came over a Unix socket.
        """

    @abstractmethod
    def turn_away(self, sqlstate: str, text: str, hint: str) -> bytes:
        """The last words to a connection that is not even asked who it is."""

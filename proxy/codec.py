"""The contract between the relay, which knows sockets, and the protocols, which know bytes.

A protocol gives the relay three things. A ``ClientCodec`` for each client sees both directions while
the client holds a session and answers with flags. A ``SessionCodec`` for each session knows what
outlives a client. And conversations (steps.py). How a connection becomes a client is in reception.py.
Nothing here does I/O, reads a clock or imports a protocol.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

from proxy.asked import Asked
from proxy.errors import BackendError, PoolError
from proxy.reasons import CloseReason
from proxy.roles import UNKNOWN
from proxy.steps import Conversation

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


@mypyc_attr(allow_interpreted_subclasses=True)
class SessionCodec(ABC):
    """What a protocol knows about one session, whoever holds it."""

    @abstractmethod
    def log_in(self) -> "Conversation[None]":
        """Log in to the server, from the first byte of the connection. Raises OpenFailed."""

    def asks_less(self) -> bool:
        """A login failed, perhaps because it asked for too much: the next one asks the server for less."""
        return False

    def role(self) -> int:
        """What the server is, as far as this session was told: one of roles.ROLES."""
        return UNKNOWN

    def watch_role(self, told: Callable[[int], None]) -> None:
        """Call ``told`` with each change of the role after the login, or with DOUBTED."""
        return

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

    def process(self) -> int:
        """The number of the server's process; 0: it has not said."""
        return 0

    def tag(self) -> object | None:
        """The state that the session is in, for clients who want it in that one; None: as it was opened."""
        return None

    def is_full(self) -> bool:
        """What the server said while nobody held the session is kept, and no more of it can be."""
        return False

    @abstractmethod
    def unlinked(self, data: bytes) -> str:
        """Look at what the server said while nobody held the session; "" when that is harmless."""

    def last_words(self) -> str:
        """What the server said to end the session, while a client held it; "" when it has not.

        A session with last words goes home to be closed.
        """
        return ""

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
        self.target: str = ""  # one of roles.WORDS; "" means: the pool's
        self.wants_new: bool = False  # a session that no client has held
        self.tag: object | None = None  # the state in which it wants a session; None: as it was opened
        self.affinity: str = ""  # it shares a session with whoever names the same
        self.priority: int = 0  # the number of its class
        self.more: bool = False  # `out` is only the beginning: call client(b"") when there is a session
        self.must_cancel: bool = False  # what `recovery` found
        self.asked: list[Asked] | None = None  # what is under way, oldest first; None: it is not watched
        self.lost_why: str = ""  # what `session_lost` may tell the client
        self.news: bool = False  # there is something to tell the client that it has not asked for
        self.doom: CloseReason | None = None  # ... which is that it must connect again, and why
        self.doom_detail: str = ""
        self.bell: Callable[[], None] = nobody_hears  # rung when there is news
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

    def take_news(self) -> bytes:
        """What is to be told to the client now; b"" where it is not the moment."""
        return b""

    def gift(self) -> object | None:
        """The hub (see hearing.py) that gets the held session, once; None: it is still the client's."""
        return None

    def leave(self) -> None:
        """The client is over, and holds no session: what it had of others is given back. Once only."""
        return

    @abstractmethod
    def is_clean(self) -> bool:
        """Nothing is owed, no transaction is open, no message is cut: the session may be reused."""

    def label(self) -> str:
        """What the client calls itself, for those who look; "" when it does not say. It may be anything."""
        return ""

    def in_transaction(self) -> bool:
        """The held session works for this client, or has a transaction of its open; where that is known."""
        return False

    def running(self) -> int:
        """The number of the request that runs on the held session; negative: none does."""
        return -1

    def watch(self, asked: list[Asked] | None) -> None:
        """From now on note here what is asked, and what becomes of it; None: no longer."""
        self.asked = asked

    def replied(self) -> int:
        """How many requests have been answered since the session was taken."""
        return 0

    def timed_out(self) -> None:
        """What runs is about to be cancelled for having taken too long: let its error say so."""
        return

    def notice(self, text: str, detail: str) -> bytes:
        """Something the client may want to know while it holds no session; b"" where it cannot be told."""
        return b""

    def fingerprint(self, text: bytes) -> "tuple[str, str, dict[str, str]]":
        """A request without its literals: a short name for that, the text, and what its comments say."""
        return "", "", {}

    def is_at_rest(self) -> bool:
        """Nothing is under way for the client, which may keep its session all the same."""
        return self.is_clean()

    def pinned(self) -> str:
        """Why the client keeps its session beyond a unit of work; "" when it does not."""
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
class UnsharedCodec(ClientCodec):
    """A client with one session from its first moment to its last: it never waits, and they end together."""

    def prepare(self) -> "Conversation[bytes]":
        """Nothing has to be prepared."""
        yield from ()
        return b""

    def recovery(self) -> "Conversation[None] | None":
        """There is none: nobody else gets the session."""
        return None

    def refuse(self, error: PoolError) -> bytes:
        """It never waits."""
        return b""

    def backend_refused(self, sqlstate: str, message: str, fields: dict[str, str]) -> bytes:
        """It never waits."""
        return b""

    def canceled(self) -> bytes:
        """It never waits."""
        return b""

    def session_lost(self) -> bytes | None:
        """The client goes with its session."""
        return None


def nobody_hears() -> None:
    """The bell of a client that has been told all."""

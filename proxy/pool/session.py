"""A session's record, and the seams between the pool and those who use it or do its work.

A session is one opened, authenticated connection to the real server, owned by a pool. Its state is
the ledger's collection that it is in; ``state`` only repeats which one, and only the ledger writes it.
"""

from abc import ABC, abstractmethod
from typing import Final

from mypy_extensions import mypyc_attr

from proxy.errors import ProxyError
from proxy.pool.endpoints import Endpoint
from proxy.pool.limits import OFF, TIMEDWAIT
from proxy.reasons import DropReason
from proxy.roles import ANY, TARGETS, UNKNOWN

OPENING: Final = 0  # being connected and logged in; its slot is taken already
IDLE: Final = 1  # open, fresh enough to be looked at, held by nobody
CARE: Final = 2  # open, in the pool's own hands: ping, reset, recovery
BUSY: Final = 3  # held by a client
CLOSING: Final = 4  # told to end; its slot is taken until the server has really ended it
GONE: Final = 5
STATES: Final = ("opening", "idle", "care", "busy", "closing", "gone")

# What the care of a session is about. A ping or a reset ends soon and hands on to whoever waits;
# a recovery waits for a query that a vanished client left behind, so nobody may count on it.
NO_CARE: Final = 0
PING: Final = 1
RESET: Final = 2
RECOVERY: Final = 3
BEGIN: Final = 4  # a transaction is begun ahead of the client who will want one


class Key:
    """What a session must match to serve a client: one object for each, compared by identity.

    ``cclass`` is the connection class (as Oracle's), "" for none. ``endpoint`` is where a shard key leads;
    None: any endpoint of the pool will do, as far as its role suits ``target`` (one of roles.TARGETS).
    """

    def __init__(
        self, database: str, user: str, cclass: str = "", endpoint: Endpoint | None = None, target: int = ANY
    ) -> None:
        self.database = database
        self.user = user
        self.cclass = cclass
        self.endpoint = endpoint
        self.target = target
        # Of a session that is one client's alone: what it is opened with, and the key it would have else.
        self.private: object | None = None
        self.like: Key | None = None

    def alone(self, private: object) -> "Key":
        """One for a single client: no session of anybody else suits it, and its own suits nobody else."""
        key = Key(self.database, self.user, self.cclass, self.endpoint, self.target)
        key.private, key.like = private, self
        return key

    def __repr__(self) -> str:
        text = f"{self.user}@{self.database}"
        if self.private is not None:
            text += " (replication)"
        if self.cclass:
            text += f" class {self.cclass}"
        if self.target != ANY:
            text += f" ({TARGETS[self.target]})"
        return text if self.endpoint is None else f"{text} on {self.endpoint.name}"


@mypyc_attr(allow_interpreted_subclasses=True)
class Backend(ABC):
    """The pool's hold on the code and socket behind one session. Every method may run for long."""

    @abstractmethod
    async def ping(self) -> None:
        """Return when the server has answered. Raises BackendError."""

    @abstractmethod
    async def reset(self) -> None:
        """Wipe what a client may have left. Raises BackendError."""

    @abstractmethod
    async def recover(self) -> None:
        """Bring a session back whose client left in the middle of something. Raises BackendError."""

    @abstractmethod
    async def begin(self) -> None:
        """Begin a transaction ahead of the next client, instead of one begun before. Raises BackendError."""

    @abstractmethod
    def peek(self) -> bool:
        """Something has come from the server, or its end, that nobody has read yet. One system call."""

    @abstractmethod
    def take_away(self, detail: str) -> None:
        """Tell whoever holds the session that it is gone."""

    @abstractmethod
    async def close(self) -> None:
        """Ask the server to end the session, and return when it has."""

    @abstractmethod
    def abandon(self) -> None:
        """Cut the connection at once, whatever the server does."""

    @abstractmethod
    def is_gone(self) -> bool:
        """The server has already ended the session, or the connection is lost."""

    def place(self) -> str:
        """The address that the session is connected to; "" where it has none."""
        return ""

    def role(self) -> int:
        """What the server is, as far as this session was told: one of roles.ROLES."""
        return UNKNOWN


class Session:
    """The record of one session; ``number`` is its id in logs. Times are monotonic seconds."""

    def __init__(self, number: int, key: Key, endpoint: Endpoint, now: float) -> None:
        self.number = number
        self.key = key
        self.endpoint = endpoint
        self.state: int = OPENING
        self.care: int = NO_CARE
        self.forced = False  # opened above `max`, which only forceget may
        self.is_trial = False  # opened to see whether a server is back: nobody who waits counts on it
        self.backend: Backend | None = None
        self.opened_at = now
        self.idle_since = now
        self.proven_at = now  # when the server last showed that the session lives
        self.busy_since = now
        self.expires: float = OFF  # when max_lifetime, jittered, is over
        self.generation = 0  # the pool's when this session was opened
        self.doom: DropReason | None = None  # why it serves nobody any more, though it could
        self.used = False  # some client has held it
        self.core = False  # reuse = "tiered": one of the first `min_per_endpoint`
        self.tag: object | None = None  # the state that its last client left it in; None: as it was opened
        self.affinity = ""  # the key of the clients that share it now
        self.begun_at: float = OFF  # when a transaction was begun on it ahead; OFF: none was

    def __repr__(self) -> str:
        return f"<Session {self.number} {STATES[self.state]} {self.key!r}>"


@mypyc_attr(allow_interpreted_subclasses=True)
class Opener(ABC):
    """Opens sessions for a pool."""

    @abstractmethod
    async def open(self, session: Session) -> Backend:
        """Connect and log in. Raises OpenFailed; cleans up behind itself when cancelled."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Waiter(ABC):
    """Somebody who wants a session. The client itself is one: no future and no task per request.

    ``deadline`` is set by the pool from the getmode and ``wait_timeout`` (seconds). ``picky`` must be set
    where one of the wishes below it is, for only then are they looked at.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        self.picky = False
        self.wants_new = False  # purity: a session that no client has ever held
        self.tag: object | None = None  # the state in which it wants a session; None: as it was opened
        self.affinity = ""  # whoever names the same key gets the same session, one after the other
        self.priority = 0  # the number of its class in ``Limits.weights``
        self.rank = 0.0  # its place in the queue among several classes, lowest first
        self.getmode: int = TIMEDWAIT
        self.wait_timeout: float = 0.0
        self.since: float = 0.0
        self.deadline: float = OFF

    @abstractmethod
    def granted(self, session: Session) -> bool:
        """Take over the session, in this very step; False when the waiter has gone and will not."""

    @abstractmethod
    def refused(self, error: ProxyError) -> None:
        """There is no session: a PoolError says how full the pool was, a BackendError what failed."""

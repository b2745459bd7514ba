"""What observers are given of a pool: frozen pictures of one moment, as plain values.

Nothing here counts, decides or refers to anything that lives. Times are in seconds.
"""

from dataclasses import dataclass, field
from typing import Final

# Where a session that takes a slot may be; care: in the pool's own hands (ping, reset, recovery, begin).
SESSION_STATES: Final = ("busy", "idle", "care", "opening", "closing")
# Of an endpoint: logins are tried; none is, for a while; one is, and decides.
BREAKERS: Final = ("closed", "open", "half_open")


@dataclass(frozen=True)
class HistogramStats:
    """``cumulative[i]`` observations were at most ``BUCKETS[i]`` seconds; the last is the count of all."""

    cumulative: tuple[int, ...]
    total: float


@dataclass(frozen=True)
class Figures:
    """What was counted within ``uptime`` seconds; who knows node-oracledb's pool statistics finds them here.

    ``requests`` are those that have ended, however: ``immediate`` and ``dequeued`` got a session,
    ``timeouts`` did not within ``wait_timeout``, ``rejected`` because the queue was too long,
    ``nowait_refused`` because they would not wait, ``failed`` because no session could be opened or the
    pool was closed, and ``gone`` left before it was their turn. ``enqueued`` joined the queue; the times
    are those of ``dequeued``. ``most_…`` are high-water marks.
    """

    uptime: float
    requests: int
    immediate: int
    enqueued: int
    dequeued: int
    timeouts: int
    rejected: int
    nowait_refused: int
    failed: int
    gone: int
    most_opened: int
    most_busy: int
    most_waiting: int
    wait_sum: float
    wait_min: float
    wait_max: float
    wait_average: float


@dataclass(frozen=True)
class EndpointStats:
    """One server of a pool. ``sessions`` by state; ``breaker`` is closed, open or half_open.

    ``role`` is primary, read_only (as a primary, but transactions are read-only there), standby or unknown.
    """

    name: str
    sessions: dict[str, int]
    breaker: str
    failures: int  # opens that failed in a row
    retry_in: float  # until then nothing is opened
    last_error: str  # why the latest open failed, "" when it did not
    role: str = "unknown"


@dataclass(frozen=True)
class KeyStats:
    """The sessions that serve the same clients, and the clients that wait for one of them.

    ``endpoint`` is where a shard key leads, or what kind of server they have asked for, "" for any.
    """

    database: str
    user: str
    cclass: str
    endpoint: str
    busy: int
    idle: int
    care: int
    opening: int
    closing: int
    waiting: int


@dataclass(frozen=True)
class PriorityStats:
    """One class of clients. Number 0 is everybody who is in none, and has no name."""

    name: str
    number: int
    weight: float
    waiting: int
    oldest_wait: float


@dataclass(frozen=True)
class QueryStats:
    """One kind of query, as it was asked so far."""

    fingerprint: str
    query: str  # without its literals
    calls: int
    errors: int
    rows: int
    total: float
    longest: float


@dataclass(frozen=True)
class PoolStats:
    """One pool at one moment."""

    name: str
    pool_mode: str
    getmode: str
    min: int
    max: int
    max_forced: int
    paused: bool
    generation: int
    opened: int
    busy: int
    idle: int
    idle_new: int  # of the idle ones, those that no client has ever held
    pending_begin: int  # in care: a transaction is being begun ahead
    opening: int
    closing: int
    extras: int  # opened above `max`
    waiting: int
    oldest_wait: float
    oldest_hold: float  # how long the session that is busy longest is held; 0.0 when none is busy
    acquires: dict[tuple[str, str], int]  # (getmode, outcome)
    enqueued: int
    waited: int
    handoffs: int
    opens: dict[str, int]  # outcome: ok | failed
    pings: dict[str, int]  # outcome: ok | failed | timed_out
    resets: dict[str, int]  # outcome: ok | failed
    begins: dict[str, int]  # outcome: used | expired
    peek_dead: int
    fixups: int
    drops: dict[str, int]  # reason
    acquire: HistogramStats
    wait: HistogramStats
    hold: HistogramStats
    open: HistogramStats
    ping: HistogramStats
    transactions: int
    queries: int
    bytes_client: int
    bytes_server: int
    since_start: Figures
    since_reset: Figures
    endpoints: tuple[EndpointStats, ...]
    keys: tuple[KeyStats, ...]  # those with most sessions and waiters
    priorities: tuple[PriorityStats, ...]
    ready: bool  # the latest open succeeded
    last_error: str  # why the latest open failed, "" when it did not
    # Sessions kept by their clients beyond a unit of work; outcome: pinned, refused or would_pin.
    pins: dict[tuple[str, str], int] = field(default_factory=dict)  # (reason, outcome)
    pinned: dict[str, int] = field(default_factory=dict)  # reason: clients that keep theirs now
    listening_clients: int = 0  # for whom a shared session listens
    listening_channels: int = 0
    notifications: int = 0  # told to them
    timeouts: dict[str, int] = field(default_factory=dict)  # reason
    slow_queries: int = 0
    query: HistogramStats = HistogramStats((0,) * 17, 0.0)  # while watched

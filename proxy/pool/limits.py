"""The bounds and policies of one pool, frozen. Every time is a float in seconds; ``OFF`` means never.

Plain integers stand for choices: the ledger compares them on the path of every query. Each tuple beside
them has the words of the configuration, in the same order.
"""

from dataclasses import dataclass, field
from typing import Final

OFF: Final = float("inf")

# Get modes, as Oracle's SessionPool has them (oracledb.POOL_GETMODE_*).
WAIT: Final = 0
NOWAIT: Final = 1
TIMEDWAIT: Final = 2
FORCEGET: Final = 3
GETMODES: Final = ("wait", "nowait", "timedwait", "forceget")

# Which idle session is handed out: the latest used; the longest idle (Spanner's PingingPool); the core of
# ``min_per_endpoint`` sessions in turn, then the latest of the others (generic_connection_pool).
LIFO: Final = 0
LRU: Final = 1
TIERED: Final = 2
REUSES: Final = ("lifo", "lru", "tiered")

# Who opens ``min`` at the start: whoever waits for the start; the keeper, meanwhile; nobody.
EAGER: Final = 0
BACKGROUND: Final = 1
LAZY: Final = 2
PREFILLS: Final = ("eager", "background", "lazy")

# When a forced session is closed on release: while more than ``max`` are open (Oracle), or when as many
# as ``max_idle`` are idle (Spanner's BurstyPool).
BY_OPENED: Final = 0
BY_IDLE: Final = 1
FORCED_RELEASES: Final = ("opened", "idle")

# Who is tied to a session: nobody; all clients that name the same key (psycopg2's getconn(key)); each
# client for as long as it is connected (psycopg2's PersistentConnectionPool).
NO_AFFINITY: Final = 0
BY_KEY: Final = 1
BY_CLIENT: Final = 2
AFFINITIES: Final = ("none", "key", "client")

PING_AT_ACQUIRE: Final = 0
PING_IN_BACKGROUND: Final = 1
PING_BOTH: Final = 2
PING_MODES: Final = ("acquire", "background", "both")

# After a failed ping: try the next idle session (Oracle), or open a new one at once (Spanner).
TRY_NEXT: Final = 0
CREATE: Final = 1
PING_FAILURES: Final = ("next", "create")

REAP_IN_BACKGROUND: Final = 0
REAP_AT_RELEASE: Final = 1
REAP_AT_ACCESS: Final = 2
REAPS: Final = ("background", "release", "access")

# A session that comes back and cannot be kept: closed, or closed with a warning.
JUST_CLOSE: Final = 0
WARN: Final = 1
PUT_FULLS: Final = ("close", "error")

# How the state that a session is in counts when one is chosen (Oracle's tag and matchanytag).
TAGS_OFF: Final = 0
TAGS_EXACT: Final = 1
TAGS_ANY: Final = 2
TAGS: Final = ("off", "exact", "any")

BEGIN_PASS: Final = 0
BEGIN_DEFERRED: Final = 1
BEGIN_AHEAD: Final = 2
BEGINS: Final = ("pass", "deferred", "ahead")

# What the log of slow queries shows of a statement: its text without its literals, or as it was sent.
LOG_FINGERPRINT: Final = 0
LOG_RAW: Final = 1
LOG_STATEMENTS: Final = ("fingerprint", "raw")


@dataclass(frozen=True)
class Limits:
    """What one pool may do. ``max`` bounds all but forceget, which goes up to ``max_forced`` above it."""

    # Size.
    min: int = 0
    max: int = 10
    increment: int = 1
    max_forced: int = 0
    max_idle: int | None = None
    min_per_endpoint: int = 0
    max_per_endpoint: int | None = None
    evict: bool = True
    prefill: int = BACKGROUND
    keep_min: bool = True
    forced_release: int = BY_OPENED
    put_full: int = JUST_CLOSE
    # Acquire.
    getmode: int = TIMEDWAIT
    wait_timeout: float = 30.0
    max_waiting: int | None = None
    refuse_early: bool = False
    weights: tuple[float, ...] = (1.0,)  # of the priority classes, by their number; the first is everybody's
    reuse: int = LIFO
    affinity: int = NO_AFFINITY
    tags: int = TAGS_OFF
    # Health.
    peek: bool = True
    ping_interval: float = 60.0  # 0.0 pings at every acquire, OFF never
    ping_timeout: float = 5.0
    ping_mode: int = PING_AT_ACQUIRE
    ping_failure: int = TRY_NEXT
    # Age.
    idle_timeout: float = 600.0
    max_lifetime: float = 3600.0
    lifetime_jitter: float = 0.1  # a share of max_lifetime
    reap: int = REAP_IN_BACKGROUND
    reap_batch: int = 0  # closes at a release or an acquire; 0: log2(sessions + 1) + 1
    # Opening, care and ending.
    max_opening: int = 4  # logins in parallel
    slow_start: bool = True
    breaker_failures: int = 5
    breaker_timeout: float = 5.0
    failover_wait: float = 0.0  # how long clients are held when no server will do
    role_check_interval: float = 30.0  # between two questions what a server is
    connect_timeout: float = 15.0  # one open: connect, TLS and login together
    io_parallel: int = 32  # pings and closes in parallel
    reset_timeout: float = 5.0
    close_timeout: float = 30.0
    drain_timeout: float = 30.0  # how long a pool that is closed waits for those who hold its sessions
    begin: int = BEGIN_PASS
    begin_max_age: float = 5.0
    idle_transaction_timeout: float = OFF
    hold_warning: float = OFF
    # Time, and what is told of it.
    query_timeout: float = OFF
    transaction_timeout: float = OFF
    client_idle_timeout: float = OFF
    query_wait_notify: float = 5.0
    log_min_duration: float = OFF
    log_statements: int = LOG_FINGERPRINT
    log_statement_bytes: int = 200
    query_stats: bool = False
    client_may_set: frozenset[str] = field(
        default_factory=lambda: frozenset({"nowait", "timedwait", "wait_timeout"})
    )

    @property
    def watches(self) -> bool:
        """Each query is timed, and its text kept until its end."""
        return self.query_stats or self.log_min_duration != OFF

    @property
    def ceiling(self) -> int:
        """The hard bound: not even forceget opens more sessions than this."""
        return self.max + self.max_forced

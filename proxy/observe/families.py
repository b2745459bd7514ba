"""The metrics of a pool that are one number each, and how each is read from the pool's picture.

Tables only: name, help text, and what to read. collector.py makes metrics of them.
"""

from collections.abc import Callable
from typing import Final

from proxy.pool.figures import HistogramStats, PoolStats

POOL_GAUGES: Final[tuple[tuple[str, str, Callable[[PoolStats], float]], ...]] = (
    ("opened", "Sessions that are open: busy, idle, or in care (ping, reset).", lambda pool: pool.opened),
    ("busy", "Sessions held by a client.", lambda pool: pool.busy),
    ("idle", "Sessions that are open and not held.", lambda pool: pool.idle),
    ("idle_new", "Sessions that are open, and that no client has held yet.", lambda pool: pool.idle_new),
    (
        "pending_begin",
        "Sessions on which a transaction is being begun ahead, for the next client.",
        lambda pool: pool.pending_begin,
    ),
    ("opening", "Sessions being connected and logged in.", lambda pool: pool.opening),
    (
        "closing",
        "Sessions that are given up but not yet ended by the server; each still takes a slot.",
        lambda pool: pool.closing,
    ),
    ("extras", "Sessions that are open above max, as forceget may.", lambda pool: pool.extras),
    ("waiting", "Clients in the queue for a session.", lambda pool: pool.waiting),
    (
        "oldest_wait_seconds",
        "How long the first client in the queue has waited, in seconds; 0 when nobody waits.",
        lambda pool: pool.oldest_wait,
    ),
    (
        "oldest_hold_seconds",
        "How long the session that is busy longest has been held, in seconds; 0 when none is busy.",
        lambda pool: pool.oldest_hold,
    ),
    (
        "opened_max",
        "The most sessions that have been open at once since the start.",
        lambda pool: pool.since_start.most_opened,
    ),
    (
        "busy_max",
        "The most sessions that have been busy at once since the start.",
        lambda pool: pool.since_start.most_busy,
    ),
    (
        "waiting_max",
        "The most clients that have waited at once since the start.",
        lambda pool: pool.since_start.most_waiting,
    ),
    (
        "listening_clients",
        "Clients whose LISTEN a shared session has taken over.",
        lambda pool: pool.listening_clients,
    ),
    (
        "listening_channels",
        "Channels that shared sessions listen to.",
        lambda pool: pool.listening_channels,
    ),
    ("paused", "1 while the pool is paused by its operator, else 0.", lambda pool: pool.paused),
    ("ready", "1 when the latest open of a session succeeded, else 0.", lambda pool: pool.ready),
)

POOL_COUNTERS: Final[tuple[tuple[str, str, Callable[[PoolStats], float]], ...]] = (
    (
        "pool_enqueued",
        "Requests for a session that were not granted at once and joined the queue.",
        lambda pool: pool.enqueued,
    ),
    (
        "pool_waited",
        "Requests for a session that were granted through the queue.",
        lambda pool: pool.waited,
    ),
    (
        "pool_handoffs",
        "Sessions that went on to a waiting client in the very step in which they came back.",
        lambda pool: pool.handoffs,
    ),
    (
        "pool_peek_dead",
        "Idle sessions that were not handed out because the server had said or ended something meanwhile.",
        lambda pool: pool.peek_dead,
    ),
    (
        "pool_fixups",
        "Sessions whose state was changed for the client that got them.",
        lambda pool: pool.fixups,
    ),
    ("transactions", "Transactions that clients finished.", lambda pool: pool.transactions),
    ("queries", "Queries that clients sent.", lambda pool: pool.queries),
    (
        "notifications",
        "Notifications from a shared session, counted once for each client that listens.",
        lambda pool: pool.notifications,
    ),
    (
        "slow_queries",
        "Queries that took log_min_duration or longer, each a slow_query in the log.",
        lambda pool: pool.slow_queries,
    ),
)

POOL_OUTCOMES: Final[tuple[tuple[str, str, str, Callable[[PoolStats], dict[str, int]]], ...]] = (
    ("opens", "outcome", "Attempts to open a session, by how they ended.", lambda pool: pool.opens),
    ("drops", "reason", "Sessions that left the pool, by reason.", lambda pool: pool.drops),
    (
        "timeouts",
        "reason",
        "Clients or their queries that took too long, by the setting that says so.",
        lambda pool: pool.timeouts,
    ),
    (
        "pings",
        "outcome",
        "Pings of idle sessions, by outcome.",
        lambda pool: pool.pings,
    ),
    ("resets", "outcome", "Resets of sessions between two clients, by outcome.", lambda pool: pool.resets),
    (
        "begins",
        "outcome",
        "Transactions begun ahead: used by a client, or expired and begun anew.",
        lambda pool: pool.begins,
    ),
)

POOL_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[PoolStats], HistogramStats]], ...]] = (
    (
        "acquire_seconds",
        "Time from asking for a session to having it, in seconds: queueing, ping and connect together.",
        lambda pool: pool.acquire,
    ),
    (
        "wait_seconds",
        "Time in the queue of the requests that were granted through it, in seconds.",
        lambda pool: pool.wait,
    ),
    ("hold_seconds", "Time that a client held a session, in seconds.", lambda pool: pool.hold),
    (
        "open_seconds",
        "Time to open a session, in seconds: connect, TLS and login together.",
        lambda pool: pool.open,
    ),
    (
        "query_seconds",
        "Time from the first byte of a query sent to its whole answer, in seconds; only where the pool has "
        "log_min_duration or query_stats.",
        lambda pool: pool.query,
    ),
    ("ping_seconds", "Time that a ping took which the server answered, in seconds.", lambda pool: pool.ping),
)

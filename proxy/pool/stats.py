"""Counters of one pool, and the frozen snapshot of them that observers are given.

Plain integers and lists, bumped where things happen and read when somebody scrapes. Nothing here
may import a library: the warm path of a query runs through it.
"""

from dataclasses import dataclass
from typing import Final

from proxy.errors import PoolBusy, PoolClosed, PoolTimeout, ProxyError, QueueFull
from proxy.pool.limits import GETMODES
from proxy.reasons import DropReason

# Upper bounds of the histogram buckets in seconds: doublings of 250 µs, up to 8 s.
BUCKETS: Final = tuple(0.00025 * 2**step for step in range(16))
_LEAST: Final = 0.00025
_PER_SECOND: Final = 4000.0

GRANTED: Final = 0
TIMED_OUT: Final = 1
BUSY: Final = 2
QUEUE_FULL: Final = 3
FAILED: Final = 4
GONE: Final = 5
CLOSED: Final = 6
OUTCOMES: Final = ("granted", "timeout", "busy", "queue_full", "failed", "gone", "closed")


def outcome_of(error: ProxyError) -> int:
    """How an acquire ended that ended with this error."""
    if isinstance(error, PoolClosed):
        return CLOSED
    if isinstance(error, PoolBusy):
        return BUSY
    if isinstance(error, PoolTimeout):
        return TIMED_OUT
    if isinstance(error, QueueFull):
        return QUEUE_FULL
    return FAILED


class Histogram:
    """Durations counted in doubling buckets: cheap enough for the path of a query."""

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (len(BUCKETS) + 1)
        self.total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration, in seconds."""
        self.total += seconds
        if seconds < _LEAST:
            self.counts[0] += 1
            return
        step = int(seconds * _PER_SECOND).bit_length()
        self.counts[step if step < len(self.counts) else -1] += 1

    def observe_zero(self) -> None:
        """Count a duration that was nothing at all, without a look at the clock."""
        self.counts[0] += 1

    def snapshot(self) -> "HistogramStats":
        """Freeze the counts, cumulative as Prometheus wants them."""
        cumulative: list[int] = []
        seen = 0
        for count in self.counts:
            seen += count
            cumulative.append(seen)
        return HistogramStats(tuple(cumulative), self.total)


@dataclass(frozen=True)
class HistogramStats:
    """``cumulative[i]`` observations were at most ``BUCKETS[i]`` seconds; the last is the count of all."""

    cumulative: tuple[int, ...]
    total: float


class Counters:
    """What a pool counts. ``acquires[getmode][outcome]``; the rest is named as in the metrics."""

    def __init__(self) -> None:
        self.acquires: list[list[int]] = [[0] * len(OUTCOMES) for _ in GETMODES]
        self.opens_ok = 0
        self.opens_failed = 0
        self.pings_ok = 0
        self.pings_failed = 0
        self.drops: dict[str, int] = {str(reason): 0 for reason in DropReason}
        self.acquire = Histogram()
        self.hold = Histogram()
        self.open = Histogram()
        self.transactions = 0
        self.queries = 0
        self.bytes_client = 0  # from clients to the server
        self.bytes_server = 0  # from the server to clients


@dataclass(frozen=True)
class PoolStats:
    """One pool at one moment."""

    name: str
    pool_mode: str
    getmode: str
    min: int
    max: int
    max_forced: int
    opened: int
    busy: int
    idle: int
    opening: int
    closing: int
    waiting: int
    oldest_wait: float
    acquires: dict[tuple[str, str], int]  # (getmode, outcome)
    opens: dict[str, int]  # outcome: ok | failed
    pings: dict[str, int]  # outcome: ok | failed
    drops: dict[str, int]  # reason
    acquire: HistogramStats
    hold: HistogramStats
    open: HistogramStats
    transactions: int
    queries: int
    bytes_client: int
    bytes_server: int
    ready: bool  # the latest open succeeded
    last_error: str  # why the latest open failed, "" when it did not

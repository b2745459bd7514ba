"""Counters of one pool, and the arithmetic that makes figures of them.

Plain integers and lists, bumped where things happen and read when somebody scrapes. Nothing here
may import a library: the warm path of a query runs through it. What observers are given is frozen, and
its shape is in figures.py.
"""

from typing import Final

from proxy.errors import PoolBusy, PoolClosed, PoolPaused, PoolTimeout, ProxyError, QueueFull, RefusedEarly
from proxy.hearing import Tally
from proxy.pool.book import Book
from proxy.pool.figures import Figures, HistogramStats, PoolStats
from proxy.pool.limits import GETMODES
from proxy.reasons import DropReason, TimeoutReason

__all__ = ["BUCKETS", "OUTCOMES", "Counters", "Histogram", "HistogramStats", "PoolStats", "outcome_of"]

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
PAUSED: Final = 7
REFUSED_EARLY: Final = 8
OUTCOMES: Final = (
    "granted",
    "timeout",
    "busy",
    "queue_full",
    "failed",
    "gone",
    "closed",
    "paused",
    "refused_early",
)
# The first that fits counts: RefusedEarly is a QueueFull, too.
_BY_ERROR: Final = (
    (PoolClosed, CLOSED),
    (PoolBusy, BUSY),
    (PoolTimeout, TIMED_OUT),
    (PoolPaused, PAUSED),
    (RefusedEarly, REFUSED_EARLY),
    (QueueFull, QUEUE_FULL),
)


def outcome_of(error: ProxyError) -> int:
    """How an acquire ended that ended with this error."""
    for kind, outcome in _BY_ERROR:
        if isinstance(error, kind):
            return outcome
    return FAILED


class Histogram:
    """Durations counted in doubling buckets: cheap enough for the path of a query."""

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (len(BUCKETS) + 1)
        self.total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration, in seconds."""
        self.total += seconds
        step, counts = 0, self.counts
        if seconds >= _LEAST:
            step = int(seconds * _PER_SECOND).bit_length()
            if step >= len(counts):
                step = len(counts) - 1
        # Not `+=`: on an item of a list that is done with objects.
        counts[step] = counts[step] + 1

    def snapshot(self, zeros: int = 0) -> HistogramStats:
        """Freeze the counts, cumulative as Prometheus wants them; so many durations of nothing besides."""
        cumulative: list[int] = []
        seen = zeros
        for count in self.counts:
            seen += count
            cumulative.append(seen)
        return HistogramStats(tuple(cumulative), self.total)


class Marks:
    """The highest and lowest that was seen; the highest of several counts at three places."""

    def __init__(self, opened: int = 0, busy: int = 0, waiting: int = 0) -> None:
        self.opened = opened
        self.busy = busy
        self.waiting = waiting
        self.wait_min = 0.0  # seconds; nothing while `wait_max` is negative: nobody has waited
        self.wait_max = -1.0

    def include(self, other: "Marks") -> None:
        """What the others have seen was seen here, too."""
        self.opened = max(self.opened, other.opened)
        self.busy = max(self.busy, other.busy)
        self.waiting = max(self.waiting, other.waiting)
        if other.wait_max >= 0.0:
            self.wait_min = other.wait_min if self.wait_max < 0.0 else min(self.wait_min, other.wait_min)
            self.wait_max = max(self.wait_max, other.wait_max)


class Counters:
    """What a pool counts. ``acquires[getmode][outcome]``; the rest is named as in the metrics.

    Counters only go up: what was counted since the last reset is the difference to what they were then.
    High-water marks are noted by whoever changes a count, in the step in which it grew; they need no note
    when it shrinks. ``now`` is when the pool was made.
    """

    def __init__(self, now: float = 0.0) -> None:  # noqa: PLR0915  (a record: every field, once)
        self.started = now
        self.reset_at = now
        self.acquires: list[list[int]] = [[0] * len(OUTCOMES) for _ in GETMODES]
        self.enqueued = 0  # requests that were not granted at once and joined the queue
        self.waited = 0  # ... of which so many were granted a session: node-oracledb's dequeued
        self.handoffs = 0  # sessions that went on to a waiter in the step in which they came back
        self.opens_ok = self.opens_failed = 0
        self.pings_ok = self.pings_failed = 0  # failed: those that timed out, too
        self.pings_timed_out = 0
        self.resets_ok = self.resets_failed = 0
        self.peek_dead = 0  # idle sessions with something unread that were about to be handed out
        self.fixups = 0  # sessions that were brought into another state for the client that got them
        self.begins_used = 0  # transactions begun ahead that a client then got
        self.begins_expired = 0  # ... that grew older than begin_max_age and were begun anew
        self.drops: dict[str, int] = {str(reason): 0 for reason in DropReason}
        self.timeouts: dict[str, int] = {str(reason): 0 for reason in TimeoutReason}
        self.slow_queries = 0  # those that took log_min_duration
        self.query = Histogram()  # queries, from their first byte sent to their answer; only while watched
        self.book = Book()
        # Clients that keep their session beyond a unit of work: (reason, outcome), and those that do now.
        self.pins: dict[tuple[str, str], int] = {}
        self.pinned: dict[str, int] = {}
        self.listens = Tally()  # the hubs' own, where there are any
        self.acquire = Histogram()  # the grants through the queue
        self.hold = Histogram()
        self.open = Histogram()
        self.ping = Histogram()  # pings that were answered
        self.transactions = self.queries = 0
        self.bytes_client = 0  # from clients to the server
        self.bytes_server = 0  # from the server to clients
        # Since the last reset; `_before` has what was seen until then.
        self.peak_busy = self.peak_opened = self.peak_waiting = 0
        self.wait_min = 0.0
        self.wait_max = -1.0  # nobody has waited
        self._before = Marks()
        self._then = self._totals()

    # -- noted as it happens --------------------------------------------------------------------

    def note_busy(self, busy: int) -> None:
        """So many sessions are busy now. Called at each grant: one comparison."""
        if busy > self.peak_busy:
            self.peak_busy = busy

    def note_granted(self, getmode: int) -> None:
        """A request got a session."""
        row = self.acquires[getmode]
        row[GRANTED] = row[GRANTED] + 1

    def note_opened(self, opened: int) -> None:
        """So many sessions are open now. Called when an open has succeeded."""
        if opened > self.peak_opened:
            self.peak_opened = opened

    def note_queued(self, waiting: int) -> None:
        """A request joined the queue, which is so long once whoever can be served has been."""
        self.enqueued += 1
        if waiting > self.peak_waiting:
            self.peak_waiting = waiting

    def note_served(self, getmode: int, seconds: float, busy: int) -> None:
        """A request that queued was granted a session after so long; so many are busy now."""
        self.note_granted(getmode)
        self.waited += 1
        self.acquire.observe(seconds)
        if seconds > self.wait_max:
            if self.wait_max < 0.0:
                self.wait_min = seconds
            self.wait_max = seconds
        elif seconds < self.wait_min:
            self.wait_min = seconds
        if busy > self.peak_busy:
            self.peak_busy = busy

    # -- made of it -----------------------------------------------------------------------------

    def reset_marks(self, now: float, opened: int = 0, busy: int = 0, waiting: int = 0) -> None:
        """Begin the figures since the last reset anew, with the counts of this moment as marks.

        No counter goes down, and the figures since the start go on.
        """
        self._before.include(self._marks())
        self.peak_opened, self.peak_busy, self.peak_waiting = opened, busy, waiting
        self.wait_min, self.wait_max = 0.0, -1.0
        self._then = self._totals()
        self.reset_at = now
        self.book.clear()

    @property
    def granted(self) -> int:
        """Requests that got a session."""
        return sum(row[GRANTED] for row in self.acquires)

    def waits(self) -> HistogramStats:
        """The grants through the queue alone."""
        return self.acquire.snapshot()

    def all_waits(self) -> HistogramStats:
        """All grants; those at once as waits of nothing."""
        return self.acquire.snapshot(zeros=self.granted - self.waited)

    def since_reset(self, now: float) -> Figures:
        """What was counted since the last reset; since the start when there was none."""
        return _figures(self._totals(), self._then, self._marks(), now - self.reset_at)

    def since_start(self, now: float) -> Figures:
        """What was counted since the pool was made."""
        marks = self._marks()
        marks.include(self._before)
        return _figures(self._totals(), [0.0] * len(self._then), marks, now - self.started)

    def _marks(self) -> Marks:
        marks = Marks(self.peak_opened, self.peak_busy, self.peak_waiting)
        marks.wait_min, marks.wait_max = self.wait_min, self.wait_max
        return marks

    def _totals(self) -> list[float]:
        # By outcome, then what `_figures` takes apart again.
        totals = [float(sum(row[outcome] for row in self.acquires)) for outcome in range(len(OUTCOMES))]
        return [*totals, float(self.enqueued), float(self.waited), self.acquire.total]


def _figures(totals: list[float], then: list[float], marks: Marks, uptime: float) -> Figures:
    counted = [now - before for now, before in zip(totals, then, strict=True)]
    outcomes, (enqueued, waited, wait_sum) = counted[: len(OUTCOMES)], counted[len(OUTCOMES) :]
    return Figures(
        uptime=uptime,
        requests=int(sum(outcomes)),
        immediate=int(outcomes[GRANTED] - waited),
        enqueued=int(enqueued),
        dequeued=int(waited),
        timeouts=int(outcomes[TIMED_OUT]),
        rejected=int(outcomes[QUEUE_FULL] + outcomes[REFUSED_EARLY]),
        nowait_refused=int(outcomes[BUSY] + outcomes[PAUSED]),
        failed=int(outcomes[FAILED] + outcomes[CLOSED]),
        gone=int(outcomes[GONE]),
        most_opened=marks.opened,
        most_busy=marks.busy,
        most_waiting=marks.waiting,
        wait_sum=wait_sum,
        wait_min=marks.wait_min,
        wait_max=max(0.0, marks.wait_max),
        wait_average=wait_sum / waited if waited else 0.0,
    )

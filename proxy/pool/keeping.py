"""Keeps a pool in shape while nobody asks: reaps, pings, refills, looks for a server that is down.

The keeper outlives everything that goes wrong in a tick: a pool without it would never recover.
"""

import asyncio
from collections.abc import Callable

import structlog

from proxy.pool import growth
from proxy.pool.care import Care
from proxy.pool.ending import Ending
from proxy.pool.failover import Failover
from proxy.pool.ledger import Ledger
from proxy.pool.limits import BEGIN_AHEAD, PING_AT_ACQUIRE, REAP_IN_BACKGROUND
from proxy.pool.opening import Opening
from proxy.pool.session import Key
from proxy.tasks import spawn

_log = structlog.get_logger("penstock")


class Keeper:
    """The keeper of one pool. ``serve`` looks after those who wait."""

    def __init__(
        self,
        ledger: Ledger,
        opening: Opening,
        care: Care,
        ending: Ending,
        default_key: Key,
        clock: Callable[[], float],
        serve: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._opening = opening
        self._care = care
        self._ending = ending
        self._default_key = default_key
        self._clock = clock
        self._serve = serve
        self._task: asyncio.Task[None] | None = None
        self.failover: Failover | None = None  # set once, by whoever made both
        self._filled: asyncio.Future[None] | None = None  # somebody waits until `min` is open

    def start(self, delay: float = 0.0) -> None:
        """Tick, for the first time after ``delay`` seconds. Needs a running loop."""
        self._task = spawn(self._keep(delay), f"keeper of pool {self._ledger.name}")

    def stop(self) -> None:
        """Tick no more; whoever waits until the pool is filled waits no longer."""
        if self._filled is not None and not self._filled.done():
            self._filled.set_result(None)
        if self._task is not None:
            self._task.cancel()

    async def filled(self) -> None:
        """Return when ``min`` sessions have been open."""
        if self._ledger.filled or self._ledger.closed:
            return
        if self._filled is None:
            self._filled = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._filled)  # others may wait, too

    def refill(self) -> None:
        """Open at once what ``min`` asks for: sessions are being used up faster than the keeper looks."""
        if not self._ledger.closed and self._opening.ready:
            for session in growth.refill(self._ledger, self._default_key, self._clock(), 0):
                self._opening.start(session)

    def look_if_filled(self) -> None:
        """A session has arrived: perhaps ``min`` is open for the first time."""
        ledger = self._ledger
        if ledger.filled or ledger.opened < max(1, ledger.limits.min):
            return
        ledger.filled = True
        if self._filled is not None and not self._filled.done():
            self._filled.set_result(None)

    async def _keep(self, delay: float) -> None:
        if delay > 0.0:
            await asyncio.sleep(delay)
        while True:
            try:
                self.tick()
            except Exception as crash:  # noqa: BLE001 - see the contract above
                _log.error("keeper_crashed", pool=self._ledger.name, exc_info=crash)
            await asyncio.sleep(self._interval())

    def _interval(self) -> float:
        # Anew each time: the limits may have changed.
        limits = self._ledger.limits
        shortest = min(limits.idle_timeout, limits.max_lifetime)
        if limits.begin == BEGIN_AHEAD:
            shortest = min(shortest, limits.begin_max_age)
        if limits.ping_mode != PING_AT_ACQUIRE and limits.ping_interval > 0.0:
            shortest = min(shortest, limits.ping_interval)
        return max(0.05, min(1.0, shortest / 4))

    def _ask(self, now: float) -> None:
        if self.failover is not None:
            self.failover.watch(now)
            opens, pings = self.failover.ask(self._default_key, now)
            for session in opens:
                self._opening.start(session)
            for session in pings:
                self._care.start(session)

    def tick(self) -> None:
        """One look at everything."""
        ledger, opening = self._ledger, self._opening
        if ledger.closed:
            return
        now = self._clock()
        if ledger.limits.reap == REAP_IN_BACKGROUND:
            for session, reason in growth.reap(ledger, now):
                self._ending.end(session, reason)
        for session in growth.overdue(ledger, now, ledger.limits.io_parallel):
            self._care.start(session)
        at_least = 0
        if not opening.ready and not ledger.opening:
            at_least = ledger.opened + 1
        for session in growth.refill(ledger, self._default_key, now, at_least):
            opening.start(session)
        for session in growth.probe(ledger, self._default_key, now):
            opening.start(session)
        self._ask(now)
        self.look_if_filled()
        self._serve()

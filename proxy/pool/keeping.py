"""Keeps a pool in shape while nobody asks: reaps, refills up to ``min``, looks for a server that is down.

The keeper outlives everything that goes wrong in a tick: a pool without it would never recover.
"""

import asyncio
from collections.abc import Callable

import structlog

from proxy.pool import growth
from proxy.pool.ending import Ending
from proxy.pool.ledger import Ledger
from proxy.pool.opening import Opening
from proxy.pool.session import Key
from proxy.reasons import DropReason
from proxy.tasks import spawn

_log = structlog.get_logger("penstock")


class Keeper:
    """The keeper of one pool. ``serve`` looks after those who wait."""

    def __init__(
        self,
        ledger: Ledger,
        opening: Opening,
        ending: Ending,
        default_key: Key,
        clock: Callable[[], float],
        serve: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._opening = opening
        self._ending = ending
        self._default_key = default_key
        self._clock = clock
        self._serve = serve
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Tick from now on. Needs a running loop."""
        self._task = spawn(self._keep(), f"keeper of pool {self._ledger.name}")

    def stop(self) -> None:
        """Tick no more."""
        if self._task is not None:
            self._task.cancel()

    async def _keep(self) -> None:
        limits = self._ledger.limits
        interval = max(0.05, min(1.0, min(limits.idle_timeout, limits.max_lifetime) / 4))
        while True:
            try:
                self.tick()
            except Exception as crash:  # noqa: BLE001 - see the contract above
                _log.error("keeper_crashed", pool=self._ledger.name, exc_info=crash)
            await asyncio.sleep(interval)

    def tick(self) -> None:
        """One look at everything."""
        ledger, opening = self._ledger, self._opening
        if ledger.closed:
            return
        now = self._clock()
        for session, expired in growth.reap(ledger, now):
            self._ending.end(session, DropReason.MAX_LIFETIME if expired else DropReason.IDLE_TIMEOUT)
        at_least = 0
        if not opening.ready and not ledger.opening:
            at_least = ledger.opened + 1
        for session in growth.refill(ledger, self._default_key, now, at_least):
            opening.start(session)
        self._serve()

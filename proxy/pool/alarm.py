"""One timer for all deadlines of a pool: a sweep when the first of them has come, not a timer for each."""

import asyncio
from collections.abc import Callable

from proxy.pool.limits import OFF


class Alarm:
    """Calls ``ring`` with the time when ``at`` has come; it returns the next deadline, or OFF."""

    def __init__(self, clock: Callable[[], float], ring: Callable[[float], float]) -> None:
        self.at: float = OFF
        self._clock = clock
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None

    def set(self, deadline: float, now: float) -> None:
        """Ring at this time instead. Needs a running loop."""
        self.stop()
        self.at = deadline
        # The loop's clock ticks in milliseconds: never ring before the time.
        delay = max(0.0, deadline - now) + 0.001
        self._handle = asyncio.get_running_loop().call_later(delay, self._rings)

    def stop(self) -> None:
        """Ring no more, until it is set again."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self.at = None, OFF

    def _rings(self) -> None:
        self._handle, self.at = None, OFF
        now = self._clock()
        deadline = self._ring(now)
        if deadline < self.at:
            self.set(deadline, now)

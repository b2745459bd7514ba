"""Takes care of sessions that nobody holds: ping, reset, recovery, begin. Each runs as a task of its own.

A session that is given to ``start`` comes back exactly once, however its task ends: through ``done``,
fit for anybody of its key, or through ``failed``, to be dropped.
"""

import asyncio
from collections.abc import Callable

from proxy.errors import ProxyError
from proxy.pool.ledger import Ledger
from proxy.pool.limits import OFF
from proxy.pool.session import BEGIN, PING, RECOVERY, RESET, Backend, Session
from proxy.pool.stats import Counters
from proxy.pool.throttle import Throttle
from proxy.reasons import DropReason
from proxy.tasks import spawn

_NAMES = {PING: "ping", RESET: "reset", RECOVERY: "recovery", BEGIN: "begin"}
_REASONS = {
    PING: DropReason.PING_FAILED,
    RESET: DropReason.RESET_FAILED,
    RECOVERY: DropReason.RECOVER_FAILED,
    BEGIN: DropReason.BEGIN_FAILED,
}


class Care:
    """The care of one pool's sessions."""

    def __init__(
        self,
        ledger: Ledger,
        counters: Counters,
        done: Callable[[Session], None],
        failed: Callable[[Session, DropReason, str], None],
    ) -> None:
        self._ledger = ledger
        self._counters = counters
        self._done = done
        self._failed = failed
        self._throttle = Throttle(lambda: ledger.limits.io_parallel)

    def start(self, session: Session) -> None:
        """Do what ``session.care`` says; the session has been moved to ``care``."""
        if session.care == BEGIN and session.begun_at != OFF:
            self._counters.begins_expired += 1
        spawn(self._tend(session, session.care), f"{_NAMES[session.care]} of session {session.number}")

    async def _tend(self, session: Session, care: int) -> None:
        backend = session.backend
        assert backend is not None
        try:
            if care == RECOVERY:
                # It may take as long as the query that a client left behind: nobody waits behind it.
                await backend.recover()
            else:
                async with self._throttle:
                    await self._work(backend, care)
        except BaseException as error:
            self._count_failure(care, isinstance(error, TimeoutError))
            self._failed(session, _REASONS[care], str(error) or "timed out")
            if not isinstance(error, (ProxyError, OSError)):
                raise
        else:
            self._count_success(care)
            self._done(session)

    async def _work(self, backend: Backend, care: int) -> None:
        limits = self._ledger.limits
        if care == PING:
            clock = asyncio.get_running_loop().time
            started = clock()
            async with asyncio.timeout(limits.ping_timeout):
                await backend.ping()
            self._counters.ping.observe(clock() - started)
        elif care == RESET:
            async with asyncio.timeout(limits.reset_timeout):
                await backend.reset()
        else:
            async with asyncio.timeout(limits.reset_timeout):
                await backend.begin()

    def _count_success(self, care: int) -> None:
        if care == PING:
            self._counters.pings_ok += 1
        elif care == RESET:
            self._counters.resets_ok += 1

    def _count_failure(self, care: int, is_late: bool) -> None:
        if care == PING:
            self._counters.pings_failed += 1
            if is_late:
                self._counters.pings_timed_out += 1
        elif care == RESET:
            self._counters.resets_failed += 1

"""Takes care of sessions that nobody holds: ping, reset, recovery. Each runs as a task of its own.

A session that is given to ``start`` comes back exactly once, however its task ends: through ``done``,
fit for anybody of its key, or through ``failed``, to be dropped.
"""

import asyncio
from collections.abc import Callable

from proxy.errors import ProxyError
from proxy.pool.ledger import Ledger
from proxy.pool.session import PING, RECOVERY, RESET, Backend, Session
from proxy.pool.stats import Counters
from proxy.reasons import DropReason
from proxy.tasks import spawn

_NAMES = {PING: "ping", RESET: "reset", RECOVERY: "recovery"}
_REASONS = {
    PING: DropReason.PING_FAILED,
    RESET: DropReason.RESET_FAILED,
    RECOVERY: DropReason.RECOVER_FAILED,
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

    def start(self, session: Session) -> None:
        """Do what ``session.care`` says; the session has been moved to ``care``."""
        spawn(self._tend(session, session.care), f"{_NAMES[session.care]} of session {session.number}")

    async def _tend(self, session: Session, care: int) -> None:
        backend = session.backend
        assert backend is not None
        try:
            await self._work(backend, care)
        except BaseException as error:
            if care == PING:
                self._counters.pings_failed += 1
            self._failed(session, _REASONS[care], str(error) or "timed out")
            if not isinstance(error, (ProxyError, OSError)):
                raise
        else:
            if care == PING:
                self._counters.pings_ok += 1
            self._done(session)

    async def _work(self, backend: Backend, care: int) -> None:
        if care == PING:
            async with asyncio.timeout(self._ledger.limits.ping_timeout):
                await backend.ping()
        elif care == RESET:
            async with asyncio.timeout(self._ledger.limits.reset_timeout):
                await backend.reset()
        else:
            await backend.recover()

"""How sessions end: each is closed in a task of its own, and its slot is freed exactly once.

The bound is the server's truth: a session that is closing keeps its slot until the server has ended
it, ``close_timeout`` at most. ``freed`` is called whenever a slot has come free.
"""

import asyncio
from collections.abc import Callable

import structlog

from proxy.errors import ProxyError
from proxy.pool.ledger import Ledger
from proxy.pool.session import Session
from proxy.pool.stats import Counters
from proxy.pool.throttle import Throttle
from proxy.reasons import DropReason
from proxy.tasks import spawn

_log = structlog.get_logger("penstock")


class Ending:
    """The ends of one pool's sessions."""

    def __init__(
        self, ledger: Ledger, counters: Counters, clock: Callable[[], float], freed: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._counters = counters
        self._clock = clock
        self._freed = freed
        self._throttle = Throttle(lambda: ledger.limits.io_parallel)
        self._empty: asyncio.Future[None] | None = None  # somebody waits for the last session to end

    def end(self, session: Session, reason: DropReason, detail: str = "") -> None:
        """End a session that has been moved to ``closing``."""
        self._counters.drops[reason] += 1
        _log.info(
            "session_dropped",
            pool=self._ledger.name,
            session=session.number,
            reason=str(reason),
            age=round(self._clock() - session.opened_at, 3),
            detail=detail,
        )
        backend = session.backend
        if backend is None or backend.is_gone():
            self.gone(session)
        else:
            spawn(self._close(session), f"close of session {session.number}")

    def gone(self, session: Session) -> None:
        """The server has ended the session, or it never came to be."""
        self._ledger.gone(session)
        if self._empty is not None and not self._empty.done() and self._ledger.used == 0:
            self._empty.set_result(None)
        self._freed()

    async def all_gone(self, shut: Callable[[], None], cut: Callable[[], None]) -> None:
        """Return when no session is left; ``shut`` makes sure that no new one begins.

        Those that are still held after ``drain_timeout`` are taken from their clients by ``cut``.
        """
        shut()
        if self._ledger.used == 0:
            return
        if self._empty is None or self._empty.done():
            self._empty = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._ledger.limits.drain_timeout):
                await asyncio.shield(self._empty)  # others may wait, too
        except TimeoutError:
            cut()
            await asyncio.shield(self._empty)

    async def _close(self, session: Session) -> None:
        backend = session.backend
        assert backend is not None
        try:
            async with self._throttle, asyncio.timeout(self._ledger.limits.close_timeout):
                await backend.close()
        except TimeoutError:
            self._counters.drops[DropReason.ABANDONED] += 1
            _log.warning(
                "session_abandoned", pool=self._ledger.name, session=session.number, reason="abandoned"
            )
        except (ProxyError, OSError):
            pass  # it ended without manners, but it ended
        finally:
            try:
                backend.abandon()
            finally:
                self.gone(session)

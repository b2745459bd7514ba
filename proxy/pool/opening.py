"""Opens sessions, at most ``max_opening`` at a time, and knows what the server said to it last.

A session that is given to ``start`` is in ``opening`` and leaves it exactly once: ``arrived`` takes it
with a backend; or it is gone, and ``failed`` hears why. A key that failed is backed off from, longer
each time, and ``retry`` is called when that is over. Nobody else may cancel the tasks made here.
"""

import asyncio
import random
from collections.abc import Callable

import structlog

from proxy.errors import BackendError, ProxyError
from proxy.pool.ledger import Ledger
from proxy.pool.limits import Limits
from proxy.pool.session import OPENING, Key, Opener, Session
from proxy.pool.stats import Counters
from proxy.tasks import spawn

_log = structlog.get_logger("penstock")
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0
# The server is only starting up (or shutting down) and says so: whoever waits may go on waiting.
_STARTING = "57P03"


class Opening:
    """The opens of one pool. ``ready`` and ``last_error`` are about the default key's latest one."""

    def __init__(
        self,
        ledger: Ledger,
        counters: Counters,
        opener: Opener,
        default_key: Key,
        clock: Callable[[], float],
        arrived: Callable[[Session], None],
        gone: Callable[[Session], None],
        failed: Callable[[Key, BackendError], None],
        retry: Callable[[], None],
    ) -> None:
        self.ready = False
        self.last_error = ""
        self._ledger = ledger
        self._counters = counters
        self._opener = opener
        self._default_key = default_key
        self._clock = clock
        self._arrived = arrived
        self._gone = gone
        self._failed = failed
        self._retry = retry
        self._gate = asyncio.Semaphore(ledger.limits.max_opening)
        # Mutable state.
        self._tasks: dict[Session, asyncio.Task[None]] = {}  # leaves when the task has ended
        self._failures: dict[Key, tuple[int, BackendError]] = {}  # rounds failed in a row, the latest why
        self._retries: dict[Key, asyncio.TimerHandle] = {}  # when the back-off of a key is over

    def start(self, session: Session) -> None:
        """Open this session, which has its slot already."""
        task = spawn(self._open(session), f"open of session {session.number}")
        self._tasks[session] = task
        task.add_done_callback(lambda _: self._ended(session))

    def stop(self) -> None:
        """Give up what is being opened, and try nothing again."""
        for task in self._tasks.values():
            task.cancel()
        for timer in self._retries.values():
            timer.cancel()

    def why_down(self, key: Key) -> BackendError | None:
        """Why no session of this key is opened now; None when one would be."""
        if self._ledger.backoff.get(key, 0.0) <= self._clock():
            return None
        return self._failures[key][1]

    def _ended(self, session: Session) -> None:
        # Here, not in `_open`: a task that is cancelled before its first step runs none of its code.
        self._tasks.pop(session, None)
        if session.state == OPENING:
            self._gone(session)

    async def _open(self, session: Session) -> None:
        started = self._clock()
        try:
            async with self._gate, asyncio.timeout(self._ledger.limits.connect_timeout):
                started = self._clock()
                session.backend = await self._opener.open(session)
        except Exception as error:
            self._note_failure(session, _explained(error, self._ledger.limits))
            if not isinstance(error, (ProxyError, OSError)):
                raise  # a bug, which the log must show; it is backed off from like any other failure
        else:
            self._note_success(session, self._clock() - started)
            self._arrived(session)

    def _note_success(self, session: Session, took: float) -> None:
        now = self._clock()
        session.opened_at = now
        # Jittered, so that sessions opened together do not end together.
        session.expires = now + self._ledger.limits.max_lifetime * (1.0 - 0.1 * random.random())
        self._counters.open.observe(took)
        self._counters.opens_ok += 1
        self._failures.pop(session.key, None)
        self._ledger.backoff.pop(session.key, None)
        if session.key is self._default_key:
            self.ready, self.last_error = True, ""
        _log.info("session_opened", pool=self._ledger.name, session=session.number, key=repr(session.key))

    def _note_failure(self, session: Session, error: BackendError) -> None:
        key = session.key
        delay = self._back_off(key, error)
        self._counters.opens_failed += 1
        if key is self._default_key:
            self.ready, self.last_error = False, error.message
        _log.warning(
            "open_failed",
            pool=self._ledger.name,
            key=repr(key),
            sqlstate=error.sqlstate,
            error=error.message,
            retry_in=delay,
        )
        self._gone(session)
        self._failed(key, error)

    def _back_off(self, key: Key, error: BackendError) -> float:
        # Opens that fail side by side are one failure: the delay doubles once a round, not once an open.
        now = self._clock()
        rounds = self._failures[key][0] if key in self._failures else 0
        until = self._ledger.backoff.get(key, 0.0)
        if until > now:
            self._failures[key] = (rounds, error)
            return until - now
        self._failures[key] = (rounds + 1, error)
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(rounds, 10)) * random.uniform(0.5, 1.0)
        self._ledger.backoff[key] = now + delay
        if not self._ledger.closed:
            loop = asyncio.get_running_loop()
            self._retries[key] = loop.call_later(delay + 0.001, self._try_again, key)
        return delay

    def _try_again(self, key: Key) -> None:
        self._retries.pop(key, None)
        self._retry()


def is_starting(error: BackendError) -> bool:
    """The server will let us in soon."""
    return error.sqlstate == _STARTING


def _explained(error: Exception, limits: Limits) -> BackendError:
    if isinstance(error, BackendError):
        return error
    if isinstance(error, TimeoutError):
        return BackendError(f"no session was opened within connect_timeout ({limits.connect_timeout:g}s)")
    if isinstance(error, (ProxyError, OSError)):
        return BackendError(f"cannot connect: {error}")
    return BackendError(f"cannot connect: {type(error).__name__} inside Penstock, see its log", "XX000")

"""Opens sessions, through a gate for each server, and learns from what becomes of them.

A session that is given to ``start`` is in ``opening`` and leaves it exactly once: ``arrived`` takes it
with a backend; or it is ``gone``, and ``failed`` hears why. What failed because of the server is held
against its endpoint, whose breaker opens in the end; what failed because of the key, against that key on
that endpoint. Both are backed off from, longer each time, and ``retry`` is called when that is over.
Nobody else may cancel the tasks made here.
"""

import asyncio
import random
from collections.abc import Callable

import structlog

from proxy.errors import BackendError, ProxyError
from proxy.pool.endpoints import Endpoint, is_of_the_endpoint, is_starting
from proxy.pool.gate import Gate
from proxy.pool.ledger import Ledger
from proxy.pool.limits import Limits
from proxy.pool.session import OPENING, Key, Opener, Session
from proxy.pool.stats import Counters
from proxy.tasks import spawn

__all__ = ["Opening", "is_starting"]

_log = structlog.get_logger("penstock")
# A timer of the loop may ring up to a clock's tick early.
_A_TICK = 0.001
_LONGEST_TRIAL = 5.0  # seconds


class Opening:
    """The opens of one pool.

    ``ready``: the latest open of the default key succeeded on some endpoint. ``last_error`` says why not.
    """

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
        # Mutable state.
        self._gates = {endpoint: Gate() for endpoint in ledger.endpoints.all}
        self._reached: set[Endpoint] = set()  # where the default key's latest open succeeded
        self._tasks: dict[Session, asyncio.Task[None]] = {}  # leaves when the task has ended
        self._retries: dict[object, asyncio.TimerHandle] = {}  # by endpoint, or endpoint and key

    @property
    def ready(self) -> bool:
        """The latest open of the default key succeeded on some endpoint."""
        return bool(self._reached)

    def start(self, session: Session) -> None:
        """Open this session, which has its slot already, as soon as the gate lets it through."""
        endpoint = session.endpoint
        if endpoint.probe is session:
            # Said here, not when its time has come: a client may be the first to ask then.
            _log.info("breaker_half_open", pool=self._ledger.name, endpoint=endpoint.name)
        self._gates[endpoint].waiting.append(session)
        self._advance(endpoint)

    def adjust(self) -> None:
        """The limits have changed, and with them the width of the gates."""
        for endpoint in self._gates:
            self._advance(endpoint)

    def stop(self) -> None:
        """Give up what is being opened, and try nothing again."""
        for timer in self._retries.values():
            timer.cancel()
        for task in self._tasks.values():
            task.cancel()
        for gate in self._gates.values():
            for session in gate.turn_away():
                self._gone(session)

    def why_down(self, key: Key) -> BackendError | None:
        """Why no session of this key is opened now; None when one can be."""
        return self._ledger.endpoints.why_not(key, self._clock())

    # -- one open -------------------------------------------------------------------------------

    def _advance(self, endpoint: Endpoint) -> None:
        gate = self._gates[endpoint]
        while (session := gate.next(self._ledger.limits)) is not None:
            self._enter(session)

    def _enter(self, session: Session) -> None:
        task = spawn(self._open(session), f"open of session {session.number}")
        self._tasks[session] = task
        task.add_done_callback(lambda _: self._ended(session))

    def _ended(self, session: Session) -> None:
        # Here, not in `_open`: a task that is cancelled before its first step runs none of its code.
        self._tasks.pop(session, None)
        self._gates[session.endpoint].leave(session)
        if session.state == OPENING:
            self._gone(session)
        self._advance(session.endpoint)

    async def _open(self, session: Session) -> None:
        started, limits = self._clock(), self._ledger.limits
        try:
            async with asyncio.timeout(limits.connect_timeout if not session.is_trial else _trial(limits)):
                session.backend = await self._opener.open(session)
        except Exception as error:
            self._note_failure(session, _explained(error, limits), started)
            if not isinstance(error, (ProxyError, OSError)):
                raise  # a bug, which the log must show; it is backed off from like any other failure
        else:
            self._note_success(session, self._clock() - started)
            self._arrived(session)

    # -- what became of it ----------------------------------------------------------------------

    def _note_success(self, session: Session, took: float) -> None:
        now, limits, key = self._clock(), self._ledger.limits, session.key
        endpoint, gate = session.endpoint, self._gates[session.endpoint]
        session.opened_at = now
        # Jittered, so that sessions opened together do not end together.
        session.expires = now + jittered_lifetime(limits)
        self._counters.open.observe(took)
        self._counters.opens_ok += 1
        self._counters.note_opened(self._ledger.opened + 1)
        gate.leave(session)
        gate.widen(limits)
        self._is_healthy(endpoint)
        endpoint.refusals.pop(key, None)
        if self._is_own(key):
            self._reached.add(endpoint)
            self.last_error = ""
        _log.info(
            "session_opened",
            pool=self._ledger.name,
            session=session.number,
            key=repr(key),
            endpoint=endpoint.name,
        )
        self._advance(endpoint)

    def _note_failure(self, session: Session, error: BackendError, started: float) -> None:
        key, endpoint = session.key, session.endpoint
        gate = self._gates[endpoint]
        gate.leave(session)
        self._counters.opens_failed += 1
        if key.private is None and is_of_the_endpoint(error):
            gate.narrow()
            delay = self._hold_against_endpoint(endpoint, error, started)
            given_up = [session, *gate.turn_away()]
        else:
            delay = self._hold_against_key(key, endpoint, error)
            given_up = [session, *gate.turn_away(key)]
        _log.warning(
            "open_failed",
            pool=self._ledger.name,
            key=repr(key),
            endpoint=endpoint.name,
            sqlstate=error.sqlstate,
            error=error.message,
            retry_in=round(delay, 3),
        )
        for one in given_up:
            self._gone(one)
        # Each key once, in the order in which they came.
        for one_key in dict.fromkeys(one.key for one in given_up):
            self._failed(one_key, error)
        self._advance(endpoint)

    def _is_own(self, key: Key) -> bool:
        return key is self._default_key or key in self._ledger.homes

    def _is_healthy(self, endpoint: Endpoint) -> None:
        was_broken = endpoint.is_broken
        endpoint.succeeded()
        self._forget_retry(endpoint)
        if was_broken:
            _log.info("breaker_closed", pool=self._ledger.name, endpoint=endpoint.name)

    def _hold_against_endpoint(self, endpoint: Endpoint, error: BackendError, started: float) -> float:
        limits, rounds, now = self._ledger.limits, endpoint.failures, self._clock()
        failures, timeout = limits.breaker_failures, limits.breaker_timeout
        delay = endpoint.failed(now, failures, timeout, random.random(), started)
        endpoint.error, endpoint.last_error = error, error.message
        self._reached.discard(endpoint)
        if not self._reached:
            self.last_error = error.message
        if endpoint.failures == rounds:
            return delay  # side by side with one that has been dealt with
        self._retry_in(delay, endpoint)
        if endpoint.is_broken:
            _log.warning(
                "breaker_opened",
                pool=self._ledger.name,
                endpoint=endpoint.name,
                failures=endpoint.failures,
                sqlstate=error.sqlstate,
                error=error.message,
                retry_in=round(delay, 3),
            )
        return delay

    def _hold_against_key(self, key: Key, endpoint: Endpoint, error: BackendError) -> float:
        now = self._clock()
        delay = endpoint.refused(key, error, now, random.random())
        if key.private is None:
            self._is_healthy(endpoint)  # it answered
            endpoint.last_error = error.message
        if self._is_own(key):
            self._reached.discard(endpoint)
            if not self._reached:
                self.last_error = error.message
        self._retry_in(delay, (endpoint, key))
        return delay

    # -- trying again ---------------------------------------------------------------------------

    def _retry_in(self, delay: float, what: object) -> None:
        if self._ledger.closed:
            return
        self._forget_retry(what)
        loop = asyncio.get_running_loop()
        self._retries[what] = loop.call_later(delay + _A_TICK, self._try_again, what)

    def _forget_retry(self, what: object) -> None:
        timer = self._retries.pop(what, None)
        if timer is not None:
            timer.cancel()

    def _try_again(self, what: object) -> None:
        del self._retries[what]
        self._retry()


def _trial(limits: Limits) -> float:
    # One that only looks whether a server is back must not hold its slot as long where that is black-holed.
    return min(limits.connect_timeout, _LONGEST_TRIAL)


def jittered_lifetime(limits: Limits) -> float:
    """How long a session may live, in seconds: ``max_lifetime``, less a random share of up to its jitter."""
    return limits.max_lifetime * (1.0 - limits.lifetime_jitter * random.random())


def _explained(error: Exception, limits: Limits) -> BackendError:
    if isinstance(error, BackendError):
        return error
    if isinstance(error, TimeoutError):
        return BackendError(f"no session was opened within connect_timeout ({limits.connect_timeout:g}s)")
    if isinstance(error, (ProxyError, OSError)):
        return BackendError(f"cannot connect: {error}")
    return BackendError(f"cannot connect: {type(error).__name__} inside Penstock, see its log", "XX000")

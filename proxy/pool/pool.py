"""The pool does what the ledger decides: it hands sessions over, and has them opened, tended and ended.

The warm path (``try_acquire``, ``release``) is synchronous and makes no task, no future and no timer.
Everything slow runs in a room of its own (opening, care, ending), in parallel, and comes back here, to
``_place``, which gives the session to the first waiter in the same step. No protocol and no socket is
known here.

There is no coroutine in this file: compiled, one would raise DeprecationWarning wherever it is cancelled
(mypyc forwards exceptions by the old signature of throw), and nothing on the warm path awaits.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from proxy.errors import BackendError, LocalProtocolError, PoolBusy, PoolClosed, ProxyError
from proxy.pool import growth
from proxy.pool.care import Care
from proxy.pool.ending import Ending
from proxy.pool.keeping import Keeper
from proxy.pool.ledger import Ledger
from proxy.pool.limits import OFF, Limits
from proxy.pool.opening import Opening, is_starting
from proxy.pool.session import BUSY, IDLE, RECOVERY, RESET, Key, Opener, Session, Waiter
from proxy.pool.snapshot import freeze
from proxy.pool.stats import GONE, GRANTED, Counters, PoolStats, outcome_of
from proxy.pool.ticket import acquire
from proxy.reasons import DropReason

_log = structlog.get_logger("penstock")


class Pool:
    """Sessions to one server, under one bound.

    ``default_key`` (database, user) is what ``min`` is filled with, and what is tried until a server is back.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        opener: Opener,
        default_key: tuple[str, str],
        pool_mode: str = "transaction",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.limits = limits
        self.pool_mode = pool_mode
        self.ledger = Ledger(name, limits)
        self.counters = Counters()
        self._keys: dict[tuple[str, str], Key] = {}  # one for each that a client has proven it may use
        self._default_key = self.key(*default_key)
        self._clock = clock
        self._ending = Ending(self.ledger, self.counters, clock, self._freed)
        self._care = Care(self.ledger, self.counters, self._returned, self._care_failed)
        self._opening = Opening(
            self.ledger,
            self.counters,
            opener,
            self._default_key,
            clock,
            self._arrived,
            self._ending.gone,
            self._open_failed,
            self._tick,
        )
        self._keeper = Keeper(self.ledger, self._opening, self._ending, self._default_key, clock, self._freed)
        self._alarm: asyncio.TimerHandle | None = None  # the next deadline of a waiter
        self._alarm_at: float = OFF

    @property
    def ready(self) -> bool:
        """The latest open of the default key succeeded."""
        return self._opening.ready

    @property
    def last_error(self) -> str:
        """Why the latest open of the default key failed; empty when it did not."""
        return self._opening.last_error

    def key(self, database: str, user: str) -> Key:
        """The one key object for a database and a user."""
        key = self._keys.get((database, user))
        if key is None:
            key = self._keys[database, user] = Key(database, user)
        return key

    # -- the warm path --------------------------------------------------------------------------

    def try_acquire(self, waiter: Waiter) -> Session | None:
        """A session at once, or None. Never waits."""
        session = self.ledger.take(waiter.key, self._clock())
        if session is not None:
            self.counters.acquires[waiter.getmode][GRANTED] += 1
            self.counters.acquire.observe_zero()
        return session

    def release(self, session: Session) -> None:
        """Give a session back in the state in which it can serve anybody of its key."""
        if session not in self.ledger.busy:
            raise LocalProtocolError(f"{session!r} is released by somebody who does not hold it")
        now = self._clock()
        self.counters.hold.observe(now - session.busy_since)
        self._place(session, now)

    def _place(self, session: Session, now: float) -> bool:
        """Give the session to the first waiter, else to rest or to its end; True when a waiter took it."""
        ledger = self.ledger
        if now >= session.expires:
            self.drop(session, DropReason.MAX_LIFETIME)
            return False
        while ledger.queue:
            waiter = ledger.next_for(session, now)
            if waiter is None:
                break
            ledger.hand_over(session, now)
            if self._give(waiter, session, now):
                return True
            if session.state != BUSY:
                return False
        if ledger.closed:
            self.drop(session, DropReason.DRAIN)
        elif self.limits.max_forced and ledger.is_surplus(session):
            self.drop(session, DropReason.FORCED)
        elif ledger.must_yield(session, now):
            self.drop(session, DropReason.REPLACED)
        else:
            ledger.rest(session, now)
        return False

    def _give(self, waiter: Waiter, session: Session, now: float) -> bool:
        # False: the waiter has gone, and the session is still to be placed; or it broke, and the session
        # is dropped, since nobody knows what was sent. Whoever released it has no part in that.
        try:
            taken = waiter.granted(session)
        except BaseException as crash:
            if session.state == BUSY:
                self.drop(session, DropReason.UNCERTAIN)
            if not isinstance(crash, Exception):
                raise
            _log.error("waiter_crashed", pool=self.name, session=session.number, exc_info=crash)
            self._refuse(waiter, BackendError("the session could not be handed over", "XX000"))
            return False
        outcome = GRANTED if taken else GONE
        self.counters.acquires[waiter.getmode][outcome] += 1
        if taken:
            self.counters.acquire.observe(now - waiter.since)
        return taken

    # -- waiting --------------------------------------------------------------------------------

    def enqueue(self, waiter: Waiter) -> None:
        """Queue a waiter; it is granted a session or refused, perhaps within this call."""
        ledger, now = self.ledger, self._clock()
        error: ProxyError | None = ledger.admit(waiter, now)
        if error is None:
            error = self._known_down(waiter.key, now)
            if error is not None:
                ledger.withdraw(waiter)
        if error is not None:
            self._refuse(waiter, error)
            return
        if waiter.deadline < self._alarm_at:
            self._set_alarm(waiter.deadline, now)
        # On a full pool there is nothing to plan: the queue is not walked for each who joins it.
        if ledger.lanes or ledger.used < ledger.bound(waiter):
            self._serve(now)

    def withdraw(self, waiter: Waiter) -> bool:
        """The waiter has gone; False when it was not waiting."""
        if not self.ledger.withdraw(waiter):
            return False
        self.counters.acquires[waiter.getmode][GONE] += 1
        return True

    def acquire(
        self, key: Key, getmode: int | None = None, wait_timeout: float | None = None
    ) -> Coroutine[Any, Any, Session]:
        """Wait for a session as the getmode says. Raises PoolError or BackendError."""
        return acquire(self, key, getmode, wait_timeout)

    def _known_down(self, key: Key, now: float) -> BackendError | None:
        # The server has just refused to open a session, and there is none to wait for.
        if self.ledger.backoff.get(key, 0.0) <= now or self.ledger.has_key(key):
            return None
        error = self._opening.why_down(key)
        return None if error is None or is_starting(error) else error

    def _refuse(self, waiter: Waiter, error: ProxyError) -> None:
        self.counters.acquires[waiter.getmode][outcome_of(error)] += 1
        try:
            waiter.refused(error)
        except Exception as crash:  # noqa: BLE001 - the others who wait must still be told
            _log.error("waiter_crashed", pool=self.name, exc_info=crash)

    def _serve(self, now: float, failed: bool = False) -> None:
        plan = growth.plan(self.ledger, now, failed)
        for session in plan.opens:
            self._opening.start(session)
        for session in plan.pings:
            self._care.start(session)
        for session, expired in plan.closes:
            self._ending.end(session, DropReason.MAX_LIFETIME if expired else DropReason.REPLACED)
        for waiter in plan.refusals:
            picture = self.ledger.picture(now - waiter.since)
            busy = PoolBusy("no session is left to wait for", picture)
            self._refuse(waiter, self._opening.why_down(waiter.key) or busy)
        for waiter, session in plan.grants:
            if not self._give(waiter, session, now) and session.state == BUSY:
                self._place(session, now)

    def _set_alarm(self, deadline: float, now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        # The loop's clock ticks in milliseconds: never ring before the time.
        delay = max(0.0, deadline - now) + 0.001
        self._alarm = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, OFF
        now = self._clock()
        due, deadline = self.ledger.expire(now)
        if deadline != OFF:
            self._set_alarm(deadline, now)
        for waiter in due:
            self._refuse(waiter, self.ledger.timed_out(waiter, now))

    # -- sessions that come back, or do not -----------------------------------------------------

    def reset(self, session: Session) -> None:
        """Take a held session back and wipe it before anybody else gets it."""
        self._take_back(session, RESET)

    def recover(self, session: Session) -> None:
        """Take back a session whose client left in the middle of something."""
        self._take_back(session, RECOVERY)

    def _take_back(self, session: Session, care: int) -> None:
        if session not in self.ledger.busy:
            raise LocalProtocolError(f"{session!r} is given back by somebody who does not hold it")
        self.counters.hold.observe(self._clock() - session.busy_since)
        self.ledger.attend(session, care)
        self._care.start(session)

    def drop(self, session: Session, reason: DropReason, detail: str = "") -> None:
        """Remove a session and close it; its slot is free once the server has ended it."""
        self.ledger.close(session)
        self._ending.end(session, reason, detail)

    def lost(self, session: Session, reason: DropReason, detail: str = "") -> None:
        """The server ended a session that was idle or held. One in care is left to its carer."""
        if session.state in (IDLE, BUSY):
            self.drop(session, reason, detail)

    def _returned(self, session: Session) -> None:
        # From its login or from care, where `lost` cannot reach it: the server may have ended it since.
        now = self._clock()
        if session.backend is None or session.backend.is_gone():
            self.drop(session, DropReason.SERVER_CLOSED)
        elif self._place(session, now):
            return
        self._serve(now, failed=True)

    def _arrived(self, session: Session) -> None:
        self._returned(session)
        # One that was opened for a forceget client may have gone to somebody else.
        self._serve(self._clock())

    def _care_failed(self, session: Session, reason: DropReason, detail: str) -> None:
        self.drop(session, reason, detail)
        self._serve(self._clock(), failed=True)

    def _open_failed(self, key: Key, error: BackendError) -> None:
        if not self.ledger.has_key(key) and not is_starting(error):
            for waiter in [waiter for waiter in self.ledger.queue if waiter.key is key]:
                if self.ledger.withdraw(waiter):
                    self._refuse(waiter, error)
        self._serve(self._clock())

    def _freed(self) -> None:
        self._serve(self._clock())

    # -- the pool as a whole --------------------------------------------------------------------

    def start(self) -> None:
        """Open what ``min`` asks for (one session at least) and begin to reap. Needs a running loop."""
        self._keeper.start()

    def _tick(self) -> None:
        self._keeper.tick()

    def close(self) -> Coroutine[Any, Any, None]:
        """Refuse whoever waits, end every session, and return when the server has ended them all.

        A session that is held ends when it is released.
        """
        return self._ending.all_gone(self._shut)

    def _shut(self) -> None:
        ledger = self.ledger
        ledger.closed = True
        self._keeper.stop()
        if self._alarm is not None:
            self._alarm.cancel()
        self._opening.stop()
        for waiter in list(ledger.queue):
            if ledger.withdraw(waiter):
                self._refuse(waiter, PoolClosed("the pool is closing", ledger.picture(0.0)))
        for session in ledger.idle_sessions():
            if session.state == IDLE:
                self.drop(session, DropReason.DRAIN)

    def snapshot(self) -> PoolStats:
        """The pool at this moment."""
        return freeze(self.ledger, self.counters, self.pool_mode, self.ready, self.last_error, self._clock())

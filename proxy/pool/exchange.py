"""Where sessions and those who want one meet: what the ledger decides is done here.

The warm path (``try_acquire``, ``release``) is synchronous and makes no task, no future and no timer.
Everything slow runs in a room of its own (opening, care, ending), in parallel, and comes back here, to
``_place``, which gives the session to the first waiter in the same step. No protocol and no socket is
known here.

There is no coroutine in this file: nothing on the warm path awaits.
"""

from collections.abc import Callable
from typing import Final

import structlog

from proxy.errors import BackendError, LocalProtocolError, PoolBusy, ProxyError
from proxy.pool import choosing, growth, queueing
from proxy.pool.alarm import Alarm
from proxy.pool.care import Care
from proxy.pool.ending import Ending
from proxy.pool.failover import Failover
from proxy.pool.keeping import Keeper
from proxy.pool.ledger import Ledger
from proxy.pool.limits import (
    BEGIN_AHEAD,
    CREATE,
    OFF,
    REAP_AT_ACCESS,
    REAP_AT_RELEASE,
    TIERED,
    WARN,
    Limits,
)
from proxy.pool.opening import Opening
from proxy.pool.session import BEGIN, BUSY, IDLE, PING, RECOVERY, RESET, Key, Opener, Session, Waiter
from proxy.pool.stats import GONE, Counters, outcome_of
from proxy.reasons import DropReason

_log = structlog.get_logger("penstock")
# A session that was given back this short while ago (seconds) is not peeked at: the loop has just read it.
_PEEK_AFTER: Final = 0.05


class Exchange:
    """The sessions and waiters of one pool. ``pool.Pool`` is what is made of it."""

    def __init__(self, ledger: Ledger, opener: Opener, default_key: Key, clock: Callable[[], float]) -> None:
        self.name = ledger.name
        self.limits: Limits = ledger.limits
        self.ledger = ledger
        self.counters = Counters(clock())
        self._clock = clock
        self._quick = choosing.is_quick(ledger)
        self.ending = Ending(ledger, self.counters, clock, self.wake)
        self.care = Care(ledger, self.counters, self._returned, self._care_failed)
        self.opening = Opening(
            ledger,
            self.counters,
            opener,
            default_key,
            clock,
            self._arrived,
            self.ending.gone,
            self._open_failed,
            lambda: self.keeper.tick(),
        )
        self.keeper = Keeper(ledger, self.opening, self.care, self.ending, default_key, clock, self.wake)
        self.alarm = Alarm(clock, self._expire)  # the next deadline of a waiter
        self.failover = Failover(ledger, self.opening, clock, self.drop, self.refuse, self.wake)
        self.keeper.failover = self.failover

    # -- the warm path --------------------------------------------------------------------------

    def try_acquire(self, waiter: Waiter) -> Session | None:
        """A session at once, or None. Never waits."""
        now = self._clock()
        if waiter.picky or not self._quick:
            session = self._choose(waiter, now)
        else:
            session = self.ledger.take(waiter.key, now)
        if session is None:
            return None
        if now - session.idle_since > _PEEK_AFTER and self._has_news(session):
            return None
        counters = self.counters
        counters.note_granted(waiter.getmode)
        counters.note_busy(len(self.ledger.busy))
        return session

    def _choose(self, waiter: Waiter, now: float) -> Session | None:
        """As the ledger's ``take``, with every wish of the client and every rule of the pool."""
        ledger = self.ledger
        if ledger.closed or ledger.paused or ledger.queue or choosing.is_tied(ledger, waiter):
            return None
        if self.limits.reap == REAP_AT_ACCESS:
            self._reap(now)
        plan = growth.Plan()
        session = growth.fresh(ledger, waiter, now, True, plan)
        self._carry_out(plan, now)
        if session is None or session.state != IDLE:
            return None
        ledger.hand_over(session, now)
        if waiter.affinity:
            ledger.share(session, waiter.affinity)
        return session

    def _has_news(self, session: Session) -> bool:
        # The server may have ended the session a moment ago, and the loop has not come to it. A ping tells.
        if not self.limits.peek or session.backend is None or not session.backend.peek():
            return False
        self.counters.peek_dead += 1
        if session.affinity:
            self.ledger.unshare(session)
        self.ledger.attend(session, PING)
        self.care.start(session)
        return True

    def release(self, session: Session) -> None:
        """Give a session back in the state in which it can serve anybody of its key."""
        ledger = self.ledger
        if session not in ledger.busy:
            raise LocalProtocolError(f"{session!r} is released by somebody who does not hold it")
        now = self._clock()
        self.counters.hold.observe(now - session.busy_since)
        if self._quick and not ledger.queue and now < session.expires:
            ledger.rest(session, now)
        else:
            self._place(session, now)

    def _place(self, session: Session, now: float) -> bool:
        """Give the session to the first waiter, else to rest or to its end; True when a waiter took it."""
        ledger = self.ledger
        if ledger.is_old(session, now):
            self.drop(session, ledger.why_old(session))
            return False
        while ledger.queue:
            waiter = queueing.next_for(ledger, session, now)
            if waiter is None:
                break
            ledger.hand_over(session, now)
            if self._give(waiter, session, now):
                self.counters.handoffs += 1
                return True
            if session.state != BUSY:
                return False
        reason = growth.why_not_kept(ledger, session, now)
        if reason is None:
            self._rest(session, now)
        else:
            if self.limits.put_full == WARN and reason in (DropReason.MAX_IDLE, DropReason.FORCED):
                _log.warning("session_not_kept", pool=self.name, session=session.number, reason=str(reason))
            self.drop(session, reason)
        if self.limits.reap == REAP_AT_RELEASE:
            self._reap(now)
        return False

    def _rest(self, session: Session, now: float) -> None:
        """The session goes idle, with a transaction begun where that is wanted."""
        ledger = self.ledger
        if session.affinity:
            ledger.unshare(session)
        care = session.care
        if self.limits.begin == BEGIN_AHEAD and care != BEGIN:
            session.begun_at = OFF
            session.idle_since = now if care != PING else session.idle_since
            ledger.attend(session, BEGIN)
            self.care.start(session)
            return
        if self.limits.reuse == TIERED:
            session.core = choosing.is_core(ledger, session)
        if care in (PING, BEGIN):
            ledger.rest_again(session, now)
        else:
            ledger.rest(session, now)

    def _give(self, waiter: Waiter, session: Session, now: float) -> bool:
        # False: the waiter has gone, and the session is still to be placed; or it broke, and the session
        # is dropped, since nobody knows what was sent. Whoever released it has no part in that.
        if waiter.affinity:
            self.ledger.share(session, waiter.affinity)
        try:
            taken = waiter.granted(session)
        except BaseException as crash:
            if session.state == BUSY:
                self.drop(session, DropReason.UNCERTAIN)
            if not isinstance(crash, Exception):
                raise
            _log.error("waiter_crashed", pool=self.name, session=session.number, exc_info=crash)
            self.refuse(waiter, BackendError("the session could not be handed over", "XX000"))
            return False
        counters = self.counters
        if taken:
            counters.note_served(waiter.getmode, now - waiter.since, len(self.ledger.busy))
            queueing.served(self.ledger, waiter, now)
        else:
            counters.acquires[waiter.getmode][GONE] += 1
            if session.affinity:
                self.ledger.unshare(session)
        return taken

    # -- waiting --------------------------------------------------------------------------------

    def enqueue(self, waiter: Waiter) -> None:
        """Queue a waiter; it is granted a session or refused, perhaps within this call."""
        ledger, now = self.ledger, self._clock()
        error: ProxyError | None = queueing.admit(ledger, waiter, now)
        if error is None and not ledger.has_key(waiter.key):
            error = self.failover.why_not_wait(waiter.key, waiter.getmode)
            if error is not None:
                ledger.withdraw(waiter)
        if error is not None:
            self.refuse(waiter, error)
            return
        if waiter.deadline < self.alarm.at:
            self.alarm.set(waiter.deadline, now)
        # On a full pool there is nothing to plan: the queue is not walked for each who joins it.
        if ledger.has_idle() or ledger.used < ledger.bound(waiter):
            self._serve(now)
        self.counters.note_queued(len(ledger.queue))

    def withdraw(self, waiter: Waiter) -> bool:
        """The waiter has gone; False when it was not waiting."""
        if not self.ledger.withdraw(waiter):
            return False
        self.counters.acquires[waiter.getmode][GONE] += 1
        return True

    def refuse(self, waiter: Waiter, error: ProxyError) -> None:
        """Tell a waiter, who is in no queue any more, that there is no session."""
        self.counters.acquires[waiter.getmode][outcome_of(error)] += 1
        try:
            waiter.refused(error)
        except Exception as crash:  # noqa: BLE001 - the others who wait must still be told
            _log.error("waiter_crashed", pool=self.name, exc_info=crash)

    def _serve(self, now: float, failed: bool = False) -> None:
        plan = growth.plan(self.ledger, now, failed)
        self._carry_out(plan, now)
        for waiter in plan.refusals:
            picture = self.ledger.picture(now - waiter.since)
            busy = PoolBusy("no session is left to wait for", picture)
            self.refuse(waiter, self.opening.why_down(waiter.key) or busy)
        for waiter, session in plan.grants:
            if not self._give(waiter, session, now) and session.state == BUSY:
                self._place(session, now)

    def _carry_out(self, plan: growth.Plan, now: float) -> None:
        for session in plan.opens:
            self.opening.start(session)
        for session in plan.cares:
            self.care.start(session)
        for session, reason in plan.closes:
            self.ending.end(session, reason)

    def _reap(self, now: float) -> None:
        for session, reason in growth.reap(self.ledger, now, growth.batch(self.ledger)):
            self.ending.end(session, reason)

    def _expire(self, now: float) -> float:
        due, deadline = queueing.expire(self.ledger, now)
        for waiter in due:
            self.refuse(waiter, queueing.timed_out(self.ledger, waiter, now))
        return deadline

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
        self.care.start(session)

    def drop(self, session: Session, reason: DropReason, detail: str = "") -> None:
        """Remove a session and close it; its slot is free once the server has ended it.

        Whoever holds the session has let go of it, or drops it: see ``expel``.
        """
        self.ledger.close(session)
        self.ending.end(session, reason, detail)

    def expel(self, session: Session, reason: DropReason, detail: str) -> None:
        """Drop a session that is idle or held, and tell the client that holds it."""
        if session.state not in (IDLE, BUSY):
            raise LocalProtocolError(f"{session!r} is neither idle nor held: it cannot be dropped now")
        is_held, backend = session.state == BUSY, session.backend
        self.drop(session, reason, detail)
        if is_held and backend is not None:
            backend.take_away(detail)

    def lost(self, session: Session, reason: DropReason, detail: str = "") -> None:
        """The server ended a session that was idle or held. One in care is left to its carer."""
        if session.state in (IDLE, BUSY):
            self.drop(session, reason, detail)

    def _returned(self, session: Session) -> None:
        # From its login or from care, where `lost` cannot reach it: the server may have ended it since.
        now = self._clock()
        if session.care == BEGIN:
            session.begun_at = now
        if session.backend is None or session.backend.is_gone():
            self.drop(session, DropReason.SERVER_CLOSED)
        elif self._place(session, now):
            return
        self._serve(now, failed=True)

    def _arrived(self, session: Session) -> None:
        self.failover.arrived(session)
        self._returned(session)
        if session.doom is not None:
            self.failover.lacking(session.key, None)
        self.keeper.look_if_filled()
        # One that was opened for a forceget client may have gone to somebody else.
        self._serve(self._clock())

    def _care_failed(self, session: Session, reason: DropReason, detail: str) -> None:
        key = session.key
        if reason is DropReason.PING_FAILED and self.limits.ping_failure == CREATE and self.ledger.queue:
            self.ledger.replacing.append(key)
        self.drop(session, reason, detail)
        self._serve(self._clock(), failed=True)

    def _open_failed(self, key: Key, error: BackendError) -> None:
        # Where another endpoint can be asked, or is about to take over, nobody is refused yet.
        self.failover.lacking(key, error)
        self._serve(self._clock())

    def wake(self) -> None:
        """Look after whoever waits."""
        self.adopt(self.limits)
        self._serve(self._clock())

    def adopt(self, limits: Limits) -> None:
        """Go by these limits from now on, and look again whether the quick path will do."""
        self.limits = self.ledger.limits = limits
        self._quick = choosing.is_quick(self.ledger)

"""The ledger decides: who gets a session, who queues, what is opened, pinged or closed.

It is synchronous, is told the time, does no I/O and calls nobody. A state is a collection; ``move``
is the only function that changes one, so counts are ``len()`` and a session leaves exactly once.
The bound holds for everything that takes a slot of the server: opening, opened and closing.
"""

from collections import deque

from proxy.errors import PoolBusy, PoolClosed, PoolError, PoolTimeout, QueueFull
from proxy.pool.limits import FORCEGET, LIFO, NOWAIT, OFF, WAIT, Limits
from proxy.pool.session import (
    BUSY,
    CARE,
    CLOSING,
    GONE,
    IDLE,
    NO_CARE,
    OPENING,
    PING,
    RECOVERY,
    RESET,
    STATES,
    Key,
    Session,
    Waiter,
)

# Where a session may go from each state, as bits.
_LEGAL = (
    (1 << IDLE) | (1 << BUSY) | (1 << CLOSING) | (1 << GONE),  # opening
    (1 << BUSY) | (1 << CARE) | (1 << CLOSING) | (1 << GONE),  # idle
    (1 << IDLE) | (1 << BUSY) | (1 << CLOSING) | (1 << GONE),  # care
    (1 << IDLE) | (1 << CARE) | (1 << CLOSING) | (1 << GONE),  # busy
    (1 << GONE),  # closing
    0,  # gone
)


class Ledger:
    """All sessions and waiters of one pool."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.closed = False
        # Mutable state; every session of the pool is in exactly one of these.
        self.opening: set[Session] = set()  # leaves when its login has ended, either way
        # By key, longest idle first. Lists: they are short, and mypyc knows how to push and pop them.
        self.lanes: dict[Key, list[Session]] = {}
        self.care: set[Session] = set()  # leaves when the ping, reset or recovery has ended
        self.busy: set[Session] = set()  # leaves when its client gives it up
        self.closing: set[Session] = set()  # leaves when the server has ended it
        self.queue: deque[Waiter] = deque()  # first in, first out; leaves by grant, refusal, withdrawal
        self.backoff: dict[Key, float] = {}  # until when no session of this key is opened
        # The sets above by their state's number; idle has its lanes instead.
        self._groups = (self.opening, set[Session](), self.care, self.busy, self.closing)
        self._numbers = 0

    # -- counts ---------------------------------------------------------------------------------

    @property
    def idle(self) -> int:
        """Sessions that are open and held by nobody."""
        count = 0
        for lane in self.lanes.values():
            count += len(lane)
        return count

    @property
    def opened(self) -> int:
        """Sessions that are open: busy, idle or in care."""
        return len(self.busy) + len(self.care) + self.idle

    @property
    def used(self) -> int:
        """Slots of the server that are taken."""
        return self.opened + len(self.opening) + len(self.closing)

    def has_key(self, key: Key) -> bool:
        """Some session of this key is open or being opened."""
        if self.lanes.get(key):
            return True
        for states in (self.busy, self.care, self.opening):
            for session in states:
                if session.key is key:
                    return True
        return False

    def picture(self, waited: float) -> str:
        """How full the pool is, in one line."""
        return (
            f'pool "{self.name}": opened={self.opened}/{self.limits.max} busy={len(self.busy)}'
            f" idle={self.idle} opening={len(self.opening)} closing={len(self.closing)}"
            f" waiting={len(self.queue)}, waited {waited:.2f}s"
        )

    @property
    def surplus(self) -> int:
        """Sessions above ``max``, open or being opened: forceget wanted them, nobody else may."""
        return max(0, self.opened + len(self.opening) - self.limits.max)

    # -- the one mover --------------------------------------------------------------------------

    def move(self, session: Session, state: int) -> None:
        """Move a session to another state. Raises RuntimeError where that is not legal."""
        was = session.state
        if not (_LEGAL[was] >> state) & 1:
            raise RuntimeError(
                f"{session!r} cannot go from {STATES[was]} to {STATES[state]}: "
                "it was given back twice, or by somebody who did not hold it"
            )
        try:
            if was == BUSY:
                self.busy.remove(session)
            elif was == IDLE:
                self._leave_lane(session)
            else:
                self._groups[was].remove(session)
                session.care = NO_CARE
        except (KeyError, ValueError):
            raise RuntimeError(f'{session!r} is no session of pool "{self.name}"') from None
        session.state = state
        if state == BUSY:
            self.busy.add(session)
        elif state == IDLE:
            lane = self.lanes.get(session.key)
            if lane is None:
                lane = self.lanes[session.key] = []
            lane.append(session)
        elif state != GONE:
            self._groups[state].add(session)

    def _leave_lane(self, session: Session) -> None:
        lane = self.lanes[session.key]
        if lane[-1] is session:
            lane.pop()
        else:
            lane.remove(session)
        if not lane:
            del self.lanes[session.key]

    # -- acquire --------------------------------------------------------------------------------

    def take(self, key: Key, now: float) -> Session | None:
        """An idle session that needs no care first, now busy; None when there is none. Never waits."""
        lane = self.lanes.get(key)
        if lane is None:
            return None
        session = lane[-1] if self.limits.reuse == LIFO else lane[0]
        if now - session.idle_since >= self.limits.ping_interval or now >= session.expires:
            return None
        self.move(session, BUSY)
        session.busy_since = now
        return session

    def admit(self, waiter: Waiter, now: float) -> PoolError | None:
        """Queue the waiter, or say why not. Call ``growth.plan`` afterwards."""
        limits = self.limits
        if self.closed:
            return PoolClosed("the pool is closed", self.picture(0.0))
        mode = waiter.getmode
        if mode == NOWAIT or limits.max_waiting is not None:
            excess = len(self.queue) + 1 - self._supply(waiter)
            if excess > 0 and mode == NOWAIT:
                return PoolBusy("every session is busy, and getmode is nowait", self.picture(0.0))
            if limits.max_waiting is not None and excess > limits.max_waiting:
                return QueueFull(f"{limits.max_waiting} clients wait already", self.picture(0.0))
        waiter.since = now
        waiter.deadline = OFF if mode == WAIT else now + waiter.wait_timeout
        self.queue.append(waiter)
        return None

    def _supply(self, waiter: Waiter) -> int:
        """How many waiters can be served without any client giving up a session."""
        count = self.idle + max(0, self.bound(waiter) - self.used)
        returning = len(self.opening)
        for session in self.care:
            if session.care == PING:
                count += 1
            elif session.care == RESET:
                returning += 1
        if waiter.getmode != FORCEGET:
            returning = max(0, returning - self.surplus)
        return count + returning

    def coming(self) -> dict[Key, int]:
        """Sessions by key that will soon be handed on without a client giving them up."""
        coming: dict[Key, int] = {}
        for session in self.opening:
            coming[session.key] = coming.get(session.key, 0) + 1
        for session in self.care:
            if session.care != RECOVERY:
                coming[session.key] = coming.get(session.key, 0) + 1
        return coming

    def bound(self, waiter: Waiter) -> int:
        """How many slots may be taken on behalf of this waiter."""
        return self.limits.ceiling if waiter.getmode == FORCEGET else self.limits.max

    def withdraw(self, waiter: Waiter) -> bool:
        """Take a waiter out of the queue; False when it was not in it."""
        try:
            self.queue.remove(waiter)
        except ValueError:
            return False
        return True

    def expire(self, now: float) -> tuple[list[Waiter], float]:
        """Take out the waiters whose deadline has come; also returns the next deadline."""
        due = [waiter for waiter in self.queue if waiter.deadline <= now]
        if due:
            self.queue = deque(waiter for waiter in self.queue if waiter.deadline > now)
        return due, min((waiter.deadline for waiter in self.queue), default=OFF)

    def timed_out(self, waiter: Waiter, now: float) -> PoolError:
        """The error for a waiter whose deadline has come."""
        return PoolTimeout(
            f"no session came free within wait_timeout ({waiter.wait_timeout:g}s)",
            self.picture(now - waiter.since),
        )

    # -- release --------------------------------------------------------------------------------

    def next_for(self, session: Session, now: float) -> Waiter | None:
        """Take the waiter who gets this session out of the queue: the first whom it fits."""
        queue = self.queue
        if not queue:
            return None
        if self.limits.max_forced and self.is_surplus(session):
            return self._next_forceget(session)
        if queue[0].key is session.key:
            return queue.popleft()
        waiter = self._first_in_need(session.key, now)
        if waiter is None or waiter.key is not session.key:
            # One that was opened above `max` yields to nobody before its own client has had it: that
            # client would only have another one opened, and so on.
            return self._next_forceget(session) if session.forced else None
        queue.remove(waiter)
        return waiter

    def _next_forceget(self, session: Session) -> Waiter | None:
        # Above `max` only a forceget client may go on with a session: the first in the queue, or, for a
        # session that was opened for one, wherever it stands.
        for waiter in self.queue:
            if waiter.getmode == FORCEGET and waiter.key is session.key:
                self.queue.remove(waiter)
                return waiter
            if session.state != OPENING:
                return None
        return None

    def _first_in_need(self, key: Key, now: float) -> Waiter | None:
        # The first waiter who wants this key, or wants another and has nothing coming. Whoever has a
        # session or a free slot coming is passed over; nobody starves behind another key.
        coming = self.coming()
        slots = max(0, self.limits.max - self.opened - len(self.opening))
        for waiter in self.queue:
            if waiter.key is key:
                return waiter
            if coming.get(waiter.key, 0) > 0:
                coming[waiter.key] -= 1
            elif self.backoff.get(waiter.key, 0.0) > now:
                continue
            elif slots > 0:
                slots -= 1
            else:
                return waiter
        return None

    def must_yield(self, session: Session, now: float) -> bool:
        """Nobody gets the session, but its slot is wanted for another key: it must be replaced."""
        if not self.queue:
            return False
        waiter = self._first_in_need(session.key, now)
        return waiter is not None and waiter.key is not session.key

    def hand_over(self, session: Session, now: float) -> None:
        """The session is now held by a client."""
        if session.state != BUSY:
            self.move(session, BUSY)
        session.busy_since = now

    def rest(self, session: Session, now: float) -> None:
        """Nobody wants the session: it goes idle."""
        self.move(session, IDLE)
        session.idle_since = now

    def is_surplus(self, session: Session) -> bool:
        """With this session more are open than ``max`` allows: forceget opened them.

        One that comes back from a ping was idle before, not held above ``max``: it serves whoever woke it.
        """
        return session.care != PING and self.opened + (1 if session.state == OPENING else 0) > self.limits.max

    def open(self, key: Key, now: float) -> Session:
        """Take a slot for a session that is to be opened."""
        self._numbers += 1
        session = Session(self._numbers, key, now)
        session.forced = self.used >= self.limits.max
        self.opening.add(session)
        return session

    def attend(self, session: Session, care: int) -> None:
        """The pool takes the session into its own hands."""
        self.move(session, CARE)
        session.care = care

    def close(self, session: Session) -> None:
        """The session is told to end; its slot stays taken."""
        self.move(session, CLOSING)

    def gone(self, session: Session) -> None:
        """The server has ended the session, or it never came to be: the slot is free."""
        self.move(session, GONE)

    # -- for those who look ---------------------------------------------------------------------

    def idle_sessions(self) -> list[Session]:
        """Every idle session, longest idle first within its key."""
        return [session for lane in self.lanes.values() for session in lane]

    def check(self) -> None:
        """Assert what must hold after every step; tests call it, the daemon does not."""
        groups = [self.opening, self.care, self.busy, self.closing, set(self.idle_sessions())]
        for state, group in zip((OPENING, CARE, BUSY, CLOSING, IDLE), groups, strict=True):
            for session in group:
                if session.state != state:
                    raise AssertionError(f"{session!r} is listed as {STATES[state]}")
        if len(set().union(*groups)) != sum(len(group) for group in groups):
            raise AssertionError("a session is listed twice")
        if self.used > self.limits.ceiling:
            raise AssertionError(f"{self.used} slots taken, {self.limits.ceiling} allowed")
        if len(set(self.queue)) != len(self.queue):
            raise AssertionError("a waiter is queued twice")

"""The ledger keeps every session and every waiter of one pool, and moves them.

It is synchronous, is told the time, does no I/O and calls nobody. A state is a collection; ``move``
is the only function that changes one, so counts are ``len()`` and a session leaves exactly once.
The bound holds for everything that takes a slot of the server: opening, opened and closing. Who gets
which session is decided over these collections in choosing.py, queueing.py and growth.py.
"""

from collections import deque
from typing import Final

from proxy.pool.endpoints import Endpoint, Endpoints
from proxy.pool.limits import BY_IDLE, FORCEGET, LIFO, OFF, Limits
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
    STATES,
    Key,
    Session,
    Waiter,
)
from proxy.reasons import DropReason
from proxy.roles import UNKNOWN

# Where a session may go from each state, as bits. Not a tuple: mypyc makes a new one for each look.
_LEGAL: Final = bytes(
    (
        (1 << IDLE) | (1 << BUSY) | (1 << CARE) | (1 << CLOSING) | (1 << GONE),  # opening
        (1 << BUSY) | (1 << CARE) | (1 << CLOSING) | (1 << GONE),  # idle
        (1 << IDLE) | (1 << BUSY) | (1 << CARE) | (1 << CLOSING) | (1 << GONE),  # care
        (1 << IDLE) | (1 << CARE) | (1 << CLOSING) | (1 << GONE),  # busy
        (1 << GONE),  # closing
        0,  # gone
    )
)


class Ledger:
    """All sessions and waiters of one pool."""

    def __init__(self, name: str, limits: Limits, endpoints: Endpoints | None = None) -> None:
        self.name = name
        self.limits = limits
        self.endpoints = endpoints or Endpoints((name,))
        self.closed = False
        self.paused = False
        self.generation = 0  # sessions of an older one are not handed out any more
        self.filled = False  # `min` was reached once
        self.excess = 0  # slots that were taken when `max` was lowered below them
        # Mutable state; every session of the pool is in exactly one of these.
        self.opening: set[Session] = set()  # leaves when its login has ended, either way
        # By key, longest idle first. Lists: they are short, and mypyc knows how to push and pop them. One
        # whose sessions are all held stays, empty, for they will be back.
        self.lanes: dict[Key, list[Session]] = {}
        self.care: set[Session] = set()  # leaves when the ping, reset, recovery or begin has ended
        self.busy: set[Session] = set()  # leaves when its client gives it up
        self.closing: set[Session] = set()  # leaves when the server has ended it
        # First in, first out within a class; leaves by grant, refusal or withdrawal.
        self.queue: deque[Waiter] = deque()
        self.homes: tuple[Key, ...] = ()  # with a route: one key for each shard, opened on our own account
        self.shared: dict[str, Session] = {}  # by affinity: the session that whoever names it must have
        self.replacing: list[Key] = []  # ping_failure = "create": what is to be opened as slots come free
        # Fair shares of the classes (start-time fair queueing), and how fast the queue moves.
        self.virtual = 0.0
        self.finish: list[float] = []
        self.pace = 0.0  # seconds between two grants to the queue, smoothed
        self.served_at = 0.0
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

    def has_idle(self) -> bool:
        """Some session is idle."""
        return any(lane for lane in self.lanes.values())

    @property
    def opened(self) -> int:
        """Sessions that are open: busy, idle or in care."""
        return len(self.busy) + len(self.care) + self.idle

    @property
    def used(self) -> int:
        """Slots of the server that are taken."""
        return self.opened + len(self.opening) + len(self.closing)

    @property
    def surplus(self) -> int:
        """Sessions above ``max``, open or being opened: forceget wanted them, nobody else may."""
        return max(0, self.opened + len(self.opening) - self.limits.max)

    def bound(self, waiter: Waiter) -> int:
        """How many slots may be taken on behalf of this waiter."""
        return self.limits.ceiling if waiter.getmode == FORCEGET else self.limits.max

    def has_key(self, key: Key) -> bool:
        """Some session of this key is open or being opened."""
        if self.lanes.get(key):
            return True
        for states in (self.busy, self.care, self.opening):
            for session in states:
                if session.key is key:
                    return True
        return False

    def coming(self, new: bool = False) -> dict[Key, int]:
        """Sessions by key that will soon be handed on without a client giving them up.

        ``new``: only those that no client has held.
        """
        coming: dict[Key, int] = {}
        for session in self.opening:
            if not session.is_trial:
                coming[session.key] = coming.get(session.key, 0) + 1
        for session in self.care:
            if session.care != RECOVERY and not (new and session.used):
                coming[session.key] = coming.get(session.key, 0) + 1
        return coming

    def picture(self, waited: float) -> str:
        """How full the pool is, in one line."""
        return (
            f'pool "{self.name}": opened={self.opened}/{self.limits.max} busy={len(self.busy)}'
            f" idle={self.idle} opening={len(self.opening)} closing={len(self.closing)}"
            f" waiting={len(self.queue)}, waited {waited:.2f}s"
        )

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
            self._join_lane(session)
        elif state != GONE:
            self._groups[state].add(session)
        else:
            session.endpoint.sessions.discard(session)
            if not self.lanes.get(session.key, [session]):
                del self.lanes[session.key]

    def _join_lane(self, session: Session) -> None:
        lane = self.lanes.get(session.key)
        if lane is None:
            self.lanes[session.key] = [session]
        elif not lane:
            lane.append(session)
        elif self.limits.reuse == LIFO and not session.used:
            # Those that somebody has used are handed out first (as python-oracledb does).
            lane.insert(0, session)
        elif self.limits.reuse == LIFO and session.idle_since < lane[-1].idle_since:
            # Back from a ping that nobody waited for: that is no use of it.
            at = len(lane)
            while at and lane[at - 1].used and lane[at - 1].idle_since > session.idle_since:
                at -= 1
            lane.insert(at, session)
        else:
            lane.append(session)

    def _leave_lane(self, session: Session) -> None:
        lane = self.lanes[session.key]
        if lane and lane[-1] is session:
            lane.pop()
        else:
            lane.remove(session)

    # -- verbs ----------------------------------------------------------------------------------

    def take(self, key: Key, now: float) -> Session | None:
        """An idle session that needs no care first, now busy; None when there is none. Never waits.

        For clients without particular wishes, in pools without particular rules: see choosing.py.
        """
        lane = self.lanes.get(key)
        if not lane:
            return None
        session = lane[-1] if self.limits.reuse == LIFO else lane[0]
        if now - session.proven_at >= self.limits.ping_interval or now >= session.expires:
            return None
        self.move(session, BUSY)
        session.busy_since = now
        session.used = True
        return session

    def hand_over(self, session: Session, now: float) -> None:
        """The session is now held by a client."""
        if session.state != BUSY:
            self.move(session, BUSY)
        session.busy_since = now
        session.used = True

    def share(self, session: Session, affinity: str) -> None:
        """Whoever names this key from now on must have this session, until it is given up."""
        session.affinity = affinity
        self.shared[affinity] = session

    def unshare(self, session: Session) -> None:
        """Nobody who named its key holds the session any more."""
        if self.shared.get(session.affinity) is session:
            del self.shared[session.affinity]
        session.affinity = ""

    def rest(self, session: Session, now: float) -> None:
        """Nobody wants the session, which a client has just used, or which is new: it goes idle."""
        session.idle_since = session.proven_at = now
        self.move(session, IDLE)

    def rest_again(self, session: Session, now: float) -> None:
        """The session was idle, was looked after, and is idle as before."""
        session.proven_at = now
        self.move(session, IDLE)

    def is_surplus(self, session: Session) -> bool:
        """With this session more are open than ``max`` allows: forceget opened them, or max was lowered.

        One that comes back from a ping was idle before, not held above ``max``: it serves whoever woke it.
        """
        if self.limits.forced_release == BY_IDLE and not self.excess:
            return False
        return session.care != PING and self.opened + (1 if session.state == OPENING else 0) > self.limits.max

    def is_old(self, session: Session, now: float) -> bool:
        """The session must not serve anybody any more: too old, or of an older generation."""
        return now >= session.expires or session.generation != self.generation

    def why_old(self, session: Session) -> DropReason:
        """Why a session that ``is_old`` is dropped."""
        if session.generation != self.generation:
            return DropReason.GENERATION
        return session.doom or DropReason.MAX_LIFETIME

    def open(self, key: Key, endpoint: Endpoint, now: float) -> Session:
        """Take a slot for a session that is to be opened."""
        self._numbers += 1
        session = Session(self._numbers, key, endpoint, now)
        session.generation = self.generation
        session.forced = self.used >= self.limits.max
        if endpoint.is_broken:
            endpoint.probe = session
        endpoint.tried_at = now
        is_known = endpoint.role != UNKNOWN and now < endpoint.ask_at
        if self.endpoints.targeted and not is_known and endpoint.scout is None:
            endpoint.scout = session
        endpoint.sessions.add(session)
        self.opening.add(session)
        return session

    def attend(self, session: Session, care: int) -> None:
        """The pool takes the session into its own hands."""
        self.move(session, CARE)
        session.care = care

    def close(self, session: Session) -> None:
        """The session is told to end; its slot stays taken."""
        self.move(session, CLOSING)
        if session.affinity:
            self.unshare(session)

    def gone(self, session: Session) -> None:
        """The server has ended the session, or it never came to be: the slot is free."""
        self.move(session, GONE)
        if session.endpoint.probe is session:
            session.endpoint.probe = None
        if session.endpoint.scout is session:
            session.endpoint.scout = None
        if session.affinity:
            self.unshare(session)
        if self.excess:
            self.excess = max(0, min(self.excess, self.used - self.limits.ceiling))

    def withdraw(self, waiter: Waiter) -> bool:
        """Take a waiter out of the queue; False when it was not in it."""
        try:
            self.queue.remove(waiter)
        except ValueError:
            return False
        return True

    # -- for those who look ---------------------------------------------------------------------

    def idle_sessions(self) -> list[Session]:
        """Every idle session, longest idle first within its key."""
        return [session for lane in self.lanes.values() for session in lane]

    def sessions(self) -> list[Session]:
        """Every session that takes a slot."""
        return [*self.busy, *self.care, *self.idle_sessions(), *self.opening, *self.closing]

    def next_deadline(self) -> float:
        """When the first waiter's time is over."""
        return min((waiter.deadline for waiter in self.queue), default=OFF)

    def check(self) -> None:
        """Assert what must hold after every step; tests call it, the daemon does not."""
        groups = [self.opening, self.care, self.busy, self.closing, set(self.idle_sessions())]
        for state, group in zip((OPENING, CARE, BUSY, CLOSING, IDLE), groups, strict=True):
            for session in group:
                if session.state != state:
                    raise AssertionError(f"{session!r} is listed as {STATES[state]}")
        everybody = set().union(*groups)
        if len(everybody) != sum(len(group) for group in groups):
            raise AssertionError("a session is listed twice")
        if self.used > self.limits.ceiling + self.excess:
            raise AssertionError(f"{self.used} slots taken, {self.limits.ceiling} allowed")
        if len(set(self.queue)) != len(self.queue):
            raise AssertionError("a waiter is queued twice")
        self._check_marks(everybody)

    def _check_marks(self, everybody: set[Session]) -> None:
        for endpoint in self.endpoints.all:
            if endpoint.sessions != {session for session in everybody if session.endpoint is endpoint}:
                raise AssertionError(f"{endpoint!r} counts other sessions than the ledger")
        for affinity, session in self.shared.items():
            if session.affinity != affinity or session.state not in (BUSY, CARE):
                raise AssertionError(f"{session!r} is shared by nobody")

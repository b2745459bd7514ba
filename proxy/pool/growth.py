"""How a pool grows and shrinks: decisions over the ledger's collections, as synchronous as the ledger.

``plan`` walks the queue and decides what is handed out, pinged, opened or closed for those who wait;
``reap`` closes what is too old or idle for too long; ``refill`` opens up to ``min``. Nothing here does
I/O: the sessions named have been moved, the pool does the rest.
"""

from proxy.pool.ledger import Ledger
from proxy.pool.limits import FORCEGET, LIFO, NOWAIT
from proxy.pool.session import CLOSING, PING, RESET, Key, Session, Waiter


class Plan:
    """What the pool must do next."""

    def __init__(self) -> None:
        self.grants: list[tuple[Waiter, Session]] = []  # idle sessions that need no ping, busy by now
        self.opens: list[Session] = []
        self.pings: list[Session] = []
        self.closes: list[tuple[Session, bool]] = []  # (session, True: expired, False: replaced)
        self.refusals: list[Waiter] = []  # nowait clients for whom nothing is coming any more


class _Walk:
    # What the waiters passed so far have claimed, while `plan` walks the queue.

    def __init__(self, ledger: Ledger) -> None:
        self.coming = ledger.coming()
        # As many as are above `max` come for forceget clients alone: one that is being opened may serve
        # any of them, one that is being reset is dropped. A pinged session was there before.
        opening, resets, surplus = len(ledger.opening), 0, ledger.surplus
        for session in ledger.care:
            if session.care == RESET:
                resets += 1
        self.forced = min(surplus, opening)
        self.common = sum(self.coming.values()) - min(surplus, opening + resets)
        self.promised = 0  # slots that are free once what is closing has ended

    def claim(self, waiter: Waiter) -> bool:
        """A session that is already coming serves this waiter."""
        left = self.coming.get(waiter.key, 0)
        if left == 0:
            return False
        if self.forced > 0 and waiter.getmode == FORCEGET:
            self.forced -= 1
        elif self.common > 0:
            self.common -= 1
        else:
            return False
        self.coming[waiter.key] = left - 1
        return True

    def room(self, ledger: Ledger, waiter: Waiter) -> int:
        """The slots that this waiter may have once what is closing has ended."""
        return ledger.bound(waiter) - ledger.opened - len(ledger.opening) - self.promised


def plan(ledger: Ledger, now: float, failed: bool = False) -> Plan:
    """Decide what must be handed out, pinged, opened or closed for the queue.

    ``failed``: something that a nowait client counted on has just failed; look for those as well.
    """
    found = Plan()
    if not ledger.queue or (ledger.used >= ledger.limits.ceiling and not ledger.lanes and not failed):
        return found
    walk = _Walk(ledger)
    for waiter in list(ledger.queue):
        session = _fresh(ledger, waiter.key, now, found)
        if session is not None:
            ledger.queue.remove(waiter)
            found.grants.append((waiter, session))
        elif not (walk.claim(waiter) or _ping(ledger, waiter.key, found)):
            may_open = ledger.backoff.get(waiter.key, 0.0) <= now
            if may_open and _make_room(ledger, waiter, now, walk, found):
                continue
            if waiter.getmode == NOWAIT:
                ledger.queue.remove(waiter)
                found.refusals.append(waiter)
    return found


def _fresh(ledger: Ledger, key: Key, now: float, found: Plan) -> Session | None:
    """An idle session that needs no ping, now busy; closes the expired ones on the way to it."""
    while True:
        session = _next_idle(ledger, key)
        if session is None:
            return None
        if now < session.expires:
            return ledger.take(key, now)
        ledger.move(session, CLOSING)
        found.closes.append((session, True))


def _ping(ledger: Ledger, key: Key, found: Plan) -> bool:
    session = _next_idle(ledger, key)
    if session is None:
        return False
    ledger.attend(session, PING)
    found.pings.append(session)
    return True


def _next_idle(ledger: Ledger, key: Key) -> Session | None:
    lane = ledger.lanes.get(key)
    if lane is None:
        return None
    return lane[-1] if ledger.limits.reuse == LIFO else lane[0]


def _make_room(ledger: Ledger, waiter: Waiter, now: float, walk: _Walk, found: Plan) -> bool:
    # 1. a free slot: open; 2. one that is closing will be free; 3. at the bound, but a session of
    # another key is idle: replace it. False: only a client can bring a session, by giving it up.
    if ledger.used < ledger.bound(waiter):
        _grow(ledger, waiter, now, walk, found)
        return True
    room = walk.room(ledger, waiter)
    if room < 0 or (room == 0 and not _evict(ledger, found)):
        return False
    walk.promised += 1
    return True


def _grow(ledger: Ledger, waiter: Waiter, now: float, walk: _Walk, found: Plan) -> None:
    # The first session of a step is this waiter's; the rest of `increment` is for those behind it.
    found.opens.append(ledger.open(waiter.key, now))
    for _ in range(ledger.limits.increment - 1):
        if ledger.used >= ledger.limits.max:
            return
        found.opens.append(ledger.open(waiter.key, now))
        walk.coming[waiter.key] = walk.coming.get(waiter.key, 0) + 1
        walk.common += 1


def _evict(ledger: Ledger, found: Plan) -> bool:
    """Close the session that has been idle longest, whatever its key: its slot is wanted."""
    oldest = _oldest_idle(ledger)
    if oldest is None:
        return False
    ledger.move(oldest, CLOSING)
    found.closes.append((oldest, False))
    return True


def _oldest_idle(ledger: Ledger) -> Session | None:
    oldest: Session | None = None
    for lane in ledger.lanes.values():
        if oldest is None or lane[0].idle_since < oldest.idle_since:
            oldest = lane[0]
    return oldest


def reap(ledger: Ledger, now: float) -> list[tuple[Session, bool]]:
    """Idle sessions to close, now closing: (session, True: max_lifetime, False: idle_timeout)."""
    found: list[tuple[Session, bool]] = []
    for session in ledger.idle_sessions():
        if now >= session.expires:
            ledger.move(session, CLOSING)
            found.append((session, True))
    while ledger.opened > ledger.limits.min:
        oldest = _oldest_idle(ledger)
        if oldest is None or now - oldest.idle_since < ledger.limits.idle_timeout:
            break
        ledger.move(oldest, CLOSING)
        found.append((oldest, False))
    return found


def refill(ledger: Ledger, key: Key, now: float, at_least: int) -> list[Session]:
    """Sessions of ``key`` to open, so that ``min`` or ``at_least`` of any key are open or opening."""
    opens: list[Session] = []
    floor = max(ledger.limits.min, at_least)
    while (
        not ledger.closed
        and ledger.backoff.get(key, 0.0) <= now
        and ledger.opened + len(ledger.opening) < floor
        and ledger.used < ledger.limits.max
    ):
        opens.append(ledger.open(key, now))
    return opens

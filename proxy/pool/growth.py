"""How a pool grows and shrinks: decisions over the ledger's collections, as synchronous as the ledger.

``plan`` walks the queue and decides what is handed out, pinged, opened or closed for those who wait;
``reap`` closes what is too old or idle for too long; ``refill`` opens up to ``min``. Nothing here does
I/O: the sessions named have been moved, the pool does the rest.
"""

import math

from proxy.pool.choosing import has_room, helps, is_above_floor, is_due, is_tied, pick, victim
from proxy.pool.ledger import Ledger
from proxy.pool.limits import BEGIN_AHEAD, FORCEGET, LAZY, NOWAIT, PING_AT_ACQUIRE
from proxy.pool.queueing import claim, must_yield
from proxy.pool.session import BEGIN, CLOSING, OPENING, PING, RESET, Key, Session, Waiter
from proxy.reasons import DropReason


class Plan:
    """What the pool must do next."""

    def __init__(self) -> None:
        self.grants: list[tuple[Waiter, Session]] = []  # idle sessions that need no care, busy by now
        self.opens: list[Session] = []
        self.cares: list[Session] = []  # to be pinged, or begun anew
        self.closes: list[tuple[Session, DropReason]] = []
        self.refusals: list[Waiter] = []  # nowait clients for whom nothing is coming any more


class _Walk:
    # What the waiters passed so far have claimed, while `plan` walks the queue.

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.coming = ledger.coming()
        self.new = ledger.coming(new=True)
        # As many as are above `max` come for forceget clients alone: one that is being opened may serve
        # any of them, one that is being reset is dropped. A pinged session was there before.
        opening, resets, surplus = len(ledger.opening), 0, ledger.surplus
        for session in ledger.care:
            if session.care == RESET:
                resets += 1
        self.forced = min(surplus, opening)
        self.common = sum(self.coming.values()) - min(surplus, opening + resets)
        self.promised = 0  # slots that are free once what is closing has ended
        self.promised_on: dict[int, int] = {}  # ... by endpoint, where those have bounds of their own
        self._affinities: set[str] = set()

    def is_behind(self, waiter: Waiter) -> bool:
        """Somebody ahead waits for the session that this one must share."""
        if not waiter.affinity:
            return False
        if waiter.affinity in self._affinities:
            return True
        self._affinities.add(waiter.affinity)
        return False

    def claim(self, waiter: Waiter) -> bool:
        """A session that is already coming serves this waiter."""
        forced = self.forced > 0 and waiter.getmode == FORCEGET
        if not forced and self.common <= 0:
            return False
        if not claim(waiter, self.coming, self.new):
            return False
        if forced:
            self.forced -= 1
        else:
            self.common -= 1
        return True

    def promise(self, waiter: Waiter, now: float) -> bool:
        """A slot that is being freed will be this waiter's."""
        ledger = self.ledger
        if ledger.bound(waiter) - ledger.opened - len(ledger.opening) - self.promised <= 0:
            return False
        most = ledger.limits.max_per_endpoint
        if most is not None:
            for endpoint in ledger.endpoints.askable(waiter.key, now):
                closing = sum(1 for session in endpoint.sessions if session.state == CLOSING)
                kept = len(endpoint.sessions) - closing + self.promised_on.get(endpoint.number, 0)
                if kept < most:
                    self.promised_on[endpoint.number] = self.promised_on.get(endpoint.number, 0) + 1
                    break
            else:
                return False
        self.promised += 1
        return True


def plan(ledger: Ledger, now: float, failed: bool = False) -> Plan:
    """Decide what must be handed out, looked after, opened or closed for the queue.

    ``failed``: something that a nowait client counted on has just failed; look for those as well.
    """
    found = Plan()
    if ledger.replacing:
        _replace(ledger, now, found)
    full = ledger.used >= ledger.limits.ceiling and not ledger.has_idle() and not failed
    if not ledger.queue or ledger.paused or full:
        return found
    walk = _Walk(ledger)
    for waiter in list(ledger.queue):
        if is_tied(ledger, waiter) or walk.is_behind(waiter):
            continue
        if _grant(ledger, waiter, now, True, found) or walk.claim(waiter):
            continue
        if _look_after(ledger, waiter, True, found) or _open_for(ledger, waiter, now, walk, found):
            continue
        # Nothing that fits exactly: then one in another state, which is made to fit.
        if _grant(ledger, waiter, now, False, found) or _look_after(ledger, waiter, False, found):
            continue
        if _make_room(ledger, waiter, now, walk, found):
            continue
        if waiter.getmode == NOWAIT:
            ledger.queue.remove(waiter)
            found.refusals.append(waiter)
    return found


def _grant(ledger: Ledger, waiter: Waiter, now: float, strict: bool, found: Plan) -> bool:
    session = fresh(ledger, waiter, now, strict, found)
    if session is None:
        return False
    ledger.queue.remove(waiter)
    ledger.hand_over(session, now)
    found.grants.append((waiter, session))
    return True


def fresh(ledger: Ledger, waiter: Waiter, now: float, strict: bool, found: Plan) -> Session | None:
    """An idle session that needs no care; closes the old ones on the way to it."""
    while True:
        session = pick(ledger, waiter, strict)
        if session is None:
            return None
        if not ledger.is_old(session, now):
            return None if is_due(ledger, session, now) else session
        _close_old(ledger, session, found.closes)


def _close_old(ledger: Ledger, session: Session, closes: list[tuple[Session, DropReason]]) -> None:
    ledger.close(session)
    closes.append((session, ledger.why_old(session)))


def _look_after(ledger: Ledger, waiter: Waiter, strict: bool, found: Plan) -> bool:
    session = pick(ledger, waiter, strict)
    if session is None:
        return False
    _attend(ledger, session, found)
    return True


def _attend(ledger: Ledger, session: Session, found: Plan) -> None:
    # To begin anew proves that the session lives: no ping is needed besides.
    ledger.attend(session, BEGIN if ledger.limits.begin == BEGIN_AHEAD else PING)
    found.cares.append(session)


def _open_for(ledger: Ledger, waiter: Waiter, now: float, walk: _Walk, found: Plan) -> bool:
    """A slot is free: open."""
    if ledger.used >= ledger.bound(waiter) or not ledger.endpoints.may_open(waiter.key, now):
        return False
    if not _open(ledger, waiter.key, now, found):
        return False
    # The first session of a step is this waiter's; the rest of `increment` is for those behind it.
    for _ in range(ledger.limits.increment - 1 if waiter.key.private is None else 0):
        if ledger.used >= ledger.limits.max or not _open(ledger, waiter.key, now, found):
            break
        walk.coming[waiter.key] = walk.coming.get(waiter.key, 0) + 1
        walk.new[waiter.key] = walk.new.get(waiter.key, 0) + 1
        walk.common += 1
    return True


def _open(ledger: Ledger, key: Key, now: float, found: Plan) -> bool:
    endpoint = ledger.endpoints.choose(key, now, ledger.limits.max_per_endpoint)
    if endpoint is None:
        return False
    found.opens.append(ledger.open(key, endpoint, now))
    return True


def _make_room(ledger: Ledger, waiter: Waiter, now: float, walk: _Walk, found: Plan) -> bool:
    # What is closing will be free; or an idle session of somebody else is closed. False: only a client
    # can bring a session, by giving it up.
    if not ledger.endpoints.may_open(waiter.key, now):
        return False
    if walk.promise(waiter, now):
        return True
    full = ledger.bound(waiter) - ledger.opened - len(ledger.opening) - walk.promised
    if full < 0 or (full > 0 and has_room(ledger, waiter.key, now)):
        return False
    session = victim(ledger, waiter, now)
    if session is None or not helps(ledger, session, waiter, now):
        return False
    ledger.close(session)
    found.closes.append((session, DropReason.REPLACED))
    return walk.promise(waiter, now)


def _replace(ledger: Ledger, now: float, found: Plan) -> None:
    # ping_failure = "create": a new session for each that did not answer, as soon as there is a slot.
    for key in list(ledger.replacing):
        if ledger.closed or not ledger.endpoints.may_open(key, now):
            ledger.replacing.remove(key)
        elif ledger.used < ledger.limits.max:
            ledger.replacing.remove(key)
            _open(ledger, key, now, found)


def why_not_kept(ledger: Ledger, session: Session, now: float) -> DropReason | None:
    """Why a session that comes back, and that nobody gets, cannot go idle; None: it can."""
    limits = ledger.limits
    if ledger.closed:
        return DropReason.DRAIN
    if session.key.private is not None:
        return DropReason.REPLICATION  # the one whom it would suit has gone
    if (limits.max_forced or ledger.excess) and ledger.is_surplus(session):
        return DropReason.FORCED if limits.max_forced else DropReason.SHRUNK
    if limits.max_idle is not None and session.care != PING and ledger.idle >= limits.max_idle:
        return DropReason.MAX_IDLE
    return DropReason.REPLACED if must_yield(ledger, session, now) else None


# -- while nobody asks --------------------------------------------------------------------------


def reap(ledger: Ledger, now: float, most: int = 0) -> list[tuple[Session, DropReason]]:
    """Idle sessions to close, now closing, with the reason; at most ``most`` of them unless that is 0."""
    found: list[tuple[Session, DropReason]] = []
    for session in ledger.idle_sessions():
        if most and len(found) >= most:
            return found
        if ledger.is_old(session, now):
            _close_old(ledger, session, found)
    while ledger.opened > ledger.limits.min and not (most and len(found) >= most):
        oldest = _longest_idle(ledger)
        if oldest is None or now - oldest.idle_since < ledger.limits.idle_timeout:
            break
        ledger.close(oldest)
        found.append((oldest, DropReason.IDLE_TIMEOUT))
    return found


def batch(ledger: Ledger) -> int:
    """How many sessions one release or acquire reaps (as generic_connection_pool's dispose_batch_size)."""
    return ledger.limits.reap_batch or int(math.log2(ledger.opened + 1)) + 1


def _longest_idle(ledger: Ledger) -> Session | None:
    oldest: Session | None = None
    for lane in ledger.lanes.values():
        for session in lane:
            if session.core or not is_above_floor(ledger, session.endpoint):
                continue
            if oldest is None or session.idle_since < oldest.idle_since:
                oldest = session
    return oldest


def surplus_idle(ledger: Ledger) -> list[tuple[Session, DropReason]]:
    """Idle sessions to close, now closing, because ``max`` was lowered below what is open."""
    found: list[tuple[Session, DropReason]] = []
    idle = sorted(ledger.idle_sessions(), key=lambda session: session.idle_since)
    for session in idle[: ledger.surplus]:
        ledger.close(session)
        found.append((session, DropReason.SHRUNK))
    return found


def refill(ledger: Ledger, key: Key, now: float, at_least: int) -> list[Session]:
    """Sessions of ``key`` to open, so that ``min`` or ``at_least`` of any key are open or opening."""
    found = Plan()
    limits = ledger.limits
    # `prefill` is about the first time, `keep_min` about every later one.
    wants_min = limits.keep_min if ledger.filled else limits.prefill != LAZY
    floor = max(limits.min if wants_min else 0, at_least)
    while (
        not ledger.closed
        and not ledger.paused
        and ledger.opened + len(ledger.opening) < floor
        and ledger.used < limits.max
    ):
        home = _home(ledger, key, now)
        if home is None or not _open(ledger, home, now, found):
            break
    return found.opens


def _home(ledger: Ledger, key: Key, now: float) -> Key | None:
    # With a route, sessions that nobody has asked for are spread over the shards: each serves its own only.
    best: Key | None = None
    fewest = 0
    for home in ledger.homes or (key,):
        if ledger.endpoints.may_open(home, now) and has_room(ledger, home, now):
            count = sum(1 for session in ledger.sessions() if session.key is home)
            if best is None or count < fewest:
                best, fewest = home, count
    return best


def probe(ledger: Ledger, key: Key, now: float) -> list[Session]:
    """Sessions of ``key`` to open where the latest open failed, so that no client has to try that.

    A pool with a single endpoint needs none: ``refill`` tries until the pool is ready.
    """
    opens: list[Session] = []
    limits, endpoints = ledger.limits, ledger.endpoints
    if ledger.closed or ledger.paused or len(endpoints.all) == 1:
        return opens
    for endpoint in endpoints.suspects(now):
        if ledger.homes:
            key = ledger.homes[endpoint.number]
        if not endpoint.may_open_for(key, now):
            continue
        is_tried = any(session.state == OPENING for session in endpoint.sessions)
        most = limits.max_per_endpoint
        has_room = most is None or len(endpoint.sessions) < most
        # The last slot is left to those who ask.
        if has_room and not is_tried and ledger.used < limits.max - 1:
            session = ledger.open(key, endpoint, now)
            session.is_trial = True
            opens.append(session)
    return opens


def overdue(ledger: Ledger, now: float, most: int) -> list[Session]:
    """Idle sessions that the background must look after, the longest untouched first; now in care."""
    limits = ledger.limits
    due: list[Session] = []
    for session in ledger.idle_sessions():
        if limits.begin == BEGIN_AHEAD:
            is_late = now - session.begun_at >= limits.begin_max_age
        else:
            late = now - session.proven_at
            is_late = limits.ping_mode != PING_AT_ACQUIRE and late >= limits.ping_interval
        if is_late:
            due.append(session)
    due.sort(key=lambda session: session.proven_at)
    found = Plan()
    for session in due[:most]:
        _attend(ledger, session, found)
    return found.cares

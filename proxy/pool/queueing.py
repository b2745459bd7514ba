"""Who waits, in which order, and who of them gets a session that comes free.

First in, first out within a class; between classes (``weights``) by start-time fair queueing, so that one
greedy application cannot starve another. Decisions over the ledger's collections, as synchronous as the
ledger.
"""

from collections import deque
from typing import Final

from proxy.errors import (
    PoolBusy,
    PoolClosed,
    PoolError,
    PoolPaused,
    PoolTimeout,
    ProxyError,
    QueueFull,
    RefusedEarly,
)
from proxy.pool.choosing import fits, has_room, helps, is_tied
from proxy.pool.ledger import Ledger
from proxy.pool.limits import FORCEGET, NOWAIT, OFF, WAIT
from proxy.pool.session import OPENING, RECOVERY, RESET, Key, Session, Waiter


def admit(ledger: Ledger, waiter: Waiter, now: float) -> PoolError | None:
    """Queue the waiter, or say why not. Call ``growth.plan`` afterwards."""
    error = _refusal(ledger, waiter, now)
    if error is not None:
        return error
    waiter.since = now
    waiter.deadline = OFF if waiter.getmode == WAIT else now + waiter.wait_timeout
    _join(ledger, waiter)
    return None


def _refusal(ledger: Ledger, waiter: Waiter, now: float) -> PoolError | None:
    limits = ledger.limits
    if ledger.closed:
        return PoolClosed("the pool is closed", ledger.picture(0.0))
    mode = waiter.getmode
    if mode == NOWAIT:
        if ledger.paused:
            return PoolPaused("the pool is paused, and getmode is nowait", ledger.picture(0.0))
        if is_tied(ledger, waiter):
            return PoolBusy("the session of this key is busy, and getmode is nowait", ledger.picture(0.0))
    elif limits.max_waiting is None and not limits.refuse_early:
        return None
    excess = len(ledger.queue) + 1 - _supply(ledger, waiter)
    if excess > 0 and mode == NOWAIT:
        return PoolBusy("every session is busy, and getmode is nowait", ledger.picture(0.0))
    if limits.max_waiting is not None and excess > limits.max_waiting:
        return QueueFull(f"{limits.max_waiting} clients wait already", ledger.picture(0.0))
    if limits.refuse_early and mode != WAIT and excess > 0:
        wait = excess * _pace(ledger, now)
        if wait > waiter.wait_timeout:
            return RefusedEarly(
                f"at the present rate a session would come free in {wait:.1f}s,"
                f" after wait_timeout ({waiter.wait_timeout:g}s)",
                ledger.picture(0.0),
            )
    return None


def _supply(ledger: Ledger, waiter: Waiter) -> int:
    # How many waiters can be served without any client giving up a session.
    free = max(0, ledger.bound(waiter) - ledger.used)
    most = ledger.limits.max_per_endpoint
    if most is not None:
        free = min(free, sum(max(0, most - len(at.sessions)) for at in ledger.endpoints.allowed(waiter.key)))
    idle = ledger.idle if ledger.limits.evict else len(ledger.lanes.get(waiter.key, []))
    returning = sum(1 for session in ledger.opening if not session.is_trial)
    for session in ledger.care:
        if session.care == RESET:
            returning += 1
        elif session.care != RECOVERY:
            idle += 1
    if waiter.getmode != FORCEGET:
        returning = max(0, returning - ledger.surplus)
    return idle + free + returning


# -- the order ----------------------------------------------------------------------------------


def _join(ledger: Ledger, waiter: Waiter) -> None:
    weights, queue = ledger.limits.weights, ledger.queue
    if len(weights) == 1:
        queue.append(waiter)
        return
    if not queue or len(ledger.finish) != len(weights):
        ledger.virtual, ledger.finish = 0.0, [0.0] * len(weights)
    number = waiter.priority if waiter.priority < len(weights) else 0
    waiter.rank = max(ledger.virtual, ledger.finish[number])
    ledger.finish[number] = waiter.rank + 1.0 / weights[number]
    at = len(queue)
    while at and queue[at - 1].rank > waiter.rank:
        at -= 1
    queue.insert(at, waiter)


def served(ledger: Ledger, waiter: Waiter, now: float) -> None:
    """A waiter got a session: the shares and the pace of the queue follow."""
    ledger.virtual = max(ledger.virtual, waiter.rank)
    if ledger.limits.refuse_early:
        if ledger.served_at > 0.0 and ledger.queue:
            between = now - ledger.served_at
            ledger.pace = between if ledger.pace == 0.0 else ledger.pace + (between - ledger.pace) / 16.0
        ledger.served_at = now if ledger.queue else 0.0


def _pace(ledger: Ledger, now: float) -> float:
    # Nobody was served for long: then the next one will not be either.
    if ledger.served_at > 0.0 and ledger.queue and ledger.pace > 0.0:
        return max(ledger.pace, now - ledger.served_at)
    return ledger.pace


def expire(ledger: Ledger, now: float) -> tuple[list[Waiter], float]:
    """Take out the waiters whose deadline has come; also returns the next deadline."""
    due = [waiter for waiter in ledger.queue if waiter.deadline <= now]
    if due:
        ledger.queue = deque(waiter for waiter in ledger.queue if waiter.deadline > now)
    return due, ledger.next_deadline()


def timed_out(ledger: Ledger, waiter: Waiter, now: float) -> ProxyError:
    """The error for a waiter whose deadline has come: the server's, where that is why there was none."""
    why = f"no session came free within wait_timeout ({waiter.wait_timeout:g}s)"
    if ledger.paused:
        why = f"the pool is paused, and was not resumed within wait_timeout ({waiter.wait_timeout:g}s)"
    else:
        down = ledger.endpoints.why_not(waiter.key, now)
        if down is not None and not _is_open(ledger, waiter.key):
            return down
        if down is not None:
            why += f", and no other one can be opened: {down.message}"
    return PoolTimeout(why, ledger.picture(now - waiter.since))


def _is_open(ledger: Ledger, key: Key) -> bool:
    if ledger.lanes.get(key):
        return True
    return any(session.key is key for sessions in (ledger.busy, ledger.care) for session in sessions)


# -- who is next --------------------------------------------------------------------------------


def next_for(ledger: Ledger, session: Session, now: float) -> Waiter | None:
    """Take the waiter who gets this session out of the queue: the first whom it fits."""
    queue = ledger.queue
    if not queue or ledger.paused:
        return None
    if session.affinity:
        waiter = _sharer(ledger, session)
        if waiter is not None:
            return waiter
        ledger.unshare(session)
    if (ledger.limits.max_forced or ledger.excess) and ledger.is_surplus(session):
        return _next_forceget(ledger, session)
    first = queue[0]
    if first.key is session.key and not first.picky:
        return queue.popleft()
    found = _first_in_need(ledger, session, now)
    if found is None or not fits(found, session):
        # One that was opened above `max` yields to nobody before its own client has had it: that
        # client would only have another one opened, and so on.
        return _next_forceget(ledger, session) if session.forced else None
    queue.remove(found)
    return found


def _sharer(ledger: Ledger, session: Session) -> Waiter | None:
    for waiter in ledger.queue:
        if waiter.affinity == session.affinity and fits(waiter, session):
            ledger.queue.remove(waiter)
            return waiter
    return None


def _next_forceget(ledger: Ledger, session: Session) -> Waiter | None:
    # Above `max` only a forceget client may go on with a session: the first in the queue, or, for a
    # session that was opened for one, wherever it stands.
    for waiter in ledger.queue:
        if waiter.getmode == FORCEGET and fits(waiter, session) and not is_tied(ledger, waiter):
            ledger.queue.remove(waiter)
            return waiter
        if session.state != OPENING:
            return None
    return None


def _first_in_need(ledger: Ledger, session: Session, now: float) -> Waiter | None:
    # The first waiter whom this session fits, or who wants another and has nothing coming. Whoever has a
    # session or a free slot coming is passed over; nobody starves behind another key.
    coming, new = ledger.coming(), _none
    slots = max(0, ledger.limits.max - ledger.opened - len(ledger.opening))
    for waiter in ledger.queue:
        if is_tied(ledger, waiter):
            continue
        if fits(waiter, session):
            return waiter
        if waiter.wants_new and new is _none:
            new = ledger.coming(new=True)
        if claim(waiter, coming, new):
            continue
        if not ledger.endpoints.may_open(waiter.key, now) or not helps(ledger, session, waiter, now):
            continue
        if slots > 0 and has_room(ledger, waiter.key, now):
            slots -= 1
        else:
            return waiter
    return None


_none: Final[dict[Key, int]] = {}  # nobody asked for a new session yet


def claim(waiter: Waiter, coming: dict[Key, int], new: dict[Key, int]) -> bool:
    """A session that is already coming serves this waiter; it serves nobody else then."""
    left = coming.get(waiter.key, 0)
    if left == 0:
        return False
    unused = new.get(waiter.key, 0)
    if waiter.wants_new:
        if unused == 0:
            return False
        unused -= 1
    coming[waiter.key] = left - 1
    if new is not _none:
        new[waiter.key] = min(unused, left - 1)
    return True


def must_yield(ledger: Ledger, session: Session, now: float) -> bool:
    """Nobody gets the session, but its slot is wanted for another one: it must be replaced."""
    if not ledger.queue or not ledger.limits.evict or ledger.paused:
        return False
    waiter = _first_in_need(ledger, session, now)
    return waiter is not None and not fits(waiter, session)

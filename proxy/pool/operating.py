"""What an operator does to a running pool: pause, resume, reconfigure, renew, clear, close.

Each is one synchronous step: it happens whole, or it raises and nothing has happened. No session is
taken from a client here but by ``close`` with force.
"""

from typing import TYPE_CHECKING

from proxy.errors import PoolBusy, PoolClosed, PoolPaused
from proxy.pool import growth
from proxy.pool.limits import NOWAIT, OFF, Limits
from proxy.pool.opening import jittered_lifetime
from proxy.pool.session import BUSY, IDLE
from proxy.reasons import DropReason

if TYPE_CHECKING:
    from proxy.pool.pool import Pool


def pause(pool: "Pool") -> None:
    """As PgBouncer's PAUSE, but nobody's command has to wait for it: it takes effect at once."""
    ledger = pool.ledger
    ledger.paused = True
    pool.adopt(pool.limits)
    for waiter in [waiter for waiter in ledger.queue if waiter.getmode == NOWAIT]:
        if ledger.withdraw(waiter):
            pool.refuse(waiter, PoolPaused("the pool is paused, and getmode is nowait", ledger.picture(0.0)))


def resume(pool: "Pool") -> None:
    """The end of a pause."""
    pool.ledger.paused = False
    pool.adopt(pool.limits)
    pool.keeper.tick()


def reconfigure(pool: "Pool", limits: Limits) -> None:
    """Raises ValueError, and changes nothing, when the limits contradict each other."""
    if limits.max < 1 or not 0 <= limits.min <= limits.max or limits.max_forced < 0:
        raise ValueError(f"min ({limits.min}) must be at most max ({limits.max}), and max at least 1")
    ledger, before = pool.ledger, pool.limits
    pool.adopt(limits)
    ledger.excess = max(0, ledger.used - limits.ceiling)
    if limits.max_lifetime != before.max_lifetime:
        for session in ledger.sessions():
            if session.expires > -OFF:
                session.expires = session.opened_at + jittered_lifetime(limits)
    for session, reason in growth.surplus_idle(ledger):
        pool.ending.end(session, reason)
    pool.adopt(pool.limits)
    pool.opening.adjust()
    pool.keeper.tick()


def renew(pool: "Pool") -> None:
    """Sessions that are being opened were begun before, and are replaced, too."""
    ledger = pool.ledger
    ledger.generation += 1
    for session in ledger.sessions():
        session.expires = -OFF  # so that the quick path does not hand it out either
    for session in ledger.idle_sessions():
        if session.state == IDLE:
            pool.drop(session, DropReason.GENERATION)
    pool.keeper.tick()


def clear(pool: "Pool", reason: DropReason) -> int:
    """Busy sessions are untouched."""
    idle = pool.ledger.idle_sessions()
    for session in idle:
        if session.state == IDLE:
            pool.drop(session, reason)
    return len(idle)


def close(pool: "Pool", force: bool) -> None:
    """As Oracle's SessionPool.close: refused while the pool is in use, unless by force."""
    ledger = pool.ledger
    if not force and (ledger.busy or ledger.queue):
        raise PoolBusy(
            "the pool is in use: close it by force, or wait until nobody holds or waits for a session",
            ledger.picture(0.0),
        )
    shut(pool)
    cut(pool, "the pool was closed by its operator")


def cut(pool: "Pool", detail: str) -> None:
    """Take every session from the client that holds it, and tell the client."""
    for session in list(pool.ledger.busy):
        if session.state == BUSY:
            pool.expel(session, DropReason.CLOSED, detail)


def shut(pool: "Pool") -> None:
    """Nobody new, nobody who waits, nothing idle, nothing that is being opened."""
    ledger = pool.ledger
    ledger.closed = True
    pool.adopt(pool.limits)
    pool.keeper.stop()
    pool.alarm.stop()
    pool.failover.stop()
    pool.opening.stop()
    for waiter in list(ledger.queue):
        if ledger.withdraw(waiter):
            pool.refuse(waiter, PoolClosed("the pool is closing", ledger.picture(0.0)))
    clear(pool, DropReason.DRAIN)

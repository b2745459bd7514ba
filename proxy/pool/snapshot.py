"""Freezes a pool at one moment for observers: reads the ledger and the counters, changes nothing."""

from proxy.pool.ledger import Ledger
from proxy.pool.limits import GETMODES
from proxy.pool.stats import OUTCOMES, Counters, PoolStats


def freeze(
    ledger: Ledger, counters: Counters, pool_mode: str, ready: bool, last_error: str, now: float
) -> PoolStats:
    """The pool at this moment."""
    limits = ledger.limits
    return PoolStats(
        name=ledger.name,
        pool_mode=pool_mode,
        getmode=GETMODES[limits.getmode],
        min=limits.min,
        max=limits.max,
        max_forced=limits.max_forced,
        opened=ledger.opened,
        busy=len(ledger.busy),
        idle=ledger.idle,
        opening=len(ledger.opening),
        closing=len(ledger.closing),
        waiting=len(ledger.queue),
        oldest_wait=max((now - waiter.since for waiter in ledger.queue), default=0.0),
        acquires={
            (GETMODES[mode], OUTCOMES[outcome]): count
            for mode, row in enumerate(counters.acquires)
            for outcome, count in enumerate(row)
        },
        opens={"ok": counters.opens_ok, "failed": counters.opens_failed},
        pings={"ok": counters.pings_ok, "failed": counters.pings_failed},
        drops=dict(counters.drops),
        acquire=counters.acquire.snapshot(),
        hold=counters.hold.snapshot(),
        open=counters.open.snapshot(),
        transactions=counters.transactions,
        queries=counters.queries,
        bytes_client=counters.bytes_client,
        bytes_server=counters.bytes_server,
        ready=ready,
        last_error=last_error,
    )

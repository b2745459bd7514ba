"""Freezes a pool at one moment for observers: reads the ledger and the counters, changes nothing.

It runs at every scrape, so it walks sessions, waiters and keys a few times each, and no more.
"""

from collections import Counter
from typing import Final

from proxy.pool.endpoints import BREAKER_STATES, Endpoint
from proxy.pool.figures import SESSION_STATES, EndpointStats, KeyStats, PoolStats, PriorityStats
from proxy.pool.ledger import Ledger
from proxy.pool.limits import GETMODES
from proxy.pool.session import BEGIN, STATES, Key, Session
from proxy.pool.stats import OUTCOMES, Counters
from proxy.roles import ROLES, TARGETS

# Clients choose some parts of a key, so there may be any number of them.
_MOST_KEYS: Final = 100


def freeze(
    ledger: Ledger,
    counters: Counters,
    pool_mode: str,
    ready: bool,
    last_error: str,
    now: float,
    class_names: tuple[str, ...] = (),
) -> PoolStats:
    """The pool at this moment; ``class_names`` are those of the priority classes, by number."""
    limits, opened = ledger.limits, ledger.opened
    return PoolStats(
        name=ledger.name,
        pool_mode=pool_mode,
        getmode=GETMODES[limits.getmode],
        min=limits.min,
        max=limits.max,
        max_forced=limits.max_forced,
        paused=ledger.paused,
        generation=ledger.generation,
        opened=opened,
        busy=len(ledger.busy),
        idle=ledger.idle,
        idle_new=sum(not session.used for session in ledger.idle_sessions()),
        pending_begin=sum(session.care == BEGIN for session in ledger.care),
        opening=len(ledger.opening),
        closing=len(ledger.closing),
        extras=max(0, opened - limits.max),
        waiting=len(ledger.queue),
        oldest_wait=max((now - waiter.since for waiter in ledger.queue), default=0.0),
        oldest_hold=max((now - session.busy_since for session in ledger.busy), default=0.0),
        acquires={
            (GETMODES[mode], OUTCOMES[outcome]): count
            for mode, row in enumerate(counters.acquires)
            for outcome, count in enumerate(row)
        },
        enqueued=counters.enqueued,
        waited=counters.waited,
        handoffs=counters.handoffs,
        opens={"ok": counters.opens_ok, "failed": counters.opens_failed},
        pings={
            "ok": counters.pings_ok,
            "failed": counters.pings_failed - counters.pings_timed_out,
            "timed_out": counters.pings_timed_out,
        },
        resets={"ok": counters.resets_ok, "failed": counters.resets_failed},
        begins={"used": counters.begins_used, "expired": counters.begins_expired},
        peek_dead=counters.peek_dead,
        fixups=counters.fixups,
        drops=dict(counters.drops),
        pins=dict(counters.pins),
        pinned=dict(counters.pinned),
        listening_clients=counters.listens.clients,
        listening_channels=counters.listens.channels,
        notifications=counters.listens.delivered,
        timeouts=dict(counters.timeouts),
        slow_queries=counters.slow_queries,
        query=counters.query.snapshot(),
        acquire=counters.all_waits(),
        wait=counters.waits(),
        hold=counters.hold.snapshot(),
        open=counters.open.snapshot(),
        ping=counters.ping.snapshot(),
        transactions=counters.transactions,
        queries=counters.queries,
        bytes_client=counters.bytes_client,
        bytes_server=counters.bytes_server,
        since_start=counters.since_start(now),
        since_reset=counters.since_reset(now),
        endpoints=tuple(_endpoint(endpoint, now) for endpoint in ledger.endpoints.all),
        keys=_keys(ledger),
        priorities=_priorities(ledger, class_names, now),
        ready=ready,
        last_error=last_error,
    )


def reset_marks(ledger: Ledger, counters: Counters, now: float) -> None:
    """Begin the figures since the last reset anew."""
    counters.reset_marks(now, ledger.opened, len(ledger.busy), len(ledger.queue))


def _endpoint(endpoint: Endpoint, now: float) -> EndpointStats:
    states = Counter(STATES[session.state] for session in endpoint.sessions)
    return EndpointStats(
        name=endpoint.name,
        sessions={state: states[state] for state in SESSION_STATES},
        breaker=BREAKER_STATES[endpoint.breaker(now)],
        failures=endpoint.failures,
        retry_in=max(0.0, endpoint.until - now),
        last_error=endpoint.last_error,
        role=ROLES[endpoint.role],
    )


def _keys(ledger: Ledger) -> tuple[KeyStats, ...]:
    sessions: dict[Key, list[Session]] = {}
    for session in ledger.sessions():
        sessions.setdefault(session.key.like or session.key, []).append(session)
    waiting = Counter(waiter.key.like or waiter.key for waiter in ledger.queue)
    # A key that nobody has a session of may still have waiters.
    sizes = Counter({key: len(group) for key, group in sessions.items()}) + waiting
    own = ledger.endpoints.own
    return tuple(
        _key(key, own, sessions.get(key, []), waiting[key]) for key, _ in sizes.most_common(_MOST_KEYS)
    )


def _key(key: Key, own: int, sessions: list[Session], waiting: int) -> KeyStats:
    asked = TARGETS[key.target] if key.target != own else ""
    states = Counter(STATES[session.state] for session in sessions)
    return KeyStats(
        database=key.database,
        user=key.user,
        cclass=key.cclass,
        endpoint=key.endpoint.name if key.endpoint is not None else asked,
        waiting=waiting,
        busy=states["busy"],
        idle=states["idle"],
        care=states["care"],
        opening=states["opening"],
        closing=states["closing"],
    )


def _priorities(ledger: Ledger, names: tuple[str, ...], now: float) -> tuple[PriorityStats, ...]:
    weights = ledger.limits.weights
    waiting, since = [0] * len(weights), [now] * len(weights)
    for waiter in ledger.queue:
        number = waiter.priority if waiter.priority < len(weights) else 0
        waiting[number] += 1
        since[number] = min(since[number], waiter.since)
    return tuple(
        PriorityStats(
            name=names[number] if number < len(names) else "",
            number=number,
            weight=weight,
            waiting=waiting[number],
            oldest_wait=now - since[number],
        )
        for number, weight in enumerate(weights)
    )

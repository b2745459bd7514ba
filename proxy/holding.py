"""Who holds which session: the pool knows since when, the listeners know the clients.

Reads both in one step and returns frozen pictures; changes nothing. Asked by a person, not by a scrape, and
bounded, so that a thousand clients cost a page no more than a few milliseconds.
"""

import heapq
import time
from typing import Final

from proxy.building import Parts
from proxy.observe.snapshot import Holders, HolderStats, PoolQueries
from proxy.pool.session import Session
from proxy.relay.backend import SocketBackend
from proxy.relay.client import Client
from proxy.relay.hub import ListenHub
from proxy.relay.link import PREPARING

MOST: Final = 1000
_LONGEST_NAME: Final = 100  # letters of what a client calls itself


def holders(parts: Parts, pool: str, most: int = MOST) -> Holders | None:
    """Whoever holds a session of this pool, ``most`` of them at most, longest first; None: no such pool."""
    found = parts.pools.get(pool)
    if found is None:
        return None
    now = time.monotonic()
    clients = {
        client.session: client
        for listener in parts.listeners.values()
        for client in listener.house.clients
        if client.session is not None
    }
    busy = found.ledger.busy
    longest = heapq.nsmallest(most, busy, key=lambda session: (session.busy_since, session.number))
    return Holders(pool, len(busy), tuple(_holder(one, clients.get(one), now) for one in longest))


def queries(parts: Parts | None) -> tuple[PoolQueries, ...]:
    """What was asked of the pools that have ``query_stats``."""
    pools = parts.pools.values() if parts is not None else ()
    return tuple(
        PoolQueries(pool.name, pool.counters.book.forgotten, pool.counters.book.freeze())
        for pool in pools
        if pool.limits.query_stats
    )


def _holder(session: Session, client: Client | None, now: float) -> HolderStats:
    key, name = session.key, client.codec.label() if client is not None else ""
    return HolderStats(
        session=session.number,
        endpoint=session.endpoint.name,
        database=key.database,
        session_user=key.user,
        cclass=key.cclass,
        client=client.number if client is not None else 0,
        peer=client.peer if client is not None else "",
        user=client.user if client is not None else "",
        application_name=name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}...",
        state=_state(client) if client is not None else _keeper(session),
        held=max(0.0, now - session.busy_since),
        pinned=client.codec.pinned() if client is not None else "",
    )


def _keeper(session: Session) -> str:
    """Who holds a session that no client has."""
    backend = session.backend
    listens = isinstance(backend, SocketBackend) and isinstance(backend.holder, ListenHub)
    return "listen" if listens else "login"


def _state(client: Client) -> str:
    if client.phase == PREPARING:
        return "preparing"
    if client.codec.is_running():
        return "active"
    return "idle_in_transaction" if client.codec.is_holding_idle() else "idle"

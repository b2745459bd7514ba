"""Who holds which session: the pool knows since when, the listeners know the clients.

Reads both in one step and returns frozen pictures; changes nothing. Asked by a person, not by a scrape, and
bounded, so that a thousand clients cost a page no more than a few milliseconds.
"""

import heapq
import time
from typing import Final

from proxy.building import Parts
from proxy.observe.snapshot import Holders, HolderStats
from proxy.pool.session import Session
from proxy.relay.client import Client
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
        state=_state(client),
        held=max(0.0, now - session.busy_since),
    )


def _state(client: Client | None) -> str:
    if client is None:
        return "login"
    if client.phase == PREPARING:
        return "preparing"
    if client.codec.is_running():
        return "active"
    return "idle_in_transaction" if client.codec.is_holding_idle() else "idle"

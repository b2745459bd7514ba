"""The lower half of the status page: endpoints, users and classes, priorities, and who holds what.

A table that would say nothing new (one user, one class) is left out. Names come from clients here, so
nothing may reach the page but through ``text``.
"""

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

from proxy.observe.snapshot import Holders, HolderStats
from proxy.observe.writing import (
    badge,
    duration,
    number,
    soft,
    table,
    text,
    text_or_dash,
)
from proxy.pool.figures import EndpointStats, KeyStats, PoolStats, PriorityStats

# How many rows of each pool the page has; the API has all of them.
SHOWN: Final = 10

_ENDPOINT_COLUMNS: Final = (
    ("Endpoint", ""),
    ("Pool", "words"),
    ("Role", "words"),
    ("Breaker", "words"),
    ("Busy", "n"),
    ("Idle", "n"),
    ("In care", "n"),
    ("Opening", "n"),
    ("Closing", "n"),
    ("Failed in a row", "n"),
    ("Latest open", "words"),
)
_KEY_COLUMNS: Final = (
    ("User", ""),
    ("Pool", "words"),
    ("Database", "words"),
    ("Class", "words"),
    ("Shard", "words"),
    ("Busy", "n"),
    ("Idle", "n"),
    ("In care", "n"),
    ("Opening", "n"),
    ("Closing", "n"),
    ("Waiting", "n"),
)
_PRIORITY_COLUMNS: Final = (
    ("Class", ""),
    ("Pool", "words"),
    ("Weight", "n"),
    ("Waiting", "n"),
    ("Oldest wait", "n"),
)
_HOLDER_COLUMNS: Final = (
    ("Application", ""),
    ("Held for", "n"),
    ("State", "words"),
    ("User", "words"),
    ("From", "words"),
    ("Client", "n"),
    ("Session", "n"),
    ("On", "words"),
)
_BREAKERS: Final = {"closed": "good", "half_open": "warn", "open": "bad"}


def endpoints(pools: Sequence[PoolStats]) -> str:
    """Every server of every pool."""
    rows = (_endpoint_cells(pool, endpoint) for pool in pools for endpoint in pool.endpoints)
    return table("endpoints", "Endpoints", _ENDPOINT_COLUMNS, rows)


def _endpoint_cells(pool: PoolStats, endpoint: EndpointStats) -> tuple[str, ...]:
    word = badge(text(endpoint.breaker.replace("_", " ")), _BREAKERS.get(endpoint.breaker, "warn"))
    if endpoint.retry_in > 0:
        word += f" <small>tried again in {duration(endpoint.retry_in)}</small>"
    latest = text(f"failed: {endpoint.last_error}") if endpoint.last_error else soft("no complaint")
    return (
        text(endpoint.name),
        text(pool.name),
        soft("unknown") if endpoint.role == "unknown" else text(endpoint.role.replace("_", " ")),
        word,
        *(number(count) for count in endpoint.sessions.values()),
        number(endpoint.failures),
        latest,
    )


def keys(pools: Sequence[PoolStats]) -> str:
    """Sessions by whom they serve, where a pool serves more than one; "" otherwise."""
    found = [(pool, key) for pool in pools if len(pool.keys) > 1 for key in pool.keys[:SHOWN]]
    if not found:
        return ""
    hidden = sum(max(0, len(pool.keys) - SHOWN) for pool in pools)
    note = _note(f"{hidden} more with fewer sessions are in /api/v1/pools.") if hidden else ""
    rows = (_key_cells(pool, key) for pool, key in found)
    return table("keys", "Sessions by user and class", _KEY_COLUMNS, rows, note)


def _key_cells(pool: PoolStats, key: KeyStats) -> tuple[str, ...]:
    counts = (key.busy, key.idle, key.care, key.opening, key.closing, key.waiting)
    return (
        text(key.user),
        text(pool.name),
        text(key.database),
        text_or_dash(key.cclass),
        text_or_dash(key.endpoint),
        *map(number, counts),
    )


def priorities(pools: Sequence[PoolStats]) -> str:
    """Who waits, by class, where a pool has classes; "" otherwise."""
    found = [(pool, entry) for pool in pools if len(pool.priorities) > 1 for entry in pool.priorities]
    if not found:
        return ""
    rows = (_priority_cells(pool, entry) for pool, entry in found)
    return table("priorities", "Priorities", _PRIORITY_COLUMNS, rows)


def _priority_cells(pool: PoolStats, entry: PriorityStats) -> tuple[str, ...]:
    return (
        text(entry.name) if entry.name else "everybody else",
        text(pool.name),
        f"{entry.weight:g}",
        number(entry.waiting),
        duration(entry.oldest_wait) if entry.waiting else soft("-"),
    )


def holders(found: Iterable[Holders]) -> str:
    """Who holds sessions, longest first."""
    shown = [(held, holder) for held in found for holder in held.holders[:SHOWN]]
    notes = [
        f"{len(held.holders[:SHOWN])} of {held.busy} that hold a session of {text(held.pool)} are shown: "
        f'<a href="/api/v1/pools/{quote(held.pool)}/holders">the others</a>.'
        for held in found
        if held.busy > len(held.holders[:SHOWN])
    ]
    rows = (_holder_cells(held, holder) for held, holder in shown)
    return table("holders", "Who holds a session", _HOLDER_COLUMNS, rows, "".join(map(_note, notes)))


def _holder_cells(held: Holders, holder: HolderStats) -> tuple[str, ...]:
    where = f"{holder.session_user}@{holder.database}"
    pinned = f" <small>keeps {text(holder.pinned.replace('_', ' '))}</small>" if holder.pinned else ""
    return (
        text(holder.application_name) if holder.application_name else soft("no name"),
        duration(holder.held),
        text(holder.state.replace("_", " ")) + pinned,
        text_or_dash(holder.user),
        text_or_dash(holder.peer),
        str(holder.client) if holder.client else soft("-"),
        str(holder.session),
        f"{text(held.pool)} <small>{text(where)} on {text(holder.endpoint)}</small>",
    )


def _note(words: str) -> str:
    return f'<p class="note">{words}</p>'

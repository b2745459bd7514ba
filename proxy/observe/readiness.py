"""Says in words what keeps the daemon, or one pool, from being ready or from having room.

The words are the same for the probe, the API and the page. It must never pass on text that could
break a line: what a server said is shown on one line, cut to a readable length.
"""

from typing import Final

from proxy.observe.snapshot import DaemonStats
from proxy.pool.figures import PoolStats

_LONGEST: Final = 256


def one_line(text: str) -> str:
    """Escape whatever is not printable and cut ``text`` to 256 characters."""
    if not text.isprintable():
        text = text[:_LONGEST].encode("unicode_escape").decode("ascii")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def unready(stats: DaemonStats) -> list[str]:
    """List one sentence for each thing that is not ready; an empty list means ready."""
    reasons: list[str] = []
    if stats.draining:
        reasons.append("draining")
    if not stats.bound:
        reasons.append("not every listener is bound")
    reasons += [f"pool {one_line(pool.name)}: {why_down(pool)}" for pool in stats.pools if not pool.ready]
    return reasons


def unfilled(stats: DaemonStats) -> list[str]:
    """List one sentence for each pool that must be filled before clients are accepted, and is not."""
    return [
        f"pool {one_line(pool.name)}: {pool.opened} of {pool.min} sessions are open, and prefill is eager"
        for pool in stats.pools
        if pool.name in stats.filling
    ]


def why_down(pool: PoolStats) -> str:
    """Say why a pool is not ready."""
    if pool.last_error:
        return f"latest open failed: {one_line(pool.last_error)}"
    return "no session has been opened yet"


def is_full(pool: PoolStats) -> bool:
    """Whether every slot is taken and none of the sessions is idle: who asks now has to wait."""
    return pool.idle == 0 and pool.opened + pool.opening + pool.closing >= pool.max

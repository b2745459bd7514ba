"""The bounds of one pool, frozen. Every time is a float in seconds; ``OFF`` means never."""

from dataclasses import dataclass, field
from typing import Final

OFF: Final = float("inf")

# Get modes, as Oracle's SessionPool has them (oracledb.POOL_GETMODE_*). Plain integers: the ledger
# compares them on the path of every query.
WAIT: Final = 0
NOWAIT: Final = 1
TIMEDWAIT: Final = 2
FORCEGET: Final = 3
GETMODES: Final = ("wait", "nowait", "timedwait", "forceget")

LIFO: Final = 0
LRU: Final = 1
REUSES: Final = ("lifo", "lru")


@dataclass(frozen=True)
class Limits:
    """What one pool may do. ``max`` bounds all but forceget, which goes up to ``max_forced`` above it."""

    min: int = 0
    max: int = 10
    increment: int = 1
    getmode: int = TIMEDWAIT
    max_forced: int = 0
    wait_timeout: float = 30.0
    max_waiting: int | None = None
    ping_interval: float = 60.0  # 0.0 pings at every acquire, OFF never
    ping_timeout: float = 5.0
    idle_timeout: float = 600.0
    max_lifetime: float = 3600.0
    reuse: int = LIFO
    max_opening: int = 4  # logins in parallel
    connect_timeout: float = 15.0  # one open: connect, TLS and login together
    reset_timeout: float = 5.0
    close_timeout: float = 30.0
    idle_transaction_timeout: float = OFF
    client_may_set: frozenset[str] = field(
        default_factory=lambda: frozenset({"nowait", "timedwait", "wait_timeout"})
    )

    @property
    def ceiling(self) -> int:
        """The hard bound: not even forceget opens more sessions than this."""
        return self.max + self.max_forced

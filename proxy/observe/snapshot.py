"""What observers are shown: frozen pictures of the daemon, made anew for each scrape or page."""

from dataclasses import dataclass

from proxy.pool.stats import PoolStats

CLIENT_STATES = ("login", "idle", "waiting", "active")


@dataclass(frozen=True)
class ListenerStats:
    """One listener at one moment. ``clients`` counts by state, ``refusals`` by reason."""

    name: str
    protocol: str
    address: str
    max_clients: int
    clients: dict[str, int]
    refusals: dict[str, int]


@dataclass(frozen=True)
class DaemonStats:
    """The whole daemon at one moment."""

    version: str
    compiled: bool
    uptime: float  # seconds
    draining: bool
    bound: bool  # every listener accepts
    loop_lag: float  # seconds: the latest measured delay of the event loop
    listeners: tuple[ListenerStats, ...]
    pools: tuple[PoolStats, ...]

    @property
    def ready(self) -> bool:
        """Listeners bound, not draining, and the latest open of every pool succeeded."""
        return self.bound and not self.draining and all(pool.ready for pool in self.pools)

"""What observers are shown: frozen pictures of the daemon, made anew for each scrape or page."""

from dataclasses import dataclass

from proxy.pool.figures import PoolStats

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


# How a client may hold a session: something runs; it is its turn to speak, within a transaction or not;
# it is being given the client's settings; the client is still logging in.


@dataclass(frozen=True)
class HolderStats:
    """One busy session and the client that holds it. What the client says of itself may be anything.

    ``client`` is its number in the log, 0 while it logs in; then ``peer`` and ``user`` are not known.
    """

    session: int
    endpoint: str
    database: str
    session_user: str
    cclass: str
    client: int
    peer: str
    user: str
    application_name: str
    state: str
    held: float  # seconds


@dataclass(frozen=True)
class Holders:
    """Who holds the sessions of one pool: those that hold longest, in that order, of ``busy`` altogether."""

    pool: str
    busy: int
    holders: tuple[HolderStats, ...]


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
    filling: tuple[str, ...] = ()  # pools that must be full before clients are accepted

    @property
    def ready(self) -> bool:
        """Listeners bound, not draining, and the latest open of every pool succeeded."""
        return self.bound and not self.draining and all(pool.ready for pool in self.pools)

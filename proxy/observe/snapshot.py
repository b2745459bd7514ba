"""What observers are shown: frozen pictures of the daemon, made anew for each scrape or page."""

from dataclasses import dataclass, field

from proxy.pool.figures import PoolStats, QueryStats

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
    tls_failures: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CertificateStats:
    """The certificates of one listener or pool (``kind``).

    ``ends`` is when the first of them expires, in seconds since 1970, infinity where there is none; how often
    their files were read again, and it went well or not.
    """

    kind: str
    name: str
    ends: float = float("inf")
    loaded: int = 0
    failed: int = 0


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
    pinned: str = ""  # why the client keeps it beyond a unit of work


@dataclass(frozen=True)
class Holders:
    """Who holds the sessions of one pool: those that hold longest, in that order, of ``busy`` altogether."""

    pool: str
    busy: int
    holders: tuple[HolderStats, ...]


@dataclass(frozen=True)
class PoolQueries:
    """What the clients of one pool asked, by fingerprint; those first that took most time altogether.

    ``forgotten`` kinds were asked too long ago to be there.
    """

    pool: str
    forgotten: int
    queries: tuple[QueryStats, ...]


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
    certificates: tuple[CertificateStats, ...] = ()
    filling: tuple[str, ...] = ()  # pools that must be full before clients are accepted

    @property
    def ready(self) -> bool:
        """Listeners bound, not draining, and the latest open of every pool succeeded."""
        return self.bound and not self.draining and all(pool.ready for pool in self.pools)

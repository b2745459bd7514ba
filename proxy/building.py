"""Turns the settings into the parts that run: pools, listeners, and what stands between them.

The only room besides the daemon that has seen the whole configuration. Builds; starts nothing.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from proxy.building_auth import Residents, lookups_of, own_account, residents_of, ways_of
from proxy.building_tcp import tcp_front, tcp_pool
from proxy.codec import SessionCodec
from proxy.freedoms import terms
from proxy.lookups import Lookups
from proxy.pool.limits import OFF
from proxy.pool.pool import Pool
from proxy.pool.session import Session
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.effects import KINDS
from proxy.postgres.fanout import Fanouts
from proxy.postgres.front import Front
from proxy.postgres.profile import TRACKED
from proxy.postgres.served import Served
from proxy.postgres.state_rules import StateRules
from proxy.postgres.statements import Statements
from proxy.postgres.upkeep import Upkeep, resets
from proxy.postgres.ways import Ways
from proxy.reception import Reception
from proxy.relay.certificates import Kept
from proxy.relay.endpoint import Endpoint
from proxy.relay.house import Commons, House
from proxy.relay.hub import Hubs
from proxy.relay.listener import Listener
from proxy.relay.opener import SocketOpener
from proxy.relay.sockets import KeepAlive
from proxy.relay.stopwatch import Timeouts
from proxy.roles import ANY
from proxy.servers import aim, endpoints_of, logins_of, routes_of, versions_of, wire_of
from proxy.settings import Settings
from proxy.settings.listener_tls import files_of
from proxy.settings.listeners import ListenerSettings
from proxy.settings.pool_targets import has_roles, target_of
from proxy.settings.pools import PoolSettings
from proxy.settings.sockets import SocketSettings

# Kept for probes, metrics and sessions when clients have taken all other descriptors.
RESERVE = 32


@dataclass
class Parts:
    """Everything that runs."""

    commons: Commons
    pools: dict[str, Pool]
    listeners: dict[str, Listener]
    served: dict[str, Served]
    directory: Residents
    lookups: dict[str, Lookups]
    hubs: dict[str, Hubs]
    endpoints: dict[str, list[Endpoint]]  # by pool


def build(settings: Settings, descriptor_limit: int) -> Parts:
    """Make all parts. Raises OSError when a certificate cannot be loaded."""
    residents = residents_of(settings)
    served = {
        name: _serve(name, pool, residents.accounts)
        for name, pool in settings.pools.items()
        if pool.protocol == "postgres"
    }
    lookups = {name: lookups_of(name, settings.pools[name], one) for name, one in served.items()}
    endpoints = {name: endpoints_of(name, pool, _keepalive(pool)) for name, pool in settings.pools.items()}
    pools = {
        name: _pool(name, pool, endpoints[name], served.get(name), lookups.get(name))
        for name, pool in settings.pools.items()
    }
    hubs = {name: _share_listening(pools[name], one, settings.pools[name]) for name, one in served.items()}
    commons = Commons(descriptor_limit, RESERVE)
    commons.timeouts = timeouts_of(settings)
    listeners = {
        name: listener_of(
            name, listener, commons, residents.at(name), ways_of(listener, settings), served, pools
        )
        for name, listener in settings.listeners.items()
    }
    return Parts(commons, pools, listeners, served, residents, lookups, hubs, endpoints)


def _share_listening(pool: Pool, served: Served, settings: PoolSettings) -> Hubs:
    """The sessions that listen for all clients of a pool; there is none before somebody does."""
    hubs = Hubs(pool)
    served.fanouts = Fanouts(served.profiles, settings.listen_backlog, settings.listen_lost == "keep")
    served.fanouts.make = hubs.make
    pool.counters.listens = served.fanouts.tally
    return hubs


def timeouts_of(settings: Settings) -> dict[str, Timeouts]:
    """What users may take their time for, where that is not as their pool has it."""
    return {
        name: own
        for name, user in settings.users.items()
        if (
            own := Timeouts(
                user.query_timeout,
                user.transaction_timeout,
                user.idle_transaction_timeout,
                user.client_idle_timeout,
            )
        )
        != Timeouts()
    }


def _serve(name: str, pool: PoolSettings, accounts: dict[str, Account]) -> Served:
    dsn = pool.dsn
    made = Served(
        name,
        _mode(pool),
        terms(name, pool, pool.limits),
        own_account(pool),
        "" if name == "*" else dsn.database,
        "disable" if dsn.path is not None else dsn.sslmode,
        dsn.parameters,
        accounts,
    )
    made.asks_role = has_roles(pool) or target_of(pool) != ANY
    made.replica_name = pool.replica_database or ""
    made.replicates = pool.replication == "allow"
    made.statements = Statements(pool.stmt_cache, pool.stmt_memory, pool.stmt_client_memory)
    made.upkeep, made.marks = _upkeep(pool), _marks(pool)
    made.homogeneous, made.priority_of = pool.homogeneous, pool.priority_of
    if _mode(pool) != "session":
        made.terms.rules = rules = state_rules(pool)
        made.profiles.tracked = TRACKED if rules.tracks_all else TRACKED & rules.tracked
    return made


def state_rules(pool: PoolSettings) -> StateRules:
    """What becomes of state that a session would carry from one client to the next."""
    return StateRules(
        {kind: getattr(pool, f"on_{kind}") for kind in KINDS},
        frozenset(pool.track_parameters),
        pool.pin_dry_run,
        _mode(pool) == "statement",
    )


def _mode(pool: PoolSettings) -> str:
    """When clients give their session back. One that is tied to its session keeps it to its end."""
    return "session" if pool.affinity == "client" else pool.pool_mode


def _upkeep(pool: PoolSettings) -> Upkeep:
    return Upkeep(pool.session_init or "", pool.ping_command, pool.reset, pool.tag_fixup, pool.role or "")


def _marks(pool: PoolSettings) -> dict[str, str]:
    """What sessions are told at their login, so that no RESET takes it from them."""
    marks = {name if "." in name else f"label.{name}": text for name, text in pool.labels.items()}
    return {**marks, "role": pool.role} if pool.role else marks


def _pool(
    name: str,
    pool: PoolSettings,
    endpoints: list[Endpoint],
    served: Served | None,
    lookups: Lookups | None,
) -> Pool:
    if served is None or lookups is None:
        made = tcp_pool(name, pool, endpoints)
    else:
        made = _postgres_pool(name, pool, endpoints, served, lookups)
    # Each daemon begins elsewhere: a hundred that need one session each do not all open it on one server.
    made.ledger.endpoints.first = random.randrange(len(pool.endpoints))
    return made


def _postgres_pool(
    name: str, pool: PoolSettings, endpoints: list[Endpoint], served: Served, lookups: Lookups
) -> Pool:
    dsn = pool.dsn

    def begin(session: Session) -> SessionCodec:
        key = session.key
        if lookups.owns(session):
            return lookups.begin(session)
        return served.begin(key.database, key.user, session.endpoint.number, key.private)

    opener = SocketOpener(endpoints, begin)
    made = Pool(
        name,
        pool.limits,
        opener,
        (dsn.database or "postgres", dsn.user),
        pool.pool_mode,
        endpoints=tuple(pool.endpoints),
        routes=routes_of(name, pool),
        cclass=pool.cclass,
        target=target_of(pool),
    )
    aim(made, pool)
    made.resets = resets(pool.reset, _mode(pool))
    made.class_names = ("", *pool.priority_of.names)
    opener.pool = made
    served.pool = made
    if served.terms.rules is not None:
        made.counters.pins, made.counters.pinned = served.terms.rules.counts, served.terms.rules.held
    served.wire = wire_of(dsn)
    served.logins, served.versions = logins_of(pool), versions_of(pool)
    return made


def _keepalive(socket: SocketSettings) -> KeepAlive:
    return KeepAlive(
        enabled=socket.tcp_keepalive,
        idle=socket.tcp_keepalive_idle,
        interval=socket.tcp_keepalive_interval,
        count=socket.tcp_keepalive_count,
        user_timeout=0.0 if socket.tcp_user_timeout == OFF else socket.tcp_user_timeout,
    )


def _finder(listener: ListenerSettings, served: dict[str, Served]) -> Callable[[str, str], Served | None]:
    other = served.get(listener.pool) if listener.pool is not None else served.get("*")

    replicas = {one.replica_name: one for one in served.values() if one.replica_name}

    def find(_user: str, database: str) -> Served | None:
        if not database:
            # Physical replication names none: the only pool that takes it will do.
            takers = [one for one in served.values() if one.replicates]
            return takers[0] if len(takers) == 1 else None
        if database == "*":
            return other
        return served.get(database) or replicas.get(database, other)

    return find


def listener_of(
    name: str,
    settings: ListenerSettings,
    commons: Commons,
    directory: Directory,
    ways: Ways,
    served: dict[str, Served],
    pools: dict[str, Pool],
) -> Listener:
    """One listener, not started. Raises OSError when a certificate cannot be loaded."""
    address = settings.address
    files = files_of(settings)
    kept = Kept("listener", name, files) if files is not None else None
    mode = "require" if settings.tls_mode == "verify-ca" else settings.tls_mode
    house = House(
        name,
        commons,
        settings.max_clients,
        address.path is not None,
        _keepalive(settings),
        kept.context if kept is not None else None,
        settings.proxy_protocol == "require",
    )
    front: Reception
    if settings.protocol == "tcp":
        front = tcp_front(settings, pools)
    else:
        cap, find = settings.max_message_bytes, _finder(settings, served)
        front = Front(settings.auth, mode, directory, find, cap, ways)
    return Listener(
        house,
        front,
        address.host or "",
        address.port,
        address.path or "",
        settings.unix_socket_mode,
        settings.login_timeout,
        kept,
    )

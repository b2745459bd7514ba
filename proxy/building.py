"""Turns the settings into the parts that run: pools, listeners, and what stands between them.

The only room besides the daemon that has seen the whole configuration. Builds; starts nothing.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from proxy.building_tcp import tcp_front, tcp_pool
from proxy.codec import Reception, SessionCodec
from proxy.freedoms import terms
from proxy.pool.limits import OFF
from proxy.pool.pool import Pool
from proxy.pool.session import Session
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.certificate import endpoint_hash
from proxy.postgres.front import Front, Served
from proxy.postgres.upkeep import Upkeep, resets
from proxy.postgres.verifier import Verifier
from proxy.relay import tls
from proxy.relay.endpoint import Endpoint
from proxy.relay.house import Commons, House
from proxy.relay.listener import Listener
from proxy.relay.opener import SocketOpener
from proxy.relay.sockets import KeepAlive
from proxy.servers import endpoints_of, logins_of, routes_of
from proxy.settings import Settings
from proxy.settings.listeners import ListenerSettings
from proxy.settings.pools import PoolSettings
from proxy.settings.sockets import SocketSettings
from proxy.settings.users import UserSettings

# Kept for probes, metrics and sessions when clients have taken all other descriptors.
RESERVE = 32


@dataclass
class Parts:
    """Everything that runs."""

    commons: Commons
    pools: dict[str, Pool]
    listeners: dict[str, Listener]
    served: dict[str, Served]
    directory: Directory


def build(settings: Settings, descriptor_limit: int) -> Parts:
    """Make all parts. Raises OSError when a certificate cannot be loaded."""
    accounts = accounts_of(settings)
    served = {
        name: _serve(name, pool, accounts)
        for name, pool in settings.pools.items()
        if pool.protocol == "postgres"
    }
    pools = {name: _pool(name, pool, served.get(name)) for name, pool in settings.pools.items()}
    directory = directory_of(settings, accounts)
    commons = Commons(descriptor_limit, RESERVE)
    listeners = {
        name: listener_of(name, listener, commons, directory, served, pools)
        for name, listener in settings.listeners.items()
    }
    return Parts(commons, pools, listeners, served, directory)


def accounts_of(settings: Settings) -> dict[str, Account]:
    """The users that are listed."""
    return {name: _account(name, user) for name, user in settings.users.items()}


def directory_of(
    settings: Settings, accounts: dict[str, Account], previous: Directory | None = None
) -> Directory:
    """Who may log in: those listed, and the pools' own users; ``previous`` is what it replaces."""
    return Directory(_everybody(settings, accounts).values(), previous)


def _account(name: str, user: UserSettings) -> Account:
    secret = user.secret.get_secret_value() if user.secret is not None else None
    text = user.verifier.get_secret_value() if user.verifier is not None else None
    return Account(
        name,
        password=secret,
        verifier=Verifier.parse(text) if text is not None and not user.md5 else None,
        md5=text if user.md5 else None,
        pools=frozenset(user.pools) if user.pools is not None else None,
        run_as=user.run_as or None,
        admin=user.admin,
    )


def own_account(pool: PoolSettings) -> Account:
    """Whom the sessions of a pool log in as, unless their client is listed."""
    dsn = pool.dsn
    return Account(dsn.user, password=dsn.password.get_secret_value() if dsn.password is not None else None)


def _everybody(settings: Settings, accounts: dict[str, Account]) -> dict[str, Account]:
    """Who may log in to us: the users listed, and the pools' own users each to the pools that are its own."""
    everybody = dict(accounts)
    for name, pool in settings.pools.items():
        user = pool.dsn.user
        if user in accounts or pool.protocol != "postgres":
            continue
        known = everybody.get(user)
        own = frozenset({name}) | (known.pools or frozenset() if known is not None else frozenset())
        password = pool.dsn.password.get_secret_value() if pool.dsn.password is not None else None
        if password is None and known is not None:
            password = known.password
        everybody[user] = Account(user, password=password, pools=own)
    return everybody


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
    made.upkeep, made.marks = _upkeep(pool), _marks(pool)
    made.homogeneous, made.priority_of = pool.homogeneous, pool.priority_of
    return made


def _mode(pool: PoolSettings) -> str:
    """When clients give their session back. One that is tied to its session keeps it to its end."""
    return "session" if pool.affinity == "client" else pool.pool_mode


def _upkeep(pool: PoolSettings) -> Upkeep:
    return Upkeep(pool.session_init or "", pool.ping_command, pool.reset, pool.tag_fixup, pool.role or "")


def _marks(pool: PoolSettings) -> dict[str, str]:
    """What sessions are told at their login, so that no RESET takes it from them."""
    marks = {name if "." in name else f"label.{name}": text for name, text in pool.labels.items()}
    return {**marks, "role": pool.role} if pool.role else marks


def _pool(name: str, pool: PoolSettings, served: Served | None) -> Pool:
    endpoints = endpoints_of(pool, _keepalive(pool))
    if served is None:
        made = tcp_pool(name, pool, endpoints)
    else:
        made = _postgres_pool(name, pool, endpoints, served)
    # Each daemon begins elsewhere: a hundred that need one session each do not all open it on one server.
    made.ledger.endpoints.first = random.randrange(len(pool.endpoints))
    return made


def _postgres_pool(name: str, pool: PoolSettings, endpoints: list[Endpoint], served: Served) -> Pool:
    dsn = pool.dsn

    def begin(session: Session) -> SessionCodec:
        return served.begin(session.key.database, session.key.user, session.endpoint.number)

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
    )
    made.resets = resets(pool.reset, _mode(pool))
    made.class_names = ("", *pool.priority_of.names)
    opener.pool = made
    served.pool = made
    served.logins = logins_of(pool)
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

    def find(_user: str, database: str) -> Served | None:
        return served.get(database, other) if database != "*" else other

    return find


def listener_of(
    name: str,
    settings: ListenerSettings,
    commons: Commons,
    directory: Directory,
    served: dict[str, Served],
    pools: dict[str, Pool],
) -> Listener:
    """One listener, not started. Raises OSError when a certificate cannot be loaded."""
    address = settings.address
    context, binding = None, None
    if settings.tls_mode != "disable" and address.path is None:
        cert, key = settings.tls_cert_file or "", settings.tls_key_file or ""
        context = tls.for_clients(cert, key, settings.tls_ca_file, settings.tls_mode == "verify-ca")
        binding = endpoint_hash(tls.certificate_of(cert))
    mode = "require" if settings.tls_mode == "verify-ca" else settings.tls_mode
    house = House(
        name,
        commons,
        settings.max_clients,
        address.path is not None,
        _keepalive(settings),
        context,
        settings.proxy_protocol == "require",
    )
    front: Reception
    if settings.protocol == "tcp":
        front = tcp_front(settings, pools)
    else:
        cap, find = settings.max_message_bytes, _finder(settings, served)
        front = Front(settings.auth, mode, binding, directory, find, cap)
    return Listener(
        house,
        front,
        address.host or "",
        address.port,
        address.path or "",
        settings.unix_socket_mode,
        settings.login_timeout,
    )

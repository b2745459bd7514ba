"""Turns the settings into the parts that run: pools, listeners, and what stands between them.

The only room besides the daemon that has seen the whole configuration. Builds; starts nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from proxy.pool.limits import GETMODES, OFF, Limits
from proxy.pool.pool import Pool
from proxy.pool.session import Key
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.certificate import endpoint_hash
from proxy.postgres.front import Front, Served
from proxy.postgres.state import Terms
from proxy.postgres.verifier import Verifier
from proxy.relay import tls
from proxy.relay.backend import SocketOpener
from proxy.relay.endpoint import Endpoint
from proxy.relay.house import Commons, House
from proxy.relay.listener import Listener
from proxy.relay.sockets import KeepAlive
from proxy.settings import Settings
from proxy.settings.durations import format_duration, parse_duration
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


def build(settings: Settings, descriptor_limit: int) -> Parts:
    """Make all parts. Raises OSError when a certificate cannot be loaded."""
    accounts = {name: _account(name, user) for name, user in settings.users.items()}
    served = {name: _serve(name, pool, accounts) for name, pool in settings.pools.items()}
    pools = {name: _pool(name, settings.pools[name], served[name]) for name in served}
    directory = Directory(_everybody(settings, accounts).values())
    commons = Commons(descriptor_limit, RESERVE)
    listeners = {
        name: _listener(name, listener, commons, directory, served)
        for name, listener in settings.listeners.items()
    }
    return Parts(commons, pools, listeners)


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


def _own_account(pool: PoolSettings) -> Account:
    dsn = pool.dsn
    return Account(dsn.user, password=dsn.password.get_secret_value() if dsn.password is not None else None)


def _everybody(settings: Settings, accounts: dict[str, Account]) -> dict[str, Account]:
    """Who may log in to us: the users listed, and the pools' own users each to the pools that are its own."""
    everybody = dict(accounts)
    for name, pool in settings.pools.items():
        user = pool.dsn.user
        if user in accounts:
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
    return Served(
        name,
        pool.pool_mode,
        terms(name, pool.limits),
        _own_account(pool),
        "" if name == "*" else dsn.database,
        "disable" if dsn.path is not None else dsn.sslmode,
        dsn.parameters,
        accounts,
    )


def terms(name: str, limits: Limits) -> Terms:
    """What the clients of a pool may choose."""
    allowed = limits.client_may_set

    def check_getmode(text: str) -> str:
        word = text.strip().lower()
        if word not in GETMODES:
            raise ValueError(f"penstock.getmode is one of {', '.join(GETMODES)}")
        if word not in allowed and word != GETMODES[limits.getmode]:
            raise ValueError(f'clients of pool "{name}" may not choose getmode {word}')
        return word

    def check_wait_timeout(text: str) -> float:
        seconds = parse_duration(text)
        if "wait_timeout" not in allowed:
            raise ValueError(f'clients of pool "{name}" may not choose their wait_timeout')
        if seconds > limits.wait_timeout:
            most = format_duration(limits.wait_timeout)
            raise ValueError(f'clients of pool "{name}" may choose a wait_timeout up to {most}')
        return seconds

    return Terms(
        name,
        GETMODES[limits.getmode],
        format_duration(limits.wait_timeout),
        check_getmode,
        check_wait_timeout,
    )


def _pool(name: str, pool: PoolSettings, served: Served) -> Pool:
    dsn = pool.dsn
    context = tls.for_server(
        "disable" if dsn.path is not None else dsn.sslmode, dsn.sslrootcert, dsn.sslcert, dsn.sslkey
    )
    endpoint = Endpoint(dsn.host or "", dsn.port, dsn.path or "", context, _keepalive(pool))

    def begin(key: Key):  # type: ignore[no-untyped-def]
        return served.begin(key.database, key.user)

    opener = SocketOpener(endpoint, begin)
    made = Pool(name, pool.limits, opener, (dsn.database or "postgres", dsn.user), pool.pool_mode)
    opener.pool = made
    served.pool = made
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


def _listener(
    name: str, settings: ListenerSettings, commons: Commons, directory: Directory, served: dict[str, Served]
) -> Listener:
    address = settings.address
    context, binding = None, None
    if settings.tls_mode != "disable" and address.path is None:
        cert, key = settings.tls_cert_file or "", settings.tls_key_file or ""
        context = tls.for_clients(cert, key, settings.tls_ca_file, settings.tls_mode == "verify-ca")
        binding = endpoint_hash(tls.certificate_of(cert))
    mode = "require" if settings.tls_mode == "verify-ca" else settings.tls_mode
    house = House(
        name, commons, settings.max_clients, address.path is not None, _keepalive(settings), context
    )
    front = Front(
        settings.auth, mode, binding, directory, _finder(settings, served), settings.max_message_bytes
    )
    return Listener(
        house,
        front,
        address.host or "",
        address.port,
        address.path or "",
        settings.unix_socket_mode,
        settings.login_timeout,
    )

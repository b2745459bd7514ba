"""The servers of one pool, from its settings: where they are, how one logs in there, what leads where.

Builds; connects to nothing.
"""

from proxy.pool.pool import Pool
from proxy.pool.routes import Routes, Span
from proxy.postgres.accounts import Account
from proxy.postgres.served import Login
from proxy.postgres.session_login import Wire
from proxy.postgres.versions import Versions
from proxy.relay.certificates import Kept
from proxy.relay.endpoint import Endpoint
from proxy.relay.names import Names, is_name
from proxy.relay.sockets import KeepAlive
from proxy.relay.tls import ServerFiles
from proxy.settings.dsn import BackendAddress
from proxy.settings.dsn_parameters import PROTOCOL_VERSIONS
from proxy.settings.pool_targets import is_in_order
from proxy.settings.pools import PoolSettings


def endpoints_of(name: str, pool: PoolSettings, keepalive: KeepAlive) -> list[Endpoint]:
    """Where the pool's servers are, in their order. Raises OSError when a certificate cannot be loaded."""
    loaded: dict[ServerFiles, Kept] = {}
    made = [_endpoint(name, address, keepalive, loaded) for address in pool.endpoints.values()]
    for endpoint in made:
        if is_name(endpoint.host):
            shuffled = not is_in_order(pool)
            endpoint.names = Names(endpoint.host, endpoint.port, pool.dns_ttl, shuffled=shuffled)
    return made


def aim(made: Pool, pool: PoolSettings) -> None:
    """Have sessions opened on the servers that the settings want, of those that suit."""
    endpoints = made.ledger.endpoints
    endpoints.in_order, endpoints.falls_back = is_in_order(pool), pool.target_fallback == "primary"


def _endpoint(
    pool: str, address: BackendAddress, keepalive: KeepAlive, loaded: dict[ServerFiles, Kept]
) -> Endpoint:
    made = Endpoint(address.host or "", address.port, address.path or "", None, keepalive)
    made.sni = address.tls.sslsni == "1"
    if address.tls.sslnegotiation == "direct":
        made.tls_hint = "sslnegotiation=direct needs PostgreSQL 17 or newer, with TLS turned on"
    files = _files_of(address)
    if files is not None:
        if files not in loaded:
            loaded[files] = Kept("pool", pool, files)
        made.kept = loaded[files]
        made.tls = made.kept.context
    return made


def _files_of(address: BackendAddress) -> ServerFiles | None:
    """What TLS towards this server is made of; None where it is never asked for."""
    if sslmode_of(address) == "disable":
        return None
    return ServerFiles(
        address.sslmode,
        address.sslrootcert,
        address.sslcert,
        address.sslkey,
        address.tls.sslcrl,
        address.tls.min_version,
        address.protocol == "postgres",
    )


def wire_of(address: BackendAddress) -> Wire:
    """How connections to this server are secured, beyond the sslmode."""
    return Wire(address.tls.sslnegotiation == "direct", address.tls.channel_binding)


def sslmode_of(address: BackendAddress) -> str:
    """The sslmode; over a Unix socket there is no TLS."""
    return "disable" if address.path is not None else address.sslmode


def logins_of(pool: PoolSettings) -> dict[int, Login]:
    """How one logs in at each endpoint but the first, whose login is the pool's own."""
    own = pool.dsn
    logins: dict[int, Login] = {}
    for number, address in enumerate(pool.endpoints.values()):
        if number:
            same = (address.user, address.password) == (own.user, own.password)
            account = None if same else account_of(address)
            logins[number] = Login(account, address.database, sslmode_of(address), address.parameters)
            logins[number].wire = wire_of(address)
    return logins


def versions_of(pool: PoolSettings) -> dict[int, Versions]:
    """Which protocol version each endpoint is asked for."""
    return {
        number: Versions(
            PROTOCOL_VERSIONS[address.max_protocol_version], PROTOCOL_VERSIONS[address.min_protocol_version]
        )
        for number, address in enumerate(pool.endpoints.values())
    }


def account_of(address: BackendAddress) -> Account:
    """Whom the sessions at this address log in as, unless their client is listed."""
    password = address.password
    return Account(address.user, password=password.get_secret_value() if password is not None else None)


def routes_of(name: str, pool: PoolSettings) -> Routes | None:
    """Which endpoint a shard key leads to; None: every endpoint serves everybody."""
    route = pool.route
    if route is None:
        return None
    numbers = {endpoint: number for number, endpoint in enumerate(route.endpoints)}
    return Routes(
        name,
        lists={key: numbers[endpoint] for endpoint, keys in route.keys for key in keys},
        spans=tuple(Span(first, end, numbers[endpoint]) for endpoint, first, end in route.ranges),
        hashed=tuple(numbers.values()) if route.rule == "hash" else (),
        default=numbers[route.default] if route.default else None,
        demands_key=route.default is None,
    )

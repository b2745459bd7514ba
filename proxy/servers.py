"""The servers of one pool, from its settings: where they are, how one logs in there, what leads where.

Builds; connects to nothing.
"""

from proxy.pool.routes import Routes, Span
from proxy.postgres.accounts import Account
from proxy.postgres.front import Login
from proxy.relay import tls
from proxy.relay.endpoint import Endpoint
from proxy.relay.sockets import KeepAlive
from proxy.settings.dsn import BackendAddress
from proxy.settings.pools import PoolSettings


def endpoints_of(pool: PoolSettings, keepalive: KeepAlive) -> list[Endpoint]:
    """Where the pool's servers are, in their order. Raises OSError when a certificate cannot be loaded."""
    return [_endpoint(address, keepalive) for address in pool.endpoints.values()]


def _endpoint(address: BackendAddress, keepalive: KeepAlive) -> Endpoint:
    context = tls.for_server(sslmode_of(address), address.sslrootcert, address.sslcert, address.sslkey)
    return Endpoint(address.host or "", address.port, address.path or "", context, keepalive)


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
    return logins


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

"""What only shows when tables are seen together: names that point nowhere, users who could never log in.

Works on whatever tables are valid, so that one broken table does not hide the mistakes between the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from proxy.postgres.userlist import Listed
from proxy.settings.address import Address
from proxy.settings.auth import MapSettings
from proxy.settings.auth_checks import VOUCHED, maps_mistakes, userlist_mistakes, ways_in
from proxy.settings.listeners import ListenerSettings
from proxy.settings.mistakes import Mistake, Path, nearest
from proxy.settings.pool_checks import pool_warnings
from proxy.settings.pool_targets import replica_name_mistakes
from proxy.settings.pools import PoolSettings
from proxy.settings.users import UserSettings


@dataclass(frozen=True)
class Tables:
    """The tables that are valid by themselves, and (table, name) of those that are not."""

    listeners: dict[str, ListenerSettings]
    pools: dict[str, PoolSettings]
    users: dict[str, UserSettings]
    http: Address | None = None
    broken: frozenset[Path] = field(default_factory=frozenset)
    maps: dict[str, MapSettings] = field(default_factory=dict)
    userlist: dict[str, Listed] | None = None  # of the file for all listeners

    def names(self, table: str) -> set[str]:
        """Every name in ``table``, broken or not."""
        return {*getattr(self, table), *(name for where, name in self.broken if where == table)}

    def of_postgres(self) -> "Tables":
        """The same without the listeners and pools of raw TCP, where nobody logs in."""
        listeners = {name: table for name, table in self.listeners.items() if table.protocol == "postgres"}
        pools = {name: table for name, table in self.pools.items() if table.protocol == "postgres"}
        return replace(self, listeners=listeners, pools=pools)

    def auths(self) -> set[str]:
        """The ways to prove oneself, by a secret, that some listener asks for."""
        return self.ways() - VOUCHED

    def ways(self) -> set[str]:
        """The ways in at any listener."""
        return {way for listener in self.listeners.values() for way in ways_in(listener)}

    def knows_others(self) -> bool:
        """Users may be known whom the configuration itself does not list."""
        files = any(listener.auth_file is not None for listener in self.listeners.values())
        asked = any(pool.auth_query is not None for pool in self.pools.values())
        return files or asked or self.userlist is not None


def cross_check(tables: Tables) -> Iterator[Mistake]:
    """Yield every mistake between tables."""
    for check in (_names, _references, _addresses, _protocols):
        yield from check(tables)
    yield from replica_name_mistakes(tables.pools)
    for check in (_databases, _own_users, _listed_users, _strangers, maps_mistakes, userlist_mistakes):
        yield from check(tables.of_postgres())


def warnings(tables: Tables) -> Iterator[Mistake]:
    """Yield what is allowed, but probably not meant."""
    for name, pool in tables.pools.items():
        for path, sentence in pool_warnings(pool):
            yield ("pools", name, *path), sentence
    tables = tables.of_postgres()
    for name, listener in tables.listeners.items():
        overheard = listener.tls_mode in ("disable", "allow") and not listener.address.local
        if overheard and listener.rules is None and listener.auth in ("password", "md5"):
            yield (
                ("listeners", name, "auth"),
                f'"{listener.auth}" without TLS can be overheard on the network: use "scram-sha-256", '
                'or tls_mode = "require"',
            )
    for name, pool in tables.pools.items():
        for user, listed in tables.users.items():
            if pool.homogeneous and listed.pools is None and not listed.run_as and pool.dsn.user != user:
                yield (
                    ("users", user, "run_as"),
                    f'pools.{name} is homogeneous and refuses who would run as itself: set run_as = "pool"',
                )

    yield from _unknown_in_classes(tables)


def _unknown_in_classes(tables: Tables) -> Iterator[Mistake]:
    if "trust" in tables.ways() or tables.knows_others():
        return
    known = tables.names("users") | {pool.dsn.user for pool in tables.pools.values()}
    for name, pool in tables.pools.items():
        for title, entry in pool.priority.items():
            if not known.issuperset(entry.users):
                yield (
                    ("pools", name, "priority", title, "users"),
                    "one of them cannot log in: neither a pool's own user nor listed in users",
                )


def _names(tables: Tables) -> Iterator[Mistake]:
    for table in ("listeners", "pools", "users", "maps"):
        for name in tables.names(table):
            if not name or not name.isprintable() or len(name.encode()) > 63:
                yield (table, name), "a name has 1 to 63 bytes, all of them printable"


def _references(tables: Tables) -> Iterator[Mistake]:
    pools = tables.names("pools")
    pointers: list[tuple[Path, str]] = [
        (("listeners", name, "pool"), listener.pool)
        for name, listener in tables.listeners.items()
        if listener.pool is not None
    ]
    for name, user in tables.users.items():
        pointers += [(("users", name, "pools"), pool) for pool in user.pools or ()]
    for place, pool in pointers:
        if pool not in pools:
            close = nearest(pool, pools)
            hint = (
                f"did you mean {close}?" if close else f"the pools are: {', '.join(sorted(pools)) or 'none'}"
            )
            yield place, f"names a pool that does not exist; {hint}"


def _addresses(tables: Tables) -> Iterator[Mistake]:
    seen: dict[Address, str] = {}
    if tables.http is not None:
        seen[tables.http] = "http"
    for name, listener in tables.listeners.items():
        address = listener.address
        if address.path is None and address.port == 0:
            continue
        if address in seen:
            yield ("listeners", name, "address"), f"is the address of {seen[address]} already"
        seen[address] = f"listeners.{name}"


def _protocols(tables: Tables) -> Iterator[Mistake]:
    """Clients and servers that would not understand each other."""
    pointers: list[tuple[Path, str, str]] = [
        (("listeners", name, "pool"), listener.pool, listener.protocol)
        for name, listener in tables.listeners.items()
        if listener.pool is not None
    ]
    for name, user in tables.users.items():
        pointers += [(("users", name, "pools"), pool, "postgres") for pool in user.pools or ()]
    for place, pool, protocol in pointers:
        table = tables.pools.get(pool)
        if table is not None and table.protocol != protocol:
            yield place, f'leads clients of protocol "{protocol}" to servers of "{table.protocol}"'


def _databases(tables: Tables) -> Iterator[Mistake]:
    for name, pool in tables.pools.items():
        for endpoint, dsn in pool.endpoints.items():
            # A pool "*" opens whatever database its client asked for.
            if not dsn.database and name != "*":
                yield (
                    ("pools", name, *pool.place_of(endpoint)),
                    "the URL names no database; expected for example postgresql://app@db.internal:5432/app",
                )


def _own_users(tables: Tables) -> Iterator[Mistake]:
    if not tables.auths():
        return
    first: dict[str, str] = {}
    for name, pool in tables.pools.items():
        user = pool.dsn.user
        if user in tables.names("users"):
            continue
        other = first.setdefault(user, name)
        if tables.pools[other].dsn.password != pool.dsn.password:
            yield (
                ("pools", name, "backend"),
                f"pools.{other} has another password for the same user {user}, who could log in with one "
                f"of them only: say which in users.{user}.password",
            )
        elif pool.dsn.password is None and not tables.knows_others() and not tables.ways() & VOUCHED:
            yield (
                ("pools", name, "backend"),
                f"the pool's own user {user} has no password, so nobody could log in as {user}: "
                f"set pools.{name}.password_file, or users.{user}.password",
            )


def _listed_users(tables: Tables) -> Iterator[Mistake]:
    auths = tables.auths()
    for name, user in tables.users.items():
        if not auths:
            continue
        if user.secret is None and user.verifier is None:
            if not tables.ways() & VOUCHED:
                yield ("users", name, "password"), "is required: give password, password_file or verifier"
        elif "scram-sha-256" in auths and user.md5:
            yield (
                ("users", name, "verifier"),
                'an md5 verifier cannot answer a listener with auth = "scram-sha-256": give the password '
                "or a "
                "SCRAM-SHA-256 verifier",
            )
        elif "md5" in auths and user.verifier is not None and not user.md5:
            yield (
                ("users", name, "verifier"),
                'a SCRAM-SHA-256 verifier cannot answer a listener with auth = "md5": give the password, '
                "or use "
                'auth = "scram-sha-256"',
            )


def _strangers(tables: Tables) -> Iterator[Mistake]:
    """Users whose pool has sessions of its own user only."""
    for name, user in tables.users.items():
        for pool in user.pools or ():
            table = tables.pools.get(pool)
            if table is not None and table.homogeneous and not user.run_as and table.dsn.user != name:
                yield (
                    ("users", name, "pools"),
                    f'pools.{pool} is homogeneous, so nobody runs as itself there: set run_as = "pool", or '
                    f"pools.{pool}.homogeneous = false",
                )

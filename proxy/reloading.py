"""What differs between two configurations, and which of it a running daemon can take over.

Reads two frozen trees of settings and says it in words that hold no secret. Changes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from proxy.pool.limits import Limits
from proxy.settings import BackendAddress, Settings
from proxy.settings.pools import PoolSettings
from proxy.settings.show import toml
from proxy.settings.sources import dotted

Path = tuple[str, ...]

# Of a pool: what is in its Limits, but for what others have built upon since the start.
FIXED: Final = frozenset({"affinity", "tags", "begin", "prefill"})
LIVE_POOL: Final = frozenset(Limits.__dataclass_fields__) - FIXED - {"weights"} | {"preset"}
# Of a listener: everything but where it listens. It holds for connections to come.
LIVE_LISTENER: Final = frozenset(
    {
        "auth",
        "auth_file",
        "cert_name",
        "clientcert",
        "hba_file",
        "hba_trust",
        "login_timeout",
        "map",
        "max_clients",
        "max_message_bytes",
        "pool",
        "proxy_protocol",
        "tls_mode",
        "tls_cert_file",
        "tls_key_file",
        "tls_ca_file",
        "tls_crl_file",
        "tls_min_version",
        "tls_ciphers",
        "tls_sni",
        "tcp_keepalive",
        "tcp_keepalive_idle",
        "tcp_keepalive_interval",
        "tcp_keepalive_count",
        "tcp_user_timeout",
    }
)
# Of a pool: how users are looked up, as long as it is the same server that is asked.
LIVE_LOOKUP: Final = frozenset(
    {
        "auth_query",
        "auth_user",
        "auth_user_password",
        "auth_user_password_file",
        "auth_database",
        "auth_cache",
    }
)
_NAMED: Final = ("listeners", "pools", "users")
_MISSING: Final = object()


@dataclass(frozen=True)
class Difference:
    """Paths that differ, as sentences: those that can be taken over now, and those that need a restart."""

    live: tuple[str, ...]
    restart: tuple[str, ...]


def compare(running: Settings, latest: Settings, new: Settings) -> Difference:
    """What ``new`` changes.

    ``latest`` is what was taken over last, ``running`` what the daemon was started with: what needs a
    restart is said again and again until there was one.
    """
    now, then, begun = _flat(new), _flat(latest), _flat(running)

    def live(path: Path) -> bool:
        return _is_live(path, running, new)

    return Difference(
        tuple(_sentence(path, then, now) for path in _differing(then, now) if live(path)),
        tuple(_sentence(path, begun, now) for path in _differing(begun, now) if not live(path)),
    )


def compare_pool(name: str, latest: PoolSettings, new: PoolSettings) -> Difference:
    """What differs between two versions of one pool; of the same server, all but its password."""
    then, now = _flat_pool(name, latest), _flat_pool(name, new)
    live: list[str] = []
    restart: list[str] = []
    for path in _differing(then, now):
        (live if _is_policy(path) else restart).append(_sentence(path, then, now))
    return Difference(tuple(live), tuple(restart))


def _is_live(path: Path, running: Settings, new: Settings) -> bool:
    """Whether a running daemon takes over what stands at ``path``."""
    table, name, key = (*path, "", "")[:3]
    if table == "pools":
        if key == "password" or key in LIVE_LOOKUP:
            return same_server(running, new, name)
        return _is_policy(path)
    if table == "listeners":
        return key in LIVE_LISTENER and same_place(running, new, name)
    return table in ("users", "maps", "auth_file", "log", "drain_timeout", "tls_reload_interval")


def _is_policy(path: Path) -> bool:
    is_weight = len(path) == 5 and path[2] == "priority" and path[4] == "weight"
    return path[2] in LIVE_POOL if len(path) == 3 else is_weight


def same_server(running: Settings, new: Settings, pool: str) -> bool:
    """Whether a pool still logs in to the same servers as the same users, perhaps with other passwords."""
    if pool not in running.pools or pool not in new.pools:
        return False
    return _places(running.pools[pool]) == _places(new.pools[pool])


def same_place(running: Settings, new: Settings, listener: str) -> bool:
    """Whether a listener can follow its new settings: it listens where it did, and its pool runs.

    What is right for one address may be unsafe on another: trust, for example.
    """
    if listener not in running.listeners or listener not in new.listeners:
        return False
    before, after = running.listeners[listener], new.listeners[listener]
    if after.pool is not None and after.pool not in running.pools:
        return False
    return (before.protocol, before.address) == (after.protocol, after.address)


def _places(pool: PoolSettings) -> dict[str, BackendAddress]:
    return {name: replace(address, password=None) for name, address in pool.endpoints.items()}


def effective(running: Limits, new: Limits) -> Limits:
    """``new``, with what cannot change while the pool runs as it was at the start."""
    fixed: dict[str, Any] = {name: getattr(running, name) for name in FIXED}
    if len(new.weights) != len(running.weights):
        fixed["weights"] = running.weights
    return replace(new, **fixed)


# -- trees as paths -----------------------------------------------------------------------------


def _flat(settings: Settings) -> dict[Path, Any]:
    flat = dict(_leaves((), settings.model_dump(by_alias=True, exclude={"database_url", *_NAMED})))
    for name, listener in settings.listeners.items():
        flat |= _entry("listeners", name, listener)
    for name, user in settings.users.items():
        flat |= _entry("users", name, user)
        flat["users", name, "password"] = user.secret
        del flat["users", name, "password_file"]
    for name, pool in settings.pools.items():
        flat |= _flat_pool(name, pool)
    return flat


def _flat_pool(name: str, pool: PoolSettings) -> dict[Path, Any]:
    entry = _entry("pools", name, pool)
    flat = {path: value for path, value in entry.items() if path[-1] != "backend"}
    # Without the passwords, which are compared by themselves and never shown.
    flat["pools", name, "backend"] = [address.masked() for address in _places(pool).values()]
    flat["pools", name, "password"] = [address.password for address in pool.endpoints.values()]
    flat["pools", name, "max_forced"] = pool.limits.max_forced
    flat["pools", name, "client_may_set"] = sorted(pool.limits.client_may_set)
    del flat["pools", name, "password_file"]
    return flat


def _entry(table: str, name: str, entry: BaseModel) -> dict[Path, Any]:
    return {(table, name): None, **dict(_leaves((table, name), entry.model_dump(by_alias=True)))}


def _leaves(path: Path, node: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves((*path, key), value)
    else:
        yield path, node


def _differing(then: dict[Path, Any], now: dict[Path, Any]) -> Iterator[Path]:
    gone = {path for path in then.keys() ^ now.keys() if len(path) == 2}
    for path in dict.fromkeys([*then, *now]):
        # Of a table that was added or removed, only that is said.
        if path[:2] in gone and len(path) > 2:
            continue
        if then.get(path, _MISSING) != now.get(path, _MISSING):
            yield path


def _sentence(path: Path, then: dict[Path, Any], now: dict[Path, Any]) -> str:
    name = dotted(path)
    if path not in now:
        return f"{name}: removed"
    if path not in then:
        return f"{name}: added"
    values = then[path], now[path]
    if any(_is_secret(value) for value in values):
        return f"{name}: changed"
    return f"{name}: {_written(values[0])} -> {_written(values[1])}"


def _is_secret(value: Any) -> bool:
    return isinstance(value, SecretStr) or (
        isinstance(value, list) and any(isinstance(item, SecretStr) for item in value)
    )


def _written(value: Any) -> str:
    return "unset" if value is None else toml(value)

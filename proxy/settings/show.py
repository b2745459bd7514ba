"""The effective settings as TOML, each with its origin, and none with its secrets."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, SecretStr

from proxy.settings.dsn import parse_dsn
from proxy.settings.loading import Loaded
from proxy.settings.mistakes import Path
from proxy.settings.pools import PoolSettings
from proxy.settings.sources import dotted

_MASK = "********"


def show(loaded: Loaded) -> str:
    """Return the settings as TOML text. A value that is not the default says where it was given."""
    settings = loaded.settings
    blocks = ["\n".join(_lines(loaded, settings, ()))]
    for table in ("listeners", "pools", "users"):
        for name, entry in getattr(settings, table).items():
            blocks.append(_block(loaded, entry, (table, name)))
    blocks.append(_block(loaded, settings.http, ("http",)))
    blocks.append(_block(loaded, settings.log, ("log",)))
    return "\n\n".join(block for block in blocks if block) + "\n"


def summary(loaded: Loaded) -> str:
    """Return a few lines for people: where it listens, and what stands behind."""
    settings = loaded.settings
    lines = [f"file: {loaded.file or 'none'}"]
    for name, listener in settings.listeners.items():
        tls = "" if listener.tls_mode == "disable" else f", tls {listener.tls_mode}"
        lines.append(
            f"listener {name}: {listener.address}, {listener.auth}, {listener.max_clients} clients at "
            f"most{tls}"
        )
    for name, pool in settings.pools.items():
        dsn, limits = pool.dsn, pool.limits
        forced = f" + {limits.max_forced} forced" if limits.max_forced else ""
        lines.append(
            f"pool {name}: {dsn.user}@{dsn.place}/{dsn.database}, {pool.pool_mode}, "
            f"{limits.min} to {limits.max}{forced} sessions, {pool.getmode}"
        )
    if settings.users:
        lines.append(f"users: {', '.join(settings.users)}")
    return "\n".join(lines)


def _block(loaded: Loaded, table: BaseModel, path: Path) -> str:
    return "\n".join([f"[{dotted(path)}]", *_lines(loaded, table, path)])


def _lines(loaded: Loaded, table: BaseModel, path: Path) -> Iterator[str]:
    values = table.model_dump()
    if isinstance(table, PoolSettings):
        values["max_forced"] = table.limits.max_forced
    for key in type(table).model_fields:
        value = getattr(table, key)
        if isinstance(value, SecretStr):
            shown = masked(key, value)
        elif isinstance(value, dict | BaseModel) or values[key] is None:
            continue
        else:
            shown = values[key]
        origin = loaded.origin((*path, key))
        if origin is None and key == "backend":
            origin = loaded.origin(("database_url",))
        yield f"{key} = {toml(shown)}" + (f"  # from {origin}" if origin is not None else "")


def masked(key: str, secret: SecretStr) -> str:
    """Return what may be shown of a secret: of a URL everything but the password, of others nothing."""
    if key in ("backend", "database_url"):
        return parse_dsn(secret.get_secret_value()).masked()
    return _MASK


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")

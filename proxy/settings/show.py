"""The effective settings as TOML, each with its origin, and none with its secrets."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, SecretStr

from proxy.settings.dsn_hosts import parse_servers
from proxy.settings.knobs import fields
from proxy.settings.loading import Loaded
from proxy.settings.mistakes import Path
from proxy.settings.pools import PoolSettings
from proxy.settings.sources import dotted

_MASK = "********"


def show(loaded: Loaded) -> str:
    """Return the settings as TOML text. A value that is not the default says where it was given."""
    settings = loaded.settings
    blocks = ["\n".join(_lines(loaded, settings, ()))]
    for table in ("listeners", "pools", "users", "maps"):
        for name, entry in getattr(settings, table).items():
            blocks += _blocks(loaded, entry, (table, name))
    blocks.append(_block(loaded, settings.http, ("http",)))
    blocks.append(_block(loaded, settings.control, ("control",)))
    blocks.append(_block(loaded, settings.log, ("log",)))
    return "\n\n".join(block for block in blocks if block) + "\n"


def summary(loaded: Loaded) -> str:
    """Return a few lines for people: where it listens, and what stands behind."""
    settings = loaded.settings
    lines = [f"file: {loaded.file or 'none'}"]
    for name, listener in settings.listeners.items():
        tls = "" if listener.tls_mode == "disable" else f", tls {listener.tls_mode}"
        how = "by hba_file" if listener.hba_file is not None else str(listener.auth)
        if listener.protocol != "postgres":
            how = f"tcp to pool {listener.pool}"
        lines.append(
            f"listener {name}: {listener.address}, {how}, {listener.max_clients} clients at most{tls}"
        )
    for name, pool in settings.pools.items():
        dsn, limits = pool.dsn, pool.limits
        places = ", ".join(address.place for address in pool.endpoints.values())
        where = f"{dsn.user}@{places}/{dsn.database}" if pool.protocol == "postgres" else places
        forced = f" + {limits.max_forced} forced" if limits.max_forced else ""
        lines.append(
            f"pool {name}: {where}, {pool.pool_mode}, "
            f"{limits.min} to {limits.max}{forced} sessions, {pool.getmode}"
        )
    if settings.users:
        lines.append(f"users: {', '.join(settings.users)}")
    return "\n".join(lines)


def _block(loaded: Loaded, table: BaseModel, path: Path) -> str:
    return "\n".join([f"[{dotted(path)}]", *_lines(loaded, table, path)])


def _blocks(loaded: Loaded, table: BaseModel, path: Path) -> Iterator[str]:
    """The block of one table, and those of the tables in it."""
    yield _block(loaded, table, path)
    for key, name in _names(table):
        value = getattr(table, name)
        if isinstance(value, BaseModel):
            yield _block(loaded, value, (*path, key))
        elif isinstance(value, dict):
            for below, entry in value.items():
                if isinstance(entry, BaseModel):
                    yield _block(loaded, entry, (*path, key, below))


def _names(table: BaseModel) -> list[tuple[str, str]]:
    """The keys of the file with the names of the fields; how sockets are watched comes last."""
    names = {name: key for key, name in zip(fields(type(table)), type(table).model_fields, strict=True)}
    return [(names[name], name) for name in sorted(names, key=lambda name: name.startswith("tcp_"))]


def _lines(loaded: Loaded, table: BaseModel, path: Path) -> Iterator[str]:
    values = table.model_dump()
    if isinstance(table, PoolSettings):
        values["max_forced"] = table.forced_bound
        values["client_may_set"] = table.freedoms
    for key, name in _names(table):
        value = getattr(table, name)
        if isinstance(value, SecretStr):
            shown = masked(key, value)
        elif values[name] is None or _is_a_table(value):
            continue
        else:
            shown = values[name]
        origin = loaded.origin((*path, key)) or _implied_origin(loaded, table, key)
        yield f"{key} = {toml(shown)}" + (f"  # from {origin}" if origin is not None else "")


def _is_a_table(value: Any) -> bool:
    """Whether a value has a block, or blocks, of its own; no block is shown of a table without entries."""
    if isinstance(value, dict):
        return any(isinstance(entry, BaseModel) for entry in value.values()) or not value
    return isinstance(value, BaseModel)


def _implied_origin(loaded: Loaded, table: BaseModel, key: str) -> str | None:
    if key == "backend":
        return loaded.origin(("database_url",))
    if isinstance(table, PoolSettings) and key in table.from_preset:
        return f'preset "{table.preset}"'
    return None


def masked(key: str, secret: SecretStr) -> str:
    """Return what may be shown of a secret: of a URL everything but the password, of others nothing."""
    if key in ("backend", "database_url"):
        return parse_servers(secret.get_secret_value()).masked()
    return _MASK


def _key(key: str) -> str:
    """A key of the operator's, which may hold anything, as a regular expression does."""
    return dotted([key]) if key.replace("_", "").isalnum() and key.isascii() else json.dumps(key)


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {toml(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")

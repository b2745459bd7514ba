"""``--set KEY=VALUE``: from words of the command line to nested tables. Reads no file."""

import tomllib
from collections.abc import Iterable
from typing import Any


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """Return the nested tables that ``words`` such as ``pools.app.max=20`` amount to; a later word wins.

    A value in TOML's quotes or brackets is read as TOML, any other as plain text. Raises ValueError with a
    sentence that repeats no value.
    """
    result: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise ValueError("expected KEY=VALUE, for example pools.app.max=20")
        path = _path(key.strip())
        table = result
        for step in path[:-1]:
            table = table.setdefault(step, {})
            if not isinstance(table, dict):
                raise ValueError(f"{key.strip()} lies below a key that has a value of its own")
        table[path[-1]] = _value(key.strip(), value.strip())
    return result


def _path(key: str) -> list[str]:
    try:
        # A bare * is no TOML key, but a natural name for the pool that takes any database.
        table: Any = tomllib.loads(key.replace(".*.", '."*".') + " = 0")
    except tomllib.TOMLDecodeError:
        raise ValueError(
            "the key is not one that TOML allows; expected for example pools.app.max=20"
        ) from None
    path = []
    while isinstance(table, dict):
        step, table = next(iter(table.items()))
        path.append(step)
    return path


def _value(key: str, text: str) -> Any:
    if not text.startswith(('"', "'", "[")):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        raise ValueError(f"the value of {key} begins as TOML does, but is none") from None

"""From command line, environment, secrets and file to Settings, or to every mistake at once.

The one place where a ValidationError becomes a ConfigError; nothing of a value leaves with it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from proxy.errors import ConfigError
from proxy.postgres.userlist import Listed
from proxy.settings.auth import MapSettings
from proxy.settings.crosschecks import Tables, cross_check, warnings
from proxy.settings.descriptors import check_descriptors, raise_descriptor_limit
from proxy.settings.knobs import AddressOrOff, fields
from proxy.settings.listeners import ListenerSettings
from proxy.settings.mistakes import Mistake, Path, nearest, translate
from proxy.settings.model import READING, Reading, Settings
from proxy.settings.pools import PoolSettings
from proxy.settings.sources import (
    Layer,
    dotted,
    from_arguments,
    from_environment,
    from_file,
    from_secrets,
)
from proxy.settings.users import UserSettings

DEFAULT_FILE: Final = FilePath("/etc/penstock/penstock.toml")
_NAMED: Final[dict[str, type[BaseModel]]] = {
    "listeners": ListenerSettings,
    "pools": PoolSettings,
    "users": UserSettings,
    "maps": MapSettings,
}
_NOTHING: Final = (
    "no pool is configured; one variable is enough: "
    "PENSTOCK_DATABASE_URL=postgresql://user:password@host/database penstock serve"
)

Placed = tuple[str, str]


@dataclass(frozen=True)
class Loaded:
    """Settings with their origins. ``file`` is the file that was read, if any."""

    settings: Settings
    file: FilePath | None
    layers: tuple[Layer, ...]

    def origin(self, path: Path) -> str | None:
        """Return where the value at ``path`` was given, or None for a default."""
        layer = next((layer for layer in self.layers if layer.holds(path)), None)
        return layer.place(path) if layer is not None else None

    def warnings(self) -> list[Placed]:
        """Return (place, sentence) for what is allowed but probably not meant."""
        found = warnings(self.settings.tables())
        return [(_place(self.layers, path), sentence) for path, sentence in found]


def load(
    config: FilePath | None = None,
    overrides: dict[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings, after raising the limit of open files to what is allowed.

    ``overrides`` are nested as the file is. ``environ`` is os.environ unless given. Raises ConfigError with
    every mistake as (place, sentence).
    """
    return read(config, overrides, environ).settings


def read(
    config: FilePath | None = None,
    overrides: dict[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Do what load does, and return the origin of each value too."""
    environ = os.environ if environ is None else environ
    file = find_file(config, environ)
    layers, mistakes = _layers(file, overrides or {}, environ)
    for layer in layers:
        mistakes += layer.mistakes
    settings, found = _validate(layers)
    # With the file unreadable, what seems to be missing may well be in it.
    if not any(place == str(file) for place, _ in mistakes):
        mistakes += found
    if settings is not None and not mistakes:
        if not settings.pools:
            mistakes.append((file.name if file else "configuration", _NOTHING))
        else:
            needs = check_descriptors(settings, raise_descriptor_limit())
            mistakes += [(_place(layers, path), sentence) for path, sentence in needs]
    if mistakes or settings is None:
        raise ConfigError(list(dict.fromkeys(mistakes)))
    return Loaded(settings, file, layers)


def given(
    path: Path,
    config: FilePath | None = None,
    overrides: dict[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Any:
    """Return what the sources that can be read give for one setting, unchecked; None where none does.

    For whoever needs that one setting, whatever is wrong with the others.
    """
    environ = os.environ if environ is None else environ
    layers, _ = _layers(find_file(config, environ), overrides or {}, environ)
    value: Any = next((layer.values for layer in layers if layer.holds(path)), None)
    for key in path if value is not None else ():
        value = value[key]
    return value


def find_file(config: FilePath | None, environ: Mapping[str, str]) -> FilePath | None:
    """Return the file to read: ``config``, else $PENSTOCK_CONFIG, else the default file if it exists."""
    if config is not None:
        return FilePath(config)
    if environ.get("PENSTOCK_CONFIG"):
        return FilePath(environ["PENSTOCK_CONFIG"])
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _layers(
    file: FilePath | None, overrides: dict[str, Any], environ: Mapping[str, str]
) -> tuple[tuple[Layer, ...], list[Placed]]:
    """Read the layers, highest first; what cannot be read at all is a mistake and not a layer."""
    low: list[Layer] = []
    mistakes: list[Placed] = []
    names: dict[str, Any] = {}
    directory = environ.get("PENSTOCK_SECRETS_DIR") or environ.get("CREDENTIALS_DIRECTORY")
    for source in ("file", "secrets"):
        try:
            if source == "file" and file is not None:
                low.insert(0, from_file(Settings, file))
            elif source == "secrets" and directory:
                low.insert(0, from_secrets(Settings, FilePath(directory), names))
        except ConfigError as error:
            mistakes += error.mistakes
        for layer in low:
            names = _together(names, layer.values)
    high = [from_arguments(Settings, overrides), from_environment(Settings, environ, names)]
    return (*high, *low), mistakes


def _together(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the tables of both, at every depth."""
    both = {**one, **other}
    for key in one.keys() & other.keys():
        if isinstance(one[key], dict) and isinstance(other[key], dict):
            both[key] = _together(one[key], other[key])
    return both


def _validate(layers: tuple[Layer, ...]) -> tuple[Settings | None, list[Placed]]:
    reading = Reading(layers)
    token = READING.set(reading)
    try:
        return Settings(), []
    except ValidationError as error:
        found: list[Mistake] = []
        # include_input=False: from here on nobody can print a value by accident.
        for entry in error.errors(include_url=False, include_input=False):
            found += translate({**entry})
    finally:
        READING.reset(token)
    found += _between_survivors(reading.merged, {path[:2] for path, _ in found})
    return None, [_worded(layers, path, sentence) for path, sentence in found]


def _between_survivors(merged: dict[str, Any], broken: set[Path]) -> list[Mistake]:
    """Check the valid tables against each other although others are broken."""
    valid: dict[str, dict[str, Any]] = {}
    lost = {path for path in broken if len(path) == 2}
    for table, model in _NAMED.items():
        entries = merged.get(table, {})
        valid[table] = {}
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            try:
                valid[table][name] = model.model_validate(entry)
            except ValidationError:
                lost.add((table, name))
    http = merged.get("http")
    try:
        address = TypeAdapter(AddressOrOff).validate_python(
            http.get("address", "off") if isinstance(http, dict) else "off"
        )
    except ValidationError:
        address = None
    # Who is in the file for all listeners does not matter here, only that there is one.
    userlist: dict[str, Listed] | None = None if merged.get("auth_file") is None else {}
    tables = Tables(
        valid["listeners"],
        valid["pools"],
        valid["users"],
        address,
        frozenset(lost),
        valid["maps"],
        userlist,
    )
    return [mistake for mistake in cross_check(tables) if mistake[0][:2] not in broken]


def _place(layers: tuple[Layer, ...], path: Path) -> str:
    """Return the place of ``path``: where it, or else the nearest table around it, was given."""
    for length in range(len(path), 0, -1):
        for layer in layers:
            if layer.holds(path[:length]):
                return layer.place(path)
    return dotted(path) or "configuration"


def _worded(layers: tuple[Layer, ...], path: Path, sentence: str) -> Placed:
    place = _place(layers, path)
    if sentence:
        return place, sentence
    close = nearest(path[-1], _keys(path[:-1]))
    if close is None:
        return place, f"is not a known setting; known here: {', '.join(sorted(_keys(path[:-1])))}"
    layer = next(layer for layer in layers if layer.holds(path))
    return (
        place,
        f"is not a known setting; did you mean {layer.name_of((*path[:-1], close)).rpartition(': ')[2]}?",
    )


def _keys(path: Path) -> list[str]:
    """Return the keys that the table at ``path`` may have."""
    model: type[BaseModel] | None = Settings
    steps = iter(path)
    for step in steps:
        entry = fields(model).get(step) if model is not None else None
        model, is_named = _table_in(entry.annotation) if entry is not None else (None, False)
        if is_named:
            next(steps, None)
    return list(fields(model)) if model is not None else []


def _table_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the model that a key of this type holds, if any, and whether there are several by name."""
    for choice in (annotation, *get_args(annotation)):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice, get_origin(annotation) is dict
    return None, False

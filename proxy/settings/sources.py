"""The layers of a configuration, and where in them each value came from.

Command line, environment, secrets directory, file: each becomes a Layer with the same keys as the file. Reads
values as they are; what they mean is for the model to say.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from proxy.errors import ConfigError
from proxy.settings.knobs import read_secret
from proxy.settings.mistakes import Path, nearest

PREFIX: Final = "PENSTOCK_"
# Variables that say where to read from; they are not settings themselves.
POINTERS: Final = frozenset({"PENSTOCK_CONFIG", "PENSTOCK_SECRETS_DIR"})
# The tables whose second key is a name that the operator chose.
NAMED: Final = frozenset({"listeners", "pools", "users", "maps"})
# The same within one of these.
NAMED_WITHIN: Final = {"pools": ("endpoints", "priority", "labels"), "listeners": ("tls_sni",)}

# What Kubernetes puts into every container for a Service called penstock or penstock-<something>.
_SERVICE: Final = re.compile(
    r"PENSTOCK_(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_SERVICE_URL: Final = re.compile(r"PENSTOCK_(?:[A-Z0-9_]+_)?PORT")


class Layer(PydanticBaseSettingsSource):
    """One source of values. ``name_of`` says what a key is called there; mistakes are (place, sentence)."""

    def __init__(self, settings: type[BaseSettings], name_of: Callable[[Path], str]) -> None:
        super().__init__(settings)
        self.values: dict[str, Any] = {}
        self.name_of = name_of
        self.places: dict[Path, str] = {}
        self.mistakes: list[tuple[str, str]] = []

    def __call__(self) -> dict[str, Any]:
        """Return the values, as pydantic-settings asks for them."""
        return self.values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of one top-level field (pydantic-settings wants this method to exist)."""
        return self.values.get(field_name), field_name, False

    def put(self, path: Path, value: Any, place: str) -> None:
        """Set one value; one that collides with another value of this layer is a mistake."""
        table = self.values
        for key in path[:-1]:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                self.mistakes.append(
                    (place, "lies below a key that has a value of its own in the same source")
                )
                return
        if path[-1] in table:
            self.mistakes.append((place, f"sets {'.'.join(path)} a second time in the same source"))
            return
        table[path[-1]] = value
        self.places[path] = place

    def holds(self, path: Path) -> bool:
        """Whether this layer says anything at ``path``."""
        table: Any = self.values
        for key in path:
            if not isinstance(table, dict) or key not in table:
                return False
            table = table[key]
        return True

    def place(self, path: Path) -> str:
        """Return what ``path`` is called in this source, as its user wrote it."""
        return self.places.get(path) or self.name_of(path)


def dotted(path: Iterable[str]) -> str:
    """Return ``path`` as TOML writes it: names that need quotes get them."""
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"' for key in path)


def variable(path: Path) -> str:
    """Return the environment variable that sets ``path``."""
    return PREFIX + "__".join(path).upper()


def from_file(settings: type[BaseSettings], file: FilePath) -> Layer:
    """Read a TOML file. Raises ConfigError when it cannot be read or is no TOML."""
    layer = Layer(settings, lambda path: f"{file.name}: {dotted(path)}" if path else file.name)
    try:
        layer.values = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "it cannot be opened"
        raise ConfigError([(str(file), f"cannot read the configuration file: {reason}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([(str(file), "is not UTF-8 text; expected a TOML file")]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([(str(file), f"is not valid TOML: {error}")]) from None
    except (ValueError, RecursionError):
        raise ConfigError(
            [(str(file), "is not valid TOML: a number is too long or tables nest too deep")]
        ) from None
    return layer


def from_arguments(settings: type[BaseSettings], overrides: Mapping[str, Any]) -> Layer:
    """Take the nested ``overrides`` of the command line."""
    layer = Layer(settings, lambda path: f"--set {dotted(path)}")
    layer.values = dict(overrides)
    return layer


def from_secrets(settings: type[BaseSettings], directory: FilePath, names: Mapping[str, Any]) -> Layer:
    """Read a directory of secrets: ``pools__app__password`` or ``pools/app/password``, one value a file.

    Files that could not be meant for Penstock (no ``__``, no known top-level key) are left alone; so are
    those that begin with a dot, which Kubernetes uses to swap a volume. Raises ConfigError when the directory
    cannot be read.
    """
    layer = Layer(settings, lambda path: str(directory / "__".join(path)))
    try:
        files = sorted(file for file in directory.rglob("*") if file.is_file())
        if not directory.is_dir():
            raise NotADirectoryError(0, "it is not a directory")
    except OSError as error:
        raise ConfigError(
            [(str(directory), f"cannot read the secrets directory: {error.strerror}")]
        ) from None
    for file in files:
        parts = file.relative_to(directory).parts
        path = tuple(key for part in parts for key in part.split("__"))
        known = path[0] in settings.model_fields
        if any(part.startswith(".") for part in parts) or not (known or "__" in parts[-1]):
            continue
        try:
            layer.put(_aligned(path, names), read_secret(str(file)).get_secret_value(), str(file))
        except ValueError as error:
            layer.mistakes.append((str(file), str(error)))
    return layer


def from_environment(
    settings: type[BaseSettings], environ: Mapping[str, str], names: Mapping[str, Any]
) -> Layer:
    """Read ``PENSTOCK_*``. An empty variable counts as one that is not set; an unknown one is a mistake."""
    layer = Layer(settings, variable)
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in POINTERS or not value:
            continue
        path = tuple(name.removeprefix(PREFIX).lower().split("__"))
        if path[0] in settings.model_fields:
            if "" in path:
                layer.mistakes.append((name, "has an empty part: two underscores separate the keys"))
            else:
                layer.put(_aligned(path, names), value, name)
        elif not _from_kubernetes(name, value):
            layer.mistakes.append((name, _unknown_variable(path, settings)))
    return layer


def _from_kubernetes(name: str, value: str) -> bool:
    if _SERVICE.fullmatch(name):
        return True
    # PENSTOCK_PORT=6432 is somebody's hope for a setting; Kubernetes sets it to tcp://10.0.0.1:6432.
    return bool(_SERVICE_URL.fullmatch(name)) and value.startswith(("tcp://", "udp://", "sctp://"))


def _unknown_variable(path: Path, settings: type[BaseSettings]) -> str:
    tables = [key for key in settings.model_fields if key in NAMED or key in ("http", "control", "log")]
    first, underscore, _ = path[0].partition("_")
    table = nearest(first, tables) if underscore and len(path) == 1 else None
    if table is not None:
        example = variable((table, "<name>", "<key>") if table in NAMED else (table, "<key>"))
        return f"is not a known variable; two underscores separate the keys: {example}"
    pointers = [name.removeprefix(PREFIX).lower() for name in POINTERS]
    close = nearest(path[0], [*settings.model_fields, *pointers])
    if close is None:
        return "is not a known variable; settings are PENSTOCK_<TABLE>__<NAME>__<KEY>"
    return f"is not a known variable; did you mean {variable((close, *path[1:]))}?"


def _aligned(path: Path, names: Mapping[str, Any]) -> Path:
    """Give a name from a variable the spelling of the file (variables have neither case nor hyphens)."""
    if path[0] not in NAMED:
        return path
    aligned = [path[0]]
    table = names.get(path[0])
    for depth, step in enumerate(path[1:], start=1):
        known = table if isinstance(table, dict) else {}
        is_name = depth == 1 or (depth == 3 and path[2] in NAMED_WITHIN.get(path[0], ()))
        alike = [name for name in known if re.sub(r"[^a-z0-9]", "_", str(name).lower()) == step]
        aligned.append(alike[0] if is_name and step not in known and len(alike) == 1 else step)
        table = known.get(aligned[-1])
    return tuple(aligned)

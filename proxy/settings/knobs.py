"""What every table of the configuration is made of: the strict table, and the kinds of values.

Each kind reads the text of an environment variable as well as the TOML value, and writes itself back as text.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SecretStr,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from proxy.settings.address import Address, parse_address
from proxy.settings.durations import BARE_NUMBER, EXPECTED, format_duration, parse_duration

_LONGEST_SECRET = 4096


class Table(BaseModel):
    """A table of the configuration: frozen, without unknown keys, and silent about its values."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)


def knob(default: Any, about: str, *, ancestors: str = "", unit: str = "", **more: Any) -> Any:
    """Declare a setting. ``default`` is written as in the file (a duration as text); it is validated too.

    ``ancestors`` says what the setting is called in the pools that this one descends from, each with its
    unit; ``unit`` is what a bare number counts. Both only go into the schema and the page.
    """
    notes = {key: text for key, text in (("x-unit", unit), ("x-ancestors", ancestors)) if text}
    return Field(default=default, description=about, json_schema_extra=dict(notes) or None, **more)


def fields(table: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the settings of a table by the keys that the file has for them."""
    return {entry.alias or name: entry for name, entry in table.model_fields.items()}


@dataclass(frozen=True)
class Kind:
    """A kind of value that is text in the file: how it is read, written and described."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any]
    form: str
    json: tuple[str, ...] = ("string",)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read with ``read`` and nothing else; a ValueError is the mistake's sentence."""
        return core_schema.no_info_plain_validator_function(
            self.read, serialization=core_schema.plain_serializer_function_ser_schema(self.write)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe the text, not what it is parsed to."""
        return {"type": self.json[0] if len(self.json) == 1 else list(self.json), "x-form": self.form}


def duration(*, off: bool = False, always: bool = False, zero: bool = False, whole: bool = False) -> Kind:
    """A kind of duration, in seconds: which words are legal, whether 0 is, and whole seconds only."""
    words = [f'"{word}"' for word, legal in (("off", off), ("always", always)) if legal]

    def read(value: Any) -> float:
        if isinstance(value, int | float):
            raise ValueError(BARE_NUMBER)
        if not isinstance(value, str):
            raise ValueError(EXPECTED)
        text = value.strip()
        if (text == "off" and not off) or (text == "always" and not always):
            allowed = f", or {' or '.join(words)}" if words else ""
            raise ValueError(f'"{text}" has no meaning here; {EXPECTED}{allowed}')
        try:
            seconds = parse_duration(text)
        except ValueError as error:
            if words and str(error) == EXPECTED:
                raise ValueError(f"{EXPECTED}, or {' or '.join(words)}") from None
            raise
        if seconds == 0 and not (zero or always):
            raise ValueError("must be longer than zero")
        if whole and (seconds != int(seconds) or seconds > 32767):
            raise ValueError('the kernel takes whole seconds here, up to 32767; write for example "60s"')
        return seconds

    return Kind(read, format_duration, " or ".join(["duration", *words]))


Seconds = Annotated[float, duration()]
WholeSeconds = Annotated[float, duration(whole=True)]
SecondsOrOff = Annotated[float, duration(off=True)]
SecondsOrOffOrZero = Annotated[float, duration(off=True, zero=True)]
PingInterval = Annotated[float, duration(off=True, always=True)]


def _no_bool(value: Any) -> Any:
    # bool is an int to Python, and `max = true` would quietly be 1.
    if isinstance(value, bool):
        raise ValueError("expected a whole number, for example 20")
    return value


Number = Annotated[int, BeforeValidator(_no_bool)]
Count = Annotated[Number, Field(ge=0)]


def number_or_off(at_least: int, too_small: str = "") -> Kind:
    """A kind of whole number from ``at_least`` up, or "off" (None). ``too_small`` says what to do."""

    def read(value: Any) -> int | None:
        if value is None or value == "off":
            return None
        text = str(value).strip()
        if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or len(text) > 9:
            raise ValueError('expected a whole number, for example 100, or "off"')
        if int(text) < at_least:
            raise ValueError(f"must be at least {at_least}{too_small}")
        return int(text)

    return Kind(
        read, lambda value: "off" if value is None else value, 'number or "off"', ("integer", "string")
    )


QueueLength = Annotated[
    int | None, number_or_off(1, '; getmode = "nowait" is what refuses instead of queueing')
]
CountOrOff = Annotated[int | None, number_or_off(0)]
NumberOrOff = Annotated[int | None, number_or_off(1, '; "off" is what sets no bound')]


def _read_real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a number, for example 10 or 2.5")
    text = str(value).strip().removesuffix("%")
    if len(text) > 16 or not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise ValueError("expected a number from 0 up, for example 10 or 2.5")
    return float(text)


def _read_percent(value: Any) -> float:
    number = _read_real(value)
    if number > 100.0:
        raise ValueError("must be at most 100: it is a percentage")
    return number


def _read_weight(value: Any) -> float:
    number = _read_real(value)
    if not 0.0 < number <= 1e6:
        raise ValueError("must be above 0 and at most 1000000; a class that is served half as often has 0.5")
    return number


def _short(number: float) -> int | float:
    return int(number) if number == int(number) else number


Percent = Annotated[float, Kind(_read_percent, _short, "percent, a number from 0 to 100", ("number",))]
Weight = Annotated[float, Kind(_read_weight, _short, "number above 0", ("number",))]


def statement(*words: str) -> Kind:
    """A kind of text for the server (SQL), in place of which one of ``words`` may stand."""
    known = ", ".join(f'"{word}"' for word in words)

    def read(value: Any) -> str:
        text = value.strip() if isinstance(value, str) else ""
        if not text or "\0" in text:
            raise ValueError(f"expected {known}{' or ' if words else ''}text for the server (SQL)")
        # A single word is rather a slip of the pen than a statement.
        if words and text not in words and re.fullmatch(r"\w+", text):
            raise ValueError(f"expected {known} or a whole statement of SQL")
        return text

    return Kind(read, str, " or ".join([*(f'"{word}"' for word in words), "SQL"]))


def _read_address(value: Any) -> Address:
    if isinstance(value, Address):
        return value
    return parse_address(value if isinstance(value, str) else "")


ListenAddress = Annotated[Address, Kind(_read_address, str, "address")]
AddressOrOff = Annotated[
    Address | None,
    Kind(
        lambda value: None if value == "off" else _read_address(value),
        lambda value: "off" if value is None else str(value),
        'address or "off"',
    ),
]


def _read_permissions(value: Any) -> int:
    text = value.strip() if isinstance(value, str) else ""
    if not (3 <= len(text) <= 4 and all(digit in "01234567" for digit in text)) or int(text, 8) > 0o777:
        raise ValueError('expected octal digits in quotes, for example "0660"')
    return int(text, 8)


Permissions = Annotated[int, Kind(_read_permissions, lambda mode: f"{mode:04o}", "octal digits in quotes")]


def _split(value: Any) -> Any:
    # An environment variable has no lists: PENSTOCK_USERS__REPORTING__POOLS=app,orders
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return tuple(value) if isinstance(value, set | frozenset) else value


Listing = BeforeValidator(_split)


def read_secret(path: str) -> SecretStr:
    """Return the secret in the file at ``path``, without the newline that ends it.

    Raises ValueError with a sentence that names neither the secret nor the path (somebody will write the
    password itself where the path belongs).
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_LONGEST_SECRET + 1)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a path"
        raise ValueError(f"the file cannot be read ({reason}); expected the path of a file") from None
    if len(raw) > _LONGEST_SECRET:
        raise ValueError(f"the file is larger than {_LONGEST_SECRET} bytes: that is no password")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or "\0" in text:
        raise ValueError("the file is empty" if not text else "the file holds a zero byte")
    return SecretStr(text)

"""The log: one line per event on stderr, as JSON for machines or as text for a terminal.

Every line, ours or a library's, passes through the same cleaning: secrets are masked, control
characters escaped, long values cut, so that nobody on the wire can read a password out of the log
nor write a line into it. Logging must never raise into the code that logs.
"""

import json
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
FORMATS: Final = ("auto", "json", "console")
MASK: Final = "***"

_LONGEST: Final = 256
_LONGEST_PASSAGE: Final = 16_384
_READ: Final = 1024  # of a long text, what is looked at for secrets before it is cut
_DEEPEST: Final = 12
_WIDEST: Final = 64
_SECRET_KEY: Final = re.compile(
    r"(?:^|[_.\-\s])(?:password|passwd|secret|token|dsn|authorization|verifier)s?$", re.IGNORECASE
)
_USERINFO: Final = re.compile(r"(://[^\s:/@]*:)\S*@")
_ASSIGNED: Final = re.compile(
    r"((?:password|passwd|secret|token)\s?=\s?)(?:'[^']*'?|\"[^\"]*\"?|[^\s&;,'\"]+)", re.IGNORECASE
)
_BARE: Final = re.compile(r"[^\s\"'=]+")
_COLORS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}

# No local variables: they are where the secrets are.
_picture = ExceptionDictTransformer(show_locals=False, max_frames=20)
_bridge: "_Bridge | None" = None


def configure(level: str, format: str) -> None:
    """Send every log line of the process to stderr; may be called again, for a reload.

    ``level`` is one of LEVELS. ``format`` is one of FORMATS; "auto" is console on a terminal and
    JSON elsewhere. What libraries log through the standard library appears from warning upward.
    Raises ValueError with a sentence for any other word.
    """
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is not one of {', '.join(LEVELS)}")
    if format not in FORMATS:
        raise ValueError(f"log format {format!r} is not one of {', '.join(FORMATS)}")
    lowest = logging.getLevelNamesMapping()[level.upper()]
    terminal = sys.stderr is not None and sys.stderr.isatty()
    renderer = _Renderer(
        as_json=format == "json" or (format == "auto" and not terminal),
        colored=terminal and "NO_COLOR" not in os.environ,
    )
    structlog.configure(
        processors=[renderer],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=_Stderr,
        cache_logger_on_first_use=False,  # a reload may change the level
    )
    _route_libraries(renderer, lowest)


class Passage(str):
    """Text that is shown in full, though it is long: it is masked and escaped like any other."""

    __slots__ = ()


def clean(value: Any, depth: int = 0) -> Any:
    """Make any value safe to show: strings masked, escaped and cut; containers likewise, within bounds."""
    if isinstance(value, str):
        return _clean_text(value, _LONGEST_PASSAGE if isinstance(value, Passage) else _LONGEST)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {
            _clean_text(str(key)): MASK if _is_secret(str(key)) else clean(item, depth + 1)
            for key, item in list(value.items())[:_WIDEST]
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [clean(item, depth + 1) for item in list(value)[:_WIDEST]]
    return _clean_text(_show(value))


@lru_cache(maxsize=512)
def _is_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _show(value: object) -> str:
    try:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return repr(bytes(value[:_READ]))
        return str(value)
    except Exception:  # noqa: BLE001 - a broken __str__ must not reach whoever logs
        return f"<{type(value).__name__}>"


def _clean_text(text: str, longest: int = _LONGEST) -> str:
    long = len(text) > longest
    if long:
        text = text[: longest * 4]
    if "://" in text:
        text = _USERINFO.sub(rf"\1{MASK}@", text)
    if "=" in text:
        text = _ASSIGNED.sub(rf"\1{MASK}", text)
    if long and len(text) > longest:
        text = text[:longest] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


class _Renderer:
    """The one processor: from what was logged to the line that is written."""

    def __init__(self, as_json: bool, colored: bool) -> None:
        self._as_json = as_json
        self._colored = colored

    def __call__(self, logger: object, level: str, fields: EventDict) -> str:
        try:
            return self._render(level, dict(fields))
        except Exception as failure:  # noqa: BLE001 - whoever logs has other things to do
            return self._write(
                {
                    "timestamp": _now(),
                    "level": "error",
                    "event": "log_line_lost",
                    "failure": type(failure).__name__,
                }
            )

    def _render(self, level: str, fields: EventDict) -> str:
        line: dict[str, Any] = {
            "timestamp": _now(),
            "level": "error" if level == "exception" else level,
            "event": clean(fields.pop("event", "")),
        }
        failure = _exc_info(fields.pop("exc_info", None))
        fields.pop("stack_info", None)
        for key, value in clean(fields).items():
            line[f"{key}_" if key in line else key] = value
        if failure is None:
            return self._write(line)
        if self._as_json:
            line["exception"] = clean(_picture(failure))
            return self._write(line)
        return self._write(line) + _indented(failure)

    def _write(self, line: dict[str, Any]) -> str:
        if self._as_json:
            return json.dumps(line, ensure_ascii=False, default=_show)
        timestamp, level, event = line.pop("timestamp"), line.pop("level"), line.pop("event")
        word = f"{level:<8}"
        if self._colored:
            word = f"\x1b[{_COLORS.get(level, '0')}m{word}\x1b[0m"
        pairs = "".join(f"  {key}={_quoted(value)}" for key, value in line.items())
        return f"{timestamp} {word} {event}{pairs}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _exc_info(given: Any) -> Any:
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    if given and not isinstance(given, tuple):
        given = sys.exc_info()
    return given if given and given[0] is not None else None


def _indented(failure: Any) -> str:
    # Behind a bar, so that no line of a message can pass for a line of the log.
    text = "".join(traceback.format_exception(*failure, limit=-20))
    lines = text.splitlines()[-200:]
    return "".join(f"\n    | {_clean_text(line)}" for line in lines)


def _quoted(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_show)
    if not isinstance(value, str) or _BARE.fullmatch(text):
        return text
    return '"' + text.replace('"', '\\"') + '"'


class _Stderr:
    """Writes lines to whatever ``sys.stderr`` is at that moment; a closed one is no reason to fail."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, message: str) -> None:
        """Write one line."""
        try:
            sys.stderr.write(message + "\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass

    debug = info = warning = error = exception = critical = fatal = log = msg


class _Bridge(logging.Handler):
    """Brings what libraries log through the standard library into the same lines."""

    def __init__(self, renderer: _Renderer) -> None:
        super().__init__()
        self._renderer = renderer
        self._out = _Stderr()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a record whose arguments do not fit is shown by its text alone."""
        try:
            event = record.getMessage()
        except Exception:  # noqa: BLE001 - a mistake in a library's log call
            event = str(record.msg)
        level = record.levelname.lower()
        fields = {"event": event, "logger": record.name, "exc_info": record.exc_info}
        self._out.msg(self._renderer(None, level if level in LEVELS else "warning", fields))


def _route_libraries(renderer: _Renderer, lowest: int) -> None:
    global _bridge
    root = logging.getLogger()
    if _bridge is not None:
        root.removeHandler(_bridge)
    _bridge = _Bridge(renderer)
    _bridge.setLevel(max(lowest, logging.WARNING))
    root.addHandler(_bridge)
    root.setLevel(max(lowest, logging.WARNING))

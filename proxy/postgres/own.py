"""Statements that are for Penstock itself: SET and SHOW of penstock.getmode and its like.

PostgreSQL would take such a name silently as a placeholder, so none of them is ever forwarded.
``concerns`` is the cheap look that every query gets; only what it lets through is read properly.
"""

import re
from typing import Final

GETMODE: Final = "penstock.getmode"
WAIT_TIMEOUT: Final = "penstock.wait_timeout"
CCLASS: Final = "penstock.cclass"
PURITY: Final = "penstock.purity"
TAG: Final = "penstock.tag"
KEY: Final = "penstock.key"
SHARD_KEY: Final = "penstock.shard_key"
TARGET: Final = "penstock.target"
NAMES: Final = (GETMODE, WAIT_TIMEOUT, CCLASS, PURITY, TAG, KEY, SHARD_KEY, TARGET)
_HINT: Final = (
    "Use SET penstock.getmode = 'nowait', SET penstock.wait_timeout = '500ms', or SHOW, on their own."
)
# What matters to where a statement ends: its end, comments, strings, quoted names, dollar quotes.
_MARK = re.compile(rb"(?i);|--|/\*|e'|'|\"|\$(?:[a-z_\x80-\xff][a-z0-9_\x80-\xff]*)?\$")
_NESTING = re.compile(rb"/\*|\*/")
_WORD = re.compile(rb"[A-Za-z0-9_$\x80-\xff]")
_ESCAPED = re.compile(rb"(?s)(?:[^'\\]|\\.|'')*'")
_STATEMENT = re.compile(
    r"""^(?P<verb>set|show|reset)\s+(?:(?P<scope>session|local)\s+)?
        "?penstock"?\s*\.\s*"?(?P<name>[a-z_]+)"?
        (?:\s*(?:=|\sto\b)\s*(?P<value>'(?:[^']|'')*'|[a-z0-9_.]+))?\s*$""",
    re.IGNORECASE | re.VERBOSE,
)


class OwnStatement:
    """One such statement, read. ``error`` says what is wrong with it, and ``hint`` what would be right."""

    def __init__(self, verb: str, name: str, value: str | None, error: str = "") -> None:
        self.verb = verb  # "SET" or "SHOW"
        self.name = name
        self.value = value  # None: DEFAULT
        self.error = error
        self.hint = _HINT


def concerns(data: bytes, start: int, stop: int) -> bool:
    """The query in ``data[start:stop]`` may be about us: a SET, SHOW or RESET, or several statements.

    Or it is about named statements, whose names on the server are ours: DEALLOCATE, or DISCARD.
    """
    if stop - start < 12:
        return False
    first = data[start]
    if first == 115 or first == 83:  # s
        third = data[start + 2]
        # SET, SHOW; not SELECT
        if third == 116 or third == 84 or third == 111 or third == 79:
            return names_us(data, start, stop)
    elif first == 114 or first == 82:  # r
        third = data[start + 2]
        if third == 115 or third == 83:  # RESET
            return names_us(data, start, stop)
    elif first == 100 or first == 68:  # d
        third = data[start + 2]
        # not DELETE, DROP, DECLARE, DO
        if third == 97 or third == 65 or third == 115 or third == 83:
            return True
    elif first <= 32 or first == 45 or first == 47:  # white space or a comment first
        return names_us(data, start, stop)
    # A semicolon at the very end is nobody's second statement.
    inner = data.find(b";", start, stop - 2)
    return inner >= 0 and data[inner + 1] != 0 and names_us(data, start, stop)


def names_us(data: bytes, start: int, stop: int) -> bool:
    """The text has our name in it, in whatever spelling."""
    return data[start:stop].lower().find(b"penstock") >= 0


def read(text: bytes) -> OwnStatement | None:
    """Read a query that ``concerns`` let through; None when it is not about us after all."""
    parts = split(text.rstrip(b"\0"))
    ours = [part for part in parts if _is_ours(part)]
    if not ours:
        return None
    if len(parts) > 1:
        return OwnStatement("", "", None, "a penstock setting must be the only statement of its query")
    statement = ours[0].decode("utf-8", "replace")
    found = _STATEMENT.match(statement)
    if found is None:
        return OwnStatement("", "", None, "this is not how a penstock setting is set or shown")
    verb, name = found["verb"].upper(), "penstock." + found["name"].lower()
    scope, value = (found["scope"] or "").lower(), found["value"]
    if name not in NAMES:
        return OwnStatement(verb, name, None, f"there is no setting {name}, but {listed()}")
    if verb == "RESET":
        return OwnStatement(verb, name, None, f"RESET {name} is not supported: use SET {name} = DEFAULT")
    if scope == "local":
        return OwnStatement(verb, name, None, f"SET LOCAL {name} is not supported: use SET")
    if (verb == "SET") == (value is None):
        return OwnStatement(verb, name, None, "this is not how a penstock setting is set or shown")
    if value is not None and value.startswith("'"):
        value = value[1:-1].replace("''", "'")
    elif value is not None and value.lower() == "default":
        value = None
    return OwnStatement(verb, name, value)


def listed() -> str:
    """The names of our settings, as a sentence lists them."""
    return ", ".join(NAMES[:-1]) + " and " + NAMES[-1]


def _is_ours(statement: bytes) -> bool:
    found = re.match(rb'(?i)(?:set|show|reset)\s+(?:(?:session|local)\s+)?"?penstock"?\s*\.', statement)
    return found is not None


def split(text: bytes) -> list[bytes]:
    """Split a query into its statements, each comment in them a blank; empty ones are left out."""
    parts: list[bytes] = []
    pieces: list[bytes] = []
    start = at = 0
    while True:
        mark = _MARK.search(text, at)
        if mark is None:
            break
        at, found = mark.start(), mark.group()
        if found == b";" or found == b"--" or found == b"/*":
            pieces.append(text[start:at])
            start = at = at + 1 if found == b";" else _after_comment(text, at)
            if found == b";":
                parts.append(b" ".join(pieces).strip())
                pieces.clear()
        else:
            at = _after_quote(text, at, found)
    pieces.append(text[start:])
    parts.append(b" ".join(pieces).strip())
    return [part for part in parts if part]


def _after_comment(text: bytes, at: int) -> int:
    if text[at] == 45:  # -
        end = text.find(b"\n", at)
        return len(text) if end < 0 else end + 1
    depth = 0
    for mark in _NESTING.finditer(text, at):
        depth += 1 if mark.group() == b"/*" else -1
        if depth == 0:
            return mark.end()
    return len(text)


def _after_quote(text: bytes, at: int, quote: bytes) -> int:
    """Where a quoted piece of text that begins at ``at`` ends."""
    begin = at + len(quote)
    if quote[:1] == b"$":
        if at and _WORD.match(text, at - 1):
            return at + 1  # part of a name
    elif quote != b"'" and quote != b'"':  # E'
        if at and _WORD.match(text, at - 1):
            return begin - 1
        escaped = _ESCAPED.match(text, begin)
        return len(text) if escaped is None else escaped.end()
    end = text.find(quote, begin)
    return len(text) if end < 0 else end + len(quote)

"""Which settings a statement sets or resets, told from its text. Pure, and cold."""

import re
from typing import Final

_SET: Final = re.compile(
    rb"set\s+(?:session\s+(?!authorization\b|characteristics\b))?"
    rb'(?:(time\s+zone|schema|names|session\s+authorization|session\s+characteristics)\b(?=[\s\'"])'
    rb'|"?([a-z_][a-z0-9_$.]*)"?)'
)
_RESET: Final = re.compile(
    rb'reset\s+(?:(time\s+zone|session\s+authorization)\b|"?([a-z_][a-z0-9_$.]*)"?)\s*$'
)
_CALL: Final = re.compile(rb"set_config\s*\(\s*'([a-z_][a-z0-9_$.]*)'")
_NAMES: Final = {
    b"time zone": ["timezone"],
    b"schema": ["search_path"],
    b"names": ["client_encoding"],
    b"session authorization": ["session_authorization"],
    b"session characteristics": [
        "default_transaction_isolation",
        "default_transaction_read_only",
        "default_transaction_deferrable",
    ],
}


def names_in(parts: list[bytes]) -> list[str] | None:
    """The names in these statements, which are in lower case; None where not all of them can be told."""
    names: list[str] = []
    for part in parts:
        found = _names_of(part)
        if found is None:
            return None
        names += found
    return names


def _names_of(part: bytes) -> list[str] | None:
    calls = part.count(b"set_config")
    if calls:
        found = _CALL.findall(part)
        return [name.decode() for name in found] if len(found) == calls else None
    if part.startswith(b"discard"):
        return None
    is_set = part.startswith(b"set")
    if not is_set and not part.startswith(b"reset"):
        return []
    match = _SET.match(part) if is_set else _RESET.match(part)
    if match is None:
        return None
    if match[1] is not None:
        return _NAMES[b" ".join(match[1].split())]
    name = match[2]
    return None if name == b"all" and not is_set else [name.decode()]

"""What a client has left on its session, as the server itself says: one question, one round trip.

Sans-IO. Every name in the question is qualified, operators too: the search_path is the client's. No text of a
client goes into it but names of settings that are letters, digits and dots.
"""

import re
from typing import Final

from proxy.errors import RemoteProtocolError
from proxy.postgres.effects import ADVISORY, HOLD, LISTENED, PREPARED, SETTINGS, TEMPORARY
from proxy.postgres.messages import Inbox, message, query, read_fields, read_parameter
from proxy.postgres.session import PgSessionCodec
from proxy.steps import Conversation

# A longer value does not follow its client. In bytes.
LONGEST_VALUE: Final = 8192
# One message of the answer, in bytes: a row, or an error with what the client's own texts make of it.
_CAP: Final = 1_048_576
_CANCELED: Final = "57014"
_TRIES: Final = 3

_IS: Final = " OPERATOR(pg_catalog.=) "
_KINDS: Final = (
    (
        ADVISORY,
        "a",
        f"pg_catalog.pg_locks WHERE locktype{_IS}'advisory' AND pid{_IS}pg_catalog.pg_backend_pid()",
    ),
    # 2615 is pg_namespace, in every version. Whatever is in a schema depends on it, and that is indexed.
    (
        TEMPORARY,
        "t",
        f"pg_catalog.pg_depend WHERE refclassid{_IS}2615::pg_catalog.oid"
        f" AND refobjid{_IS}pg_catalog.pg_my_temp_schema()",
    ),
    (HOLD, "h", "pg_catalog.pg_cursors WHERE is_holdable"),
    (PREPARED, "p", "pg_catalog.pg_prepared_statements WHERE from_sql"),
    (LISTENED, "l", "pg_catalog.pg_listening_channels()"),
)
# What no view lists: the role, and settings that only their name makes known.
_SETTINGS: Final = (
    "SELECT 's', name, CASE WHEN pg_catalog.octet_length(setting) OPERATOR(pg_catalog.<=) "
    f"{LONGEST_VALUE} THEN setting END FROM pg_catalog.pg_settings WHERE source{_IS}'session'"
    " UNION ALL SELECT 's', 'role', pg_catalog.current_setting('role')"
)
_PLACEHOLDER: Final = re.compile(r"[a-z_][a-z0-9_$]*(\.[a-z_][a-z0-9_$]*)+", re.ASCII)


class Answer:
    """``left`` are the kinds that are there, as bits of effects.py: all but SETTINGS.

    ``settings`` are those that were set in the session, in lower case; None stands for a value too long.
    """

    def __init__(self) -> None:
        self.left = 0
        self.settings: dict[str, str | None] = {}


def is_placeholder(name: str) -> bool:
    """A setting with a dot in its name, that may stand in a question."""
    return _PLACEHOLDER.fullmatch(name) is not None and len(name) <= 128


def question(kinds: int, placeholders: list[str]) -> str:
    """The question about these kinds, and about settings with these names."""
    parts = [
        f"SELECT '{letter}', NULL, NULL WHERE EXISTS (SELECT FROM {source})"
        for kind, letter, source in _KINDS
        if kinds & kind
    ]
    if kinds & SETTINGS:
        parts.append(_SETTINGS)
        parts += [
            f"SELECT 's', '{name}', pg_catalog.current_setting('{name}', true)"
            for name in placeholders
            if is_placeholder(name)
        ]
    return " UNION ALL ".join(parts)


def ask(
    session: PgSessionCodec, kinds: int, placeholders: list[str], told: list[bytes]
) -> Conversation[Answer | None]:
    """Ask about a session in which no transaction is open; None where the server refuses to answer.

    ``told`` gets what the server says meanwhile that is for the client. Raises RemoteProtocolError.
    """
    send = query(question(kinds, placeholders))
    session.unnamed = session  # nobody's: a simple query ends it
    for _ in range(_TRIES):
        rows: list[bytes] = []
        error = yield from _read(session, send, rows, told)
        if not error:
            return _answer(rows)
        if error != _CANCELED:
            break
    return None


def learn(session: PgSessionCodec) -> Conversation[None]:
    """Note which settings a session has been opened with, so that they are not taken for a client's."""
    answer = yield from ask(session, SETTINGS, [], [])
    if answer is not None:
        session.baseline = answer.settings


def _read(session: PgSessionCodec, send: bytes, rows: list[bytes], told: list[bytes]) -> Conversation[str]:
    # The SQLSTATE of the error that was met, "" for none.
    inbox = Inbox(_CAP, session.tail)
    session.tail = b""
    error = ""
    while True:
        kind, body = yield from inbox.next(send)
        send = b""
        if kind == 90:  # Z
            break
        if kind == 68:  # D
            rows.append(body)
        elif kind == 69:  # E
            error = read_fields(body).get("C", "XX000")
        elif kind == 83:  # S
            name, value = read_parameter(body)
            session.reported[name] = value
            told.append(message(b"S", body))
        elif kind == 65 and session.overheard is not None:  # A
            session.overheard.append(message(b"A", body))
        elif kind == 65 or kind == 78:  # A N
            told.append(message(bytes((kind,)), body))
    why = session.unlinked(inbox.rest)
    if why:
        raise RemoteProtocolError(why)
    return error


def _answer(rows: list[bytes]) -> Answer:
    answer = Answer()
    for row in rows:
        letter, name, value = _values(row)
        if letter == "s":
            name = (name or "").lower()
            # A setting that has been reset, or never was set, is empty; the role is then "none".
            if not (value == "none" and name == "role") and not ("." in name and not value):
                answer.settings[name] = value
        else:
            for kind, its_letter, _ in _KINDS:
                if letter == its_letter:
                    answer.left |= kind
    return answer


def _values(row: bytes) -> list[str | None]:
    """The three columns of a DataRow. Raises RemoteProtocolError."""
    values: list[str | None] = []
    at = 2
    for _ in range(3):
        if len(row) < at + 4:
            raise RemoteProtocolError("a row of our question is cut short")
        length = int.from_bytes(row[at : at + 4], "big", signed=True)
        at += 4
        values.append(None if length < 0 else row[at : at + length].decode("utf-8", "replace"))
        at += max(0, length)
    return values

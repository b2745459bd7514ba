"""What a session's server is: a primary, a standby, or one whose transactions are read-only.

PostgreSQL 14 and later report it (in_hot_standby, default_transaction_read_only) at each login, and again
with the next answer after it has changed; older ones are asked. What a client has SET for itself on a
session it holds says nothing of the server. No I/O.
"""

from collections.abc import Callable
from typing import Final

from proxy.errors import BackendError
from proxy.postgres.messages import ERROR_CAP, Inbox, query, read_fields
from proxy.roles import DOUBTED, UNKNOWN, role_of
from proxy.steps import Conversation

_RECOVERY: Final = "in_hot_standby"
_READ_ONLY: Final = "default_transaction_read_only"
# Qualified: whatever the role's search_path is, these are the server's own functions.
_QUESTION: Final = (
    "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only')"
)
READ_ONLY_ERROR: Final = b"C25006\0"


class ServerRole:
    """The server behind one session. ``asks``: one that does not report what it is is asked."""

    def __init__(self, asks: bool = False) -> None:
        self.asks = asks
        self.role: int = UNKNOWN
        self.told: Callable[[int], None] | None = None  # hears of each change after the login
        self._in_recovery: str | None = None
        self._read_only = "off"

    def logged_in(self, reported: dict[str, str]) -> bool:
        """Go by what was reported at the login; True when the server must be asked instead."""
        self._in_recovery, self._read_only = reported.get(_RECOVERY), reported.get(_READ_ONLY, "off")
        if self._in_recovery is None:
            return self.asks
        self.role = role_of(self._in_recovery == "on", self._read_only == "on")
        return False

    def note(self, name: str, value: str, held: bool) -> None:
        """The server reports a setting, perhaps one of these; ``held``: while a client holds the session."""
        if name == _RECOVERY:
            self._in_recovery = value
        elif name == _READ_ONLY and not held:
            self._read_only = value
        else:
            return
        if self._in_recovery is not None:
            self._changed(role_of(self._in_recovery == "on", self._read_only == "on"))

    def refused(self) -> None:
        """A statement of a client was refused as read-only."""
        if self.told is not None:
            self.told(DOUBTED)

    def must_ask(self) -> bool:
        """Only a question tells whether the server is what it was."""
        return self.asks and self._in_recovery is None

    def ask(self) -> Conversation[bytes]:
        """Ask it; returns what it said beyond the answer. Raises BackendError."""
        inbox = Inbox(ERROR_CAP, b"")
        send, row = query(_QUESTION), None
        error: dict[str, str] | None = None
        while True:
            kind, body = yield from inbox.next(send)
            send = b""
            if kind == 68:  # D
                row = _texts(body)
            elif kind == 69:  # E
                error = read_fields(body)
            elif kind == 90:  # Z
                break
        if error is not None or row is None or len(row) != 2:
            text = error.get("M", "") if error is not None else "the answer makes no sense"
            code = error.get("C", "XX000") if error is not None else "08P01"
            raise BackendError(f"the server does not say whether it is a standby: {text}", code, error)
        self._changed(role_of(row[0] == b"t", row[1] == b"on"))
        return inbox.rest

    def _changed(self, role: int) -> None:
        if role != self.role:
            self.role = role
            if self.told is not None:
                self.told(role)


def _texts(body: bytes) -> list[bytes]:
    """The columns of a DataRow; one that is NULL is empty."""
    texts, at = [], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        length = max(0, int.from_bytes(body[at : at + 4], "big", signed=True))
        texts.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    return texts

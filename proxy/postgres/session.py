"""What is known about one PostgreSQL session, whoever holds it, and the conversations of its care.

Sans-IO. The login itself is in session_login.py; this room keeps its result.
"""

from collections.abc import Callable
from typing import Final

from proxy.codec import Conversation, SessionCodec, StartTls
from proxy.errors import BackendError, PingFailed, RemoteProtocolError
from proxy.postgres.messages import (
    CANCEL_CODE,
    ERROR_CAP,
    SSL_REQUEST,
    TERMINATE,
    Inbox,
    message,
    query,
    read_fields,
    read_parameter,
)
from proxy.postgres.profile import Profile, Profiles, difference
from proxy.postgres.session_login import Opened

_READY: Final = 90
_ERROR: Final = 69
_NOTICE: Final = 78
_NOTIFICATION: Final = 65
_PARAMETER: Final = 83
_IDLE: Final = 73
_CANCELED: Final = "57014"


class PgSessionCodec(SessionCodec):
    """One session; ``login`` is the conversation that opens it."""

    def __init__(self, profiles: Profiles, login: Callable[[], Conversation[Opened]]) -> None:
        self.profiles = profiles
        self._login = login
        self.profile: Profile = profiles.empty  # the settings that we put on it
        self.reported: dict[str, str] = {}  # what the server says of its settings
        self.defaults: dict[str, str] = {}  # what it said at the login: what RESET goes back to
        self.touched_by: int = 0  # the client whose SETs may still hold; 0: nobody's
        self.deep = False  # ... and more than settings: LISTEN, PREPARE
        self.unnamed: object | None = (
            None  # the Parse (by identity) that the unnamed statement is; None: none
        )
        self.status: int = _IDLE  # as a recovery left it
        self.pid: int = 0
        self.secret: bytes = b""
        self.tls = False
        self.mute = False  # cut in the middle of a message: nothing that we send would be read as one
        self.tail = b""  # the beginning of a message that came while nobody held it

    def log_in(self) -> Conversation[None]:
        """Log in and remember what the server reports. Raises OpenFailed, RemoteProtocolError."""
        opened = yield from self._login()
        self.reported, self.defaults = dict(opened.parameters), dict(opened.parameters)
        self.pid, self.secret, self.tls = opened.pid, opened.secret, opened.tls
        why = self.unlinked(opened.rest)
        if why:
            raise RemoteProtocolError(why)

    def ping(self) -> Conversation[None]:
        """An empty query and its answer. Raises PingFailed."""
        errors, _ = yield from self._ask(query(""), 1)
        if errors:
            raise PingFailed(f"the server answered a ping with: {errors[0].get('M', '')}")

    def reset(self) -> Conversation[None]:
        """DISCARD ALL. Raises BackendError."""
        errors, _ = yield from self._ask(query("DISCARD ALL"), 1)
        if errors:
            raise BackendError(f"DISCARD ALL failed: {errors[0].get('M', '')}", errors[0].get("C", "XX000"))
        self.profile = self.profiles.empty
        self.touched_by, self.deep, self.unnamed = 0, False, None

    def settle(self) -> Conversation[None]:
        """ROLLBACK where a transaction is open, then an empty round trip. Raises BackendError.

        A cancel request that came late may hit either of them, and then is spent: each is tried again.
        """
        text = "" if self.status == _IDLE else "ROLLBACK"
        self.unnamed = self  # nobody's
        for _ in range(3):
            errors, status = yield from self._ask(query(text), 1)
            if not errors and status == _IDLE:
                if text == "":
                    return
                text = ""
            elif errors and errors[0].get("C") != _CANCELED:
                raise BackendError(f"cannot roll back: {errors[0].get('M', '')}", errors[0].get("C", "XX000"))
        raise BackendError("the session did not come to rest")

    def adopt(self, want: Profile, number: int) -> Conversation[bytes]:
        """Make the settings of a client hold; returns the ParameterStatus messages for it.

        Through set_config with bound parameters: no text of a client is ever quoted into SQL. Raises
        BackendError with the server's words.
        """
        send, replies = b"", 0
        if self.touched_by not in (0, number):
            clean = "DISCARD ALL" if self.deep else "SET SESSION AUTHORIZATION DEFAULT;RESET ALL"
            send, replies = query(clean), 1
            self.profile = self.profiles.empty
            self.unnamed = self
        changes = difference(self.profile, want)
        if changes:
            send += _set_config(changes)
            replies += 1
            self.unnamed = self
        if not replies:
            self.profile = want
            return b""
        told: list[bytes] = []
        errors, _ = yield from self._ask(send, replies, told)
        if errors:
            raise BackendError(errors[0].get("M", ""), errors[0].get("C", "XX000"), errors[0])
        # The batch is one transaction: after an error the settings are as they were.
        self.profile = want
        if self.touched_by != number:
            self.touched_by, self.deep = 0, False
        return b"".join(told)

    def _ask(
        self, send: bytes, replies: int, told: list[bytes] | None = None
    ) -> Conversation[tuple[list[dict[str, str]], int]]:
        # Sends, waits for `replies` ReadyForQuery; the errors met, and the last transaction status.
        inbox = Inbox(ERROR_CAP, self.tail)
        self.tail = b""
        errors: list[dict[str, str]] = []
        status = 0
        while replies:
            kind, body = yield from inbox.next(send)
            send = b""
            if kind == _READY:
                replies -= 1
                status = body[0] if body else 0
            elif kind == _ERROR:
                errors.append(read_fields(body))
            elif kind == _PARAMETER:
                name, value = read_parameter(body)
                self.reported[name] = value
                if told is not None:
                    told.append(message(b"S", body))
        why = self.unlinked(inbox.rest)
        if why:
            raise RemoteProtocolError(why)
        return errors, status

    def unlinked(self, data: bytes) -> str:
        """Take note of what an idle session says; a text when it must not be used again."""
        inbox = Inbox(ERROR_CAP, self.tail + data)
        try:
            found = inbox.take()
            while found is not None:
                kind, body = found
                if kind == _PARAMETER:
                    name, value = read_parameter(body)
                    self.reported[name] = value
                elif kind == _ERROR:
                    return "the server said: " + read_fields(body).get("M", "")
                elif kind not in (_NOTICE, _NOTIFICATION):
                    return f"a message of type {chr(kind)!r} that nobody asked for"
                found = inbox.take()
        except RemoteProtocolError as error:
            return str(error)
        self.tail = inbox.rest
        return ""

    def farewell(self) -> bytes:
        """Terminate; nothing where the server is in the middle of reading a message."""
        return b"" if self.mute else TERMINATE

    def cancel(self) -> Conversation[None]:
        """Send a CancelRequest, under TLS where the session is, and wait for the end of the connection."""
        if self.tls:
            answer: bytes = yield SSL_REQUEST
            if answer != b"S":
                raise RemoteProtocolError("the server refuses TLS to a cancel request")
            yield StartTls()
        body = CANCEL_CODE.to_bytes(4, "big") + self.pid.to_bytes(4, "big", signed=True) + self.secret
        send = (len(body) + 4).to_bytes(4, "big") + body
        while True:
            yield send
            send = b""


def _set_config(changes: list[tuple[str, str | None]]) -> bytes:
    batch = message(b"P", b"\0SELECT pg_catalog.set_config($1,$2,false)\0" + b"\0\0")
    for name, value in changes:
        batch += message(b"B", b"\0\0\0\0\0\x02" + _argument(name) + _argument(value) + b"\0\0")
        batch += message(b"E", b"\0\0\0\0\0")
    return batch + b"S\x00\x00\x00\x04"


def _argument(text: str | None) -> bytes:
    if text is None:
        return b"\xff\xff\xff\xff"
    data = text.encode("utf-8")
    return len(data).to_bytes(4, "big") + data

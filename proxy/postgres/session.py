"""What is known about one PostgreSQL session, whoever holds it, and the conversations of its care.

Sans-IO. The login itself is in session_login.py; this room keeps its result.
"""

from collections.abc import Callable
from typing import Final

from proxy.errors import BackendError, OpenFailed, PingFailed, RemoteProtocolError
from proxy.postgres.errands import cancel_request, failure
from proxy.postgres.messages import (
    ERROR_CAP,
    TERMINATE,
    Inbox,
    message,
    query,
    read_fields,
    read_parameter,
)
from proxy.postgres.profile import Profile, Profiles, difference, set_config
from proxy.postgres.session_login import Opened
from proxy.postgres.session_role import ServerRole
from proxy.postgres.statements import StatementHolder
from proxy.postgres.upkeep import Upkeep
from proxy.postgres.versions import Versions
from proxy.steps import Conversation

_READY: Final = 90
_ERROR: Final = 69
_NOTICE: Final = 78
_NOTIFICATION: Final = 65
_PARAMETER: Final = 83
_IDLE: Final = 73
_IN_TRANSACTION: Final = 84
_COMMAND: Final = 67
_CANCELED: Final = "57014"
_NOBODY: Final = -1  # instead of a client's number: what is on the session suits none


class PgSessionCodec(StatementHolder):
    """One session; ``login`` is the conversation that opens it.

    ``opened`` is told what the server reports of a session that is ready.
    """

    def __init__(
        self,
        profiles: Profiles,
        login: Callable[[], Conversation[Opened]],
        upkeep: Upkeep | None = None,
        opened: Callable[[dict[str, str]], None] | None = None,
    ) -> None:
        super().__init__()
        self.profiles = profiles
        self.upkeep = upkeep or Upkeep()
        self.wipes = self.upkeep.wipes
        self._login = login
        self._opened = opened
        self.versions = Versions()  # those of its server
        self.server = ServerRole()
        self.profile: Profile = profiles.empty  # the settings that we put on it
        self.reported: dict[str, str] = {}  # what the server says of its settings
        self.defaults: dict[str, str] = {}  # what it said when it was new
        self.touched_by: int = 0  # the client whose SETs may still hold; 0: nobody's
        self.deep = False  # ... and more than settings: LISTEN, PREPARE
        self.littered = False  # ... and it must go before the session rests: locks, temporary tables
        self.baseline: dict[str, str | None] = {}  # what `session_init` has set, as far as `learn` tells
        self.learn: Callable[[PgSessionCodec], Conversation[None]] | None = None
        self.unnamed: object | None = (
            None  # the Parse (by identity) that the unnamed statement is; None: none
        )
        self.status: int = _IDLE  # as a recovery left it
        self.begun = False  # a transaction was begun ahead of the next client, and nobody has used it
        self.pid: int = 0
        self.secret: bytes = b""
        self.tls = False
        self.direct = False  # TLS began without a request for it, and does so for a cancel request
        self.spoiled = ""  # why nobody may have it any more
        self.ended = ""  # what the server said to end it, behind the last answer to its holder
        self.mute = False  # cut in the middle of a message: nothing that we send would be read as one
        self.tail = b""  # the beginning of a message that came while nobody held it
        self.endpoint = 0  # the number of its server in the pool
        self.overheard: list[bytes] | None = None  # notifications that came in the middle of a conversation

    def log_in(self) -> Conversation[None]:
        """Log in, run ``session_init`` and remember what the server reports.

        Raises OpenFailed, RemoteProtocolError.
        """
        opened = yield from self._login()
        self.reported, self.defaults = dict(opened.parameters), dict(opened.parameters)
        self.pid, self.secret, self.tls = opened.pid, opened.secret, opened.tls
        self.direct = opened.direct
        why = self.unlinked(opened.rest)
        if why:
            raise RemoteProtocolError(why)
        init = self.upkeep.session_init
        if init:
            try:
                yield from self._run("session_init", [init])
            except BackendError as error:
                raise OpenFailed(error.message, error.sqlstate, error.fields) from None
            self.defaults = dict(self.reported)
            if self.learn is not None:
                yield from self.learn(self)
        if self.server.logged_in(self.reported):
            yield from self._ask_role()
        if self._opened is not None:
            self._opened(self.reported)

    def asks_less(self) -> bool:
        """The server may have minded the protocol version."""
        return self.versions.is_guess

    def _ask_role(self) -> Conversation[None]:
        self.unnamed = self  # nobody's: a simple query ends it
        why = self.unlinked((yield from self.server.ask()))
        if why:
            raise RemoteProtocolError(why)

    def role(self) -> int:
        """What its server is."""
        return self.server.role

    def watch_role(self, told: Callable[[int], None]) -> None:
        """Hear what its server becomes."""
        self.server.told = told

    def pings_by_peek(self) -> bool:
        """``ping_command`` says so."""
        return self.upkeep.peeks

    def ping(self) -> Conversation[None]:
        """A query, empty unless ``ping_command`` is one, and its answer. Raises PingFailed."""
        if self.upkeep.ping_text:
            yield from self.end_begun()  # a transaction that has run something is not a new one
        self.unnamed = self  # nobody's: a simple query ends it
        errors, status = yield from self._ask(query(self.upkeep.ping_text), 1)
        if errors:
            raise PingFailed(f"the server answered a ping with: {errors[0].get('M', '')}")
        if self.server.must_ask() and not self.begun:
            yield from self._ask_role()
        if status != (_IN_TRANSACTION if self.begun else _IDLE):
            raise PingFailed(f"the ping left a transaction {'closed' if self.begun else 'open'}")

    def reset(self) -> Conversation[None]:
        """DISCARD ALL, or what the operator has instead. Raises BackendError."""
        yield from self.end_begun()
        text = self.upkeep.reset_text
        tags = yield from self._run(text if text == "DISCARD ALL" else "reset", [text])
        if "DISCARD ALL" in tags:
            yield from self._forget()
        elif "DEALLOCATE ALL" in tags:
            self.forget_prepared()
        if "RESET" in tags or "SET" in tags:
            # Which settings it took, and what they are now, is not told.
            self.touched_by = _NOBODY

    def _forget(self) -> Conversation[None]:
        self.forget_prepared()
        self.profile = self.profiles.empty
        self.touched_by, self.deep, self.littered, self.unnamed = 0, False, False, None
        yield from self._run("session_init", self.upkeep.after_wiping())

    def _run(self, what: str, texts: list[str], told: list[bytes] | None = None) -> Conversation[list[str]]:
        """Run what the operator wants to be run; returns the command tags. Raises BackendError.

        The session is spoiled where that fails: what it is like is not certain.
        """
        tags: list[str] = []
        if not texts:
            return tags
        self.unnamed = self
        errors, status = yield from self._ask(b"".join(map(query, texts)), len(texts), told, tags)
        if errors:
            fields = errors[0]
            self.spoiled = f"{what} failed: {fields.get('M', '')}"
            raise BackendError(self.spoiled, fields.get("C", "XX000"), {**fields, "M": self.spoiled})
        if status != _IDLE:
            self.spoiled = f"{what} left a transaction open"
            raise BackendError(self.spoiled, "25001")
        return tags

    def begin(self) -> Conversation[None]:
        """BEGIN, in place of one that is too old by now. Raises BackendError."""
        yield from self.end_begun()
        self.unnamed = self  # nobody's
        errors, status = yield from self._ask(query("BEGIN"), 1)
        if errors or status != _IN_TRANSACTION:
            raise failure("BEGIN failed", errors, "no transaction is open")
        self.begun = True

    def end_begun(self) -> Conversation[None]:
        """End a transaction that was begun ahead. Raises BackendError."""
        if not self.begun:
            return
        self.begun = False
        self.unnamed = self
        errors, status = yield from self._ask(query("ROLLBACK"), 1)
        if errors or status != _IDLE:
            raise failure("cannot roll back", errors, "the transaction is still open")

    def tag(self) -> object | None:
        """The settings that it carries; None: as it was opened. Itself where a client has changed more."""
        if self.touched_by != 0 and self.wipes:
            return self
        return None if self.profile is self.profiles.empty else self.profile

    def settle(self) -> Conversation[None]:
        """ROLLBACK where a transaction is open, then an empty round trip. Raises BackendError.

        A cancel request that came late may hit either of them, and then is spent: each is tried again.
        """
        if self.spoiled:
            raise BackendError(self.spoiled)
        text = "" if self.status == _IDLE else "ROLLBACK"
        yield from self.end_begun()
        self.unnamed = self  # nobody's
        for _ in range(3):
            errors, status = yield from self._ask(query(text), 1)
            if not errors and status == _IDLE:
                if text == "" and self.littered:
                    yield from self._run("DISCARD ALL", ["DISCARD ALL"])
                    yield from self._forget()
                if text == "":
                    return
                text = ""
            elif errors and errors[0].get("C") != _CANCELED:
                raise failure("cannot roll back", errors, "")
        raise BackendError("the session did not come to rest")

    def adopt(self, want: Profile, number: int) -> Conversation[bytes]:
        """Make the settings of a client hold; returns the ParameterStatus messages for it.

        Through set_config with bound parameters: no text of a client is ever quoted into SQL. Raises
        BackendError with the server's words.
        """
        send, replies = b"", 0
        told: list[bytes] = []
        changes, upkeep = difference(self.profile, want), self.upkeep
        clean = ""
        if self.touched_by not in (0, number) and self.wipes:
            clean = upkeep.wiping(self.deep)
        elif upkeep.is_undone_by(changes):
            clean = upkeep.wiping(False)
        if clean:
            if (yield from self._wiped(clean, told)):
                send, replies = query(clean), 1
            changes = difference(self.profile, want)
        if changes:
            send += set_config(changes)
            replies += 1
        if replies:
            self.unnamed = self
            errors, _ = yield from self._ask(send, replies, told)
            if errors:
                raise BackendError(errors[0].get("M", ""), errors[0].get("C", "XX000"), errors[0])
        # The batch is one transaction: after an error the settings are as they were.
        self.profile = want
        if (clean or changes) and upkeep.fixup:
            yield from self._run("tag_fixup", [upkeep.fixup], told)
        if (clean or changes) and self.touched_by != number:
            self.touched_by, self.deep = 0, False
        # What was only on the way from one client's value to the other's is nobody's.
        return b"".join({one[5 : one.index(0, 5)]: one for one in told}.values())

    def _wiped(self, clean: str, told: list[bytes]) -> Conversation[bool]:
        """What clients have left goes; True where the caller is to send ``clean`` together with the rest."""
        if self.deep:
            self.forget_prepared()
            self.littered = False
        self.profile = self.profiles.empty
        after = self.upkeep.after_wiping()
        if after:
            yield from self._run("session_init", [clean, *after], told)
        return not after

    def _ask(
        self,
        send: bytes,
        replies: int,
        told: list[bytes] | None = None,
        tags: list[str] | None = None,
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
            elif kind == _COMMAND and tags is not None:
                tags.append(body[:-1].decode("ascii", "replace"))
            elif kind == _NOTIFICATION and self.overheard is not None:
                self.overheard.append(message(b"A", body))
            elif kind == _PARAMETER:
                name, value = read_parameter(body)
                self.reported[name] = value
                self.server.note(name, value, True)
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
                    self.server.note(name, value, False)
                elif kind == _ERROR:
                    return "the server said: " + read_fields(body).get("M", "")
                elif kind == _NOTIFICATION and self.overheard is not None:
                    self.overheard.append(message(b"A", body))
                elif kind not in (_NOTICE, _NOTIFICATION):
                    return f"a message of type {chr(kind)!r} that nobody asked for"
                found = inbox.take()
        except RemoteProtocolError as error:
            return str(error)
        self.tail = inbox.rest
        return ""

    def last_words(self) -> str:
        """Its FATAL."""
        return self.ended

    def process(self) -> int:
        """The backend process, as the server's log has it."""
        return self.pid

    def farewell(self) -> bytes:
        """Terminate; nothing where the server is in the middle of reading a message."""
        return b"" if self.mute else TERMINATE

    def cancel(self) -> Conversation[None]:
        """Send a CancelRequest, under TLS where the session is, and wait for the end of the connection."""
        yield from cancel_request(self.pid, self.secret, self.tls, self.direct)

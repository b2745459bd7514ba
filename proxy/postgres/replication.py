"""Replication connections: a client and a session that are each other's alone, from login to end.

A walsender knows no SET (a physical one not even SQL), so nothing can be put on a session that is open
already: it is opened with the client's own startup parameters, serves this client only, and is never used
again. What passes is looked at just enough to know where messages begin and whether a command runs.
"""

from collections.abc import Callable
from typing import Final

from librt.strings import read_i32_be

from proxy.codec import CLOSE, FORWARD, REPLY, SessionCodec, UnsharedCodec
from proxy.errors import BackendError, PoolError, RemoteProtocolError
from proxy.postgres import answers
from proxy.postgres.client_login import Admitted, welcome
from proxy.postgres.profile import Profiles
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.session_login import Opened
from proxy.postgres.startup import refused
from proxy.postgres.terms import Terms
from proxy.reasons import CloseReason
from proxy.reception import Guest, Refused
from proxy.steps import Conversation

_COMMANDS: Final = b"QSF"  # what a client sends that earns a ReadyForQuery
_READY: Final = b"Z"
_TERMINATE: Final = b"X"
_MOST_KEPT: Final = 65_536  # bytes that a session may say before its client listens


class Wishes:
    """What a replication connection is opened with: "true" or "database", and the client's own settings."""

    def __init__(self, kind: str, settings: dict[str, str]) -> None:
        self.kind = kind
        self.parameters = tuple(settings.items())


class ReplicationSession(PgSessionCodec):
    """The session of one replication client. Nothing of ours is ever sent on it but its login."""

    def __init__(self, login: Callable[[], Conversation[Opened]]) -> None:
        super().__init__(Profiles(), login)
        self.kept = b""  # said by the server while its client was not listening yet

    def unlinked(self, data: bytes) -> str:
        """Keep it for the client."""
        self.kept += data
        return ""

    def is_full(self) -> bool:
        """The server says more than anybody would before it is asked."""
        return len(self.kept) >= _MOST_KEPT

    def take_kept(self) -> bytes:
        """What the server said before its client listened, once."""
        kept, self.kept = self.kept, b""
        return kept

    def ping(self) -> Conversation[None]:
        """It is never idle. Raises BackendError."""
        raise BackendError("a replication connection serves one client only")

    def reset(self) -> Conversation[None]:
        """It is never used again. Raises BackendError."""
        raise BackendError("a replication connection serves one client only")

    def settle(self) -> Conversation[None]:
        """It is never used again. Raises BackendError."""
        raise BackendError("a replication connection serves one client only")


class ReplicationGuest(Guest):
    """A replication client that has proven who it is. It is welcomed once it has its session.

    ``key`` is the database and user of the session; a physical one belongs to no database.
    """

    def __init__(self, admitted: Admitted, pool: object, key: tuple[str, str], terms: Terms) -> None:
        startup = admitted.startup
        codec = ReplicationClient(startup.settings.get("application_name", ""))
        terms.apply(terms.check_all(startup.wishes), codec)
        codec.wants_new, codec.affinity = False, ""  # its session is new, and nobody shares it
        super().__init__(pool, key[0], key[1], codec)
        self.name = startup.user
        self.key_length = startup.key_length
        self.reply, self.rest = admitted.reply, admitted.rest
        self.private = Wishes(startup.replication, startup.settings)
        self._terms = terms
        self._reported: dict[str, str] | None = None

    def welcome(self, cancel_key: bytes) -> bytes | None:
        """As for anybody, with what its own session reports."""
        return None if self._reported is None else welcome(self._reported, cancel_key)

    def turn_away(self, error: PoolError | BackendError) -> bytes:
        """FATAL, in the words of the pool or the server."""
        pool = self._terms.pool
        if isinstance(error, PoolError):
            return answers.refusal(pool, error, "FATAL")
        return answers.unavailable(pool, error.sqlstate, error.message, error.fields, "FATAL")

    def learn(self, session: SessionCodec) -> None:
        """Note what its session reports."""
        assert isinstance(session, ReplicationSession)
        self._reported = dict(session.reported)


def replication_refused(admitted: Admitted) -> Refused:
    """The pool takes no replication connections."""
    pool = admitted.pool.name
    return refused(
        f"user {admitted.startup.user!r} asked for a replication connection in pool {pool!r}",
        "0A000",
        f'pool "{pool}" takes no replication connections',
        hint=f'Set pools.{pool}.replication = "allow", or connect to the server directly.',
        before=admitted.reply,
    )


class ReplicationClient(UnsharedCodec):
    """One replication client: both directions pass as they are. ``label`` is its application_name."""

    def __init__(self, application_name: str) -> None:
        super().__init__()
        self._application_name = application_name
        self._session: ReplicationSession | None = None
        self._up = _Passage()
        self._down = _Passage()
        self._owed = 0  # commands that have not been answered yet

    def client(self, data: bytes) -> int:
        """Everything is for the server."""
        if not data:
            return 0
        self.out = data
        try:
            kinds = self._up.follow(data)
        except RemoteProtocolError as error:
            self.reply = answers.broken(str(error))
            self.closing = CloseReason.PROTOCOL_ERROR
            return REPLY | CLOSE
        if not kinds:
            return FORWARD
        for kind in _COMMANDS:
            self._owed += kinds.count(kind)
        if _TERMINATE in kinds:
            self.closing = CloseReason.CLIENT_LEFT
            if self._session is not None:
                self._session.mute = True  # it has been told
            return FORWARD | CLOSE
        return FORWARD

    def server(self, data: bytes) -> int:
        """Everything is for the client. Raises RemoteProtocolError where it cannot be messages."""
        self.out = data
        if self._owed:
            self._owed = max(0, self._owed - self._down.follow(data).count(_READY))
        else:
            self._down.follow(data)
        return FORWARD

    def join(self, session: SessionCodec) -> bool:
        """What the session has said until now is in ``reply``. It needs nothing."""
        assert isinstance(session, ReplicationSession)
        self._session = session
        self.out = b""
        self.reply = session.take_kept()
        self._down.follow(self.reply)
        return False

    def part(self) -> None:
        """A session that is in the middle of a message would take a goodbye for a part of that."""
        session, self._session = self._session, None
        if session is not None and self._up.is_cut():
            session.mute = True

    def label(self) -> str:
        """Its application_name, as it is since its login."""
        return self._application_name

    def pinned(self) -> str:
        """It keeps its session for what it is."""
        return "replication"

    def is_clean(self) -> bool:
        """Nobody else can use its session."""
        return False

    def is_running(self) -> bool:
        """A command has not ended; a stream is one."""
        return self._owed > 0

    def is_holding_idle(self) -> bool:
        """Its session is its own: it may keep it as long as the server lets it."""
        return False

    def fatal(self, reason: CloseReason, detail: str) -> bytes:
        """The last words, where they would not come in the middle of a message; the server's own go first."""
        if self._down.is_cut() or (reason is CloseReason.SESSION_LOST and self._down.said_error):
            return b""
        return answers.fatal(reason, detail)


class _Passage:
    """Where one direction is in its messages; none is kept."""

    def __init__(self) -> None:
        self.said_error = False  # the latest message was an ErrorResponse
        self._need = 0  # bytes of the present message still to come
        self._head = b""  # the beginning of a header

    def follow(self, data: bytes) -> bytearray:
        """Pass over these bytes; the kinds of the messages that begin in them. Raises RemoteProtocolError."""
        kinds = bytearray()
        if self._head:
            data = self._head + data
            self._head = b""
        end = len(data)
        pos = self._need
        while end - pos >= 5:
            length: int = read_i32_be(data, pos + 1)
            if length < 4:
                raise RemoteProtocolError(f"a message claims a length of {length} bytes")
            kinds.append(data[pos])
            pos += 1 + length
        if pos > end:
            self._need = pos - end
        else:
            self._need = 0
            self._head = data[pos:]
        if kinds:
            self.said_error = kinds[-1] == 69
        return kinds

    def is_cut(self) -> bool:
        """The last message is not whole yet."""
        return self._need > 0 or self._head != b""

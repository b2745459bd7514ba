"""What one client listens to, where sessions change hands: LISTEN outlives the session that it ran on.

A LISTEN runs where the client sends it. When the unit of work is over, the session is asked what it listens
to; a hub (fanout.py) listens to that from then on, and the session goes home. What the hub hears
waits here until it may be told: never inside a message or a transaction, and never without bound. No
notification is told twice or lost on the way from the session to the hub: a mark, notified by the session
itself, divides those that are heard on the one from those that are heard on the other. Sans-IO.
"""

from typing import Final

from proxy.errors import BackendError
from proxy.hearing import Hub
from proxy.postgres.fanout import ABSENT, COMING, Fanout, Fanouts
from proxy.postgres.messages import message
from proxy.postgres.notified import MISSED, channels, named, question, quoted, silence, unlistened
from proxy.postgres.overheard import is_between
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.state import ClientState
from proxy.postgres.state_rules import KEPT, Sharing
from proxy.reasons import CloseReason
from proxy.steps import Conversation, Wait

# What else than KEPT becomes of the session that a client has listened on.
SHARED: Final = 1  # it listens to nothing now, and can go home
GIVEN: Final = 2  # it is the hub's own now

_MOST_NAMES: Final = 1024  # of channels that are to be forgotten at once
_TRIES: Final = 3  # somebody else may be about to give its session, and fail
# Most clients never listen: until they do, these are what they have of it. Nothing is ever put into them.
_NOWHERE: Final[dict[bytes, Fanout]] = {}
_NO_GATES: Final[dict[bytes, bytes]] = {}
_NO_NAMES: Final[dict[bytes, None]] = {}
_NO_BYTES: Final[list[bytes]] = []


class _NoHub(BackendError):
    """The client has to keep its session."""


class Listening(Sharing):
    """One client's channels. ``database`` and ``user`` are those of its sessions."""

    def __init__(self, codec: ClientState, fanouts: Fanouts, database: str, user: str) -> None:
        self._codec: ClientState | None = codec  # None: the client is over
        self._fanouts = fanouts
        self._database = database
        self._user = user
        self._giving: Fanout | None = None  # who is about to get the held session
        self._at: dict[bytes, Fanout] = _NOWHERE
        self._gated: dict[bytes, bytes] = _NO_GATES  # heard on the session, until its mark
        self._tokens: dict[bytes, Fanout] = _NOWHERE
        self._adopting: dict[bytes, None] = _NO_NAMES
        self._pending: list[bytes] = _NO_BYTES
        self._behind: list[bytes] = _NO_BYTES  # heard by the hub, while the session may have something older
        self._size = 0
        self._unlistens: list[bytes] = _NO_BYTES  # channels
        self._unlistened = self._failed = False  # in the transaction that runs
        self._was_deep = False

    def channels(self) -> list[bytes]:
        """What hubs listen to for this client."""
        return [*self._at]

    # -- from its own session to the hub --------------------------------------------------------

    def listened(self) -> None:
        """LISTEN has run on the held session."""
        session = self._session()
        if session is not None and session.overheard is None:
            session.overheard = []
            self._was_deep = session.deep
            self._open()

    def _open(self) -> None:
        if self._at is _NOWHERE:
            self._at, self._gated, self._tokens, self._adopting = {}, {}, {}, {}
            self._pending, self._behind, self._unlistens = [], [], []

    def settle(self) -> Conversation[int]:
        """Ask the held session what it listens to, and have a hub listen to that: KEPT, SHARED or GIVEN.

        KEPT where no hub can be had. Raises BackendError when the session does not answer.
        """
        session = self._session()
        if session is None:
            return SHARED
        self._open()
        if session.overheard is None:
            session.overheard = []
        heard = session.overheard
        session.deep = True  # until it is certain
        names = yield from channels(session, heard)
        try:
            given = yield from self.adopt(session, names, heard)
        except _NoHub:
            return KEPT
        if given:
            return GIVEN
        yield from silence(session, heard)
        session.deep = self._was_deep
        return SHARED

    def adopt(self, session: PgSessionCodec, names: list[bytes], heard: list[bytes]) -> Conversation[bool]:
        """The held session listens to these: have a hub do so. True: the session itself is the hub's now.

        ``heard`` gathers what the session says. Raises _NoHub where none can be had, BackendError when the
        session does not answer.
        """
        marks = self._fanouts.marks
        fresh = [name for name in names if name not in self._at and not name.startswith(marks)]
        if not fresh:
            return False
        fanout = self._fanouts.of(self._database, self._user, session)
        for _ in range(_TRIES):
            if fanout.state != COMING:
                break
            yield Wait(fanout.settled)
            fanout = self._fanouts.of(self._database, self._user, session)
        if self._codec is None:
            return False
        if fanout.state == ABSENT:
            yield from self._give(fanout, session, fresh, heard)
            return True
        yield from self._follow(fanout, session, fresh, heard)
        return False

    def _give(
        self, fanout: Fanout, session: PgSessionCodec, fresh: list[bytes], heard: list[bytes]
    ) -> Conversation[None]:
        # Where there is no hub yet, the session becomes it: to wait for another while this one is held
        # would be to wait for ever where all who hold one do.
        if not fanout.begin():
            raise _NoHub("the pool can spare no session to listen for all")
        self._giving = fanout
        try:
            yield from fanout.ready(session, heard)
        except BaseException:
            self._not_given()
            raise
        if self._codec is not None:
            fanout.is_first = not fanout.is_wanted()
            fanout.add(self, fresh, True)
            self._note(fanout, fresh)

    def _follow(
        self, fanout: Fanout, session: PgSessionCodec, fresh: list[bytes], heard: list[bytes]
    ) -> Conversation[None]:
        token, broken = fanout.token(self), fanout.broken
        self._tokens[token] = fanout
        for name in fresh:
            self._gated[name] = token
            self._adopting[name] = None
        number = fanout.add(self, fresh)
        self._note(fanout, fresh)
        is_there: bool = yield Wait(lambda: fanout.until(number))
        if self._codec is None:
            return
        try:
            if not is_there or fanout.broken != broken:
                raise _NoHub("the session that listens for all does not answer")
            mark = quoted(fanout.mark)
            send = message(b"Q", b"LISTEN " + mark + b";NOTIFY " + mark + b",'" + token + b"'\0")
            yield from question(session, send, 1, heard)
        except BackendError as error:
            fanout.forget_token(token)
            self._tokens.pop(token, None)
            self._leave(fresh)
            raise _NoHub(str(error)) from None

    def _note(self, fanout: Fanout, fresh: list[bytes]) -> None:
        if not self._at:
            self._fanouts.tally.clients += 1
        for name in fresh:
            self._at[name] = fanout

    def asked(self, session: PgSessionCodec | None) -> None:
        """What the held session said while it was asked is this client's, up to its mark."""
        heard = session.overheard if session is not None else None
        for whole in heard or ():
            name, payload = named(whole)
            fanout = self._tokens.get(payload)
            if fanout is not None and name == fanout.mark:
                break
            if name.startswith(self._fanouts.marks):
                continue  # that of another client, who does the same on another session
            if name not in self._at or name in self._adopting or self._giving is not None:
                self._keep(whole)
        if heard is not None:
            heard.clear()
        self._tokens.clear()
        self._adopting.clear()
        if self._behind:
            self._pending += self._behind
            self._behind.clear()
            if self._codec is not None:
                self._codec.news = True

    def gift(self) -> Hub | None:
        """Whose the held session is now, if it was given away."""
        giving, self._giving = self._giving, None
        return None if giving is None else giving.hub

    def kept(self, session: PgSessionCodec | None) -> None:
        """The client lets go of this session: if a hub was about to get it, it does not."""
        if self._giving is not None:
            self._not_given()
        if session is not None and session.overheard is not None:
            self.asked(session)
            session.overheard = None

    def _not_given(self) -> None:
        giving, self._giving = self._giving, None
        if giving is not None:
            giving.given_up()

    def passed(self, token: bytes) -> None:
        """The hub has heard the mark of this token: from here on it is the hub's to tell."""
        for name in [name for name, gate in self._gated.items() if gate == token]:
            del self._gated[name]

    # -- the end of it --------------------------------------------------------------------------

    def overhear(self, text: bytes) -> None:
        """The client sends a text that may say UNLISTEN."""
        if self._codec is not None and self._at and len(self._unlistens) < _MOST_NAMES:
            self._unlistens += unlistened(text)
            self._codec.unlistens = True

    def unlistened(self) -> None:
        """UNLISTEN has run: it holds when its transaction is committed."""
        self._unlistened = True

    def failed(self) -> None:
        """A statement has failed, or was rolled back."""
        self._failed = True

    def ended(self, in_transaction: bool, more: bool) -> None:
        """The server is ready for the next; ``in_transaction``: what ran is not committed yet.

        ``more``: another answer is due.
        """
        failed, self._failed = self._failed, False
        if in_transaction:
            return
        if self._unlistened and not failed:
            self.forget(None if b"*" in self._unlistens else [*self._unlistens])
        self._unlistened = False
        if not more and self._codec is not None:
            self._unlistens.clear()  # what was sent ahead has run, too
            self._codec.unlistens = False

    def forget(self, names: list[bytes] | None) -> None:
        """The client listens to these no more; None: to nothing."""
        self._leave([*self._at] if names is None else names)

    def _leave(self, names: list[bytes]) -> None:
        gone: dict[Fanout, list[bytes]] = {}
        for name in names:
            fanout = self._at.pop(name, None)
            self._gated.pop(name, None)
            if fanout is not None:
                gone.setdefault(fanout, []).append(name)
        if gone and not self._at:
            self._fanouts.tally.clients -= 1
        for fanout, those in gone.items():
            fanout.drop(self, those)

    def leave(self) -> None:
        """The client is over."""
        self._codec = None
        for token, fanout in self._tokens.items():
            fanout.forget_token(token)
        self._leave([*self._at])
        self._pending.clear()
        self._behind.clear()

    def lost(self, detail: str) -> None:
        """The hub's session is gone, and with it what it would have heard."""
        self._leave([*self._at])
        self._doom(CloseReason.LISTEN_LOST, detail)

    def warn(self) -> None:
        """As ``lost``, but another session listens already."""
        self._keep(MISSED)
        self.ring()

    def _doom(self, reason: CloseReason, detail: str) -> None:
        codec = self._codec
        if codec is None:
            return
        self._pending.clear()
        self._behind.clear()
        self._size = 0
        codec.doom, codec.doom_detail = reason, detail
        codec.news = True
        codec.bell()

    # -- to the client --------------------------------------------------------------------------

    def hear(self, name: bytes, whole: bytes) -> bool:
        """The hub has heard this; whether to ``ring`` for it."""
        if name in self._gated:
            return False
        if self._adopting:
            self._behind.append(whole)
            self._size += len(whole)
        else:
            self._keep(whole)
        return True

    def _keep(self, whole: bytes) -> None:
        if self._codec is None or self._codec.doom is not None:
            return
        self._pending.append(whole)
        self._size += len(whole)
        self._codec.news = True

    def ring(self) -> None:
        """There is something to tell."""
        codec = self._codec
        if codec is None:
            return
        codec.bell()
        if self._size > self._fanouts.backlog:
            self._leave([*self._at])
            self._doom(
                CloseReason.LISTEN_BACKLOG,
                f"More than {self._fanouts.backlog} bytes of notifications waited for it.",
            )

    def take(self) -> bytes:
        """What is to be told now; b"" where it is not the moment."""
        codec = self._codec
        if codec is None or not is_between(codec):
            return b""
        told = b"".join(self._pending)
        self._pending.clear()
        self._size = 0
        codec.news = codec.doom is not None
        return told

    def may_hear(self, whole: bytes) -> bool:
        """The held session notifies the client of this: False where a hub tells it, too."""
        name = named(whole)[0]
        return name not in self._at and not name.startswith(self._fanouts.marks)

    def _session(self) -> PgSessionCodec | None:
        return None if self._codec is None else self._codec.session

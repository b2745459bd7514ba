"""What one shared session listens to, and who hears it: the protocol's half of a hub.

Channels are counted: LISTEN is sent for the first client of a channel, UNLISTEN behind the last. A
notification goes, as the bytes that it came in, to those who listen to its channel and to nobody else.
Sans-IO: the session's socket is in relay/hub.py. Here, too, is the register of a pool's hubs: sessions of
different databases, users, servers or encodings never share one.
"""

import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from librt.strings import read_i32_be

from proxy.codec import SessionCodec
from proxy.errors import RemoteProtocolError
from proxy.hearing import Hub, HubCodec, Tally
from proxy.postgres.messages import ERROR_CAP, query, read_fields, read_parameter
from proxy.postgres.notified import named, question, silence, statements
from proxy.postgres.profile import Profiles
from proxy.postgres.session import PgSessionCodec
from proxy.steps import Conversation

if TYPE_CHECKING:
    from proxy.postgres.listening import Listening

ABSENT: Final = 0  # nobody has given it a session
COMING: Final = 1  # somebody is about to
HELD: Final = 2
_ENCODING: Final = "client_encoding"
NOBODY: Final = -1  # instead of a client's number: what is on the session suits none


class Fanout(HubCodec):
    """One hub. ``encoding`` is that of the names and payloads."""

    def __init__(self, fanouts: "Fanouts", place: tuple[str, str, int, str]) -> None:
        super().__init__()
        self.place = place
        self.state: int = ABSENT
        self.is_first = False  # the session that comes listens to everything already
        self.hub: Hub | None = None  # set right after the making
        # Notified by those who come: what they hear elsewhere before that they do not hear here, and reverse.
        self.mark = fanouts.marks + secrets.token_hex(8).encode("ascii")
        self.marked = False  # we listen to that
        self.broken = 0  # requests that the server has refused
        self._fanouts = fanouts
        self._hearers: dict[bytes, dict[Listening, None]] = {}
        self._tokens: dict[bytes, Listening] = {}
        self._made = 0
        self._session: PgSessionCodec | None = None
        self._tail = b""
        self._last_words = ""

    # -- for those who listen -------------------------------------------------------------------

    def begin(self) -> bool:
        """Somebody wants to give it a session; False where the pool could not spare that."""
        hub = self.hub
        if hub is None or self.state != ABSENT or not hub.reserve():
            return False
        self.state = COMING
        return True

    def given_up(self) -> None:
        """It does not get that session after all."""
        hub = self.hub
        if hub is not None and self.state == COMING:
            self.state = ABSENT
            hub.unreserve()

    async def settled(self) -> None:
        """Wait while somebody is about to give it a session."""
        if self.hub is not None and self.state == COMING:
            await self.hub.settled()

    async def until(self, number: int) -> bool:
        """Wait until the server has answered so many requests; False when it will not."""
        return self.hub is not None and await self.hub.until(number)

    def token(self, listening: "Listening") -> bytes:
        """What this client is to notify the mark with."""
        self._made += 1
        token = b"%d" % self._made
        self._tokens[token] = listening
        return token

    def add(self, listening: "Listening", names: Iterable[bytes], there: bool = False) -> int:
        """A client listens to these; returns how many answers are due until that is certain.

        ``there``: the session that it is about to be given listens to them already.
        """
        wanted: list[bytes] = [] if there or self.marked else [self.mark]
        self.marked = self.marked or not there
        for name in names:
            hearers = self._hearers.get(name)
            if hearers is None:
                hearers = self._hearers[name] = {}
                self._fanouts.tally.channels += 1
                wanted.append(name)
            hearers[listening] = None
        if wanted and not there:
            self._ask(b"LISTEN", wanted)
        return self.asked

    def drop(self, listening: "Listening", names: Iterable[bytes]) -> None:
        """A client listens to these no more."""
        unwanted: list[bytes] = []
        for name in names:
            hearers = self._hearers.get(name)
            if hearers is None or hearers.pop(listening, self) is self:
                continue
            if not hearers:
                del self._hearers[name]
                self._fanouts.tally.channels -= 1
                unwanted.append(name)
        if unwanted:
            self._ask(b"UNLISTEN", unwanted)
        if not self._hearers and self.state == HELD and self.hub is not None:
            self.hub.deserted()

    def forget_token(self, token: bytes) -> None:
        """The client will not notify the mark."""
        self._tokens.pop(token, None)

    def _ask(self, verb: bytes, names: list[bytes]) -> None:
        if self.state != HELD or self.hub is None:
            return
        self.asked += 1
        self.hub.say(statements(verb, names))

    # -- as the hub's codec ---------------------------------------------------------------------

    def taken(self, session: SessionCodec) -> None:
        """From now on this session is the hub's."""
        assert isinstance(session, PgSessionCodec)
        self._session = session
        self._tail, session.tail = session.tail, b""
        self.state = HELD
        self.asked = self.answered = 0
        self.marked = False
        if self._hearers and not self.is_first:
            self._ask(b"LISTEN", [*self._hearers])
        self.is_first = False

    def heard(self, data: bytes) -> None:
        """Read what the session says."""
        if self._tail:
            data = self._tail + data
        end, pos = len(data), 0
        rung: dict[Listening, None] = {}
        while end - pos >= 5:
            length: int = read_i32_be(data, pos + 1)
            if length < 4 or length > ERROR_CAP:
                raise RemoteProtocolError(f"the server sent a message of {length} bytes to a listener")
            stop = pos + 1 + length
            if stop > end:
                break
            if data[pos] == 65:  # A
                self._notified(data[pos:stop], rung)
            else:
                self._told(data[pos], data[pos + 5 : stop])
            pos = stop
        self._tail = data[pos:]
        for listening in rung:
            listening.ring()

    def _notified(self, whole: bytes, rung: "dict[Listening, None]") -> None:
        name, payload = named(whole)
        if name == self.mark:
            marker = self._tokens.pop(payload, None)
            if marker is not None:
                marker.passed(payload)
            return
        hearers = self._hearers.get(name)
        if hearers is None:
            return  # it came before the server had read our UNLISTEN
        for listening in hearers:
            if listening.hear(name, whole):
                rung[listening] = None
        self._fanouts.tally.delivered += len(hearers)

    def _told(self, kind: int, body: bytes) -> None:
        if kind == 90:  # Z
            self.answered += 1
        elif kind == 69:  # E
            self.broken += 1
            self._last_words = read_fields(body).get("M", "")
        elif kind == 83 and self._session is not None:  # S
            name, value = read_parameter(body)
            self._session.reported[name] = value
        elif kind != 67 and kind != 78 and kind != 83:  # C N
            raise RemoteProtocolError(f"the server sent a message of type {chr(kind)!r} to a listener")

    def lost(self, detail: str) -> bool:
        """The session is gone: tell those who listen. True where they are to have another."""
        self._let_go()
        tokens, self._tokens = self._tokens, {}
        for token, listening in tokens.items():
            listening.passed(token)
        if self._fanouts.keeps and self._hearers:
            return True
        self.abandon(self._last_words or detail)
        return False

    def abandon(self, detail: str) -> None:
        """There is no other session: those who listen must connect again."""
        for listening in self._everybody():
            listening.lost(detail)
        self._fanouts.forget(self)

    def restored(self) -> None:
        """Another session listens now: those who listen may have missed something."""
        for listening in self._everybody():
            listening.warn()

    def _everybody(self) -> "list[Listening]":
        found: dict[Listening, None] = {}
        for hearers in self._hearers.values():
            found.update(hearers)
        return list(found)

    def is_wanted(self) -> bool:
        """Somebody listens."""
        return bool(self._hearers)

    def _let_go(self) -> None:
        self.state = ABSENT
        self._session = None
        self._tail = b""

    def ready(self, session: SessionCodec, heard: list[bytes]) -> Conversation[None]:
        """Put a session into the state in which it can be the hub's. Raises BackendError.

        What its last client has SET goes; what it listens to stays.
        """
        assert isinstance(session, PgSessionCodec)
        upkeep, encoding = session.upkeep, self.place[3]
        texts = [upkeep.wiping(False), *upkeep.after_wiping()] if session.wipes else []
        if session.wipes:
            session.profile = self._fanouts.profiles.empty
        if encoding != session.defaults.get(_ENCODING, encoding):
            # One of the encodings that PostgreSQL knows, in its own words.
            texts.append("SET client_encoding = '" + encoding.replace("'", "''") + "'")
        yield from question(session, b"".join(map(query, texts)), len(texts), heard)
        session.touched_by, session.deep = NOBODY, True

    def parting(self, session: SessionCodec) -> Conversation[None]:
        """Have the session, which goes home, listen to nothing. Raises BackendError."""
        assert isinstance(session, PgSessionCodec)
        due = self.asked - self.answered + 1
        session.tail = self._tail
        self._let_go()
        if not self._hearers:
            self._fanouts.forget(self)
        yield from silence(session, [], due)


class Fanouts:
    """The hubs of one pool. ``make`` gives one its shell; ``None`` until there is a pool.

    ``backlog`` is how many bytes may wait for one client; ``keeps``: when a hub's session is lost its
    clients stay, and get another.
    """

    def __init__(self, profiles: Profiles, backlog: int, keeps: bool) -> None:
        self.profiles = profiles
        self.backlog = backlog
        self.keeps = keeps
        self.tally = Tally()
        # How every hub's mark begins: no client is ever told of one, its own or another's.
        self.marks = b"penstock_" + secrets.token_hex(8).encode("ascii")
        self.make: Callable[[HubCodec], Hub] | None = None
        self._by_place: dict[tuple[str, str, int, str], Fanout] = {}

    def of(self, database: str, user: str, session: PgSessionCodec) -> Fanout:
        """The hub for whoever listens on this session, which is one of that database and user."""
        place = database, user, session.endpoint, session.reported.get(_ENCODING, "")
        fanout = self._by_place.get(place)
        if fanout is None:
            fanout = self._by_place[place] = Fanout(self, place)
            if self.make is not None:
                fanout.hub = self.make(fanout)
        return fanout

    def forget(self, fanout: Fanout) -> None:
        """It is over."""
        if self._by_place.get(fanout.place) is fanout and fanout.state == ABSENT:
            del self._by_place[fanout.place]

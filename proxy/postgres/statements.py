"""Named prepared statements as the clients of one pool share them: one for each text and its types.

A client's name for it never reaches a server: each session knows it by a name of ours. What a client has
prepared is in its state, what a session holds in session.py; this room keeps the texts, within a bound.
"""

import itertools
from typing import Final

from mypy_extensions import mypyc_attr

from proxy.codec import SessionCodec
from proxy.postgres.effects import effects
from proxy.postgres.messages import message

# What is outstanding of an injected or rewritten Parse or Close: see naming.py.
UNNAMED: Final = 0  # the client's unnamed Parse, sent once more: its reply is swallowed
ENSURE: Final = 1  # a Parse that the client does not know of: swallowed
CREATE: Final = 2  # the client's Parse
SHARE: Final = 3  # the client's Parse of what the session has: a Close of nothing, answered as a Parse
EVICT: Final = 4  # a Close, or a Parse without a statement, that the client does not know of: swallowed
CLOSE: Final = 5  # the client's Close: nothing is closed on the session
CLEAR: Final = 6  # the client's Parse of DEALLOCATE ALL
TIDY: Final = 7  # a Close of what is perhaps not there: swallowed
TRY: Final = 8  # the client's Parse of what the session has, to see whether the server would take it now
DESCRIBE: Final = 9  # the client's Describe
CHECK: Final = 10  # a Describe that the client does not know of: swallowed

_NOTHING: Final = b"penstock_none"
TRIED: Final = b"penstock_tried"
# It succeeds, and its reply comes in its place: order and skipping are left to the server.
CLOSE_NOTHING: Final = message(b"C", b"S" + _NOTHING + b"\0")

CLOSE_TRIED: Final = message(b"C", b"S" + TRIED + b"\0")

# Every text has a name of its own, across all pools and reloads: a session never mistakes one for another.
_numbers = itertools.count(1)
# Of plain Parses so many are remembered, of so many bytes.
_MOST_PLAIN: Final = 1024
LONGEST_PLAIN: Final = 4096
# What a statement costs besides its text: bytes, roughly.
_OVERHEAD: Final = 500


class Statement:
    """One text with its types. Made by ``Statements`` only."""

    def __init__(self, body: bytes, key: bytes) -> None:
        self.name: bytes = b"penstock_%d" % next(_numbers)
        self.body = body  # the text, its zero byte, and the types as in Parse
        self.key = key
        self.size = len(body) + _OVERHEAD
        self.is_proven = False  # a server has taken it
        self.parsed = 0  # how often it was sent to a session
        # What clients were told of its parameters and columns. Set where no other session holds it unchecked.
        self.description = b""
        self.users = 0  # names of clients for it
        self.effects = effects(body, 0, len(body))  # what it may leave on a session
        self.close: bytes = message(b"C", b"S" + self.name + b"\0")
        self.describe: bytes = message(b"D", b"S" + self.name + b"\0")
        self.bind_length = -1  # of the latest Bind of it, and how that begins now
        self.bind_head = b""

    def parse(self) -> bytes:
        """The Parse that prepares it under our name."""
        self.parsed += 1
        return message(b"P", self.name + b"\0" + self.body)

    def attempt(self) -> bytes:
        """The Parse that only shows whether the server would take it; CLOSE_TRIED goes ahead of it."""
        return message(b"P", TRIED + b"\0" + self.body)

    def text(self) -> bytes:
        """What it says."""
        return self.body[: self.body.find(b"\0")]


@mypyc_attr(allow_interpreted_subclasses=True)
class StatementHolder(SessionCodec):
    """A session, as far as it holds named statements. Abstract: see session.py."""

    def __init__(self) -> None:
        # The named statements that it holds under our names; the longest unused first.
        self.prepared: dict[Statement, None] = {}
        self.latest: Statement | None = None  # the one that was used last
        self.stale: list[Statement] = []  # to be closed before they are prepared again

    def forget_prepared(self) -> None:
        """The session holds no named statements any more."""
        self.prepared.clear()
        self.stale.clear()
        self.latest = None

    def doubt_prepared(self) -> None:
        """Whether it holds them is not certain: each is closed before it is prepared again."""
        self.stale += self.prepared
        self.prepared.clear()
        self.latest = None


class Mark:
    """A Parse or Close whose reply means something to us, by its place among those that are answered.

    ``sync`` counts ReadyForQuery, ``step`` the Parses and Closes after it.
    """

    def __init__(self, sync: int, step: int, kind: int, statement: Statement | None, name: bytes) -> None:
        self.sync = sync
        self.step = step
        self.kind = kind
        self.statement = statement
        self.name = name  # the client's
        self.names: dict[bytes, Statement] | None = None  # CLEAR: what the client had
        self.held: list[Statement] | None = None  # ... and its session


class Statements:
    """The statements of one pool.

    ``cache``: how many a session holds. ``memory``: bytes that all of them may take; ``client_memory``: those
    that one client has names for.
    """

    def __init__(
        self, cache: int = 100, memory: int = 256 * 1024 * 1024, client_memory: int = 4 * 1024 * 1024
    ) -> None:
        self.cache = cache
        self.memory = memory
        self.client_memory = client_memory
        self.size = 0
        # Parses of the unnamed statement that are nothing special: they need no second look.
        self.plain: set[bytes] = set()
        self._known: dict[bytes, Statement] = {}
        self._unused: dict[Statement, None] = {}  # nobody has a name for it; the longest unused first

    def another(self) -> "Statements":
        """One with the same bounds."""
        return Statements(self.cache, self.memory, self.client_memory)

    def __len__(self) -> int:
        return len(self._known)

    def note_plain(self, text: bytes) -> None:
        """This Parse was looked at, and is nothing special."""
        if len(text) > LONGEST_PLAIN:
            return
        if len(self.plain) >= _MOST_PLAIN:
            self.plain.clear()
        self.plain.add(text)

    def is_proven(self, body: bytes, path: str) -> bool:
        """A server has taken this text lately."""
        found = self._known.get(_key(body, path))
        return found is not None and found.is_proven

    def take(self, body: bytes, path: str) -> Statement | None:
        """The statement for a text that was parsed under this search_path; None: there is no room.

        The same text under another search_path may mean other tables.
        """
        key = _key(body, path)
        found = self._known.get(key)
        if found is None:
            found = Statement(body, key)
            self._make_room(found.size)
            if self.size + found.size > self.memory:
                return None
            self._known[key] = found
            self.size += found.size
        elif found.users == 0:
            del self._unused[found]
        found.users += 1
        return found

    def take_twin(self, statement: Statement, description: bytes) -> Statement | None:
        """Another one for the same text; who parses it next gets that, too. None: there is no room."""
        twin = Statement(statement.body, statement.key)
        self._make_room(twin.size)
        if self.size + twin.size > self.memory:
            return None
        twin.is_proven, twin.description, twin.users = True, description, 1
        if self._known.get(twin.key) is statement:
            self._known[twin.key] = twin
        self.size += twin.size
        return twin

    def give(self, statement: Statement) -> None:
        """A client has lost its name for it."""
        statement.users -= 1
        if statement.users > 0:
            return
        if self._known.get(statement.key) is statement:
            self._unused[statement] = None
            self._make_room(0)
        else:
            self._forget(statement)

    def renew(self) -> None:
        """Tables may not be what they were: who parses a text again gets a statement of its own for it.

        Those who have prepared it before are told by the server when theirs does not fit any more.
        """
        for statement in self._unused:
            self._forget(statement)
        self._unused.clear()
        self._known.clear()

    def _forget(self, statement: Statement) -> None:
        self.size -= statement.size
        # Sessions may hold it still, and need only its name.
        statement.body = statement.key = b""

    def _make_room(self, size: int) -> None:
        while self._unused and self.size + size > self.memory:
            oldest = next(iter(self._unused))
            del self._unused[oldest]
            del self._known[oldest.key]
            self._forget(oldest)


def _key(body: bytes, path: str) -> bytes:
    return body + b"\0" + path.encode("utf-8", "surrogateescape") if path else body

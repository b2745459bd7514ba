"""The warm path from a session to its client: one scan over the headers of each read.

A ReadyForQuery is owed for each Query, Sync and FunctionCall; the session goes home when it is idle
and nothing is owed. What the server reports of its settings is noted on the way.
"""

from typing import Final

from librt.strings import read_i32_be

from proxy.codec import FORWARD, PREPARE, RECOVER, RELEASE, RESUME
from proxy.errors import RemoteProtocolError
from proxy.postgres import asides, starting
from proxy.postgres.profile import TRACKED
from proxy.postgres.requests import Requests
from proxy.postgres.state import (
    ENDED,
    IDLE,
    OURS,
    PENDING,
    SESSION_MODE,
    STATEMENT_MODE,
    UNCLEAR,
)

# A message up to this many bytes that means something to us is looked at as a whole.
_WHOLE: Final = 16_384
# ... and an error that one of ours may replace.
_WHOLE_ERROR: Final = 1_048_576

# The messages that a session may send: Z 1 2 3 A C D E G H I N S T V W c d n s t.
_FROM_SERVER: Final = bytes(1 if chr(kind) in "Z123ACDEGHINSTVWcdnst" else 0 for kind in range(256))
# Those of them that pass without a look.
_PLAIN: Final = bytes(1 if chr(kind) in "23ADHINTVcdnst" else 0 for kind in range(256))
# What `_special` returns for a message that `_opened` has to look at, with those behind it.
_OPENING: Final = b"opening"


class Responses(Requests):
    """The half of the codec that reads what the linked session sends. Abstract, as its base."""

    def server(self, data: bytes) -> int:  # noqa: C901, PLR0915  (the loop of the warm path: calls cost)
        """Read bytes from the linked session; ``out`` is for the client."""
        if self.back_tail:
            data = self.back_tail + data
            self.back_tail = b""
        end = len(data)
        pos = 0
        self.back_start = 0
        ready = False
        if self.back_need:
            pos = self.back_need if self.back_need < end else end
            self.back_need -= pos
        while end - pos >= 5:
            kind: int = data[pos]
            length: int = read_i32_be(data, pos + 1)
            stop = pos + 1 + length
            if stop > end or length < 4:
                if self._must_be_whole(kind, length):
                    break
                self._begin_back(kind)
                self.back_need = stop - end
                pos = end
                break
            if not _PLAIN[kind]:
                if kind == 90:  # Z
                    ready = True
                piece = self._special(kind, data, pos, stop)
                if piece is _OPENING:
                    stop = self._opened(data, pos, end)
                    if stop < 0:
                        break
                elif piece is not None:
                    self.back_chunks.append(data[self.back_start : pos])
                    self.back_chunks.append(piece)
                    self.back_start = stop
            pos = stop
        if pos < end:
            self.back_tail = data[pos:]
        if self.back_start == 0 and pos == end:
            self.out = data
        else:
            self.out = data[self.back_start : pos]
        if self.back_chunks:
            self.back_chunks.append(self.out)
            self.out = b"".join(self.back_chunks)
            self.back_chunks.clear()
        flags = FORWARD if self.out else 0
        return flags | self._after_ready() if ready or self.unread else flags

    def _must_be_whole(self, kind: int, length: int) -> bool:
        """A message that is cut by the end of a read must be looked at as a whole."""
        if length < 4 or not _FROM_SERVER[kind] or (kind == 90 and length != 5):
            raise RemoteProtocolError(f"the server sent a message of type {chr(kind)!r} with {length} bytes")
        if kind == 69 and self.faults:
            return length <= _WHOLE_ERROR
        return length <= _WHOLE and (kind == 90 or kind == 67 or kind == 69 or kind == 83)

    def _special(self, kind: int, data: bytes, pos: int, stop: int) -> bytes | None:  # noqa: C901  (one case each)
        """A whole message that means something to us; returns what replaces it, None to let it pass."""
        if kind == 90:  # Z
            if stop - pos != 6:
                raise RemoteProtocolError("the server sent a ReadyForQuery without its status")
            return None if self._ready(data[pos + 5]) else asides.transaction_refused(self)
        if kind == 67 and stop - pos > 8:  # C
            first = data[pos + 5]
            # SET (not SELECT), RESET, DISCARD, LISTEN, PREPARE; ROLLBACK and DELETE mean nothing.
            if first == 83:
                if data[pos + 7] == 84:
                    self._tagged(data[pos + 5 : stop - 1])
            elif first == 82 or first == 68 or first == 76 or first == 80:
                self._tagged(data[pos + 5 : stop - 1])
        elif kind == 49:  # 1
            if self.opening:
                return _OPENING
            if self.pending and self.parse_at == self.seen and self.parse_no == self.parses_seen:
                self.pending = False
                if self.holds == PENDING:
                    self.holds = OURS
            self.parses_seen += 1
            if self.swallow and self._swallowed():
                return b""
        elif kind == 69:  # E
            return self._failed(data[pos:stop])
        elif kind == 83:  # S
            self._parameter(data[pos + 5 : stop - 1])
        elif kind == 71:  # G
            asides.copy_in_started(self)
        elif kind == 87:  # W
            self.doubt = True
        elif kind != 67:
            raise RemoteProtocolError(f"the server sent a message of type {chr(kind)!r}")
        return None

    def _ready(self, status: int) -> bool:
        """Account for a ReadyForQuery; False when the client must be told something else."""
        if status != IDLE and status != 84 and status != 69:
            raise RemoteProtocolError("the server reports no transaction status that we know")
        owed = self.owed
        while owed and owed[0] >= ENDED:
            owed.pop(0)
        if owed:
            owed.pop(0)
            while owed and owed[0] == ENDED:
                owed.pop(0)
        elif not self.doubt:
            raise RemoteProtocolError("the server is ready for a query though none was outstanding")
        if self.intruded:
            self.intruded = False
            self.doubt = self.doubt or bool(owed)
        self.status = status
        self.copy_in = self.copy_synced = False
        self.seen += 1
        self.parses_seen = 0
        if self.pending and self.parse_at < self.seen:
            self.unnamed_lost()
        while self.swallow and self.swallow[0] < self.seen:
            # A Parse that was sent on behalf of the client has failed, or was skipped.
            del self.swallow[:2]
            self.holds = UNCLEAR
        if status == IDLE:
            self.transactions += 1
            return True
        return self.pool_mode != STATEMENT_MODE or bool(owed) or self.segment

    def _after_ready(self) -> int:  # noqa: C901  (on the warm path: calls cost)
        """What follows from the ReadyForQuery that was just forwarded."""
        self.unread = False
        if self.owed or self.segment:
            return self._resumed() if self.resume else 0
        flags = self.resume = 0
        if self.faults:
            self.faults.clear()
        if self.blocked:
            self.blocked = False
            self.set_aside()
            flags = RESUME
        if self.back_need or self.back_tail:
            # The session cannot change hands in the middle of a notice.
            self.unread = True
            return flags
        if self.saw_reset and self.status == IDLE:
            flags |= self._settings_reset()
        if self.pool_mode == SESSION_MODE:
            return flags
        if self.violated:
            return flags | RECOVER
        if self.status != IDLE:
            # Whatever is in doubt, a client's transaction stays on its session.
            return flags
        if self.doubt:
            return flags | RECOVER
        if self.need:
            # The server has ended a copy while the client is still in the middle of its data.
            self.late = True
            return flags
        return flags | RELEASE

    def _swallowed(self) -> bool:
        if self.swallow[0] == self.seen and self.swallow[1] == self.parses_seen - 1:
            del self.swallow[:2]
            return True
        return False

    def _failed(self, message: bytes) -> bytes | None:
        """An ErrorResponse; returns what replaces it."""
        if self.opening:
            return _OPENING
        self.copy_in = False
        if self.copy_synced:
            # Whether that Sync was read before or after this is not told.
            self.doubt = True
        if b"FATAL\0" in message or b"PANIC\0" in message:
            self.saw_fatal = True
        for marker, refusal in self.faults.items():
            if marker in message:
                del self.faults[marker]
                return refusal
        return None

    def _opened(self, data: bytes, pos: int, end: int) -> int:
        """The answer to a BEGIN that the client did not send just now; where it ends, -1: not all is here."""
        at = pos
        passing = b""
        while end - at >= 5:
            kind = data[at]
            length: int = read_i32_be(data, at + 1)
            stop = at + 1 + length
            if length < 4:
                raise RemoteProtocolError(f"the server sent a message of {length} bytes")
            if stop > end:
                return -1
            if kind == 67 or kind == 69:  # C E
                self.back_chunks.append(data[self.back_start : pos])
                self.back_chunks.append(passing)
                if kind == 67:
                    starting.confirmed(self)
                    self.back_start = stop
                    return stop
                self.back_chunks.append(starting.begin_failed(self, data[at:stop]))
                self.back_tail = data[stop:]
                self.back_start = end
                return end
            if kind == 83:
                self._parameter(data[at + 5 : stop - 1])
            if kind != 49 and kind != 50:
                passing += data[at:stop]
            at = stop
        return -1

    def _resumed(self) -> int:
        """The server has answered BEGIN, and still owes an answer to what follows."""
        flags, self.resume = self.resume, 0
        self.blocked = False
        self.set_aside()
        return flags

    def _begin_back(self, kind: int) -> None:
        # A message of the server passes in pieces, so its content is not looked at.
        if kind == 69:
            self._failed(b"")
        elif kind == 71:
            asides.copy_in_started(self)

    def _tagged(self, tag: bytes) -> None:
        """A command has completed that may change what the session is like for others."""
        session = self.session
        if session is None:
            return
        if tag == b"SET" or tag == b"RESET" or tag == b"DISCARD ALL":
            session.touched_by = self.number
            if tag != b"SET":
                self.saw_reset = True
        elif tag == b"LISTEN" or tag == b"PREPARE":
            session.touched_by = self.number
            session.deep = True

    def _parameter(self, body: bytes) -> None:
        name, _, value = body.decode("utf-8", "replace").partition("\0")
        session = self.session
        if session is None:
            return
        session.reported[name] = value
        session.profile = self.profiles.changed_if_tracked(self.profile, name.lower(), value)
        self.want(session.profile)

    def _settings_reset(self) -> int:
        """RESET goes back to what the client asked for at its login; the session has only its defaults.

        RESET of one setting and RESET ALL look alike from here, so what is reported decides.
        """
        self.saw_reset = False
        session = self.session
        if session is None:
            return 0
        kept: dict[str, str] = {}
        for name, value in session.reported.items():
            if name.lower() in TRACKED and session.defaults.get(name) != value:
                kept[name.lower()] = value
        if kept:
            session.profile = self.profiles.of(kept)
            self.want(self.profiles.of({**self.startup_profile.settings, **kept}))
        else:
            session.profile = self.profiles.empty
            self.want(self.startup_profile)
        if self.pool_mode != SESSION_MODE or session.profile is self.profile:
            return 0
        # To prepare the session again may take its unnamed statement from it.
        self.note_unnamed(session)
        return PREPARE

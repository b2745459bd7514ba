"""The warm path from a session to its client: one scan over the headers of each read.

A ReadyForQuery is owed for each Query, Sync and FunctionCall; the session goes home when it is idle
and nothing is owed. What the server reports of its settings is noted on the way.
"""

from typing import Final

from librt.strings import read_i32_be

from proxy.codec import FORWARD, RECOVER, RELEASE, RESUME
from proxy.errors import RemoteProtocolError
from proxy.postgres import asides, completing, marking, noting, overheard, pinning, reporting, starting
from proxy.postgres.requests import Requests
from proxy.postgres.session_role import READ_ONLY_ERROR
from proxy.postgres.state import (
    ENDED,
    IDLE,
    IN_TRANSACTION,
    OURS,
    PENDING,
    SESSION_MODE,
    STATEMENT_MODE,
)

# A message up to this many bytes that means something to us is looked at as a whole.
_WHOLE: Final = 16_384
# ... and an error that one of ours may replace.
_WHOLE_ERROR: Final = 1_048_576

# The messages that a session may send: Z 1 2 3 A C D E G H I N S T V W c d n s t.
_FROM_SERVER: Final = bytes(1 if chr(kind) in "Z123ACDEGHINSTVWcdnst" else 0 for kind in range(256))
# Those of them that pass without a look.
_PLAIN: Final = bytes(1 if chr(kind) in "2DHINTVcdns" else 0 for kind in range(256))
# What `_special` returns for a message that `_opened` has to look at, with those behind it.
_OPENING: Final = b"opening"
# ... and that `_described` has to look at, with the one behind it.
_DESCRIBED: Final = b"described"


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
                elif piece is _DESCRIBED:
                    stop = self._described(data, pos, stop, end)
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
        return length <= _WHOLE and (
            kind == 90 or kind == 67 or kind == 69 or kind == 83 or kind == 65 or kind == 116
        )

    def _special(self, kind: int, data: bytes, pos: int, stop: int) -> bytes | None:  # noqa: C901, PLR0915  (cases)
        """A whole message that means something to us; returns what replaces it, None to let it pass."""
        if kind == 90:  # Z
            if stop - pos != 6:
                raise RemoteProtocolError("the server sent a ReadyForQuery without its status")
            return None if self._ready(data[pos + 5]) else asides.transaction_refused(self)
        if kind == 67 and stop - pos > 8:  # C
            first = data[pos + 5]
            if first == 80 and self.losing:  # PREPARE, of what is deallocated next: see deallocating.py
                return b""
            if self.asked is not None:
                noting.completed(self, data[pos + 5 : stop - 1])
            # SET (not SELECT), RESET, DISCARD, DEALLOCATE, DROP, LISTEN, PREPARE, ALTER.
            if first == 83:
                if data[pos + 7] == 84:
                    completing.tagged(self, data[pos + 5 : stop - 1])
            elif first == 82 or first == 68 or first == 76 or first == 80 or first == 65:
                completing.tagged(self, data[pos + 5 : stop - 1])
            elif first == 85 and data[pos + 6] == 78:  # UNLISTEN
                overheard.tagged(self, b"UNLISTEN")
            elif first == 66 and self.intruded:  # BEGIN
                self.begun_at = self.seen
        elif kind == 49 or kind == 51:  # 1 3
            if self.opening:
                return _OPENING
            return self._step()
        elif kind == 116:  # t
            if self.marks and self.marks[0].sync == self.seen and self.marks[0].step == self.steps_seen:
                return _DESCRIBED
            self.steps_seen += 1
        elif kind == 69:  # E
            return self._failed(data[pos:stop])
        elif kind == 83:  # S
            reporting.changed(self, data[pos + 5 : stop])
        elif kind == 65:  # A
            return overheard.notified(self, data[pos:stop])
        elif kind == 71:  # G
            asides.copy_in_started(self)
        elif kind == 87:  # W
            self.doubt = True
        elif kind != 67:
            raise RemoteProtocolError(f"the server sent a message of type {chr(kind)!r}")
        return None

    def _ready(self, status: int) -> bool:  # noqa: C901  (on the warm path: calls cost)
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
            self._intruder_answered(status)
        self.status = status
        self.copy_in = self.copy_synced = False
        self.seen += 1
        self.steps_seen = 0
        if self.pending and self.parse_at < self.seen:
            self.unnamed_lost()
        if self.marks and self.marks[0].sync < self.seen:
            marking.skipped(self)
        if self.unlistens and self.listening is not None:
            self.listening.ended(status != IDLE, bool(owed))
        if status == IDLE:
            self._ended()
            return True
        return self.pool_mode != STATEMENT_MODE or bool(owed) or self.segment

    def _intruder_answered(self, status: int) -> None:
        """ReadyForQuery, of the Query that was sent where a Sync was due or of what is behind it."""
        if self.intruder > 0:
            self.intruder -= 1
            return
        self.intruded = False
        if self.owed and (self.intruder < 0 or self.failed_at == self.seen):
            self.doubt = True
        elif self.status == IDLE and status == IN_TRANSACTION and self.begun_at != self.seen:
            # The server took the segment for a transaction. A Sync will end that for show only: it says
            # that it is idle, and its next statement fails (XX000, PostgreSQL 18).
            self.doubt = True

    def _ended(self) -> None:
        self.transactions += 1
        if self.altered:
            self.altered = False
            self.statements.renew()

    def _after_ready(self) -> int:  # noqa: C901  (on the warm path: calls cost)
        """What follows from the ReadyForQuery that was just forwarded."""
        self.unread = False
        if self.owed or self.segment:
            if (self.holds_names and not self.owed) or (self.blocked and self.doubt):
                self.resume = RESUME
            return self._resumed() if self.resume else 0
        self.clearing = 0
        self.losing = b""
        if self.news:
            overheard.told(self)
        flags = self.resume = 0
        if self.faults:
            self.faults.clear()
        if self.blocked:
            self.blocked = self.holds_names = False
            self.set_aside()
            flags = RESUME
        if self.back_need or self.back_tail:
            # The session cannot change hands in the middle of a notice.
            self.unread = True
            return flags
        if self.saw_reset and self.status == IDLE:
            flags |= completing.settings_reset(self)
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
        return flags | (pinning.unit_ended(self) if self.suspects else RELEASE)

    def _step(self) -> bytes | None:
        """A ParseComplete or CloseComplete; returns what replaces it."""
        step = self.steps_seen
        self.steps_seen = step + 1
        if self.pending and self.parse_at == self.seen and self.parse_no == step:
            self.pending = False
            if self.holds == PENDING:
                self.holds = OURS
        if self.marks and self.marks[0].sync == self.seen and self.marks[0].step == step:
            return marking.answered(self)
        return None

    def _failed(self, message: bytes) -> bytes | None:
        """An ErrorResponse; returns what replaces it."""
        if self.opening:
            self.failed_at = self.seen
            return _OPENING
        if reporting.has_ended(self, message):
            return b""
        self.failed_at = self.seen
        if self.asked is not None:
            noting.failed(self, message)
        if self.unlistens and self.listening is not None:
            self.listening.failed()
        self.copy_in = False
        if self.checking:
            # What was asked for is not answered any more.
            self.resume, self.unread = RESUME, True
        if self.copy_synced:
            # Whether that Sync was read before or after this is not told.
            self.doubt = True
        if READ_ONLY_ERROR in message and self.session is not None:
            self.session.server.refused()
        for marker, refusal in self.faults.items():
            if marker in message:
                del self.faults[marker]
                return refusal
        return marking.failed(self, message) if self.renames else None

    def _described(self, data: bytes, pos: int, stop: int, end: int) -> int:
        """What a statement of ours is like, in two messages; where they end, -1: not all is here."""
        last = stop + 1 + read_i32_be(data, stop + 1) if end - stop >= 5 else end + 1
        if last > end:
            return -1
        if (
            data[stop] == 69
        ):  # E: its parameters were told before the server saw that it does not fit any more
            if marking.is_ours(self):
                self.back_chunks.append(data[self.back_start : pos])
                self.back_start = stop
            return stop
        self.steps_seen += 1
        if marking.described(self, data[pos:last]):
            self.back_chunks.append(data[self.back_start : pos])
            self.back_start = last
            self.resume, self.unread = RESUME, True
        return last

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
                reporting.changed(self, data[at + 5 : stop])
            if kind != 49 and kind != 50:
                passing += data[at:stop]
            at = stop
        return -1

    def _resumed(self) -> int:
        """The server has answered BEGIN, and still owes an answer to what follows."""
        flags, self.resume = self.resume, 0
        self.blocked = self.holds_names = self.checking = False
        self.set_aside()
        return flags

    def _begin_back(self, kind: int) -> None:
        # A message of the server passes in pieces, so its content is not looked at.
        if kind == 69:
            self._failed(b"")
        elif kind == 71:
            asides.copy_in_started(self)

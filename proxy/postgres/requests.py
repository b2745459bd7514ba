"""The warm path from a client to its session: one scan over the headers of each read.

The bytes received are forwarded as they are wherever nothing in them must change; a message that is
not plain gets a verdict from asides.py. No object is made for a message.
"""

from typing import Final

from librt.strings import read_i32_be

from proxy.codec import CLOSE, FORWARD, RELEASE, REPLY, TERMS
from proxy.postgres import asides, deallocating, deferring, naming, noting, overheard, pinning, unnamed
from proxy.postgres.begin import text_of
from proxy.postgres.effects import effects, is_plain
from proxy.postgres.own import concerns
from proxy.postgres.pieces import HELD, PILED, Pieces
from proxy.postgres.state import (
    AWAIT,
    CALL,
    CUT,
    HEAD,
    HOLD,
    INSERT,
    INSERT_HOLD,
    OURS,
    PASS,
    PENDING,
    QUERY,
    STOP,
    SYNC,
    UNCLEAR,
    WHOLE,
)
from proxy.postgres.statements import LONGEST_PLAIN
from proxy.reasons import CloseReason

# A message up to this many bytes is whole before it is forwarded, so that a slow uploader holds nothing.
_WHOLE: Final = 16_384
# Of a longer one this much must be here before it is looked at and forwarded in pieces.
_ENOUGH: Final = 1_024
# The messages that a client may send: B C D E F H P Q S X c d f.
_FROM_CLIENT: Final = bytes(1 if chr(kind) in "BCDEFHPQSXcdf" else 0 for kind in range(256))
_STRANGE: Final = "a client may not send a message of this type here: "


class Requests(Pieces):
    """The half of the codec that reads what the client sends. Abstract, as its base."""

    def client(self, data: bytes) -> int:  # noqa: C901, PLR0915  (the loop of the warm path: calls cost)
        """Read bytes from the client; ``out`` is for the session, ``reply`` for the client."""
        self.reply = b""
        self.more = False
        if self.tail:
            if self.blocked:
                return self.pile_up(data)
            if self.held:
                data = bytes(self.held) + data
                self.held.clear()
            data = self.tail + data
            self.tail = b""
        end = len(data)
        pos = 0
        self.start = 0
        self.flags = 0
        if self.need:
            pos = self.continue_piece(data, end)
        while end - pos >= 5:
            kind: int = data[pos]
            length: int = read_i32_be(data, pos + 1)
            stop = pos + 1 + length
            if stop > end or length < 4 or self.aside:
                pos = self._unusual(kind, data, pos, end, length)
                if pos < 0:
                    pos = -1 - pos
                    break
                continue
            if (
                kind == 81  # Q
                and (
                    is_plain(data, pos + 5, stop)
                    or not (concerns(data, pos + 5, stop) or (self.watches and effects(data, pos + 5, stop)))
                )
            ):
                self.owed.append(QUERY)
                self.sent += 1
                self.steps = 0
                self.queries += 1
                self.parse = self.large = None
                self.pending = False
                self.holds = OURS
                if self.segment:
                    self.intrude(1)
            elif kind == 69:  # E
                self.queries += 1
                self.segment = True
            elif (kind == 68 and length > 5 and data[pos + 5] == 80) or (  # D of a portal
                kind == 66  # B of the unnamed statement
                and self.holds == OURS
                and length > 6
                and ((data[pos + 5] == 0 and data[pos + 6] == 0) or not self.renames)
            ):
                self.segment = True
            else:
                if kind == 66 and self.renames and length > 6 and data[pos + 5] == 0 and data[pos + 6] != 0:
                    verdict = naming.use(self, kind, data, pos, stop)
                    if verdict == WHOLE:
                        self.out = self.piece
                        return FORWARD
                else:
                    verdict = self._look(kind, data, pos, stop)
                if verdict != PASS:
                    pos = self._change(verdict, data, pos, stop)
                    if pos < 0:
                        pos = -1 - pos
                        break
                    continue
            pos = stop
        return self._end_client(data, pos, end)

    def _end_client(self, data: bytes, pos: int, end: int) -> int:  # noqa: C901  (on the warm path: calls cost)
        if pos < end and not self.flags:
            self.tail = data[pos:]
            if self.blocked and end - pos > HELD:
                self.break_off(PILED)
        if self.start == 0 and pos == end and not self.chunks:
            self.out = data
        else:
            self.out = data[self.start : pos]
            if self.chunks:
                self.chunks.append(self.out)
                self.out = b"".join(self.chunks)
                self.chunks.clear()
        flags = self.flags
        if self.out or self.more:
            flags |= FORWARD
        if self.reply:
            flags |= REPLY
            if self.news:
                overheard.replied(self)
        if self.terms_changed:
            self.terms_changed = False
            flags |= TERMS
        if self.late and not self.need:
            self.late = False
            if asides.is_resting(self):
                flags |= 0 if self.pins else RELEASE
            else:
                self.unread = True
        return flags

    def _unusual(self, kind: int, data: bytes, pos: int, end: int, length: int) -> int:
        """A message that is not whole, or for the cold room; where to go on, or -1 - pos to stop there."""
        if length < 4 or length > self.cap:
            self.break_off(f"a message of type {chr(kind)!r} claims {length} bytes")
            return -1 - pos
        stop = pos + 1 + length
        if stop <= end:
            verdict = self._look(kind, data, pos, stop)
            if self.asked is not None:
                noting.sent(self, verdict, kind, data, pos, stop)
            return stop if verdict == PASS else self._change(verdict, data, pos, stop)
        if not _FROM_CLIENT[kind]:
            self.break_off(_STRANGE + repr(chr(kind)))
            return -1 - pos
        if kind != 100 and (length <= _WHOLE or end - pos < _ENOUGH):
            return -1 - pos
        if kind == 80 and data[pos + 5] != 0 and naming.is_kept_whole(self, length):
            return -1 - pos
        verdict = self._look(kind, data, pos, end)
        if self.asked is not None:
            noting.sent(self, verdict, kind, data, pos, end)
        if verdict == PASS:
            self.begin_pieces(kind, data, pos, end, stop)
            return -1 - end
        pos = self._change(verdict, data, pos, end)
        if pos >= 0:
            self.need = stop - end
            self.discard = verdict != INSERT and verdict != HEAD
        return pos

    def _change(self, verdict: int, data: bytes, pos: int, stop: int) -> int:
        """Carry out a verdict; where to go on, or -1 - pos to stop there."""
        if pos > self.start:
            self.chunks.append(data[self.start : pos])
        self.start = pos
        if verdict == HOLD:
            return -1 - pos
        if verdict == INSERT_HOLD:
            self.chunks.append(self.piece)
            return -1 - pos
        if verdict == AWAIT:
            self.more = True
            return -1 - pos
        if verdict == STOP:
            self.leaving = self.closing is CloseReason.CLIENT_LEFT
            self.flags = CLOSE
            return -1 - pos
        if verdict != CUT:
            self.chunks.append(self.piece)
        if verdict == HEAD:
            self.start = self.resume_at
        elif verdict != INSERT:
            self.start = stop
        return stop

    def _look(self, kind: int, data: bytes, pos: int, stop: int) -> int:
        """The verdict on one message that is not plain; ``stop`` is where it, or what is here of it, ends."""
        if self.aside:
            verdict = asides.set_aside_message(self, kind, data, pos, stop)
            if verdict < 0:
                verdict = deferring.met(self, kind, data, pos, stop)
            if verdict >= 0:
                return verdict
        if kind == 80:  # P
            return self._parse(data, pos, stop)
        if kind == 81:  # Q
            return self._query(data, pos, stop)
        if kind == 66 or kind == 68:  # B D
            return self._bind(kind, data, pos, stop)
        if kind == 83:  # S
            return self._sync()
        if kind == 70:  # F
            self.queries += 1
            if self.segment:
                self.intrude(0)
            self.earns(CALL)
            return PASS
        return self._look_further(kind, data, pos, stop)

    def _look_further(self, kind: int, data: bytes, pos: int, stop: int) -> int:
        if kind == 69:  # E, in pieces
            self.queries += 1
            self.segment = True
            return PASS
        if kind == 67:  # C
            if stop - pos >= 7 and data[pos + 5] == 83 and data[pos + 6] == 0:
                self.parse = self.large = self.own = None
                self.pending = False
                self.holds = UNCLEAR
                self.set_aside()
            elif self.renames and stop - pos >= 7 and data[pos + 5] == 83:
                return naming.close(self, data, pos, stop)
            self.step()
            return PASS
        if kind == 72 or kind == 100:  # H d
            if self.session is None and not self.outstanding():
                return asides.idle_message(self, kind)
            return PASS
        if kind == 99 or kind == 102:  # c f
            if self.session is None and not self.outstanding():
                return asides.idle_message(self, kind)
            return asides.copy_ended(self)
        if kind == 88:  # X
            return STOP
        self.break_off(_STRANGE + repr(chr(kind)))
        return STOP

    def _sync(self) -> int:
        if self.copy_in:
            # Whether the server reads it inside or after the copy data is its business.
            self.doubt = True
            return PASS
        if self.session is None and not self.segment and not self.owed:
            return asides.idle_message(self, 83)
        self.segment = False
        if self.pending:
            self.holds = PENDING
        self.owed.append(SYNC)
        self.sent += 1
        self.steps = 0
        return PASS

    def _parse(self, data: bytes, pos: int, stop: int) -> int:
        named = stop - pos > 5 and data[pos + 5] != 0
        if named and self.renames:
            verdict = naming.parse(self, data, pos, stop)
            if verdict == PASS:
                self.step()
            return verdict
        if named:
            self.step()
            return PASS
        if stop - pos <= LONGEST_PLAIN:
            text = data[pos:stop]
            if text in self.statements.plain:
                unnamed.parsed(self, text)
                return PASS
        verdict = PASS
        if self.renames and deallocating.may_concern(data, pos + 6, stop):
            verdict = deallocating.parse(self, data, pos, stop)
        if verdict in (AWAIT, HOLD):
            return verdict
        own = unnamed.parse(self, data, pos, stop)
        return verdict if own == PASS else own

    def _bind(self, kind: int, data: bytes, pos: int, stop: int) -> int:
        if kind == 66 or (stop - pos > 5 and data[pos + 5] == 83):
            if asides.uses_unnamed(kind, data, pos, stop):
                # Make sure that the session has this client's unnamed statement.
                verdict = PASS if self.holds == OURS else unnamed.bring(self)
                if verdict != PASS and verdict != INSERT:
                    return verdict
                self.step(kind == 68)
                return verdict
            if self.renames:
                return naming.use(self, kind, data, pos, stop)
            self.step(kind == 68)
        self.segment = True
        return PASS

    def _query(self, data: bytes, pos: int, stop: int) -> int:
        if is_plain(data, pos + 5, stop):
            self.querying()
            return PASS
        verdict = PASS
        if concerns(data, pos + 5, stop):
            verdict = asides.own_query(self, data, pos, stop)
            if verdict != PASS:
                return verdict
        if self.watches:
            verdict = pinning.met(self, data, pos + 5, stop, True)
            if verdict != PASS:
                return verdict
        if self.renames and deallocating.may_concern(data, pos + 5, stop):
            verdict = deallocating.query(self, text_of(data, pos, stop))
            if verdict in (AWAIT, HOLD):
                return verdict
        self.querying()
        return verdict

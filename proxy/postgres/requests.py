"""The warm path from a client to its session: one scan over the headers of each read.

The bytes received are forwarded as they are wherever nothing in them must change; a message that is
not plain gets a verdict from asides.py. No object is made for a message.
"""

from typing import Final

from librt.strings import read_i32_be

from proxy.codec import CLOSE, FORWARD, PAUSE, RELEASE, REPLY, TERMS
from proxy.postgres import answers, asides, deferring
from proxy.postgres.own import concerns
from proxy.postgres.state import (
    CALL,
    CUT,
    HOLD,
    INSERT,
    OURS,
    PASS,
    PENDING,
    QUERY,
    SESSION_MODE,
    STOP,
    SYNC,
    UNCLEAR,
    UNTOUCHED,
    ClientState,
)
from proxy.reasons import CloseReason

# A message up to this many bytes is whole before it is forwarded, so that a slow uploader holds nothing.
_WHOLE: Final = 16_384
# Of a longer one this much must be here before it is looked at and forwarded in pieces.
_ENOUGH: Final = 1_024
# A statement up to this many bytes is remembered, so that it can be prepared again on another session.
_REMEMBERED: Final = 1_048_576
# Bytes of a longer one that are kept to tell it from others.
_STAND_IN: Final = 64
# What a client may pile up behind a statement that waits until nothing is outstanding.
_HELD: Final = 1_048_576
_PILED: Final = "too much was sent behind a penstock setting that waits for its turn"
# The messages that a client may send: B C D E F H P Q S X c d f.
_FROM_CLIENT: Final = bytes(1 if chr(kind) in "BCDEFHPQSXcdf" else 0 for kind in range(256))
_STRANGE: Final = "a client may not send a message of this type here: "


class Requests(ClientState):
    """The half of the codec that reads what the client sends. Abstract, as its base."""

    def client(self, data: bytes) -> int:  # noqa: C901, PLR0915  (the loop of the warm path: calls cost)
        """Read bytes from the client; ``out`` is for the session, ``reply`` for the client."""
        self.reply = b""
        if self.tail:
            if self.blocked:
                return self._pile_up(data)
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
            pos = self._continue(data, end)
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
            if kind == 81 and not concerns(data, pos + 5, stop):  # Q
                self.owed.append(QUERY)
                self.sent += 1
                self.parses = 0
                self.queries += 1
                self.parse = self.large = None
                self.pending = False
                self.holds = OURS
                if self.segment:
                    self.intrude()
            elif kind == 69:  # E
                self.queries += 1
                self.segment = True
            elif (kind == 66 or kind == 68) and self.holds == OURS:  # B D
                self.segment = True
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

    def _end_client(self, data: bytes, pos: int, end: int) -> int:
        if pos < end and not self.flags:
            self.tail = data[pos:]
            if self.blocked and end - pos > _HELD:
                self._break(_PILED)
        if self.start == 0 and pos == end and not self.chunks:
            self.out = data
        else:
            self.out = data[self.start : pos]
            if self.chunks:
                self.chunks.append(self.out)
                self.out = b"".join(self.chunks)
                self.chunks.clear()
        flags = self.flags
        if self.out:
            flags |= FORWARD
        if self.reply:
            flags |= REPLY
        if self.terms_changed:
            self.terms_changed = False
            flags |= TERMS
        if self.late and not self.need:
            self.late = False
            if asides.is_resting(self):
                flags |= RELEASE
            else:
                self.unread = True
        return flags

    def _pile_up(self, data: bytes) -> int:
        """Keep what comes behind a message that is held back, without a look."""
        self.out = b""
        self.held += data
        if len(self.held) <= _HELD:
            # Only the server's word on BEGIN is waited for: it is only fair to stop reading meanwhile.
            return PAUSE if self.opening or self.resume else 0
        self._break(_PILED)
        return CLOSE | REPLY

    def _unusual(self, kind: int, data: bytes, pos: int, end: int, length: int) -> int:
        """A message that is not whole, or for the cold room; where to go on, or -1 - pos to stop there."""
        if length < 4 or length > self.cap:
            self._break(f"a message of type {chr(kind)!r} claims {length} bytes")
            return -1 - pos
        stop = pos + 1 + length
        if stop <= end:
            verdict = self._look(kind, data, pos, stop)
            return stop if verdict == PASS else self._change(verdict, data, pos, stop)
        if not _FROM_CLIENT[kind]:
            self._break(_STRANGE + repr(chr(kind)))
            return -1 - pos
        if kind != 100 and (length <= _WHOLE or end - pos < _ENOUGH):
            return -1 - pos
        verdict = self._look(kind, data, pos, end)
        if verdict == PASS:
            self._begin_pieces(kind, data, pos, end, stop)
            return -1 - end
        pos = self._change(verdict, data, pos, end)
        if pos >= 0:
            self.need = stop - end
            self.discard = verdict != INSERT
        return pos

    def _change(self, verdict: int, data: bytes, pos: int, stop: int) -> int:
        """Carry out a verdict; where to go on, or -1 - pos to stop there."""
        if pos > self.start:
            self.chunks.append(data[self.start : pos])
        self.start = pos
        if verdict == HOLD:
            return -1 - pos
        if verdict == STOP:
            self.leaving = self.closing is CloseReason.CLIENT_LEFT
            self.flags = CLOSE
            return -1 - pos
        if verdict != CUT:
            self.chunks.append(self.piece)
        if verdict != INSERT:
            self.start = stop
        return stop

    def _look(self, kind: int, data: bytes, pos: int, stop: int) -> int:  # noqa: C901  (one case each)
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
            if concerns(data, pos + 5, stop):
                verdict = asides.own_query(self, data, pos, stop)
                if verdict != PASS:
                    return verdict
            self.querying()
            return PASS
        if kind == 66 or kind == 68:  # B D
            return self._bind(kind, data, pos, stop)
        if kind == 83:  # S
            return self._sync()
        if kind == 70:  # F
            self.queries += 1
            if self.segment:
                self.intrude()
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
            self.segment = True
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
        self._break(_STRANGE + repr(chr(kind)))
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
        self.parses = 0
        return PASS

    def _parse(self, data: bytes, pos: int, stop: int) -> int:
        if stop - pos > 5 and data[pos + 5] != 0:
            if self.pool_mode != SESSION_MODE:
                return asides.refuse_named(self)
        else:
            if concerns(data, pos + 6, stop):
                verdict = asides.own_parse(self, data, pos, stop)
                if verdict != PASS:
                    return verdict
            if self.own is not None:
                self.own = None
                self.set_aside()
            self.parse, self.large = data[pos:stop], None
            self.holds = OURS
            self.pending, self.resent = True, False
            self.parse_at, self.parse_no = self.sent, self.parses
        self.parses += 1
        self.segment = True
        return PASS

    def _bind(self, kind: int, data: bytes, pos: int, stop: int) -> int:
        # Make sure that the session has this client's unnamed statement, if that is what it uses.
        if self.holds != OURS and asides.uses_unnamed(kind, data, pos, stop):
            verdict = self._bring_unnamed()
            if verdict != PASS:
                return verdict
        self.segment = True
        return PASS

    def _bring_unnamed(self) -> int:
        """Another client's statement must never be used for this one's."""
        parse, session = self.parse, self.session
        if self.holds == UNTOUCHED:
            if session is not None:
                own = self.large if parse is None else parse
                if own is not None and session.unnamed is own:
                    self.holds = OURS
                    return PASS
            elif parse is not None:
                self.wanted = parse
                self.holds = OURS
                return PASS
        if self.holds == PENDING and not self.segment:
            # Were its Parse skipped, then to send it again would run what must not run.
            return asides.hold(self)
        if parse is None:
            return asides.refuse_unnamed(self)
        if self.doubt or self.intruded:
            # Replies cannot be counted any more, so none can be swallowed.
            return asides.refuse_unnamed(self)
        self._again(parse)
        return INSERT

    def _again(self, parse: bytes) -> None:
        """The client's Parse is sent once more, and its reply will be swallowed."""
        self.swallow.append(self.sent)
        self.swallow.append(self.parses)
        self.parse_at, self.parse_no = self.sent, self.parses
        self.resent = self.resent or self.holds != PENDING
        self.pending = True
        self.holds = OURS
        self.parses += 1
        self.segment = True
        self.piece = parse

    def _begin_pieces(self, kind: int, data: bytes, pos: int, end: int, stop: int) -> None:
        self.need = stop - end
        if kind == 80 and data[pos + 5] == 0:
            # `_parse` remembered what is here of it: gather the rest, or do without.
            self.parse, self.large = None, data[pos : pos + _STAND_IN]
            if stop - pos <= _REMEMBERED:
                self.gathered = bytearray(data[pos:end])

    def _continue(self, data: bytes, end: int) -> int:
        """The rest of a message that passes in pieces; returns where it ends in ``data``."""
        step = self.need if self.need < end else end
        self.need -= step
        if self.gathered is not None:
            self.gathered += data[:step]
            if not self.need:
                self.parse, self.large = bytes(self.gathered), None
                self.gathered = None
        if self.discard:
            self.start = step
            self.discard = self.need > 0
        return step

    def _break(self, text: str) -> None:
        self.closing = CloseReason.PROTOCOL_ERROR
        self.reply += answers.broken(text)
        self.flags = CLOSE

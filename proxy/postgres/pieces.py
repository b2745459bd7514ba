"""What passes in pieces, and what piles up: the parts of a client's stream that are no whole message.

A message that is too long to be looked at as a whole is forwarded as it comes; what comes behind one that
is held back is kept, within a bound.
"""

from typing import Final

from proxy.codec import CLOSE, PAUSE, REPLY
from proxy.postgres import answers
from proxy.postgres.state import ClientState
from proxy.reasons import CloseReason

# A statement up to this many bytes is remembered, so that it can be prepared again on another session.
_REMEMBERED: Final = 1_048_576
# Bytes of a longer one that are kept to tell it from others.
_STAND_IN: Final = 64
# What a client may pile up behind a statement that waits until nothing is outstanding.
HELD: Final = 1_048_576
PILED: Final = "too much was sent behind a penstock setting that waits for its turn"


class Pieces(ClientState):
    """The stream of a client, without the meaning of its messages. Abstract, as its base."""

    def pile_up(self, data: bytes) -> int:
        """Keep what comes behind a message that is held back, without a look."""
        self.out = b""
        self.held += data
        if len(self.held) <= HELD:
            # Only the server's word is waited for: it is only fair to stop reading meanwhile.
            return PAUSE if self.opening or self.resume or self.checking or self.holds_names else 0
        self.break_off(PILED)
        return CLOSE | REPLY

    def begin_pieces(self, kind: int, data: bytes, pos: int, end: int, stop: int) -> None:
        """What is here of a message is forwarded; the rest is to come."""
        self.need = stop - end
        if kind == 80 and data[pos + 5] == 0:
            # `_parse` remembered what is here of it: gather the rest, or do without.
            self.parse, self.large = None, data[pos : pos + _STAND_IN]
            if stop - pos <= _REMEMBERED:
                self.gathered = bytearray(data[pos:end])

    def continue_piece(self, data: bytes, end: int) -> int:
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

    def break_off(self, text: str) -> None:
        """The client broke the protocol: say so, and close."""
        self.closing = CloseReason.PROTOCOL_ERROR
        self.reply += answers.broken(text)
        self.flags = CLOSE

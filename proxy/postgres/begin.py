"""Recognises the statements that begin and end a transaction, exactly or not at all.

Only what is certain to succeed on the server may be answered before it has run, so nothing is guessed
here: a comment, a second statement or an unknown word, and the text is not recognised. Pure.
"""

import re
from typing import Final

from librt.strings import read_i32_be

from proxy.postgres.messages import message

# A transaction is begun: when the client says so; with its first statement; before it asks. As in
# pool/limits.py, which this folder does not know.
PASS_ON: Final = 0
DEFER: Final = 1
AHEAD: Final = 2
LOOK: Final = 3  # as PASS_ON, but what it says is looked at: only known here

# A longer text is none of these.
_LONGEST: Final = 256
_BIND: Final = b"B\x00\x00\x00\x0c" + b"\0" * 8
_EXECUTE: Final = b"E\x00\x00\x00\x09" + b"\0" * 5
# What `whole_unit` says instead of where the unit ends.
NO_UNIT: Final = -1
NOT_YET: Final = 0

# What PostgreSQL takes for white space, whatever its version. It stands where the patterns have a blank.
_BLANK: Final = rb"[ \t\n\r\f]"
_MODE: Final = (
    rb"(?:isolation +level +(?:serializable|repeatable +read|read +committed|read +uncommitted)"
    rb"|read +(?:only|write)|(?:not +)?deferrable)"
)


def _pattern(text: bytes) -> "re.Pattern[bytes]":
    return re.compile((b" *" + text + b" *;? *").replace(b" ", _BLANK), re.IGNORECASE)


_BEGIN: Final = _pattern(
    rb"(?:begin(?: +(?:work|transaction))?|(start) +transaction)"
    rb"( +" + _MODE + rb"(?:(?: *, *| +)" + _MODE + rb")*)?"
)
_END: Final = _pattern(
    rb"(?:(commit|end)|rollback|abort)(?: +(?:work|transaction))?(?: +and +(no +)?(chain))?"
)
_PREPARE: Final = _pattern(rb"prepare +transaction +'[^'\\]*'")
_TO_SAVEPOINT: Final = _pattern(
    rb"rollback(?: +(?:work|transaction))? +to +(?:savepoint +)?[a-z0-9_\"\x80-\xff]+"
)


class Begin:
    """One that was recognised: the tag that it is answered by, and whether it names no mode at all.

    ``reads``: it is READ ONLY, and not SERIALIZABLE, so a standby can run it. ``unsynced`` is how it is sent
    ahead of a statement, ``complete`` how it is answered.
    """

    def __init__(self, text: bytes, tag: bytes, plain: bool, reads: bool = False) -> None:
        self.text = text
        self.tag = tag
        self.plain = plain
        self.reads = reads
        self.complete = message(b"C", tag + b"\0")
        self.unsynced = message(b"P", b"\0" + text + b"\0\0\0") + _BIND + _EXECUTE


# Those that were recognised lately: clients say the same again and again.
_known: Final[dict[bytes, Begin]] = {}
_MOST_KNOWN: Final = 64


class End:
    """One that was recognised. ``chain``: another transaction of the same modes begins."""

    def __init__(self, tag: bytes, chain: bool) -> None:
        self.tag = tag
        self.chain = chain


def read_begin(text: bytes) -> Begin | None:
    """Read BEGIN or START TRANSACTION with any modes; None for everything else."""
    known = _known.get(text)
    if known is not None:
        return known
    if len(text) > _LONGEST:
        return None
    found = _BEGIN.fullmatch(text)
    if found is None:
        return None
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    tag = b"BEGIN" if found[1] is None else b"START TRANSACTION"
    begin = _known[text] = Begin(text, tag, found[2] is None, _reads(found[2] or b""))
    return begin


def _reads(modes: bytes) -> bool:
    words = modes.replace(b",", b" ").lower().split()
    return b"only" in words and b"write" not in words and b"serializable" not in words


def read_end(text: bytes) -> End | None:
    """Read COMMIT, END, ROLLBACK or ABORT; None for everything else."""
    if len(text) > _LONGEST:
        return None
    found = _END.fullmatch(text)
    if found is None:
        return None
    chain = found[3] is not None and found[2] is None
    return End(b"ROLLBACK" if found[1] is None else b"COMMIT", chain)


def read_failed_end(text: bytes) -> End | None:
    """What ends a transaction that has failed: any end of it, even PREPARE TRANSACTION, rolls it back."""
    found = read_end(text)
    if found is not None:
        return End(b"ROLLBACK", found.chain)
    if len(text) <= _LONGEST and _PREPARE.fullmatch(text) is not None:
        return End(b"ROLLBACK", False)
    return None


def goes_to_savepoint(text: bytes) -> bool:
    """ROLLBACK TO SAVEPOINT."""
    return len(text) <= _LONGEST and _TO_SAVEPOINT.fullmatch(text) is not None


def text_of(data: bytes, pos: int, stop: int) -> bytes:
    """What a Query says; nothing where it has not even room for its end."""
    # A slice that ends before it begins is no empty one to compiled code, but an error.
    return data[pos + 5 : stop - 1] if stop - pos > 5 else b""


def may_begin(data: bytes, at: int) -> bool:
    """A text that begins so may be BEGIN or START TRANSACTION: the cheap look."""
    first = data[at]
    return first in b"bBsS \t\n\r\f"


def may_end(data: bytes, at: int) -> bool:
    """... COMMIT, END, ROLLBACK or ABORT."""
    return data[at] in b"cCeErRaA \t\n\r\f"


def whole_unit(data: bytes, pos: int) -> tuple[int, int, bytes]:
    """Look whether at ``pos`` one statement without parameters is parsed, bound, executed and synced.

    Returns where that ends, in how many messages, and their answers up to that of the Execute. Instead of
    the end NO_UNIT, or NOT_YET where more bytes are needed to tell.
    """
    at, end, count, step = pos, len(data), 0, 0
    described, replies = False, b""
    while step < 4:
        if end - at < 5:
            return NOT_YET if end == at or data[at] in _ALLOWED[step] else NO_UNIT, 0, b""
        kind: int = data[at]
        length: int = read_i32_be(data, at + 1)
        if kind not in _ALLOWED[step] or length < 4 or length > 2 * _LONGEST:
            return NO_UNIT, 0, b""
        stop = at + 1 + length
        if stop > end:
            return NOT_YET, 0, b""
        body = data[at + 5 : stop]
        if kind == 68:  # D
            if described or body != _DESCRIBED[step]:
                return NO_UNIT, 0, b""
            described = True
            replies += _NO_PARAMETERS + _NO_DATA if step == 1 else _NO_DATA
        elif not _is_simple(kind, body):
            return NO_UNIT, 0, b""
        else:
            replies += _REPLIES[step]
            step += 1
            described = False
        at = stop
        count += 1
    return at, count, replies


_ALLOWED: Final = (b"P", b"DB", b"DE", b"S")
_DESCRIBED: Final = (b"", b"S\0", b"P\0", b"")
_REPLIES: Final = (b"1\x00\x00\x00\x04", b"2\x00\x00\x00\x04", b"", b"")
_NO_PARAMETERS: Final = b"t\x00\x00\x00\x06\x00\x00"
_NO_DATA: Final = b"n\x00\x00\x00\x04"


def _is_simple(kind: int, body: bytes) -> bool:
    """A Parse of the unnamed statement, Bind of it to the unnamed portal, Execute of that, without values."""
    if kind == 80:  # P
        return body[:1] == b"\0" and body.count(b"\0") == 4 and body[-3:] == b"\0\0\0"
    if kind == 66:  # B
        return body[:6] == b"\0\0\0\0\0\0"
    if kind == 69:  # E
        return body[:1] == b"\0"
    return True

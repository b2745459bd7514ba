"""What a statement may leave on its session, told from its text at the price of a few searches.

Hot: ``effects`` sees the text of every statement where sessions change hands, and says 0 for nearly all of
them. It may be wrong in one direction only: what it names costs a question to the server (pinning.py),
which knows. What it cannot see is what functions and procedures do inside; docs/session-state.md says so.
"""

import re
from typing import Final

from mypy_extensions import i64

from proxy.postgres.own import split
from proxy.reasons import PinReason

# Kinds of state, by bits.
ADVISORY: Final = 1
TEMPORARY: Final = 2
HOLD: Final = 4
LOADED: Final = 8  # LOAD has completed
PREPARED: Final = 16  # by SQL
LISTENED: Final = 32
SETTINGS: Final = 64
KINDS: Final = tuple(str(reason) for reason in PinReason)  # in the order of their bits
EVERY_KIND: Final = 127
# What else a text may say.
LOADS: Final = 128  # LOAD, which leaves something only once it has completed
RESETS: Final = 256  # a setting goes back to its default
UNLISTENS: Final = 512
ENDS: Final = 1024  # state that is there may end
PINNED: Final = 2048  # not said by a text: the client keeps its session

# Of what is shorter than any other statement only these.
_SHORT: Final = frozenset(
    word + end
    for word in (b"BEGIN", b"COMMIT", b"ROLLBACK", b"END", b"begin", b"commit", b"rollback", b"end")
    for end in (b"\0", b";\0")
)
# A text up to this long is looked at byte by byte.
_NEAR: Final = 2_048
# Of a longer text only the beginning is looked at.
_FAR: Final = 16_384
# Bytes that may begin a statement which is looked at more closely; the last are of a comment.
_MAYBE: Final = bytes(1 if chr(byte) in "cdlprsu-/" else 0 for byte in range(256))
# ... and those that may make a table: not b i u and their like.
_CREATES: Final = bytes(0 if chr(byte) in "abfgilmrtu" else 1 for byte in range(256))
_LETTER: Final = bytes(1 if 97 <= byte <= 122 else 0 for byte in range(256))

# A second statement that begins with one of the words that matter.
_AFTER: Final = re.compile(
    rb";(?:\s|--[^\n]*\n|/\*.*?\*/)*"
    rb"(?:close|deallocate|declare|discard|drop|listen|load|prepare|reset|set|unlisten)\b",
    re.DOTALL,
)
_WORD: Final = re.compile(rb"[a-z]+")
_TEMPORARY: Final = re.compile(
    rb"\b(?:create|into)\s+(?:(?:or\s+replace|local|global|recursive)\s+)*temp(?:orary)?\b|\bpg_temp\b"
)
_DROPPED: Final = re.compile(rb"\bon\s+commit\s+drop\b")
_HOLD: Final = re.compile(rb"\bwith\s+hold\b")
# A call whose last argument is true is undone at the end of the transaction.
_LOCAL_CALL: Final = re.compile(rb"set_config\s*\((?:'(?:[^']|'')*'|[^'()])*,\s*(?:'?true'?|'t')\s*\)")
_SET: Final = re.compile(rb"set\s+(?:local|transaction|constraints)\b")
_TO_DEFAULT: Final = re.compile(rb"(?:=|\bto\b|\bzone\b|\bnames\b|\bauthorization\b)\s*(?:default|local)\s*$")


def is_plain(data: bytes, start: int, stop: int) -> bool:  # noqa: C901  (the warm path: calls cost)
    """A text that certainly has no effects, and concerns nothing of ours (own.py): the cheapest look.

    Of the commonest statements only, and those without a call; whatever else it is has to be looked at.
    """
    if stop - start < 12:
        return data[start:stop] in _SHORT
    if stop - start > _NEAR:
        return False
    first, third = data[start] | 32, data[start + 2] | 32
    if first == 115 or first == 100:  # SELECT, DELETE
        if third != 108:
            return False
    elif not (
        (first == 105 and third == 115)  # INSERT
        or (first == 117 and third == 100)  # UPDATE
        or (first == 119 and third == 116)  # WITH
    ):
        return False
    # One loop over a short text costs a third of the searches that it stands for.
    at: i64 = start
    last: i64 = stop - 1
    called = named = False
    while at < last:
        byte: i64 = data[at]
        if byte <= 95 or byte == 109:  # most are other small letters, and tell nothing
            if byte == 40:  # a function is called with this, and those that matter have a _ in their names
                if named:
                    return False
                called = True
            elif byte == 95:
                if called:
                    return False
                named = True
            elif byte == 59:
                if at + 1 < last:  # at the very end it is nobody's second statement
                    return False
            elif (byte | 32) == 109 and (data[at - 1] | 32) == 101 and (data[at + 1] | 32) == 112:
                return False  # TEMPORARY
        at += 1
    return True


def effects(data: bytes, start: int, stop: int) -> int:
    """What the statements in ``data[start:stop]`` may leave on their session, as bits; 0: nothing."""
    if stop - start < 5:
        return 0
    if stop - start > _FAR:
        stop = start + _FAR
    # One byte is found fastest. A function is called with one of these, and those that matter have the other.
    called = data.find(b"(", start, stop) >= 0 and data.find(b"_", start, stop) >= 0
    several = data.find(b";", start, stop - 2) >= 0
    first = data[start] | 32
    if called or several or _CREATES[first]:
        text = data[start:stop].lower()
        # Not `in`, which makes an exception of every search before it begins.
        if called and (text.find(b"advisory_") >= 0 or text.find(b"set_config") >= 0):
            return _closer(text)
        if text.find(b"temp") >= 0 and _is_temporary(text):
            return _closer(text)
        if several and _AFTER.search(text):
            return _closer(text)
        at = 0
        if not _LETTER[first]:
            at = _opening(text)
            first = text[at]
        if not _MAYBE[first] or not _stands_out(first, text, at):
            return 0
        return _closer(text)
    if not _MAYBE[first] or not _stands_out(first, data, start):
        return 0
    return _closer(data[start:stop].lower())


def _opening(text: bytes) -> int:
    """Where the first word of a text begins that begins with white space or a comment."""
    at, end = 0, len(text) - 4
    while at < end:
        first = text[at]
        if first == 47 and text[at + 1] == 42:  # /*
            close = text.find(b"*/", at + 2)
            # One inside another is left to the closer look.
            if close < 0 or text.find(b"/*", at + 2, close) >= 0:
                return 0
            at = close + 2
        elif first == 45 and text[at + 1] == 45:  # --
            close = text.find(b"\n", at)
            if close < 0:
                return 0
            at = close + 1
        elif first > 32:
            return at
        else:
            at += 1
    return 0


def _is_temporary(text: bytes) -> bool:
    """Somewhere stands temp, temporary or pg_temp; not template, attempt or temperature."""
    at = text.find(b"temp")
    while at >= 0:
        behind = text[at + 4] if at + 4 < len(text) else 0
        if behind <= 32 or behind == 111 or behind == 46 or behind == 47 or behind == 34:  # o . / "
            return True
        at = text.find(b"temp", at + 4)
    return False


def _stands_out(first: int, text: bytes, at: int) -> bool:
    """Not one of the statements that everybody sends, in whatever case. There are four bytes at least."""
    second, third = text[at + 1] | 32, text[at + 2] | 32
    if first == 115:  # s: not SELECT, SHOW, START
        return second == 101 and third == 116
    if first == 100:  # d: not DELETE
        return second != 101 or third != 108
    if first == 99:  # c: CLOSE
        return second == 108
    if first == 108:  # l: not LOCK
        return third != 99
    if first == 117:  # u: not UPDATE
        return second == 110
    if first == 114:  # r: not ROLLBACK, RELEASE
        return second == 101 and third == 115
    return True


def _closer(text: bytes) -> int:
    """The same, read properly. ``text`` is in lower case; what follows a zero byte is no text."""
    return sum_of(statements(text))


def statements(text: bytes) -> list[bytes]:
    """The statements of a text that may end with other parts of its message."""
    end = text.find(b"\0")
    if end >= 0:
        text = text[:end]
    if b";" in text or b"--" in text or b"/*" in text:
        return split(text)
    return [text.strip()]


def sum_of(parts: list[bytes]) -> int:
    """What these statements, in lower case and without comments, may leave together."""
    found = 0
    for part in parts:
        word = _WORD.match(part)
        if word is not None:
            found |= _first_words(word.group(), part)
        if b"advisory_lock" in part:
            found |= ADVISORY
        if b"advisory_unlock" in part:
            found |= ENDS
        if b"temp" in part and _TEMPORARY.search(part) and not _DROPPED.search(part):
            found |= TEMPORARY
        if b"set_config" in part and part.count(b"set_config") > len(_LOCAL_CALL.findall(part)):
            found |= SETTINGS | ENDS
    return found


def _first_words(word: bytes, part: bytes) -> int:
    if word == b"set":
        if _SET.match(part):
            return 0
        return SETTINGS | ENDS | (RESETS if _TO_DEFAULT.search(part) else 0)
    if word == b"discard":
        return ENDS | (SETTINGS | RESETS | UNLISTENS if part.endswith(b"all") else 0)
    if word == b"declare":
        return HOLD if _HOLD.search(part) else 0
    if word == b"prepare":
        return 0 if _TWO_PHASES.match(part) else PREPARED
    return _BY_WORD.get(word, 0)


_TWO_PHASES: Final = re.compile(rb"prepare\s+transaction\b")
_BY_WORD: Final = {
    b"reset": SETTINGS | RESETS | ENDS,
    b"listen": LISTENED,
    b"unlisten": UNLISTENS | ENDS,
    b"load": LOADS,
    b"deallocate": ENDS,
    b"close": ENDS,
    b"drop": ENDS,
}

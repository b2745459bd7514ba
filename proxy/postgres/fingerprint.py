"""What a query is without its literals, and what its comments say of who asked it.

Two queries that differ only in literals, numbers, lengths of lists, comments, white space or the case of
words have the same fingerprint, as in pg_stat_statements; no server is asked. The text of a fingerprint must
never hold a literal of the query: what cannot be told for certain is taken for one. Cold: called where
somebody wants to know, and bounded.
"""

import hashlib
import re
from typing import Final
from urllib.parse import unquote

# Of a longer query only so much is looked at: bytes.
_READ: Final = 4_096
# Results for texts up to so many bytes are kept, so many of them.
_KEPT: Final = 2_048
_MOST_KEPT: Final = 512
# Comments that are looked at, pairs that are taken from them, and letters of a value.
_COMMENTS: Final = 8
_PAIRS: Final = 16
_LONGEST_VALUE: Final = 256

_TOKEN: Final = re.compile(
    r"""
      (?P<space> [ \t\n\r\f\v]+ | --[^\n\r]* )
    | (?P<comment> /\* )
    | (?P<escaped> [eE]' (?: [^'\\] | '' | \\. )* (?: ' | \Z | \\\Z ) )
    | (?P<string> (?: [uU]& | [bBxXnN] )? ' (?: [^'] | '' )* (?: ' | \Z ) )
    | (?P<dollar> \$ (?P<tag> [A-Za-z_\x80-\U0010ffff] [A-Za-z0-9_\x80-\U0010ffff]* )? \$ )
    | (?P<parameter> \$[0-9]+ )
    | (?P<quoted> (?: [uU]& )? " (?: [^"] | "" )* (?: " | \Z ) )
    | (?P<number> \.?[0-9] (?: [eE][+-](?=[0-9]) | [A-Za-z0-9_.\x80-\U0010ffff] )* )
    | (?P<word> [A-Za-z_\x80-\U0010ffff] [A-Za-z0-9_$\x80-\U0010ffff]* )
    | (?P<operator> (?: (?! -- | /\* ) [-+*/<>=~!@\#%^&|`?] )+ )
    | (?P<mark> :: | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_LITERAL: Final = "?"
_LITERALS: Final = frozenset({"string", "escaped", "number", "parameter"})
_ROWS: Final = ["(", _LITERAL, ")", ",", "(", _LITERAL, ")"]
_BEFORE_SIGN: Final = frozenset({"(", ",", "=", "<", ">", "["})
# An operator that has one of these may end in + or -.
_NAMING: Final = re.compile(r"[~!@#%^&|`?]")
# No space stands before these, nor after those.
_TIGHT_BEFORE: Final = frozenset({",", ")", ";", ".", "]", "[", "::"})
_TIGHT_AFTER: Final = frozenset({"(", ".", "[", "::"})
_PAIR: Final = re.compile(r"\s*([A-Za-z0-9_.%-]{1,64})\s*=\s*'((?:[^'\\]|\\.){0,1024})'\s*")
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_known: dict[bytes, tuple[str, str, dict[str, str]]] = {}


def fingerprint(query: bytes) -> tuple[str, str, dict[str, str]]:
    """The short name of a query without its literals, that text, and what its comments say.

    The comments are as SQLCommenter writes them (``/*traceparent='00-…',route='…'*/``); one that is anything
    else says nothing. A ``traceparent`` is there only as W3C Trace Context has it.
    """
    found = _known.get(query)
    if found is None:
        text, comments = normalised(query[:_READ].decode("utf-8", "replace"))
        name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        found = name, text, said(comments)
        if len(query) <= _KEPT:
            if len(_known) >= _MOST_KEPT:
                _known.clear()
            _known[query] = found
    name, text, comment = found
    return name, text, dict(comment)


def normalised(query: str) -> tuple[str, list[str]]:
    """The text without literals, and the comments between ``/*`` and ``*/``."""
    writer = _Writer()
    comments: list[str] = []
    pos = 0
    while pos < len(query):
        match = _TOKEN.match(query, pos)
        assert match is not None  # the last kind is any character
        kind, text, pos = match.lastgroup, match[0], match.end()
        if kind == "space":
            writer.spaced = True
        elif kind == "comment":
            begin, pos = pos, _comment_end(query, pos)
            comments.append(query[begin : pos - 2])
            writer.spaced = True
        elif kind == "dollar":
            end = query.find(text, pos)
            pos = end + len(text) if end >= 0 else len(query)
            writer.literal()
        elif kind == "string" and "\\" in text:
            # With standard_conforming_strings off it may end elsewhere: what follows is not certain.
            writer.literal()
            break
        elif kind in _LITERALS:
            writer.literal()
        else:
            writer.token(kind, text)
    return writer.text(), comments[:_COMMENTS]


class _Writer:
    """Puts the tokens together again, each text in one way only."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.spaces: list[bool] = []  # whether white space stood before each
        self.spaced = False  # ... before the next

    def token(self, kind: str | None, text: str) -> None:
        """Anything but a literal."""
        if kind == "word" and text.isascii():
            text = text.lower()
        elif kind == "operator" and len(text) > 1 and text[-1] in "+-" and not _NAMING.search(text):
            # As PostgreSQL cuts it: the sign belongs to what follows.
            self._put(text[:-1])
            text = text[-1]
        self._put(text)
        if self.out[-7:] == _ROWS:
            # Of rows of literals one stands for all.
            del self.out[-4:], self.spaces[-4:]

    def literal(self) -> None:
        """Of a list of literals one stands for all, and a sign belongs to its number."""
        out = self.out
        if out and out[-1] in ("-", "+") and (len(out) == 1 or out[-2] in _BEFORE_SIGN):
            out.pop()
            self.spaced = self.spaces.pop()
        if len(out) >= 2 and out[-1] == "," and out[-2] == _LITERAL:
            out.pop()
            self.spaces.pop()
        elif not out or out[-1] != _LITERAL:
            self._put(_LITERAL)
        self.spaced = False

    def _put(self, text: str) -> None:
        self.out.append(text)
        self.spaces.append(self.spaced)
        self.spaced = False

    def text(self) -> str:
        """All of it, without the semicolon at its end."""
        pieces: list[str] = []
        before = "("
        while self.out and self.out[-1] == ";":
            self.out.pop()
        for token, spaced in zip(self.out, self.spaces, strict=False):
            tight = token in _TIGHT_BEFORE or before in _TIGHT_AFTER or (token == "(" and not spaced)
            pieces.append(token if tight else f" {token}")
            before = token
        return "".join(pieces)


def _comment_end(query: str, pos: int) -> int:
    """Where the comment ends whose beginning is before ``pos``; comments nest."""
    depth = 1
    closes = -1
    while depth:
        opens = query.find("/*", pos)
        if closes < pos:
            closes = query.find("*/", pos)
        if closes < 0:
            return len(query) + 2
        if 0 <= opens < closes:
            depth, pos = depth + 1, opens + 2
        else:
            depth, pos = depth - 1, closes + 2
    return pos


def said(comments: list[str]) -> dict[str, str]:
    """The pairs of the comments that are nothing but pairs."""
    found: dict[str, str] = {}
    for comment in comments:
        found |= _pairs(comment)
    return dict(list(found.items())[:_PAIRS])


def _pairs(comment: str) -> dict[str, str]:
    found: dict[str, str] = {}
    pos = 0
    while pos < len(comment):
        match = _PAIR.match(comment, pos)
        if match is None or len(found) >= _PAIRS:
            return {}
        name, value = unquote(match[1]), unquote(re.sub(r"\\(.)", r"\1", match[2]))
        if name != "traceparent" or _TRACEPARENT.fullmatch(value):
            found[name[:64]] = value[:_LONGEST_VALUE]
        pos = match.end()
        if pos < len(comment):
            if comment[pos] != ",":
                return {}
            pos += 1
    return found

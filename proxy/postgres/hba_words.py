"""The lines of a ``pg_hba.conf`` taken apart: fields, lists in them, quotes, comments, continued lines.

A word in quotes is never a keyword. Sans-IO, and every loop consumes what it looks at.
"""

import re
from typing import Final

from proxy.postgres.lines import WrongLines
from proxy.postgres.mapping import pattern_of

# A quote may open and close within a word; inside it, it is doubled.
_PIECE: Final = re.compile(r'"(?:[^"]|"")*"|[^\s,"#]+')
_BLANK: Final = re.compile(r"\s*")

Field = tuple["Word", ...]


class Word:
    """One word. ``keyword`` is its text where it may be a keyword, else "". Raises ValueError."""

    def __init__(self, text: str, quoted: bool) -> None:
        self.text = text
        self.quoted = quoted
        self.keyword = "" if quoted else text
        self._pattern = pattern_of(text)

    def __repr__(self) -> str:
        return f"Word({self.text!r})"

    def names(self, name: str) -> bool:
        """Whether it names this user or database: as ``all``, by a regular expression, or as it is."""
        if self.keyword == "all":
            return True
        if self._pattern is not None:
            return self._pattern.search(name) is not None
        return self.text == name


def split_lines(text: str) -> tuple[list[tuple[int, list[Field]]], list[tuple[int, str]]]:
    """The fields of every line that has any, with its number; and the lines that cannot be taken apart."""
    found: list[tuple[int, list[Field]]] = []
    wrong: list[tuple[int, str]] = []
    for number, line in _joined(text):
        try:
            fields = _fields(line)
        except ValueError as error:
            wrong.append((number, str(error)))
            continue
        if fields:
            found.append((number, fields))
    return found, wrong


def _joined(text: str) -> list[tuple[int, str]]:
    """Lines with the number of the first of those that a backslash at the end joins."""
    lines: list[tuple[int, str]] = []
    begun: tuple[int, str] | None = None
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.removesuffix("\r")
        at, before = begun or (number, "")
        if line.endswith("\\"):
            begun = at, before + line[:-1]
        else:
            lines.append((at, before + line))
            begun = None
    return lines if begun is None else [*lines, begun]


def _fields(line: str) -> list[Field]:
    """The fields of one line; a comma joins words to a list, also with blanks behind it."""
    fields: list[Field] = []
    words: list[Word] = []
    place, is_open = 0, False
    while True:
        place = _end_of(_BLANK, line, place)
        if place >= len(line) or line[place] == "#":
            break
        if line[place] == ",":
            if not words or is_open:
                raise ValueError("a comma stands where a word belongs")
            place, is_open = place + 1, True
            continue
        if words and not is_open:
            fields.append(tuple(words))
            words = []
        word, place = _word(line, place)
        words.append(word)
        is_open = False
    if is_open:
        raise ValueError("the line ends in a comma")
    return [*fields, tuple(words)] if words else fields


def _word(line: str, place: int) -> tuple[Word, int]:
    """The word at ``place``, and where it ends. Raises ValueError."""
    text, quoted = "", False
    start = place
    while True:
        piece = _PIECE.match(line, place)
        if piece is None:
            break
        place = piece.end()
        if piece.group()[0] == '"':
            quoted = quoted or place - len(piece.group()) == start
            text += piece.group()[1:-1].replace('""', '"')
        else:
            text += piece.group()
    if place < len(line) and line[place] == '"':
        raise ValueError("a quote is not closed")
    return Word(text, quoted), place


def _end_of(pattern: "re.Pattern[str]", line: str, place: int) -> int:
    found = pattern.match(line, place)
    return place if found is None else found.end()


def check(wrong: list[tuple[int, str]]) -> None:
    """Raise WrongLines where there are any."""
    if wrong:
        raise WrongLines(sorted(wrong))

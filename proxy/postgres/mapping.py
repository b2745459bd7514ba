"""Which users somebody may log in as who was named by a certificate or by the operating system.

As PostgreSQL's ``pg_ident.conf``: a name that begins with a slash is a regular expression, searched for in
the outer name, and ``\\1`` in a user stands for what its first group found. Plain values; no I/O.
"""

import re
from collections.abc import Iterable
from typing import Final

OUTER_CAP: Final = 256  # letters of an outer name that are looked at: nobody's is longer
ALL: Final = "all"


class Entry:
    """``outer`` is who somebody is outside, ``users`` whom it may be inside. Raises ValueError."""

    def __init__(self, outer: str, users: Iterable[str]) -> None:
        self.outer = outer
        self.users = tuple(users)
        self._pattern = pattern_of(outer)
        if not outer or not self.users or not all(self.users):
            raise ValueError("a map's entry names somebody, and at least one user")
        groups = 0 if self._pattern is None else self._pattern.groups
        self._patterns = tuple(pattern_of(user) for user in self.users)
        for user in self.users:
            if user.startswith("+"):
                raise ValueError("the members of a role are known to the server only: list the users")
            if "\\1" in user and not groups:
                raise ValueError("\\1 needs a regular expression with a group in round brackets: /^(.*)@/")

    def lets(self, outer: str, user: str) -> bool:
        """Whether this entry lets ``outer`` be ``user``."""
        found = None
        if self._pattern is None:
            if outer != self.outer:
                return False
        else:
            found = self._pattern.search(outer)
            if found is None:
                return False
        for name, pattern in zip(self.users, self._patterns, strict=True):
            if pattern is not None:
                if pattern.search(user):
                    return True
            elif name == ALL or user == self._filled(name, found):
                return True
        return False

    def _filled(self, name: str, found: "re.Match[str] | None") -> str:
        # Once, as PostgreSQL does it; a group that took no part stands for nothing.
        if found is None or "\\1" not in name:
            return name
        return name.replace("\\1", found.group(1) or "", 1)


class Mapping:
    """Entries in their order: the first that fits lets somebody in."""

    def __init__(self, name: str, entries: Iterable[Entry]) -> None:
        self.name = name
        self.entries = tuple(entries)

    def lets(self, outer: str, user: str) -> bool:
        """Whether somebody who is ``outer`` may log in as ``user``."""
        return len(outer) <= OUTER_CAP and any(entry.lets(outer, user) for entry in self.entries)


def may_be(mapping: Mapping | None, outer: str, user: str) -> bool:
    """As ``Mapping.lets``; without a map both names must be the same."""
    if not outer or "\0" in outer:
        return False
    return outer == user if mapping is None else mapping.lets(outer, user)


def pattern_of(text: str) -> "re.Pattern[str] | None":
    """The regular expression of a text that begins with a slash; None of another. Raises ValueError."""
    if not text.startswith("/"):
        return None
    if len(text) == 1:
        raise ValueError("a slash alone is no regular expression")
    try:
        return re.compile(text[1:])
    except (re.error, RecursionError, OverflowError):
        raise ValueError("what follows the slash is not a regular expression") from None

"""How often each kind of query was asked, and how long it took: a bounded book, by fingerprint.

Knows no protocol: a fingerprint is a text. Counts only; whoever writes into it has measured. Of more kinds
than there is room for, those that were not asked for longest are forgotten.
"""

from typing import Final

from proxy.pool.figures import QueryStats

_MOST: Final = 500  # kinds of queries
_LONGEST: Final = 2_000  # letters of a fingerprint that are kept
# A pool that refuses everybody must not drown in telling so: lines per second.
_MOST_TOLD: Final = 20.0


class Entry:
    """One kind of query. Times are in seconds."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.calls = 0
        self.errors = 0
        self.rows = 0
        self.total = 0.0
        self.longest = 0.0


class Book:
    """The queries of one pool, the latest asked last."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._entries: dict[str, Entry] = {}
        self.forgotten = 0  # kinds
        self._may_tell, self._asked_at = _MOST_TOLD, 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, name: str, text: str, seconds: float, rows: int, failed: bool) -> None:
        """A query with this fingerprint, which is called ``name``, took so long."""
        entries = self._entries
        entry = entries.pop(name, None)
        if entry is None:
            if len(entries) >= self._most:
                del entries[next(iter(entries))]
                self.forgotten += 1
            entry = Entry(text[:_LONGEST])
        entries[name] = entry
        entry.calls += 1
        entry.rows += rows
        entry.total += seconds
        if failed:
            entry.errors += 1
        if seconds > entry.longest:
            entry.longest = seconds

    def may_tell(self, now: float) -> bool:
        """Whether one more line about a refusal is fit for the log: so many a second, on the average."""
        self._may_tell = min(_MOST_TOLD, self._may_tell + (now - self._asked_at) * _MOST_TOLD)
        self._asked_at = now
        if self._may_tell < 1.0:
            return False
        self._may_tell -= 1.0
        return True

    def clear(self) -> None:
        """Begin anew."""
        self._entries.clear()
        self.forgotten = 0

    def freeze(self) -> tuple[QueryStats, ...]:
        """All of them, those first that took most time altogether."""
        found = [
            QueryStats(name, one.text, one.calls, one.errors, one.rows, one.total, one.longest)
            for name, one in self._entries.items()
        ]
        return tuple(sorted(found, key=lambda one: (-one.total, one.fingerprint)))

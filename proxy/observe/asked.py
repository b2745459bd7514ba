"""The queries on the status page: what takes most time, where a pool counts it (``query_stats``).

The texts are what clients asked, without literals; nothing of them may reach the page but through ``text``.
"""

from collections.abc import Sequence
from typing import Final

from proxy.observe.snapshot import PoolQueries
from proxy.observe.writing import duration, number, table, text
from proxy.pool.figures import QueryStats

# How many rows of each pool the page has, and letters of a text; the API has all of them.
SHOWN: Final = 10
_LETTERS: Final = 200

_COLUMNS: Final = (
    ("Query", ""),
    ("Pool", "words"),
    ("Calls", "n"),
    ("Errors", "n"),
    ("Rows", "n"),
    ("Time in all", "n"),
    ("Average", "n"),
    ("Longest", "n"),
)


def queries(found: Sequence[PoolQueries]) -> str:
    """The queries that took most time, where a pool counts them; "" otherwise."""
    if not found:
        return ""
    rows = (_cells(pool, query) for pool in found for query in pool.queries[:SHOWN])
    hidden = sum(max(0, len(pool.queries) - SHOWN) for pool in found)
    note = f'<p class="note"><a href="/api/v1/queries">{hidden} more</a> took less.</p>' if hidden else ""
    return table("queries", "Queries", _COLUMNS, rows, note)


def _cells(pool: PoolQueries, query: QueryStats) -> tuple[str, ...]:
    shown = query.query if len(query.query) <= _LETTERS else f"{query.query[:_LETTERS]}..."
    return (
        f"<span>{text(shown)}</span>",
        text(pool.pool),
        f"{query.calls:,}",
        number(query.errors),
        number(query.rows),
        duration(query.total),
        duration(query.total / query.calls),
        duration(query.longest),
    )

"""The pieces that the status page is made of: tables, badges, meters, times and counts as HTML.

Every text goes through ``text`` before it becomes a cell; cells are HTML and are written as they are.
"""

from collections.abc import Iterable, Mapping
from html import escape

from proxy.observe.readiness import one_line

Columns = tuple[tuple[str, str], ...]  # heading, and "n" for numbers or "words" for what may be long


def table(anchor: str, title: str, columns: Columns, rows: Iterable[tuple[str, ...]], note: str = "") -> str:
    """Write a section with a heading and a table; ``note`` is HTML below it."""
    # The roles are said out loud because on a narrow screen the style turns rows into cards, and
    # browsers then forget that this is a table.
    head = "".join(
        f'<th scope="col" role="columnheader" class="{kind}">{label}</th>' for label, kind in columns
    )
    body = "".join(_row(columns, cells) for cells in rows)
    if not body:
        body = f'<tr role="row"><td role="cell" colspan="{len(columns)}">none</td></tr>'
    return (
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{title}</h2><div class="card">'
        f'<table role="table" aria-labelledby="{anchor}">'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table></div>{note}</section>'
    )


def _row(columns: Columns, cells: tuple[str, ...]) -> str:
    rest = "".join(
        f'<td role="cell" class="{kind}" data-label="{label}"><div>{cell}</div></td>'
        for (label, kind), cell in zip(columns[1:], cells[1:], strict=True)
    )
    return f'<tr role="row"><th scope="row" role="rowheader">{cells[0]}</th>{rest}</tr>\n'


def text(words: str) -> str:
    """Make any text safe to show, on one line."""
    return escape(one_line(words))


def text_or_dash(words: str) -> str:
    """As ``text``; a dash for nothing."""
    return text(words) if words else soft("-")


def soft(words: str) -> str:
    """Words of ours that matter less."""
    return f'<span class="soft">{words}</span>'


def badge(word: str, kind: str) -> str:
    """A word that stands out: ``kind`` is good, warn or bad."""
    return f'<span class="badge {kind}">{word}</span>'


def meter(value: int, most: int, label: str) -> str:
    """A bar that shows ``value`` of ``most``."""
    top = max(most, 1)
    return (
        f'<meter min="0" max="{top}" high="{top * 0.9:g}" optimum="0" value="{value}" '
        f'aria-label="{label}">{value} of {most}</meter>'
    )


def number(value: int) -> str:
    """A count; nothing matters less."""
    return f"{value:,}" if value else soft("0")


def nonzero(counts: Mapping[str, int]) -> str:
    """The counts that are not 0, by name."""
    parts = [f"{text(name)}&nbsp;{count:,}" for name, count in counts.items() if count]
    return ", ".join(parts) or soft("none")


def duration(seconds: float) -> str:
    """A time in its best unit."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else span(seconds)


def span(seconds: float) -> str:
    """Write a long time by its two largest units."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

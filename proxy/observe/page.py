"""The status page: one snapshot as plain HTML, for a person with a browser and nothing else.

No script, nothing fetched from anywhere, the style inside and named by its hash in the policy. Text
from the configuration or the wire must never reach the page unescaped, and nothing may be told by
colour alone.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

from proxy.observe.readiness import is_full, one_line, unready, why_down
from proxy.observe.snapshot import DaemonStats, ListenerStats
from proxy.observe.style import STYLE
from proxy.pool.stats import BUCKETS, HistogramStats, PoolStats

STYLE_HASH: Final = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

_POOL_COLUMNS: Final = (
    ("Pool", ""),
    ("State", "words"),
    ("Opened / limit", "n"),
    ("Busy", "n"),
    ("Idle", "n"),
    ("Opening", "n"),
    ("Closing", "n"),
    ("Waiting", "n"),
    ("Oldest wait", "n"),
    ("Transactions", "n"),
    ("Acquire p50 / p99", "n"),
    ("Not granted", "words"),
    ("Drops", "words"),
)
_LISTENER_COLUMNS: Final = (
    ("Listener", ""),
    ("Address", "words"),
    ("Clients / limit", "n"),
    ("Clients by state", "words"),
    ("Refused", "words"),
)


def render_page(stats: DaemonStats) -> str:
    """Write the whole page."""
    reasons = unready(stats)
    word = "draining" if stats.draining else "not ready" if reasons else "ready"
    why = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5">
<title>Penstock: {word}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>Penstock <small>{_text(stats.version)}</small></h1>
{_badge(word, "bad" if reasons else "good")}
<p class="soft">up {_span(stats.uptime)}</p>
</header>
<main>
{f'<ul class="why">{why}</ul>' if why else ""}
{_table("pools", "Pools", _POOL_COLUMNS, map(_pool_cells, stats.pools))}
{_table("listeners", "Listeners", _LISTENER_COLUMNS, map(_listener_cells, stats.listeners))}
</main>
<footer><p>Counted since the start; this page renews itself every 5 seconds. For machines:
<a href="/metrics">/metrics</a>, <a href="/api/v1/pools">/api/v1/pools</a>,
<a href="/readyz">/readyz</a>.</p></footer>
</body>
</html>
"""


def quantile(histogram: HistogramStats, share: float) -> str:
    """Estimate, in words, the duration that ``share`` (0 to 1) of all observations stayed below."""
    count = histogram.cumulative[-1]
    if count == 0:
        return "-"
    rank = share * count
    if rank <= histogram.cumulative[0]:
        return f"< {_duration(BUCKETS[0])}"
    for step in range(1, len(BUCKETS)):
        below, seen = histogram.cumulative[step - 1], histogram.cumulative[step]
        if rank <= seen:
            lower, upper = BUCKETS[step - 1], BUCKETS[step]
            return _duration(lower + (upper - lower) * (rank - below) / (seen - below))
    return f"> {_duration(BUCKETS[-1])}"


def _pool_cells(pool: PoolStats) -> tuple[str, ...]:
    limit = f"{pool.opened} / {pool.max}"
    if pool.max_forced:
        limit += f" <small>+{pool.max_forced} forced</small>"
    refused: dict[str, int] = {}
    for (_, outcome), count in pool.acquires.items():
        if outcome != "granted":
            refused[outcome] = refused.get(outcome, 0) + count
    p50, p99 = quantile(pool.acquire, 0.5), quantile(pool.acquire, 0.99)
    return (
        f"{_text(pool.name)} <small>{_text(pool.pool_mode)}, {_text(pool.getmode)}</small>",
        _pool_state(pool),
        f"<span>{limit}</span>{_meter(pool.opened, pool.max + pool.max_forced, 'slots that are open')}",
        f"{pool.busy:,}",
        f"{pool.idle:,}",
        f"{pool.opening:,}",
        f"{pool.closing:,}",
        f"{pool.waiting:,}",
        _duration(pool.oldest_wait) if pool.waiting else "-",
        f"{pool.transactions:,}",
        escape(p50 if p50 == p99 else f"{p50} / {p99}"),
        _nonzero(refused),
        _nonzero(pool.drops),
    )


def _pool_state(pool: PoolStats) -> str:
    if not pool.ready:
        return f"{_badge('down', 'bad')} <small>{escape(why_down(pool))}</small>"
    if is_full(pool):
        queue = f" <small>{pool.waiting:,} waiting</small>" if pool.waiting else ""
        return _badge("full", "warn") + queue
    return _badge("ready", "good")


def _listener_cells(listener: ListenerStats) -> tuple[str, ...]:
    connected = sum(listener.clients.values())
    full = f" {_badge('full', 'warn')}" if connected >= listener.max_clients else ""
    return (
        f"{_text(listener.name)} <small>{_text(listener.protocol)}</small>",
        f"<span>{_text(listener.address)}</span>",
        f"<span>{connected:,} / {listener.max_clients:,}{full}</span>"
        + _meter(connected, listener.max_clients, "clients that are connected"),
        _nonzero(listener.clients),
        _nonzero(listener.refusals),
    )


def _table(
    anchor: str, title: str, columns: tuple[tuple[str, str], ...], rows: Iterable[tuple[str, ...]]
) -> str:
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
        f'<tbody role="rowgroup">{body}</tbody></table></div></section>'
    )


def _row(columns: tuple[tuple[str, str], ...], cells: tuple[str, ...]) -> str:
    rest = "".join(
        f'<td role="cell" class="{kind}" data-label="{label}"><div>{cell}</div></td>'
        for (label, kind), cell in zip(columns[1:], cells[1:], strict=True)
    )
    return f'<tr role="row"><th scope="row" role="rowheader">{cells[0]}</th>{rest}</tr>\n'


def _text(text: str) -> str:
    return escape(one_line(text))


def _badge(word: str, kind: str) -> str:
    return f'<span class="badge {kind}">{word}</span>'


def _meter(value: int, most: int, label: str) -> str:
    top = max(most, 1)
    return (
        f'<meter min="0" max="{top}" high="{top * 0.9:g}" optimum="0" value="{value}" '
        f'aria-label="{label}">{value} of {most}</meter>'
    )


def _nonzero(counts: Mapping[str, int]) -> str:
    parts = [f"{_text(name)}&nbsp;{count:,}" for name, count in counts.items() if count]
    return ", ".join(parts) or '<span class="soft">none</span>'


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else _span(seconds)


def _span(seconds: float) -> str:
    """Write a long time by its two largest units."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

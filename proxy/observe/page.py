"""The status page: one snapshot as plain HTML, for a person with a browser and nothing else.

No script, nothing fetched from anywhere, the style inside and named by its hash in the policy. Text
from the configuration or the wire must never reach the page unescaped, and nothing may be told by
colour alone. The lower tables are in details.py.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from proxy.observe import asked, details
from proxy.observe.readiness import is_full, unready, why_down
from proxy.observe.snapshot import DaemonStats, Holders, ListenerStats, PoolQueries
from proxy.observe.style import STYLE
from proxy.observe.writing import badge, duration, meter, nonzero, number, soft, span, table, text
from proxy.pool.figures import Figures, HistogramStats, PoolStats
from proxy.pool.stats import BUCKETS

STYLE_HASH: Final = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

_POOL_COLUMNS: Final = (
    ("Pool", ""),
    ("State", "words"),
    ("Opened / limit", "n"),
    ("Busy", "n"),
    ("Idle", "n"),
    ("Opening / closing", "n"),
    ("Waiting", "n"),
    ("Transactions", "n"),
    ("Acquire: half within", "n"),
    ("Drops", "words"),
)
_REQUEST_COLUMNS: Final = (
    ("Pool", ""),
    ("Counted for", "words"),
    ("Requests", "n"),
    ("At once", "n"),
    ("Queued", "n"),
    ("Granted later", "n"),
    ("Average wait", "n"),
    ("Most waiting", "n"),
    ("Not granted", "words"),
)
_LISTENER_COLUMNS: Final = (
    ("Listener", ""),
    ("Address", "words"),
    ("Clients / limit", "n"),
    ("Clients by state", "words"),
    ("Refused", "words"),
)


def render_page(
    stats: DaemonStats, holders: Sequence[Holders] = (), queries: Sequence[PoolQueries] = ()
) -> str:
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
<h1>Penstock <small>{text(stats.version)}</small></h1>
{badge(word, "bad" if reasons else "good")}
<p class="soft">up {span(stats.uptime)}</p>
</header>
<main>
{f'<ul class="why">{why}</ul>' if why else ""}
{table("pools", "Pools", _POOL_COLUMNS, map(_pool_cells, stats.pools))}
{table("requests", "Requests for a session", _REQUEST_COLUMNS, _request_rows(stats.pools))}
{details.endpoints(stats.pools)}
{details.holders(holders)}
{asked.queries(queries)}
{details.priorities(stats.pools)}
{details.keys(stats.pools)}
{table("listeners", "Listeners", _LISTENER_COLUMNS, map(_listener_cells, stats.listeners))}
</main>
<footer><p>Counted since the start where nothing else is said; this page renews itself every 5 seconds.
For machines: <a href="/metrics">/metrics</a>, <a href="/api/v1/pools">/api/v1/pools</a>,
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
        return f"< {duration(BUCKETS[0])}"
    for step in range(1, len(BUCKETS)):
        below, seen = histogram.cumulative[step - 1], histogram.cumulative[step]
        if rank <= seen:
            lower, upper = BUCKETS[step - 1], BUCKETS[step]
            return duration(lower + (upper - lower) * (rank - below) / (seen - below))
    return f"> {duration(BUCKETS[-1])}"


def _pool_cells(pool: PoolStats) -> tuple[str, ...]:
    limit = f"{pool.opened} / {pool.max}"
    if pool.max_forced:
        limit += f" <small>+{pool.max_forced} forced</small>"
    p50, p99 = quantile(pool.acquire, 0.5), quantile(pool.acquire, 0.99)
    most = pool.since_start
    return (
        f"{text(pool.name)} <small>{text(pool.pool_mode)}, {text(pool.getmode)}</small>",
        _pool_state(pool),
        f"<span>{limit}</span>{meter(pool.opened, pool.max + pool.max_forced, 'slots that are open')}"
        + _small(f"most {most.most_opened:,}"),
        number(pool.busy)
        + (_small(f"longest {duration(pool.oldest_hold)}") if pool.busy else "")
        + _small(f"most {most.most_busy:,}"),
        number(pool.idle) + (_small(f"{pool.idle_new:,} new") if pool.idle_new else ""),
        f"{number(pool.opening)} / {number(pool.closing)}",
        number(pool.waiting)
        + (_small(f"longest {duration(pool.oldest_wait)}") if pool.waiting else "")
        + _small(f"most {most.most_waiting:,}"),
        f"{pool.transactions:,}",
        escape(p50) + (_small(f"99 % {escape(p99)}") if p50 != p99 else ""),
        nonzero(pool.drops),
    )


def _pool_state(pool: PoolStats) -> str:
    if not pool.ready:
        return f"{badge('down', 'bad')} <small>{escape(why_down(pool))}</small>"
    if pool.paused:
        return badge("paused", "warn")
    if is_full(pool):
        queue = f" <small>{pool.waiting:,} waiting</small>" if pool.waiting else ""
        return badge("full", "warn") + queue
    return badge("ready", "good")


def _request_rows(pools: Iterable[PoolStats]) -> Iterable[tuple[str, ...]]:
    for pool in pools:
        yield _request_cells(pool, pool.since_start, "since the start")
        if pool.since_reset.uptime < pool.since_start.uptime:
            yield _request_cells(pool, pool.since_reset, "since the reset")


def _request_cells(pool: PoolStats, figures: Figures, since: str) -> tuple[str, ...]:
    not_granted = {
        "timed out": figures.timeouts,
        "rejected": figures.rejected,
        "would not wait": figures.nowait_refused,
        "failed": figures.failed,
        "gone": figures.gone,
    }
    waits = duration(figures.wait_average)
    waits += _small(f"{duration(figures.wait_min)} to {duration(figures.wait_max)}")
    return (
        text(pool.name),
        f"{span(figures.uptime)} <small>{since}</small>",
        f"{figures.requests:,}",
        number(figures.immediate),
        number(figures.enqueued),
        number(figures.dequeued),
        waits if figures.dequeued else soft("-"),
        number(figures.most_waiting),
        nonzero(not_granted),
    )


def _listener_cells(listener: ListenerStats) -> tuple[str, ...]:
    connected = sum(listener.clients.values())
    full = f" {badge('full', 'warn')}" if connected >= listener.max_clients else ""
    return (
        f"{text(listener.name)} <small>{text(listener.protocol)}</small>",
        f"<span>{text(listener.address)}</span>",
        f"<span>{connected:,} / {listener.max_clients:,}{full}</span>"
        + meter(connected, listener.max_clients, "clients that are connected"),
        nonzero(listener.clients),
        nonzero(listener.refusals),
    )


def _small(words: str) -> str:
    return f" <small>{words}</small>"

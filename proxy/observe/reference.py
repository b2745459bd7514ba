"""Writes the reference of metrics from the registry itself: ``python -m proxy.observe.reference``.

It describes what a scrape really gives, so it can say nothing that the daemon does not do.
"""

import sys
from typing import Final

from proxy.observe.collector import build_registry
from proxy.observe.snapshot import CLIENT_STATES, DaemonStats, ListenerStats
from proxy.pool.limits import GETMODES, Limits
from proxy.pool.stats import BUCKETS, OUTCOMES, Counters, PoolStats
from proxy.reasons import RefusalReason

_NAMED: Final = {"pool": "as configured", "listener": "as configured", "version": "", "python": ""}
_INTRODUCTION: Final = """\
# Metrics

`GET /metrics` gives these, as text or as OpenMetrics. Times are in seconds, sizes in bytes. Every label
set is there from the start, at 0, so that a rate sees the first event. The metrics of the process
(`process_*`), of Python (`python_info`) and of its garbage collector (`python_gc_*`) come with them.

This page is generated: `python -m proxy.observe.reference > docs/metrics.md`.
"""


def example() -> DaemonStats:
    """Build the picture of a daemon that has just begun: one pool, one listener, nothing counted."""
    limits, counters = Limits(), Counters()
    histogram = counters.acquire.snapshot()
    pool = PoolStats(
        name="app",
        pool_mode="transaction",
        getmode=GETMODES[limits.getmode],
        min=limits.min,
        max=limits.max,
        max_forced=limits.max_forced,
        opened=1,
        busy=0,
        idle=1,
        opening=0,
        closing=0,
        waiting=0,
        oldest_wait=0.0,
        acquires={(getmode, outcome): 0 for getmode in GETMODES for outcome in OUTCOMES},
        opens={"ok": 0, "failed": 0},
        pings={"ok": 0, "failed": 0},
        drops=counters.drops,
        acquire=histogram,
        hold=histogram,
        open=histogram,
        transactions=0,
        queries=0,
        bytes_client=0,
        bytes_server=0,
        ready=True,
        last_error="",
    )
    listener = ListenerStats(
        name="main",
        protocol="postgres",
        address="127.0.0.1:6432",
        max_clients=1000,
        clients=dict.fromkeys(CLIENT_STATES, 0),
        refusals={str(reason): 0 for reason in RefusalReason},
    )
    return DaemonStats(
        version="0.0.0",
        compiled=False,
        uptime=0.0,
        draining=False,
        bound=True,
        loop_lag=0.0,
        listeners=(listener,),
        pools=(pool,),
    )


def markdown() -> str:
    """Write the reference page."""
    parts = [_INTRODUCTION]
    for family in build_registry(example).collect():
        if not family.name.startswith("penstock_"):
            continue
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "gauge" if family.type == "info" else family.type
        parts.append(f"\n## {family.name}{suffix}\n\n{kind.capitalize()}. {family.documentation}\n")
        labels: dict[str, list[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                values = labels.setdefault(label, [])
                if value not in values:
                    values.append(value)
        if family.type == "histogram":
            labels["le"] = [f"{BUCKETS[0]} doubling up to {BUCKETS[-1]}", "+Inf"]
        parts += _label_lines(labels)
    return "".join(parts)


def _label_lines(labels: dict[str, list[str]]) -> list[str]:
    lines = ["\n"] if labels else []
    for label, values in labels.items():
        known = _NAMED.get(label)
        meaning = ", ".join(f"`{value}`" for value in sorted(values)) if known is None else known
        if label == "compiled":
            meaning = "`true`, `false`"
        elif label == "le":
            meaning = ", ".join(values)
        lines.append(f"- `{label}`: {meaning}\n" if meaning else f"- `{label}`\n")
    return lines


if __name__ == "__main__":
    sys.stdout.write(markdown())

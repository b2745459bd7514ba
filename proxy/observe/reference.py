"""Writes the reference of metrics from the registry itself: ``python -m proxy.observe.reference``.

It describes what a scrape really gives, so it can say nothing that the daemon does not do.
"""

import sys
from typing import Final

from proxy.observe.collector import build_registry
from proxy.observe.snapshot import CLIENT_STATES, CertificateStats, DaemonStats, ListenerStats
from proxy.pool.figures import (
    BREAKERS,
    SESSION_STATES,
    EndpointStats,
    KeyStats,
    PoolStats,
    PriorityStats,
)
from proxy.pool.limits import GETMODES, Limits
from proxy.pool.stats import BUCKETS, OUTCOMES, Counters
from proxy.reasons import PinOutcome, PinReason, RefusalReason, TlsFailure

_NAMED: Final = {
    "pool": "as configured",
    "listener": "as configured",
    "endpoint": "as configured",
    "version": "",
    "python": "",
}
_INTRODUCTION: Final = """\
# Metrics

`GET /metrics` gives these, as text or as OpenMetrics. Times are in seconds, sizes in bytes. Every label
set is there from the start, at 0, so that a rate sees the first event. The metrics of the process
(`process_*`), of Python (`python_info`) and of its garbage collector (`python_gc_*`) come with them.

No label is made of what a client says, so the users and classes that sessions serve are not here, nor are
figures that a reset takes back: both are in `GET /api/v1/pools`, and who holds which session is in
`GET /api/v1/pools/<name>/holders`: see the end of this page.

This page is generated: `python -m proxy.observe.reference > docs/metrics.md`.
"""

_API: Final = """
## What only the API says

`GET /api/v1/pools` gives every pool as JSON: all of the above, and besides

- `since_start` and `since_reset`, the figures that users of node-oracledb's `pool.getStatistics()` know.
  `penstock ctl reset-stats` begins the second anew; the metrics above never go down but by a restart.

  | here | node-oracledb | meaning |
  | --- | --- | --- |
  | `uptime` | `upTime`, `upTimeSinceReset` | seconds that were counted |
  | `requests` | `connectionRequests` | requests for a session that have ended, however |
  | `immediate` | | granted at once |
  | `enqueued` | `requestsEnqueued` | joined the queue |
  | `dequeued` | `requestsDequeued` | granted through the queue |
  | `timeouts` | `requestTimeouts` | nothing came free within `wait_timeout` |
  | `rejected` | `rejectedRequests` | the queue was `max_waiting` long, or hopeless (`refuse_early`) |
  | `nowait_refused` | | `getmode` was `nowait` and every session busy, or the pool paused |
  | `failed` | `failedRequests` | no session could be opened, or the pool was closed |
  | `gone` | | the client left before its turn |
  | `most_opened`, `most_busy` | | the most at once |
  | `most_waiting` | `maximumQueueLength` | the longest that the queue has been |
  | `wait_sum`, `wait_min`, `wait_max`, `wait_average` | `sumTimeInQueue`, `minTimeInQueue`, \
`maxTimeInQueue`, `averageTimeInQueue` | seconds in the queue of those that were granted (there: ms) |

  `waiting`, `busy` and `opened` are its `currentQueueLength`, `connectionsInUse` and `connectionsOpen`.
- `keys`: sessions and waiting clients by database, user, class and shard; the hundred largest.
- `priorities`: waiting clients by class.
- `endpoints`: each server's sessions, breaker, failures in a row and latest error.

`GET /api/v1/pools/<name>/holders` says who holds a session, longest first, a thousand at most: the session's
number, endpoint, database, user (`session_user`) and class; the client's number (as in the log), address,
user and `application_name`; `state` (`active`, `idle_in_transaction`, `idle`, `preparing` while it is given
the client's settings, `login` before the client is let in, `listen` for the session that listens for all
clients: see listen.md); and `held`, in seconds. `hold_warning` makes a
`session_held_long` of it in the log.

`GET /api/v1/queries` gives, for each pool that has `query_stats`, up to 500 `queries`, those first that took
most time in all: `fingerprint`, `query` (the text without literals), `calls`, `errors`, `rows`, `total` and
`longest` in seconds; `forgotten` counts the kinds that were asked too long ago to be there. See
[slow-queries.md](slow-queries.md).
"""


def example() -> DaemonStats:
    """Build the picture of a daemon that has just begun: one pool, one listener, nothing counted."""
    limits, counters = Limits(), Counters()
    histogram, figures = counters.acquire.snapshot(), counters.since_start(0.0)
    empty = dict.fromkeys(SESSION_STATES, 0)
    pool = PoolStats(
        name="app",
        pool_mode="transaction",
        getmode=GETMODES[limits.getmode],
        min=limits.min,
        max=limits.max,
        max_forced=limits.max_forced,
        paused=False,
        generation=0,
        opened=1,
        busy=0,
        idle=1,
        idle_new=1,
        pending_begin=0,
        opening=0,
        closing=0,
        extras=0,
        waiting=0,
        oldest_wait=0.0,
        oldest_hold=0.0,
        acquires={(getmode, outcome): 0 for getmode in GETMODES for outcome in OUTCOMES},
        enqueued=0,
        waited=0,
        handoffs=0,
        opens={"ok": 0, "failed": 0},
        pings={"ok": 0, "failed": 0, "timed_out": 0},
        resets={"ok": 0, "failed": 0},
        begins={"used": 0, "expired": 0},
        peek_dead=0,
        fixups=0,
        drops=counters.drops,
        timeouts=counters.timeouts,
        pins={(str(reason), str(outcome)): 0 for reason in PinReason for outcome in PinOutcome},
        pinned={str(reason): 0 for reason in PinReason},
        acquire=histogram,
        wait=histogram,
        hold=histogram,
        open=histogram,
        ping=histogram,
        transactions=0,
        queries=0,
        bytes_client=0,
        bytes_server=0,
        since_start=figures,
        since_reset=figures,
        endpoints=(EndpointStats("app", empty | {"idle": 1}, BREAKERS[0], 0, 0.0, ""),),
        keys=(KeyStats("app", "app", "", "", busy=0, idle=1, care=0, opening=0, closing=0, waiting=0),),
        priorities=(PriorityStats("", 0, 1.0, 0, 0.0),),
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
        tls_failures={str(kind): 0 for kind in TlsFailure},
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
        certificates=(CertificateStats("listener", "main", 0.0), CertificateStats("pool", "app", 0.0)),
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
    return "".join([*parts, _API])


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

"""Turns one snapshot of the daemon into Prometheus metrics, each time that somebody scrapes.

Reads frozen pictures only and keeps nothing between two scrapes; the counters live where things
happen. It must never touch prometheus_client's global registry, nor make a label out of something
that came over the wire: every label set is known from the configuration and stands at 0 from the start.
"""

import platform
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from proxy.observe.certificates import certificate_families
from proxy.observe.families import POOL_COUNTERS, POOL_GAUGES, POOL_HISTOGRAMS, POOL_OUTCOMES
from proxy.observe.snapshot import DaemonStats, ListenerStats
from proxy.pool.figures import BREAKERS, SESSION_STATES, HistogramStats, PoolStats
from proxy.pool.stats import BUCKETS
from proxy.roles import ROLES

Snapshot = Callable[[], DaemonStats]

# What prometheus_client writes; it would echo any other version that a scraper claims, or trip over it.
_KNOWN_VERSIONS: Final = frozenset({"0.0.1", "0.0.4", "1.0.0"})
_VERSION: Final = re.compile(r"version=([^\s;,]*)")


class DaemonCollector(Collector):
    """One scrape, one snapshot: every number in an answer belongs to the same moment."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """Say nothing in advance, so that registering takes no snapshot of a daemon half built."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every ``penstock_`` metric family."""
        stats = self._snapshot()
        yield from _daemon(stats)
        yield from _pool_gauges(stats.pools)
        yield from _pool_counters(stats.pools)
        yield from _pins(stats.pools)
        yield from _pool_histograms(stats.pools)
        yield from _endpoints(stats.pools)
        yield from _keys(stats.pools)
        yield from _listeners(stats.listeners)
        yield from certificate_families(stats)


def build_registry(snapshot: Snapshot) -> CollectorRegistry:
    """Make a registry of our metrics plus those of the process, of Python and of its garbage collector."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DaemonCollector(snapshot))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def choose(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Pick the format that the header ``accept`` prefers; return (what writes it, its content type).

    A header that offers a version unknown to us gets the plain text format.
    """
    if not _KNOWN_VERSIONS.issuperset(_VERSION.findall(accept)):
        accept = ""
    return choose_encoder(accept)


def bounds(histogram: HistogramStats) -> list[tuple[str, int]]:
    """Pair each bucket's upper bound, as Prometheus writes it, with its cumulative count."""
    names = [repr(bound) for bound in BUCKETS]
    return list(zip([*names, "+Inf"], histogram.cumulative, strict=True))


def _daemon(stats: DaemonStats) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "penstock_build",
        "Always 1; the labels say which Penstock runs, on which Python, and whether it is compiled.",
        value={
            "version": stats.version,
            "python": platform.python_version(),
            "compiled": "true" if stats.compiled else "false",
        },
    )
    yield GaugeMetricFamily(
        "penstock_event_loop_lag_seconds",
        "The latest measured delay of the event loop, in seconds.",
        value=stats.loop_lag,
    )


def _pool_gauges(pools: tuple[PoolStats, ...]) -> Iterator[Metric]:
    for name, text, read in POOL_GAUGES:
        gauge = GaugeMetricFamily(f"penstock_pool_{name}", text, labels=("pool",))
        for pool in pools:
            gauge.add_metric((pool.name,), float(read(pool)))
        yield gauge
    limit = GaugeMetricFamily(
        "penstock_pool_limit",
        "Configured bounds in sessions: min, max, and max_forced, which forceget may open above max.",
        labels=("pool", "bound"),
    )
    for pool in pools:
        for bound, value in (("min", pool.min), ("max", pool.max), ("max_forced", pool.max_forced)):
            limit.add_metric((pool.name, bound), value)
    yield limit


def _pool_counters(pools: tuple[PoolStats, ...]) -> Iterator[Metric]:
    acquires = CounterMetricFamily(
        "penstock_pool_acquires",
        "Requests for a session, by the getmode they were made with and by outcome.",
        labels=("pool", "getmode", "outcome"),
    )
    for pool in pools:
        for (getmode, outcome), count in pool.acquires.items():
            acquires.add_metric((pool.name, getmode, outcome), count)
    yield acquires
    for name, label, text, read_all in POOL_OUTCOMES:
        counter = CounterMetricFamily(f"penstock_pool_{name}", text, labels=("pool", label))
        for pool in pools:
            for outcome, count in read_all(pool).items():
                counter.add_metric((pool.name, outcome), count)
        yield counter
    for name, text, read in POOL_COUNTERS:
        counter = CounterMetricFamily(f"penstock_{name}", text, labels=("pool",))
        for pool in pools:
            counter.add_metric((pool.name,), read(pool))
        yield counter
    passed = CounterMetricFamily(
        "penstock_bytes",
        "Bytes passed on, by direction: to_server from clients, to_client from the server.",
        labels=("pool", "direction"),
    )
    for pool in pools:
        passed.add_metric((pool.name, "to_server"), pool.bytes_client)
        passed.add_metric((pool.name, "to_client"), pool.bytes_server)
    yield passed


def _pins(pools: tuple[PoolStats, ...]) -> Iterator[Metric]:
    pins = CounterMetricFamily(
        "penstock_pool_pins",
        "Times that a client left state on its session which cannot follow it: pinned, it keeps the session; "
        "refused; or would_pin, in a dry run.",
        labels=("pool", "reason", "outcome"),
    )
    pinned = GaugeMetricFamily(
        "penstock_pool_pinned",
        "Clients that keep their session beyond a unit of work, by reason.",
        labels=("pool", "reason"),
    )
    for pool in pools:
        for (reason, outcome), count in pool.pins.items():
            pins.add_metric((pool.name, reason, outcome), count)
        for reason, count in pool.pinned.items():
            pinned.add_metric((pool.name, reason), count)
    yield pins
    yield pinned


def _pool_histograms(pools: tuple[PoolStats, ...]) -> Iterator[Metric]:
    for name, text, read in POOL_HISTOGRAMS:
        family = HistogramMetricFamily(f"penstock_pool_{name}", text, labels=("pool",))
        for pool in pools:
            histogram = read(pool)
            family.add_metric((pool.name,), bounds(histogram), histogram.total)
        yield family


def _endpoints(pools: tuple[PoolStats, ...]) -> Iterator[Metric]:
    sessions = GaugeMetricFamily(
        "penstock_endpoint_sessions",
        "Sessions of each server by state; care: in a ping, a reset, a recovery or a begin.",
        labels=("pool", "endpoint", "state"),
    )
    breaker = GaugeMetricFamily(
        "penstock_endpoint_breaker",
        "1 for the state that the circuit breaker of a server is in, 0 for the others.",
        labels=("pool", "endpoint", "state"),
    )
    roles = GaugeMetricFamily(
        "penstock_endpoint_role",
        "1 for what a server of several is, as its sessions were told, 0 for the others.",
        labels=("pool", "endpoint", "role"),
    )
    for pool in pools:
        for endpoint in pool.endpoints:
            for state, count in endpoint.sessions.items():
                sessions.add_metric((pool.name, endpoint.name, state), count)
            for state in BREAKERS:
                breaker.add_metric((pool.name, endpoint.name, state), state == endpoint.breaker)
            for role in ROLES:
                roles.add_metric((pool.name, endpoint.name, role), role == endpoint.role)
    yield sessions
    yield breaker
    yield roles


def _keys(pools: tuple[PoolStats, ...]) -> Iterator[Metric]:
    # The names come from clients who have logged in: at most so many as a pool's snapshot lists.
    sessions = GaugeMetricFamily(
        "penstock_key_sessions",
        "Sessions that serve the same user, database and class, by state; there while there are any.",
        labels=("pool", "database", "user", "cclass", "endpoint", "state"),
    )
    waiting = GaugeMetricFamily(
        "penstock_key_waiting",
        "Clients that wait for one of these.",
        labels=("pool", "database", "user", "cclass", "endpoint"),
    )
    for pool in pools:
        for key in pool.keys:
            labels = (pool.name, key.database, key.user, key.cclass, key.endpoint)
            for state in SESSION_STATES:
                sessions.add_metric((*labels, state), getattr(key, state))
            waiting.add_metric(labels, key.waiting)
    yield sessions
    yield waiting


def _listeners(listeners: tuple[ListenerStats, ...]) -> Iterator[Metric]:
    clients = GaugeMetricFamily(
        "penstock_clients",
        "Clients that are connected, by what they are doing.",
        labels=("listener", "state"),
    )
    limit = GaugeMetricFamily(
        "penstock_clients_limit",
        "The most clients that a listener accepts (max_clients).",
        labels=("listener",),
    )
    refusals = CounterMetricFamily(
        "penstock_client_refusals",
        "Clients that a listener refused, by reason.",
        labels=("listener", "reason"),
    )
    for listener in listeners:
        for state, count in listener.clients.items():
            clients.add_metric((listener.name, state), count)
        limit.add_metric((listener.name,), listener.max_clients)
        for reason, count in listener.refusals.items():
            refusals.add_metric((listener.name, reason), count)
    yield clients
    yield limit
    yield refusals

"""The metrics about TLS: when certificates expire, how reading them again went, which handshakes failed."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from proxy.observe.snapshot import DaemonStats

NEVER = float("inf")


def certificate_families(stats: DaemonStats) -> Iterator[Metric]:
    """Yield the families; a listener or pool without TLS has no samples."""
    for kind in ("listener", "pool"):
        yield from _of_kind(stats, kind)
    failures = CounterMetricFamily(
        "penstock_tls_failures",
        "TLS handshakes with clients that came to nothing, by reason.",
        labels=("listener", "reason"),
    )
    for listener in stats.listeners:
        for reason, count in listener.tls_failures.items():
            failures.add_metric((listener.name, reason), count)
    yield failures


def _of_kind(stats: DaemonStats, kind: str) -> Iterator[Metric]:
    prefix, whose = ("penstock_tls", "a listener shows") if kind == "listener" else ("penstock_pool_tls", "")
    expiry = GaugeMetricFamily(
        f"{prefix}_certificate_expiry_seconds",
        f"When the first of the certificates that {whose or 'a pool shows to its servers'} expires, in "
        "seconds since 1970.",
        labels=(kind,),
    )
    reloads = CounterMetricFamily(
        f"{prefix}_reloads",
        "How often files of certificates had changed and were read again, by outcome: loaded, or failed.",
        labels=(kind, "outcome"),
    )
    for one in stats.certificates:
        if one.kind != kind:
            continue
        if one.ends != NEVER:
            expiry.add_metric((one.name,), one.ends)
        reloads.add_metric((one.name, "loaded"), one.loaded)
        reloads.add_metric((one.name, "failed"), one.failed)
    yield expiry
    yield reloads

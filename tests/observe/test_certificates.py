"""What is shown of certificates."""

from dataclasses import replace

from proxy.observe.collector import build_registry
from proxy.observe.reference import example
from proxy.observe.snapshot import CertificateStats


def test_a_certificate_that_is_not_there_has_no_expiry_and_reloads_stand_at_0() -> None:
    shown = (CertificateStats("listener", "main", 1.5e9, 2, 1), CertificateStats("pool", "app"))
    registry = build_registry(lambda: replace(example(), certificates=shown))
    value = registry.get_sample_value
    assert value("penstock_tls_certificate_expiry_seconds", {"listener": "main"}) == 1.5e9
    assert value("penstock_tls_reloads_total", {"listener": "main", "outcome": "loaded"}) == 2
    assert value("penstock_tls_reloads_total", {"listener": "main", "outcome": "failed"}) == 1
    assert value("penstock_pool_tls_certificate_expiry_seconds", {"pool": "app"}) is None
    assert value("penstock_pool_tls_reloads_total", {"pool": "app", "outcome": "failed"}) == 0
    assert value("penstock_tls_failures_total", {"listener": "main", "reason": "version"}) == 0

import platform
import shutil
import subprocess
from dataclasses import replace
from typing import Any

import prometheus_client
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from proxy.observe.collector import build_registry, choose
from proxy.pool.figures import BREAKERS, SESSION_STATES
from proxy.pool.limits import GETMODES
from proxy.pool.stats import OUTCOMES, Histogram
from proxy.reasons import DropReason, RefusalReason

# What Prometheus 3 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def scrape(daemon: Any, accept: str = "") -> str:
    encode, _ = choose(accept)
    return encode(build_registry(daemon)).decode()


def values(daemon: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in read_text(scrape(daemon))
        for sample in family.samples
    }


def value(daemon: Any, name: str, **labels: str) -> float:
    return values(daemon)[name, frozenset(labels.items())]


def test_every_number_of_a_pool_appears_under_its_name(daemon: Any) -> None:
    daemon.change_pool(
        name="orders", min=2, max=20, max_forced=5, opened=12, busy=7, idle=4, opening=3, closing=1,
        waiting=9, oldest_wait=1.5, ready=False, transactions=100, queries=200,
        bytes_client=300, bytes_server=400, opens={"ok": 15, "failed": 2}, pings={"ok": 8, "failed": 1},
    )  # fmt: skip
    expected = {
        "opened": 12, "busy": 7, "idle": 4, "opening": 3, "closing": 1, "waiting": 9,
        "oldest_wait_seconds": 1.5, "ready": 0,
    }  # fmt: skip
    for name, number in expected.items():
        assert value(daemon, f"penstock_pool_{name}", pool="orders") == number
    for bound, number in (("min", 2), ("max", 20), ("max_forced", 5)):
        assert value(daemon, "penstock_pool_limit", pool="orders", bound=bound) == number
    assert value(daemon, "penstock_transactions_total", pool="orders") == 100
    assert value(daemon, "penstock_queries_total", pool="orders") == 200
    assert value(daemon, "penstock_bytes_total", pool="orders", direction="to_server") == 300
    assert value(daemon, "penstock_bytes_total", pool="orders", direction="to_client") == 400
    assert value(daemon, "penstock_pool_opens_total", pool="orders", outcome="failed") == 2
    assert value(daemon, "penstock_pool_pings_total", pool="orders", outcome="ok") == 8


def test_what_was_counted_of_the_queue_and_of_care_appears_too(daemon: Any) -> None:
    pool = daemon.stats.pools[0]
    waits = Histogram()
    waits.observe(0.3)
    daemon.change_pool(
        idle_new=3, pending_begin=2, extras=1, oldest_hold=7.5, paused=True, enqueued=11, waited=10,
        handoffs=9, peek_dead=8, fixups=7, resets={"ok": 5, "failed": 4}, begins={"used": 6, "expired": 2},
        pings={"ok": 1, "failed": 2, "timed_out": 3}, wait=waits.snapshot(), ping=waits.snapshot(),
        since_start=replace(pool.since_start, most_opened=20, most_busy=19, most_waiting=18),
    )  # fmt: skip
    expected = {
        "idle_new": 3, "pending_begin": 2, "extras": 1, "oldest_hold_seconds": 7.5, "paused": 1,
        "enqueued_total": 11, "waited_total": 10, "handoffs_total": 9, "peek_dead_total": 8,
        "fixups_total": 7, "opened_max": 20, "busy_max": 19, "waiting_max": 18,
        "wait_seconds_count": 1, "ping_seconds_count": 1,
    }  # fmt: skip
    for name, number in expected.items():
        assert value(daemon, f"penstock_pool_{name}", pool="app") == number
    assert value(daemon, "penstock_pool_resets_total", pool="app", outcome="failed") == 4
    assert value(daemon, "penstock_pool_begins_total", pool="app", outcome="expired") == 2
    assert value(daemon, "penstock_pool_pings_total", pool="app", outcome="timed_out") == 3


def test_endpoints_give_their_sessions_and_the_state_of_their_breaker(daemon: Any) -> None:
    (endpoint,) = daemon.stats.pools[0].endpoints
    daemon.change_pool(
        endpoints=(
            replace(endpoint, name="db1:5432", sessions={"busy": 4, "idle": 1}),
            replace(endpoint, name="db2:5432", breaker="half_open"),
        )
    )
    for state, count in (("busy", 4), ("idle", 1)):
        labels = {"pool": "app", "endpoint": "db1:5432", "state": state}
        assert value(daemon, "penstock_endpoint_sessions", **labels) == count
    for name, state in (("db1:5432", "closed"), ("db2:5432", "half_open")):
        for known in BREAKERS:
            labels = {"pool": "app", "endpoint": name, "state": known}
            assert value(daemon, "penstock_endpoint_breaker", **labels) == (known == state)


def test_every_label_set_stands_at_zero_from_the_start(daemon: Any) -> None:
    seen = values(daemon)
    for getmode in GETMODES:
        for outcome in OUTCOMES:
            labels = frozenset({"pool": "app", "getmode": getmode, "outcome": outcome}.items())
            assert seen["penstock_pool_acquires_total", labels] == 0
    for state in SESSION_STATES:
        labels = frozenset({"pool": "app", "endpoint": "app", "state": state}.items())
        assert labels in {found for name, found in seen if name == "penstock_endpoint_sessions"}
    for reason in DropReason:
        labels = frozenset({"pool": "app", "reason": str(reason)}.items())
        assert seen["penstock_pool_drops_total", labels] == 0
    for refusal in RefusalReason:
        labels = frozenset({"listener": "main", "reason": str(refusal)}.items())
        assert seen["penstock_client_refusals_total", labels] == 0


def test_listeners_give_their_clients_their_limit_and_their_refusals(daemon: Any) -> None:
    daemon.change_listener(max_clients=50, clients={"login": 1, "active": 4}, refusals={"auth": 3})
    assert value(daemon, "penstock_clients", listener="main", state="active") == 4
    assert value(daemon, "penstock_clients_limit", listener="main") == 50
    assert value(daemon, "penstock_client_refusals_total", listener="main", reason="auth") == 3


def test_a_histogram_is_cumulative_and_ends_with_the_count_of_all(daemon: Any) -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.0003, 0.003, 100.0):
        histogram.observe(seconds)
    daemon.change_pool(acquire=histogram.snapshot())
    bucket = "penstock_pool_acquire_seconds_bucket"
    assert value(daemon, bucket, pool="app", le="0.00025") == 1
    assert value(daemon, bucket, pool="app", le="0.0005") == 2
    assert value(daemon, bucket, pool="app", le="8.192") == 3
    assert value(daemon, bucket, pool="app", le="+Inf") == 4
    assert value(daemon, "penstock_pool_acquire_seconds_count", pool="app") == 4
    assert value(daemon, "penstock_pool_acquire_seconds_sum", pool="app") == pytest.approx(100.0033)


def test_the_build_says_version_python_and_whether_it_is_compiled(daemon: Any) -> None:
    daemon.change(version="1.2.3", compiled=True, loop_lag=0.25)
    labels = {"version": "1.2.3", "python": platform.python_version(), "compiled": "true"}
    assert value(daemon, "penstock_build_info", **labels) == 1
    assert value(daemon, "penstock_event_loop_lag_seconds") == 0.25


def test_one_scrape_takes_one_snapshot_and_registering_takes_none(daemon: Any) -> None:
    registry = build_registry(daemon)
    assert daemon.asked == 0
    choose("")[0](registry)
    assert daemon.asked == 1


def test_two_registries_live_side_by_side_and_the_global_one_stays_untouched(daemon: Any) -> None:
    build_registry(daemon)
    build_registry(daemon)
    assert b"penstock" not in prometheus_client.generate_latest()


def test_nothing_tells_when_it_was_created(daemon: Any) -> None:
    for accept in ("", PROMETHEUS):
        assert "_created" not in scrape(daemon, accept)


def test_the_process_python_and_its_garbage_collector_are_measured_too(daemon: Any) -> None:
    text = scrape(daemon)
    for name in ("process_open_fds", "process_resident_memory_bytes", "python_info", "python_gc_collections"):
        assert name in text


def test_openmetrics_is_given_to_those_who_ask_and_parses(daemon: Any) -> None:
    _, content_type = choose(PROMETHEUS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in read_openmetrics(scrape(daemon, PROMETHEUS))}
    assert {"penstock_pool_opened", "penstock_build", "penstock_pool_acquires"} <= names


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=abc",
        "text/plain;version=x.y",
        "application/openmetrics-text;version=9999.1",
        "version=;;;,=,",
        "\x00\xff" * 500,
    ],
)
def test_an_accept_header_that_makes_no_sense_gets_plain_text(accept: str) -> None:
    assert choose(accept)[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_a_hostile_name_stays_one_label_value(daemon: Any) -> None:
    hostile = 'x"} 1\npenstock_fake 1\n# \\'
    daemon.change_pool(name=hostile)
    assert value(daemon, "penstock_pool_opened", pool=hostile) == 1
    assert not any(line.startswith("penstock_fake") for line in scrape(daemon).splitlines())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say_about_our_metrics(daemon: Any) -> None:
    pools = tuple(replace(daemon.stats.pools[0], name=name) for name in ("app", "orders"))
    daemon.change(pools=pools)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(daemon), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

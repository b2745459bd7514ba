"""The statistics that an operator reads, after real clients have done what is counted."""

import asyncio
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import asyncpg
import psycopg
import pytest

from integration.looking import at_rest, pool_of, trusting, until, wait_for
from integration.raw import Raw, query
from integration.test_run_time import CONTROLLED, obeyed
from servers import Penstock

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
HOSTILE = "<script>alert(1)</script>\u202e"


def holders_of(penstock: Penstock, name: str = "app") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = penstock.http(f"/api/v1/pools/{quote(name)}/holders").json()["holders"]
    return found


def metric(penstock: Penstock, line: str) -> float:
    """The value of the sample that begins so."""
    for found in penstock.http("/metrics").text.splitlines():
        if found.startswith(f"{line} "):
            return float(found.rpartition(" ")[2])
    raise AssertionError(f"there is no {line}")


def test_who_holds_what_is_shown_while_it_is_held(make_proxy: Make) -> None:
    penstock = make_proxy(max=3)
    with (
        psycopg.connect(penstock.dsn(), application_name="nightly") as idle,
        psycopg.connect(penstock.dsn(), application_name=HOSTILE) as running,
    ):
        idle.execute("SELECT 1")
        time.sleep(0.3)
        working = threading.Thread(target=lambda: running.execute("SELECT pg_sleep(1)"))
        working.start()
        first, second = until(lambda: len(found := holders_of(penstock)) == 2 and found)
        assert (first["application_name"], first["state"]) == ("nightly", "idle_in_transaction")
        assert (first["user"], first["peer"].partition(":")[0]) == ("app", "127.0.0.1")
        assert first["held"] > second["held"]
        assert until(lambda: [one for one in holders_of(penstock) if one["state"] == "active"])
        assert second["application_name"] == HOSTILE
        page = penstock.http("/").text
        assert "nightly" in page
        assert "<script>" not in page
        assert metric(penstock, 'penstock_pool_oldest_hold_seconds{pool="app"}') >= 0.3
        pids = {entry["client"] for entry in penstock.events("client_connected")}
        assert {first["client"], second["client"]} <= pids
        working.join()
        idle.execute("SET application_name = 'renamed'")
        assert pool_of(penstock)["fixups"] >= 2
        assert "renamed" in {one["application_name"] for one in holders_of(penstock)}
    at_rest(penstock)
    assert holders_of(penstock) == []
    assert metric(penstock, 'penstock_pool_oldest_hold_seconds{pool="app"}') == 0
    assert penstock.http("/api/v1/pools/other/holders").status == 404


def test_asyncpg_in_session_mode_holds_its_session_without_a_transaction(make_proxy: Make) -> None:
    penstock = make_proxy(max=2, pool_mode="session")

    async def look() -> list[dict[str, Any]]:
        settings = {"application_name": "worker"}
        connection = await asyncpg.connect(penstock.dsn(), server_settings=settings)
        try:
            await connection.fetchval("SELECT 1")
            return await asyncio.to_thread(holders_of, penstock)
        finally:
            await connection.close()

    (holder,) = asyncio.run(look())
    assert (holder["application_name"], holder["state"]) == ("worker", "idle")


def test_a_hold_that_lasts_too_long_is_logged_once(make_proxy: Make) -> None:
    penstock = make_proxy(max=2, hold_warning="300ms")
    with psycopg.connect(penstock.dsn(), application_name="nightly") as slow:
        for _ in range(2):
            before = len(penstock.events("session_held_long"))
            slow.execute("SELECT 1")
            until(lambda: len(penstock.events("session_held_long")) > before)  # noqa: B023
            time.sleep(1.2)
            slow.commit()
    found = penstock.events("session_held_long")
    assert len(found) == 2, "one for each transaction"
    assert {(entry["application_name"], entry["user"], entry["pool"]) for entry in found} == {
        ("nightly", "app", "app")
    }
    assert all(0.3 <= entry["held"] < 3 for entry in found)


def test_waits_are_counted_and_a_reset_begins_anew_while_metrics_go_on(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=1, wait_timeout="300ms")
    with Raw.logged_in(penstock.port) as holder, Raw.logged_in(penstock.port) as patient:
        holder.ask("BEGIN")
        patient.send(query("SELECT 1"))
        wait_for(penstock, waiting=1)
        patient.until_ready()  # refused
        patient.send(query("SELECT 1"))
        wait_for(penstock, waiting=1)
        holder.ask("COMMIT")
        patient.until_ready()
    pool = at_rest(penstock)
    figures = pool["since_start"]
    assert figures["timeouts"] == 1
    assert figures["most_waiting"] == figures["most_busy"] == figures["most_opened"] == 1
    assert 0 < figures["wait_max"] < 5
    assert figures["dequeued"] == pool["waited"] >= 1
    assert figures["requests"] == sum(sum(row.values()) for row in pool["acquires"].values())
    assert pool["wait"]["count"] == figures["dequeued"]
    granted = metric(penstock, 'penstock_pool_waited_total{pool="app"}')
    assert granted == figures["dequeued"]

    assert obeyed(penstock, "reset-stats", "app")
    pool = pool_of(penstock)
    fresh, ever = pool["since_reset"], pool["since_start"]
    assert (fresh["requests"], fresh["most_waiting"], fresh["wait_sum"]) == (0, 0, 0)
    assert fresh["uptime"] < ever["uptime"]
    assert ever["timeouts"] == 1
    assert metric(penstock, 'penstock_pool_waited_total{pool="app"}') == granted
    assert "since the reset" in penstock.http("/").text


def test_the_control_socket_says_who_holds_what(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=1)
    with Raw.logged_in(penstock.port) as holder:
        holder.ask("BEGIN")
        said = obeyed(penstock, "holders", "app")
        assert "idle_in_transaction" in said
        holder.ask("COMMIT")


def test_an_endpoint_that_is_down_shows_its_breaker_and_why(make_proxy: Make) -> None:
    dead = '\n[pools.dead]\nbackend = "postgresql://app@127.0.0.1:1/app"\nbreaker_failures = 2\n'
    penstock = make_proxy(trusting(more=dead), max=2)
    (healthy,) = pool_of(penstock)["endpoints"]
    assert (healthy["breaker"], healthy["last_error"]) == ("closed", "")
    labels = f'endpoint="{healthy["name"]}",pool="app"'
    with Raw.logged_in(penstock.port) as client:
        client.ask("BEGIN")
        assert metric(penstock, f'penstock_endpoint_sessions{{{labels},state="busy"}}') == 1
        client.ask("COMMIT")
    assert metric(penstock, f'penstock_endpoint_breaker{{{labels},state="closed"}}') == 1
    broken = until(lambda: (one := pool_of(penstock, "dead")["endpoints"][0])["breaker"] != "closed" and one)
    assert "refused" in broken["last_error"]
    assert broken["failures"] >= 2
    assert "Connection refused" in penstock.http("/").text
    labels = f'endpoint="{broken["name"]}",pool="dead"'
    assert metric(penstock, f'penstock_endpoint_breaker{{{labels},state="closed"}}') == 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say_about_what_a_daemon_gives(make_proxy: Make) -> None:
    penstock = make_proxy(max=2)
    with psycopg.connect(penstock.dsn()) as client:
        client.execute("SELECT 1")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=penstock.http("/metrics").text, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_transactions_begun_ahead_are_counted_when_they_are_used_and_when_they_expire(
    make_proxy: Make,
) -> None:
    penstock = make_proxy(max=1, begin="ahead", begin_max_age="200ms")
    with psycopg.connect(penstock.dsn()) as client:
        before = pool_of(penstock)["begins"]["used"]
        for _ in range(3):
            client.execute("SELECT 1")
            client.commit()
        assert pool_of(penstock)["begins"]["used"] == before + 3
        client.autocommit = True
        client.execute("SELECT 1")
        assert pool_of(penstock)["begins"]["used"] == before + 3, "it was ended for this client, not used"
        until(lambda: pool_of(penstock)["begins"]["expired"] >= 2)

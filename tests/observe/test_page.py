import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from proxy.observe.page import STYLE_HASH, quantile, render_page
from proxy.observe.snapshot import Holders, HolderStats
from proxy.observe.style import STYLE
from proxy.pool.figures import EndpointStats, KeyStats, PriorityStats
from proxy.pool.stats import Histogram

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;\n\x1b"


class Reader(HTMLParser):
    """Collects the tags and the visible text, and sees that every tag is closed in order."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def read(daemon: Any, *holders: Holders) -> Reader:
    reader = Reader()
    reader.feed(render_page(daemon.stats, holders))
    assert reader.open == []
    return reader


def test_the_page_shows_version_uptime_and_that_all_is_well(daemon: Any) -> None:
    daemon.change(version="1.2.3", uptime=93784.0)
    page = read(daemon)
    assert "Penstock 1.2.3 ready up 1 d 2 h" in page.text
    assert ("meta", {"http-equiv": "refresh", "content": "5"}) in page.tags


def test_the_page_shows_the_numbers_of_a_pool(daemon: Any) -> None:
    daemon.change_pool(
        opened=20, max=25, max_forced=5, busy=13, idle=7, opening=3, closing=4, waiting=6, oldest_wait=1.25,
        transactions=1234567, drops={"idle_timeout": 9, "forced": 0}, idle_new=2, oldest_hold=2.5,
    )  # fmt: skip
    text = read(daemon).text
    for words in (
        "app transaction, timedwait", "20 / 25 +5 forced", "1.25 s", "1,234,567", "idle_timeout 9",
        "7 2 new", "13 longest 2.5 s most 0", "3 / 4", "6 longest 1.25 s",
    ):  # fmt: skip
        assert words in text
    assert "forced 0" not in text


def test_the_page_shows_the_numbers_of_a_listener(daemon: Any) -> None:
    daemon.change_listener(clients={"login": 0, "active": 12}, max_clients=12, refusals={"auth": 3, "tls": 0})
    text = read(daemon).text
    assert "127.0.0.1:6432" in text
    assert "12 / 12 full" in text
    assert "active 12" in text
    assert "auth 3" in text
    assert "tls" not in text


def a_holder(**more: Any) -> HolderStats:
    fields: dict[str, Any] = {
        "session": 7, "endpoint": "db:5432", "database": "orders", "session_user": "app", "cclass": "",
        "client": 12, "peer": "10.0.0.9:40000", "user": "ann", "application_name": "nightly",
        "state": "idle_in_transaction", "held": 75.0,
    }  # fmt: skip
    return HolderStats(**(fields | more))


def test_the_page_shows_who_holds_what(daemon: Any) -> None:
    text = read(daemon, Holders("app", 1, (a_holder(),))).text
    assert "nightly 75 s idle in transaction ann 10.0.0.9:40000 12 7 app app@orders on db:5432" in text
    assert "are shown" not in text
    kept = a_holder(state="idle", pinned="temp_tables, load")
    assert "nightly 75 s idle keeps temp tables, load ann" in read(daemon, Holders("app", 1, (kept,))).text
    unknown = a_holder(client=0, peer="", user="", application_name="", state="login")
    assert "no name 75 s login - - - 7 app" in read(daemon, Holders("app", 1, (unknown,))).text


def test_the_page_shows_only_those_who_hold_longest_and_where_the_others_are(daemon: Any) -> None:
    many = tuple(a_holder(session=number) for number in range(30))
    page = read(daemon, Holders("a/b c", 57, many))
    assert "10 of 57 that hold a session of a/b c are shown: the others" in page.text
    assert ("a", {"href": "/api/v1/pools/a/b%20c/holders"}) in page.tags
    assert page.text.count("nightly") == 10


def test_the_page_shows_each_endpoint_and_its_breaker(daemon: Any) -> None:
    healthy = EndpointStats("db1:5432", {"busy": 2, "idle": 0}, "closed", 0, 0.0, "")
    broken = EndpointStats("db2:5432", {"busy": 0, "idle": 0}, "half_open", 5, 2.5, "connection refused")
    states = dict.fromkeys(("care", "opening", "closing"), 0)
    daemon.change_pool(
        endpoints=tuple(replace(one, sessions=one.sessions | states) for one in (healthy, broken))
    )
    text = read(daemon).text
    assert "db1:5432 app unknown closed 2 0 0 0 0 0 no complaint" in text
    assert (
        "db2:5432 app unknown half open tried again in 2.5 s 0 0 0 0 0 5 failed: connection refused" in text
    )


def test_users_and_classes_are_shown_where_there_are_several(daemon: Any) -> None:
    assert "Sessions by user and class" not in read(daemon).text
    counts = {"busy": 1, "idle": 2, "care": 0, "opening": 0, "closing": 0, "waiting": 3}
    own = KeyStats(database="orders", user="ann", cclass="batch", endpoint="db2", **counts)
    daemon.change_pool(keys=(own, *[replace(own, user=f"u{number}") for number in range(24)]))
    text = read(daemon).text
    assert "ann app orders batch db2 1 2 0 0 0 3" in text
    assert "15 more with fewer sessions are in /api/v1/pools" in text


def test_priorities_are_shown_where_there_are_several(daemon: Any) -> None:
    assert "Priorities" not in read(daemon).text
    classes = (PriorityStats("", 0, 1.0, 0, 0.0), PriorityStats("web", 1, 2.5, 4, 1.5))
    daemon.change_pool(priorities=classes)
    text = read(daemon).text
    assert "everybody else app 1 0 - " in text
    assert "web app 2.5 4 1.5 s" in text


def test_requests_are_shown_since_the_start_and_since_the_reset(daemon: Any) -> None:
    ever = replace(
        daemon.stats.pools[0].since_start, uptime=7200.0, requests=1000, immediate=900, enqueued=100,
        dequeued=90, timeouts=6, gone=4, wait_sum=45.0, wait_min=0.25, wait_max=4.0, wait_average=0.5,
        most_waiting=33, most_busy=9, most_opened=10,
    )  # fmt: skip
    daemon.change_pool(since_start=ever, since_reset=ever)
    text = read(daemon).text
    expected = "2 h 0 min since the start 1,000 900 100 90 500 ms 250 ms to 4 s 33 timed out 6 , gone 4"
    assert expected.replace(" ,", ",") in text
    assert "since the reset" not in text
    assert "most 9" in text
    daemon.change_pool(since_reset=replace(ever, uptime=60.0, requests=5, dequeued=0))
    assert "1 min 0 s since the reset 5" in read(daemon).text


def test_a_paused_pool_is_called_paused(daemon: Any) -> None:
    daemon.change_pool(paused=True)
    assert "paused" in read(daemon).text


def test_a_full_pool_is_called_full(daemon: Any) -> None:
    daemon.change_pool(opened=10, busy=10, idle=0, max=10, waiting=4)
    assert "full 4 waiting" in read(daemon).text


def test_a_pool_that_is_down_says_why_twice(daemon: Any) -> None:
    daemon.change_pool(ready=False, last_error="password authentication failed")
    text = read(daemon).text
    assert "not ready" in text
    assert text.count("latest open failed: password authentication failed") == 2


def test_a_daemon_that_drains_says_so(daemon: Any) -> None:
    daemon.change(draining=True)
    assert "draining" in read(daemon).text


def test_a_daemon_without_pools_or_listeners_has_a_page_too(daemon: Any) -> None:
    daemon.change(pools=(), listeners=())
    assert read(daemon).text.count(" none") == 5


def test_text_from_outside_never_becomes_a_tag(daemon: Any) -> None:
    daemon.change_pool(
        name=HOSTILE, pool_mode=HOSTILE, getmode=HOSTILE, ready=False, last_error=HOSTILE,
        drops={HOSTILE: 1}, acquires={(HOSTILE, HOSTILE): 1},
    )  # fmt: skip
    daemon.change_listener(
        name=HOSTILE, protocol=HOSTILE, address=HOSTILE, clients={HOSTILE: 1}, refusals={HOSTILE: 1}
    )
    daemon.change(version=HOSTILE)
    pool = daemon.stats.pools[0]
    daemon.change_pool(
        endpoints=(replace(pool.endpoints[0], name=HOSTILE, breaker=HOSTILE, last_error=HOSTILE),),
        keys=(replace(pool.keys[0], user=HOSTILE, database=HOSTILE, cclass=HOSTILE, endpoint=HOSTILE),) * 2,
        priorities=(replace(pool.priorities[0], name=HOSTILE),) * 2,
    )
    words = dict.fromkeys(("endpoint", "database", "session_user", "peer", "user", "state"), HOSTILE)
    holders = Holders(HOSTILE, 2, (a_holder(application_name=HOSTILE, **words),))
    page = read(daemon, holders)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "style"]
    assert page.text.count("<script>alert(1)</script>") >= 25
    assert "\x1b" not in render_page(daemon.stats, [holders])


def test_the_page_needs_nothing_but_itself(daemon: Any) -> None:
    page = read(daemon)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert all(attrs["href"].startswith("/") for tag, attrs in page.tags if tag == "a")
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_the_style_in_the_page_is_the_one_that_the_hash_names(daemon: Any) -> None:
    found = re.search(r"<style>(.*?)</style>", render_page(daemon.stats), re.DOTALL)
    assert found
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    assert f"sha256-{digest}" == STYLE_HASH


def test_each_cell_has_its_heading_for_narrow_screens(daemon: Any) -> None:
    page = read(daemon)
    cells = [attrs for tag, attrs in page.tags if tag == "td"]
    assert cells
    assert all(attrs["role"] == "cell" for attrs in cells)
    # A table without rows says so in one cell.
    assert all(attrs.get("data-label") or "colspan" in attrs for attrs in cells)


@pytest.mark.parametrize(
    ("seconds", "share", "words"),
    [
        ([], 0.5, "-"),
        ([0.0] * 10, 0.99, "< 0.25 ms"),
        ([100.0] * 10, 0.5, "> 8.19 s"),
        ([0.0015] * 10, 0.5, "1.5 ms"),
        ([0.0] * 99 + [3.0], 0.5, "< 0.25 ms"),
    ],
)
def test_a_quantile_is_estimated_from_the_buckets(seconds: list[float], share: float, words: str) -> None:
    histogram = Histogram()
    for value in seconds:
        histogram.observe(value)
    assert quantile(histogram.snapshot(), share) == words

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from proxy.observe.page import STYLE_HASH, quantile, render_page
from proxy.observe.style import STYLE
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


def read(daemon: Any) -> Reader:
    reader = Reader()
    reader.feed(render_page(daemon.stats))
    assert reader.open == []
    return reader


def test_the_page_shows_version_uptime_and_that_all_is_well(daemon: Any) -> None:
    daemon.change(version="1.2.3", uptime=93784.0)
    page = read(daemon)
    assert "Penstock 1.2.3 ready up 1 d 2 h" in page.text
    assert ("meta", {"http-equiv": "refresh", "content": "5"}) in page.tags


def test_the_page_shows_the_numbers_of_a_pool(daemon: Any) -> None:
    acquires = daemon.stats.pools[0].acquires | {("wait", "timeout"): 2, ("nowait", "timeout"): 1}
    daemon.change_pool(
        opened=20, max=25, max_forced=5, busy=13, idle=7, opening=3, closing=4, waiting=6, oldest_wait=1.25,
        transactions=1234567, acquires=acquires, drops={"idle_timeout": 9, "forced": 0},
    )  # fmt: skip
    text = read(daemon).text
    for words in (
        "app transaction, timedwait", "20 / 25 +5 forced", "1.25 s", "1,234,567", "timeout 3",
        "idle_timeout 9",
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
    assert read(daemon).text.count(" none") == 2


def test_text_from_outside_never_becomes_a_tag(daemon: Any) -> None:
    daemon.change_pool(
        name=HOSTILE, pool_mode=HOSTILE, getmode=HOSTILE, ready=False, last_error=HOSTILE,
        drops={HOSTILE: 1}, acquires={(HOSTILE, HOSTILE): 1},
    )  # fmt: skip
    daemon.change_listener(
        name=HOSTILE, protocol=HOSTILE, address=HOSTILE, clients={HOSTILE: 1}, refusals={HOSTILE: 1}
    )
    daemon.change(version=HOSTILE)
    page = read(daemon)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "style"]
    assert page.text.count("<script>alert(1)</script>") >= 10
    assert "\x1b" not in render_page(daemon.stats)


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
    assert all(attrs["data-label"] and attrs["role"] == "cell" for attrs in cells)


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

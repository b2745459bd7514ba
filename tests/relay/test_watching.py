"""How long queries took, and what is told of it; the clock is the test's."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from fakes import FakeBackend, FakeOpener
from proxy.asked import Asked
from proxy.pool.endpoints import Endpoint
from proxy.pool.limits import LOG_RAW, OFF, Limits
from proxy.pool.pool import Pool
from proxy.pool.session import Session
from proxy.relay.watching import Watch
from relay.stage import LineClient, LineSession, Scene


class NotingClient(LineClient):
    """Everything it asks is one statement; ``#`` begins a comment."""

    def __init__(self) -> None:
        super().__init__("till")
        self.seen = 0

    def replied(self) -> int:
        return self.seen

    def label(self) -> str:
        return "till"

    def fingerprint(self, text: bytes) -> tuple[str, str, dict[str, str]]:
        asked, _, comment = text.decode().partition("#")
        return "f1", f"without {asked[:1]}", {"traceparent": comment} if comment else {}


class _Backend(FakeBackend):
    codec = LineSession()


class Show:
    """A watched client, and a session that is only a record."""

    def __init__(self, pool: Pool) -> None:
        self.now = 100.0
        self.pool = pool
        self.codec = NotingClient()
        self.watch = Watch(7, pool, self.codec, lambda: self.now)
        self.session = Session(3, pool.key("app", "app"), Endpoint(0, "nowhere"), 0.0)
        self.session.backend = _Backend(FakeOpener(), self.session)
        self.lines: list[Any] = []
        self.asked = 0

    def ask(self, text: bytes = b"select", count: int = 1) -> Asked:
        one = Asked(self.asked)
        self.asked += 1
        one.data, one.end, one.count = text, len(text), count
        self.watch.asked.append(one)
        return one

    def sent(self, after: float = 0.0) -> None:
        self.now += after
        self.watch.sent()

    def answered(self, after: float, count: int = 1) -> list[Any]:
        self.now += after
        self.codec.seen += count
        with capture_logs() as lines:
            self.watch.answered(self.session, "app")
        return [line for line in lines if line["event"] == "slow_query"]


def show_with(**limits: Any) -> Show:
    scene = Scene()
    scene.pool.adopt(Limits(max=1, **limits))
    return Show(scene.pool)


async def test_what_takes_the_time_is_logged_and_what_does_not_is_not() -> None:
    show = show_with(log_min_duration=1.0)
    show.ask(b"secret#parent")
    show.sent()
    (line,) = show.answered(1.0)
    assert (line["duration"], line["waited"], line["client"], line["session"]) == (1.0, 0.0, 7, 3)
    assert (line["statement"], line["traceparent"], line["fingerprint"]) == ("without s", "parent", "f1")
    assert (line["application_name"], line["user"], line["server_pid"]) == ("till", "app", 0)
    show.ask(b"quick")
    show.sent()
    assert show.answered(0.9) == []
    assert show.pool.counters.slow_queries == 1
    assert show.pool.counters.query.snapshot().cumulative[-1] == 2


async def test_the_wait_for_a_session_is_told_and_does_not_count() -> None:
    show = show_with(log_min_duration=1.0)
    show.ask()
    show.now = 105.0
    show.watch.granted(100.0)
    (line,) = show.answered(1.5)
    assert (line["duration"], line["waited"]) == (1.5, 5.0)
    show.ask()
    show.sent()
    assert show.answered(2.0)[0]["waited"] == 0.0


async def test_in_a_pipeline_each_begins_when_the_one_before_has_ended() -> None:
    show = show_with(log_min_duration=1.0)
    for _ in range(3):
        show.ask()
    show.sent()
    assert show.answered(0.8) == []
    assert [line["duration"] for line in show.answered(1.2)] == [1.2]
    assert show.answered(0.1) == []
    assert show.watch.asked == []


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ({}, "without t"),
        ({"log_statement_bytes": 4}, "with"),
        ({"log_statements": LOG_RAW}, "the whole text"),
        ({"log_statements": LOG_RAW, "log_statement_bytes": 3}, "the"),
        ({"log_statement_bytes": 0}, None),
    ],
)
async def test_so_much_of_the_text_is_shown(limits: dict[str, Any], shown: str | None) -> None:
    show = show_with(log_min_duration=0.0, **limits)
    show.ask(b"the whole text")
    show.sent()
    assert show.answered(0.1)[0].get("statement") == shown


async def test_a_session_that_is_lost_ends_what_it_ran() -> None:
    show = show_with(log_min_duration=1.0)
    show.ask()
    show.sent()
    show.now += 3.0
    with capture_logs() as lines:
        show.watch.lost(show.session, "app")
    assert [(line["event"], line["sqlstate"]) for line in lines] == [("slow_query", "08006")]
    assert show.watch.asked == []


async def test_what_was_refused_is_told_with_its_traceparent() -> None:
    show = show_with(log_min_duration=1.0)
    show.ask(b"secret#parent")
    with capture_logs() as lines:
        show.watch.refused(Exception("no session"), "app", 98.0)
    (line,) = lines
    assert (line["event"], line["traceparent"], line["waited"]) == ("client_refused_session", "parent", 2.0)
    assert "secret" not in str(line)


async def test_statistics_count_every_statement_and_log_none() -> None:
    show = show_with(query_stats=True)
    one = show.ask()
    one.rows, one.failed = 4, "42P01"
    show.ask(count=0)
    show.sent()
    assert show.answered(0.5, 2) == []
    (entry,) = show.pool.counters.book.freeze()
    assert (entry.calls, entry.rows, entry.errors, entry.total) == (1, 4, 1, 0.5)


async def test_a_client_is_watched_as_long_as_its_pool_wants_it() -> None:
    scene = Scene(log_min_duration=1.0)
    client, _ = scene.client()
    assert client.watch is not None
    assert client.codec.asked is client.watch.asked
    scene.pool.adopt(Limits(log_min_duration=OFF))
    client.adopt_terms()
    assert client.watch is None
    assert client.codec.asked is None

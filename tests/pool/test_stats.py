"""What is counted, and the figures that are made of it. How it is counted in a running pool is below."""

import asyncio
from dataclasses import astuple, replace

import pytest

from fakes import FakeBackend, FakeOpener, FakeWaiter, in_fake_time, timed, turns, waits
from proxy.errors import (
    BackendError,
    OpenFailed,
    PingFailed,
    PoolBusy,
    PoolClosed,
    PoolPaused,
    PoolTimeout,
    QueueFull,
    RefusedEarly,
)
from proxy.pool.endpoints import BREAKER_STATES
from proxy.pool.figures import BREAKERS, SESSION_STATES, PoolStats
from proxy.pool.limits import NOWAIT, WAIT, Limits
from proxy.pool.pool import Pool
from proxy.pool.session import STATES, Session
from proxy.pool.stats import BUSY, GONE, GRANTED, OUTCOMES, Counters, Histogram, outcome_of
from proxy.reasons import DropReason

DOWN = BackendError("the server is down", "08001")


def served(counters: Counters, *seconds: float) -> None:
    for wait in seconds:
        counters.note_queued(1)
        counters.note_served(WAIT, wait, 1)


# -- counters and figures -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (PoolBusy(""), "busy"), (PoolTimeout(""), "timeout"), (QueueFull(""), "queue_full"),
        (RefusedEarly(""), "refused_early"), (PoolClosed(""), "closed"), (PoolPaused(""), "paused"),
        (OpenFailed(""), "failed"),
    ],
)  # fmt: skip
def test_every_error_has_an_outcome_of_its_own(error: PoolBusy, outcome: str) -> None:
    assert OUTCOMES[outcome_of(error)] == outcome


def test_a_pool_of_which_nothing_is_asked_has_figures_of_nothing() -> None:
    counters = Counters(100.0)
    figures = counters.since_start(130.0)
    assert figures == counters.since_reset(130.0)
    assert figures.uptime == 30.0
    assert set(astuple(replace(figures, uptime=0.0))) == {0}


def test_requests_are_told_apart_by_how_they_ended() -> None:
    counters = Counters()
    for outcome in OUTCOMES:
        counters.acquires[WAIT][OUTCOMES.index(outcome)] += 1
        counters.acquires[NOWAIT][OUTCOMES.index(outcome)] += 10
    counters.enqueued, counters.waited = 40, 4
    figures = counters.since_start(0.0)
    assert figures.requests == 11 * len(OUTCOMES)
    assert (figures.immediate, figures.enqueued, figures.dequeued) == (11 - 4, 40, 4)
    assert (figures.timeouts, figures.gone) == (11, 11)
    assert figures.rejected == 22, "a queue that is too long, and one that is hopeless"
    assert figures.nowait_refused == 22, "a pool that is busy, and one that is paused"
    assert figures.failed == 22, "the server says no, or the pool is closed"


def test_waits_have_a_sum_a_shortest_a_longest_and_an_average() -> None:
    counters = Counters()
    served(counters, 2.0, 0.5, 3.5)
    figures = counters.since_start(0.0)
    assert (figures.wait_sum, figures.wait_min, figures.wait_max) == (6.0, 0.5, 3.5)
    assert figures.wait_average == 2.0
    assert figures.dequeued == 3


def test_a_wait_of_nothing_is_the_shortest_and_may_be_the_longest() -> None:
    counters = Counters()
    served(counters, 0.0)
    assert counters.since_start(0.0).wait_max == 0.0
    served(counters, 1.0)
    assert (counters.since_start(0.0).wait_min, counters.since_start(0.0).wait_max) == (0.0, 1.0)


def test_the_histogram_of_waits_leaves_out_who_did_not_wait() -> None:
    counters = Counters()
    for _ in range(5):
        counters.note_granted(WAIT)
    served(counters, 0.0001, 0.3)
    waited, acquired = counters.waits(), counters.all_waits()
    assert (waited.cumulative[0], waited.cumulative[-1]) == (1, 2)
    assert (acquired.cumulative[0], acquired.cumulative[-1]) == (6, 7)
    assert waited.total == acquired.total == pytest.approx(0.3001)
    assert list(waited.cumulative) == sorted(waited.cumulative)


def test_marks_are_the_highest_that_was_seen() -> None:
    counters = Counters()
    for count in (1, 5, 3):
        counters.note_busy(count)
        counters.note_opened(count + 1)
        counters.note_queued(count + 2)
    figures = counters.since_start(0.0)
    assert (figures.most_busy, figures.most_opened, figures.most_waiting) == (5, 6, 7)
    counters.note_served(WAIT, 0.0, 9)
    assert counters.since_start(0.0).most_busy == 9


def test_a_reset_begins_anew_but_forgets_nothing_and_no_counter_goes_down() -> None:
    counters = Counters(100.0)
    counters.acquires[WAIT][GRANTED] += 4
    counters.acquires[WAIT][GONE] += 1
    served(counters, 0.5, 2.0)
    counters.note_busy(8)
    counters.note_opened(10)
    before = counters.since_start(150.0)
    counters.reset_marks(150.0, opened=6, busy=3, waiting=1)
    fresh = counters.since_reset(151.0)
    assert (fresh.uptime, fresh.requests, fresh.dequeued, fresh.wait_sum) == (1.0, 0, 0, 0.0)
    assert (fresh.wait_min, fresh.wait_max, fresh.wait_average) == (0.0, 0.0, 0.0)
    assert (fresh.most_opened, fresh.most_busy, fresh.most_waiting) == (6, 3, 1), "as it is at the reset"
    assert counters.since_start(150.0) == before
    assert counters.acquires[WAIT][GRANTED] == 6

    served(counters, 1.0)
    counters.note_busy(4)
    ever, since = counters.since_start(160.0), counters.since_reset(160.0)
    assert (since.requests, since.most_busy, since.wait_min, since.wait_max) == (1, 4, 1.0, 1.0)
    assert (ever.requests, ever.most_busy, ever.wait_min, ever.wait_max) == (8, 8, 0.5, 2.0)
    assert ever.uptime == 60.0


def test_resets_one_after_the_other_keep_the_marks_of_all() -> None:
    counters = Counters()
    for most in (5, 9, 2):
        counters.note_busy(most)
        served(counters, float(most))
        counters.reset_marks(0.0)
    ever = counters.since_start(0.0)
    assert (ever.most_busy, ever.wait_min, ever.wait_max) == (9, 2.0, 9.0)
    assert counters.since_reset(0.0).most_busy == 0


def test_a_histogram_can_be_frozen_at_any_time() -> None:
    histogram = Histogram()
    frozen = histogram.snapshot()
    histogram.observe(1.0)
    assert frozen.cumulative[-1] == 0


def test_the_words_for_states_are_those_of_the_pool() -> None:
    assert BREAKERS == BREAKER_STATES
    assert set(SESSION_STATES) == set(STATES) - {"gone"}


# -- a running pool -----------------------------------------------------------------------------


class House:
    """A pool of fakes that is watched while it works."""

    def __init__(self, endpoints: tuple[str, ...] = (), **limits: object) -> None:
        self.opener = FakeOpener()
        loop = asyncio.get_running_loop()
        self.pool = Pool(
            "orders", Limits(**{"wait_timeout": 10.0, **limits}), self.opener, ("orders", "ann"),  # type: ignore[arg-type]
            clock=loop.time, endpoints=endpoints,
        )  # fmt: skip
        self.key = self.pool.key("orders", "ann")

    async def have(self, count: int) -> list[Session]:
        return [await self.pool.acquire(self.key) for _ in range(count)]

    def queue(self, *waiters: FakeWaiter) -> None:
        for waiter in waiters:
            self.pool.enqueue(waiter)

    @property
    def stats(self) -> PoolStats:
        return self.pool.snapshot()


def backend_of(session: Session) -> FakeBackend:
    assert isinstance(session.backend, FakeBackend)
    return session.backend


@in_fake_time
async def test_a_day_in_the_life_of_a_queue() -> None:
    house = House(max=2)
    pool = house.pool
    held = await house.have(2)
    first, second, third = (timed(house.key) for _ in range(3))
    house.queue(first, second, third)
    await asyncio.sleep(1)
    assert house.stats.since_start.most_waiting == 3
    assert (house.stats.waiting, house.stats.oldest_wait) == (3, pytest.approx(1.0))
    pool.release(held[0])
    await asyncio.sleep(2)
    pool.release(held[1])
    pool.withdraw(third)
    figures = house.stats.since_start
    assert (figures.requests, figures.dequeued, figures.gone) == (5, 4, 1)
    assert figures.enqueued == 5, "the first two waited for their opens"
    assert figures.most_waiting == 3
    assert (figures.most_busy, figures.most_opened) == (2, 2)
    assert figures.wait_max == pytest.approx(3.0)
    assert figures.wait_sum == pytest.approx(4.0)
    assert house.stats.handoffs == 4, "two fresh ones and two that were given back"
    for waiter in (first, second):
        assert waiter.session is not None
        pool.release(waiter.session)
    (again,) = await house.have(1)
    assert house.stats.since_start.immediate == 1
    pool.release(again)
    await pool.drain()


@in_fake_time
async def test_who_is_refused_at_once_was_never_in_the_queue() -> None:
    house = House(max=1, max_waiting=1)
    (held,) = await house.have(1)
    before = house.stats.since_start.enqueued
    patient, late, hasty = waits(house.key), waits(house.key), FakeWaiter(house.key, NOWAIT)
    house.queue(patient, late, hasty)
    figures = house.stats.since_start
    assert (figures.enqueued - before, figures.rejected, figures.nowait_refused) == (1, 1, 1)
    assert house.pool.counters.acquires[NOWAIT][BUSY] == 1
    assert figures.most_waiting == 1
    house.pool.withdraw(patient)
    house.pool.release(held)
    await house.pool.drain()


@in_fake_time
async def test_marks_survive_that_sessions_come_home_and_a_reset_begins_where_it_is() -> None:
    house = House(max=5)
    pool = house.pool
    held = await house.have(5)
    for session in held[1:]:
        pool.release(session)
    pool.reset_stats()
    await asyncio.sleep(3)
    stats = house.stats
    assert (stats.since_start.most_busy, stats.since_reset.most_busy) == (5, 1)
    assert (stats.since_start.most_opened, stats.since_reset.most_opened) == (5, 5)
    assert stats.since_reset.uptime == pytest.approx(3.0)
    assert stats.since_reset.requests == 0
    pool.release(held[0])
    await pool.drain()
    assert house.stats.since_start.most_busy == 5


@in_fake_time
async def test_the_oldest_hold_is_that_of_the_session_which_is_busy_longest() -> None:
    house = House(max=3)
    (first,) = await house.have(1)
    await asyncio.sleep(4)
    (second,) = await house.have(1)
    await asyncio.sleep(1)
    assert house.stats.oldest_hold == pytest.approx(5.0)
    house.pool.release(first)
    assert house.stats.oldest_hold == pytest.approx(1.0)
    house.pool.release(second)
    assert house.stats.oldest_hold == 0.0
    await house.pool.drain()


@in_fake_time
async def test_idle_sessions_that_nobody_has_held_are_counted_apart() -> None:
    house = House(min=3, max=3, getmode=WAIT)
    house.pool.start()
    await asyncio.sleep(2)
    assert (house.stats.idle, house.stats.idle_new) == (3, 3)
    (session,) = await house.have(1)
    house.pool.release(session)
    assert (house.stats.idle, house.stats.idle_new) == (3, 2)
    await house.pool.drain()


@in_fake_time
async def test_pings_tell_those_that_fail_from_those_that_are_too_slow_and_how_long_they_took() -> None:
    house = House(max=1, ping_interval=0.0, ping_timeout=2.0, close_timeout=1.0)
    pool = house.pool
    (session,) = await house.have(1)
    pool.release(session)
    backend_of(session).pinging.shut()
    asking = asyncio.ensure_future(house.have(1))
    await asyncio.sleep(1)
    backend_of(session).pinging.open()
    assert await asking == [session]
    assert house.stats.ping.total == pytest.approx(1.0)
    assert house.stats.ping.cumulative[-1] == 1
    pool.release(session)
    backend_of(session).pinging.shut()
    (another,) = await house.have(1)
    assert another is not session
    pool.release(another)
    backend_of(another).ping_error = PingFailed("no")
    (third,) = await house.have(1)
    assert house.stats.pings == {"ok": 1, "failed": 1, "timed_out": 1}
    assert house.stats.ping.cumulative[-1] == 1, "only those that were answered"
    pool.release(third)
    await pool.drain()


@in_fake_time
async def test_resets_and_sessions_with_news_are_counted() -> None:
    house = House(max=2)
    pool = house.pool
    first, second = await house.have(2)
    pool.reset(first)
    backend_of(second).reset_error = BackendError("no")
    pool.reset(second)
    await turns()
    assert house.stats.resets == {"ok": 1, "failed": 1}
    await asyncio.sleep(1)
    backend_of(first).has_news = True
    assert pool.try_acquire(timed(house.key)) is None
    assert house.stats.peek_dead == 1
    await turns()
    await pool.drain()


@in_fake_time
async def test_every_endpoint_shows_its_sessions_its_breaker_and_its_latest_error() -> None:
    house = House(("a:1", "b:2"), max=4, breaker_failures=1, breaker_timeout=8.0)
    house.opener.at[1] = DOWN
    held = await house.have(3)
    await turns()
    good, bad = house.stats.endpoints
    assert (good.name, good.sessions, good.breaker, good.last_error) == (
        "a:1", {"busy": 3, "idle": 0, "care": 0, "opening": 0, "closing": 0}, "closed", "",
    )  # fmt: skip
    assert (bad.name, sum(bad.sessions.values()), bad.breaker) == ("b:2", 0, "open")
    assert (bad.failures, bad.last_error) == (1, "the server is down")
    assert 0 < bad.retry_in <= 8.0
    for session in held:
        house.pool.release(session)
    await house.pool.drain()


@in_fake_time
async def test_sessions_and_waiters_are_counted_by_key_the_largest_first() -> None:
    house = House(max=3)
    pool = house.pool
    held = await house.have(2)
    batch = pool.key("orders", "bob", "batch")
    held.append(await pool.acquire(batch))
    pool.release(held.pop(0))
    absent = pool.key("other", "eve")
    waiting = [waits(batch), waits(batch), waits(batch)]
    house.queue(*waiting)
    pool.ledger.paused = True
    house.queue(stranger := waits(absent))
    keys = house.stats.keys
    assert sorted((key.user, key.cclass, key.busy, key.waiting) for key in keys) == [
        ("ann", "", 1, 0), ("bob", "batch", 1, 3), ("eve", "", 0, 1),
    ]  # fmt: skip
    assert keys[0].user == "bob"
    for waiter in (*waiting, stranger):
        pool.withdraw(waiter)
    pool.resume()
    for session in held:
        pool.release(session)
    await pool.drain()


@in_fake_time
async def test_no_more_keys_are_shown_than_a_page_can_bear() -> None:
    house = House(max=1)
    (held,) = await house.have(1)
    house.pool.ledger.paused = True
    waiters = [waits(house.pool.key("orders", f"user{number}")) for number in range(150)]
    house.queue(*waiters)
    assert len(house.stats.keys) == 100
    for waiter in waiters:
        house.pool.withdraw(waiter)
    house.pool.release(held)
    await house.pool.drain()


@in_fake_time
async def test_those_who_wait_are_counted_by_class() -> None:
    house = House(max=1, weights=(1.0, 4.0))
    house.pool.class_names = ("", "web")
    (held,) = await house.have(1)
    common, preferred = waits(house.key), waits(house.key)
    preferred.priority = 1
    house.queue(common)
    await asyncio.sleep(2)
    house.queue(preferred)
    await asyncio.sleep(1)
    everybody, web = house.stats.priorities
    assert (everybody.name, everybody.weight, everybody.waiting) == ("", 1.0, 1)
    assert everybody.oldest_wait == pytest.approx(3.0)
    assert (web.name, web.number, web.weight, web.waiting) == ("web", 1, 4.0, 1)
    assert web.oldest_wait == pytest.approx(1.0)
    for waiter in (common, preferred):
        house.pool.withdraw(waiter)
    house.pool.release(held)
    await house.pool.drain()


@in_fake_time
async def test_sessions_above_max_are_extras() -> None:
    house = House(max=1, max_forced=2, getmode=3)
    held = await house.have(3)
    assert (house.stats.opened, house.stats.extras) == (3, 2)
    for session in held:
        house.pool.release(session)
    assert house.stats.drops[DropReason.FORCED] == 2
    await house.pool.drain()


@in_fake_time
async def test_a_pause_and_a_new_generation_are_seen() -> None:
    house = House()
    house.pool.pause()
    house.pool.renew()
    assert (house.stats.paused, house.stats.generation) == (True, 1)
    house.pool.resume()
    assert not house.stats.paused
    await house.pool.drain()

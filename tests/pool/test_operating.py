"""What an operator does to a pool that runs: each is one step, whole or not at all."""

import asyncio
from dataclasses import replace

import pytest

from fakes import FakeBackend, FakeOpener, in_fake_time, nowait, timed, turns, waits
from proxy.errors import LocalProtocolError, PoolBusy, PoolClosed, PoolPaused, PoolTimeout
from proxy.pool.limits import EAGER, NOWAIT, TIMEDWAIT, WAIT, Limits
from proxy.pool.pool import Pool
from proxy.pool.session import BUSY, Session
from proxy.reasons import DropReason


class Bench:
    """A pool with so many sessions open and idle."""

    def __init__(self, **limits: object) -> None:
        self.opener = FakeOpener()
        clock = asyncio.get_running_loop().time
        limits = {"slow_start": False, **limits}
        self.pool = Pool("orders", Limits(**limits), self.opener, ("orders", "ann"), clock=clock)  # type: ignore[arg-type]
        self.opener.lost = self.pool.lost
        self.key = self.pool.key("orders", "ann")

    async def hold(self, count: int) -> list[Session]:
        return [await self.pool.acquire(self.key, WAIT) for _ in range(count)]

    def release(self, sessions: list[Session]) -> None:
        for session in sessions:
            self.pool.release(session)

    def change(self, **limits: object) -> None:
        self.pool.reconfigure(replace(self.pool.limits, **limits))  # type: ignore[arg-type]


def backend_of(session: Session) -> FakeBackend:
    assert isinstance(session.backend, FakeBackend)
    return session.backend


# -- reconfigure --------------------------------------------------------------------------------


@in_fake_time
async def test_a_lower_max_drains_as_sessions_come_home() -> None:
    bench = Bench(max=8)
    held = await bench.hold(8)
    bench.change(max=2)
    assert (bench.pool.ledger.opened, len(bench.pool.ledger.busy)) == (8, 8), "nobody is interrupted"
    for left, session in zip((7, 6, 5, 4, 3, 2, 2, 2), held, strict=True):
        bench.pool.release(session)
        await turns()
        assert bench.pool.ledger.opened == left
        bench.pool.ledger.check()
    assert bench.pool.counters.drops[DropReason.SHRUNK] == 6
    assert bench.opener.living == 2


@in_fake_time
async def test_a_lower_max_closes_what_is_idle_at_once() -> None:
    bench = Bench(max=8)
    bench.release(await bench.hold(8))
    bench.change(max=3)
    await turns()
    assert (bench.pool.ledger.opened, bench.opener.living) == (3, 3)


@in_fake_time
async def test_those_who_wait_get_nothing_until_the_pool_has_shrunk() -> None:
    bench = Bench(max=3)
    held = await bench.hold(3)
    bench.change(max=1)
    bench.pool.enqueue(waiter := timed(bench.key))
    bench.pool.release(held[0])
    await turns()
    assert waiter.session is None
    bench.pool.release(held[1])
    await turns()
    bench.pool.release(held[2])
    await turns()
    assert waiter.session is not None
    assert bench.pool.ledger.used == 1


@in_fake_time
async def test_a_higher_max_serves_who_waits() -> None:
    bench = Bench(max=1)
    await bench.hold(1)
    bench.pool.enqueue(waiter := waits(bench.key))
    bench.change(max=2)
    await turns()
    assert waiter.session is not None


@in_fake_time
async def test_a_new_min_is_filled_without_an_acquire() -> None:
    bench = Bench(max=5)
    bench.pool.start()
    await turns()
    bench.change(min=4)
    await turns()
    assert bench.pool.ledger.idle == 4


@in_fake_time
async def test_what_contradicts_itself_changes_nothing() -> None:
    bench = Bench(max=5, min=1)
    before = bench.pool.limits
    for wrong in ({"min": 6}, {"max": 0, "min": 0}, {"max_forced": -1}):
        with pytest.raises(ValueError, match="must be at most max"):
            bench.change(**wrong, wait_timeout=1.0)
        assert bench.pool.limits is before


@in_fake_time
async def test_one_change_leaves_everything_else_as_it_was() -> None:
    bench = Bench(max=5, wait_timeout=7.0)
    before = bench.pool.limits
    bench.change(getmode=NOWAIT)
    assert replace(bench.pool.limits, getmode=TIMEDWAIT) == before


@in_fake_time
async def test_a_shorter_lifetime_holds_for_sessions_of_today() -> None:
    bench = Bench(max=2)
    bench.pool.start()
    bench.release(await bench.hold(2))
    bench.change(max_lifetime=10.0, idle_timeout=1000.0)
    await asyncio.sleep(12.0)
    assert bench.pool.counters.drops[DropReason.MAX_LIFETIME] == 2


# -- pause and resume ---------------------------------------------------------------------------


@in_fake_time
async def test_a_pause_holds_everybody_back_and_resume_lets_them_go_in_turn() -> None:
    bench = Bench(max=1)
    bench.release(await bench.hold(1))
    bench.pool.pause()
    waiters = [timed(bench.key) for _ in range(3)]
    for waiter in waiters:
        assert bench.pool.try_acquire(waiter) is None
        bench.pool.enqueue(waiter)
    await turns()
    assert not any(waiter.session for waiter in waiters)
    bench.pool.resume()
    for waiter in waiters:
        assert waiter.session is not None
        bench.pool.release(waiter.session)


@in_fake_time
async def test_who_holds_a_session_is_not_disturbed_by_a_pause() -> None:
    bench = Bench(max=1)
    (session,) = await bench.hold(1)
    bench.pool.pause()
    assert session.state == BUSY
    bench.pool.enqueue(waiter := timed(bench.key))
    bench.pool.release(session)
    await turns()
    assert (waiter.session, bench.pool.ledger.idle) == (None, 1)


@in_fake_time
async def test_in_a_pause_nowait_is_refused_and_timedwait_times_out() -> None:
    bench = Bench(max=2)
    bench.pool.enqueue(queued := nowait(bench.key))
    bench.pool.pause()
    assert isinstance(queued.error, PoolPaused)
    bench.pool.enqueue(late := nowait(bench.key))
    assert isinstance(late.error, PoolPaused)
    bench.pool.enqueue(patient := timed(bench.key, 2.0))
    await asyncio.sleep(2.1)
    assert isinstance(patient.error, PoolTimeout)
    assert "paused" in patient.error.message


# -- renew, clear, expel ------------------------------------------------------------------------


@in_fake_time
async def test_renew_replaces_every_session_as_it_comes_home() -> None:
    bench = Bench(max=3, min=3)
    held = await bench.hold(2)
    bench.release(await bench.hold(1))
    bench.pool.renew()
    await turns()
    assert bench.pool.counters.drops[DropReason.GENERATION] == 1, "the idle one at once"
    bench.release(held)
    await turns()
    assert bench.pool.counters.drops[DropReason.GENERATION] == 3
    (fresh,) = await bench.hold(1)
    assert fresh not in held


@in_fake_time
async def test_a_session_that_was_being_opened_during_renew_serves_nobody() -> None:
    bench = Bench(max=1)
    bench.opener.opening.shut()
    bench.pool.enqueue(waiter := timed(bench.key))
    await turns()
    bench.pool.renew()
    bench.opener.opening.open()
    await turns()
    assert waiter.session is not None
    assert waiter.session.number == 2


@in_fake_time
async def test_clear_closes_what_is_idle_and_nothing_else() -> None:
    bench = Bench(max=3)
    held = await bench.hold(3)
    bench.release(held[:2])
    assert bench.pool.clear() == 2
    await turns()
    assert (bench.pool.ledger.opened, held[2].state) == (1, BUSY)


@in_fake_time
async def test_a_busy_session_that_is_dropped_tells_its_client() -> None:
    bench = Bench(max=1)
    (session,) = await bench.hold(1)
    bench.pool.expel(session, DropReason.CLOSED, "dropped by the operator")
    assert backend_of(session).taken_away == ["dropped by the operator"]
    with pytest.raises(LocalProtocolError, match="neither idle nor held"):
        bench.pool.expel(session, DropReason.CLOSED, "again")
    await turns()
    assert bench.pool.ledger.used == 0


@in_fake_time
async def test_a_session_is_found_by_its_number() -> None:
    bench = Bench(max=2)
    first, second = await bench.hold(2)
    assert bench.pool.session(second.number) is second
    bench.pool.drop(first, DropReason.CLOSED)
    await turns()
    assert bench.pool.session(first.number) is None


# -- close --------------------------------------------------------------------------------------


@in_fake_time
async def test_close_is_refused_while_the_pool_is_in_use() -> None:
    bench = Bench(max=1)
    held = await bench.hold(1)
    with pytest.raises(PoolBusy, match="the pool is in use"):
        bench.pool.close()
    bench.release(held)
    await bench.hold(1)


@in_fake_time
async def test_close_by_force_cuts_and_refuses() -> None:
    bench = Bench(max=1)
    (session,) = await bench.hold(1)
    bench.pool.enqueue(waiter := waits(bench.key))
    bench.pool.close(force=True)
    assert isinstance(waiter.error, PoolClosed)
    assert len(backend_of(session).taken_away) == 1
    await turns()
    assert bench.pool.ledger.used == 0
    with pytest.raises(PoolClosed):
        await bench.pool.acquire(bench.key, WAIT)


# -- the first fill -----------------------------------------------------------------------------


@in_fake_time
async def test_filled_waits_until_min_is_open() -> None:
    bench = Bench(max=4, min=3, prefill=EAGER, max_opening=1)
    bench.opener.opening.shut()
    bench.pool.start()
    filling = asyncio.ensure_future(bench.pool.filled())
    await turns()
    assert not filling.done()
    bench.opener.opening.open()
    await asyncio.wait_for(filling, 5)
    assert bench.pool.ledger.opened >= 3
    await bench.pool.filled()

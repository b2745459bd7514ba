"""I, L and D: sessions that are idle for too long or too old, and how many are closed at a time."""

import asyncio
import math

import pytest

from conformance.bench import Bench
from fakes import in_fake_time, timed, turns
from proxy.pool.limits import OFF, REAP_AT_ACCESS, REAP_AT_RELEASE, TIERED
from proxy.pool.session import BUSY, IDLE


@in_fake_time
async def test_i01_ten_seconds_after_five_of_idle_timeout_opened_is_min() -> None:
    async with Bench(min=2, max=6, idle_timeout=5.0) as bench:
        await bench.started()
        await bench.idle(6)
        assert bench.opened == 6
        await asyncio.sleep(10)
        assert bench.counts == (2, 0, 2)
        assert bench.drops == {"idle_timeout": 4}


@in_fake_time
async def test_i02_the_longest_idle_goes_first_and_a_recently_used_one_stays() -> None:
    async with Bench(max=3, idle_timeout=5.0) as bench:
        bench.pool.start()
        a, b, c = await bench.idle(3)
        await asyncio.sleep(3)
        held = await bench.take()
        bench.release(held)
        await asyncio.sleep(3)
        assert held[0].state == IDLE
        assert bench.counts == (1, 0, 1)
        assert held[0] in (a, b, c)


@in_fake_time
async def test_i03_a_busy_session_is_never_reaped_and_opened_may_stay_above_min() -> None:
    async with Bench(min=1, max=4, idle_timeout=5.0, max_lifetime=20.0) as bench:
        await bench.started()
        held = await bench.take(3)
        await asyncio.sleep(100)
        assert [session.state for session in held] == [BUSY] * 3
        assert bench.counts == (3, 3, 0)


@in_fake_time
async def test_i04_a_pool_that_nobody_uses_is_reaped_as_well() -> None:
    async with Bench(min=0, max=3, idle_timeout=60.0, keep_min=True) as bench:
        bench.pool.start()
        await bench.idle(3)
        await asyncio.sleep(3600)
        assert bench.opened == 0


@pytest.mark.parametrize("idle_timeout", [0.5, 5.0, 600.0])
@in_fake_time
async def test_i05_reaping_is_not_later_than_twice_the_timeout(idle_timeout: float) -> None:
    async with Bench(max=1, idle_timeout=idle_timeout) as bench:
        bench.pool.start()
        await asyncio.sleep(0.3)
        await bench.idle()
        await asyncio.sleep(2 * idle_timeout)
        assert bench.opened == 0


@in_fake_time
async def test_i06_each_endpoint_keeps_its_floor() -> None:
    async with Bench(
        endpoints=("a", "b", "c"), max=10, min_per_endpoint=1, idle_timeout=5.0, reuse=TIERED
    ) as bench:
        bench.pool.start()
        await asyncio.sleep(0.1)
        for endpoint, count in (("a", 3), ("b", 2), ("c", 1)):
            await bench.idle(count, bench.at(endpoint))
        await asyncio.sleep(10)
        assert [len(at.sessions) for at in bench.pool.ledger.endpoints.all] == [1, 1, 1]


@in_fake_time
async def test_i07_idle_timeout_is_for_extras_only() -> None:
    async with Bench(max=4, min_per_endpoint=2, reuse=TIERED, idle_timeout=5.0, max_lifetime=OFF) as bench:
        bench.pool.start()
        held = await bench.idle(4)
        core = [session for session in held if session.core]
        assert len(core) == 2
        await asyncio.sleep(1000)
        assert [session.state for session in core] == [IDLE, IDLE]
        assert bench.opened == 2


@in_fake_time
async def test_l01_an_old_session_ends_when_it_is_released() -> None:
    async with Bench(max=1, max_lifetime=60.0) as bench:
        (session,) = await bench.take()
        await asyncio.sleep(61)
        assert session.state == BUSY
        bench.pool.release(session)
        assert bench.drops == {"max_lifetime": 1}
        await turns()
        assert bench.opened == 0


@in_fake_time
async def test_l02_an_old_session_ends_when_somebody_wants_it() -> None:
    async with Bench(max=1, max_lifetime=60.0, ping_interval=OFF) as bench:
        (session,) = await bench.idle()
        await asyncio.sleep(61)
        assert await bench.take() != [session]
        assert bench.drops == {"max_lifetime": 1}


@in_fake_time
async def test_l03_an_old_session_ends_in_the_background() -> None:
    async with Bench(max=2, max_lifetime=60.0, idle_timeout=OFF) as bench:
        bench.pool.start()
        await bench.idle(2)
        await asyncio.sleep(62)
        assert bench.opened == 0
        assert bench.drops["max_lifetime"] >= 2


@pytest.mark.parametrize("reap", [REAP_AT_RELEASE, REAP_AT_ACCESS])
@in_fake_time
async def test_l04_an_expired_session_is_never_handed_out(reap: int) -> None:
    """generic_connection_pool does, where nothing was released since."""
    async with Bench(max=3, max_lifetime=60.0, idle_timeout=OFF, ping_interval=OFF, reap=reap) as bench:
        old = await bench.idle(3)
        await asyncio.sleep(61)
        waiter = timed(bench.key)
        assert bench.pool.try_acquire(waiter) not in old
        bench.queue(waiter)
        await turns()
        assert waiter.session is not None
        assert waiter.session not in old
        bench.pool.release(waiter.session)


@in_fake_time
async def test_l05_lifetime_is_for_the_core_and_for_min_too() -> None:
    async with Bench(
        min=2, max=4, min_per_endpoint=2, reuse=TIERED, max_lifetime=60.0, idle_timeout=30.0
    ) as bench:
        await bench.started()
        first = set(bench.pool.ledger.idle_sessions())
        await asyncio.sleep(65)
        assert bench.opened == 2
        assert not first & set(bench.pool.ledger.idle_sessions())


@in_fake_time
async def test_l06_with_jitter_sessions_opened_together_do_not_end_together() -> None:
    async with Bench(
        max=20, max_lifetime=1000.0, lifetime_jitter=0.1, idle_timeout=OFF, ping_interval=OFF
    ) as bench:
        sessions = await bench.idle(20)
        ends = {session.expires - session.opened_at for session in sessions}
        assert len(ends) == 20
        assert all(900.0 <= end <= 1000.0 for end in ends)


@pytest.mark.parametrize("batch", [1, 2, 0])
@in_fake_time
async def test_d01_a_release_closes_no_more_than_its_batch(batch: int) -> None:
    async with Bench(
        max=10, idle_timeout=5.0, max_lifetime=OFF, reap=REAP_AT_RELEASE, reap_batch=batch
    ) as bench:
        bench.pool.start()
        await bench.idle(10)
        await asyncio.sleep(100)
        assert bench.opened == 10, "no background collector"
        (session,) = await bench.take()
        most = batch or int(math.log2(bench.opened + 1)) + 1
        bench.pool.release(session)
        assert bench.drops == {"idle_timeout": most}
        await turns()
        assert bench.opened == 10 - most

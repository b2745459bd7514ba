"""A: how a session is acquired, mode by mode, and what a pool that is full does."""

import asyncio
import random
from dataclasses import replace

import pytest
from pydantic import ValidationError

from conformance.bench import URL, Bench, preset_bench
from fakes import DOWN, forceget, in_fake_time, timed, turns, waits
from proxy.errors import BackendError, PoolBusy, PoolTimeout
from proxy.pool.limits import FORCEGET, NOWAIT, OFF, TIMEDWAIT, WAIT
from proxy.pool.session import CLOSING, GONE
from proxy.reasons import DropReason
from proxy.settings.pools import PoolSettings


@in_fake_time
async def test_a01_wait_returns_when_another_releases() -> None:
    async with Bench(max=1, max_lifetime=OFF) as bench:
        (session,) = await bench.take()
        waiting = bench.run(bench.pool.acquire(bench.key, WAIT))
        await asyncio.sleep(1e6)
        assert not waiting.done()
        released = bench.now()
        bench.pool.release(session)
        assert await waiting is session
        assert bench.now() == released


@in_fake_time
async def test_a02_nowait_at_max_is_refused_at_once_and_the_pool_works_afterwards() -> None:
    async with Bench(max=2) as bench:
        held = await bench.take(2)
        before = bench.now()
        with pytest.raises(PoolBusy):
            await bench.pool.acquire(bench.key, NOWAIT)
        assert bench.now() == before
        assert bench.counts == (2, 2, 0)
        bench.pool.release(held[0])
        assert await bench.pool.acquire(bench.key, NOWAIT) is held[0]


@in_fake_time
async def test_a03_nowait_with_room_to_grow_waits_for_the_connect_only() -> None:
    async with Bench(max=2) as bench:
        await bench.take()
        bench.opener.opening.shut()
        growing = bench.run(bench.pool.acquire(bench.key, NOWAIT))
        await asyncio.sleep(3)
        assert not growing.done()
        bench.opener.opening.open()
        await growing
        assert bench.counts == (2, 2, 0)


@in_fake_time
async def test_a04_nowait_during_the_initial_fill_counts_on_what_is_being_opened() -> None:
    async with Bench(min=3, max=3) as bench:
        bench.opener.opening.shut()
        bench.pool.start()
        await turns()
        early = [bench.run(bench.pool.acquire(bench.key, NOWAIT)) for _ in range(3)]
        await turns()
        with pytest.raises(PoolBusy):
            await bench.pool.acquire(bench.key, NOWAIT)
        bench.opener.opening.open()
        assert len({await one for one in early}) == 3
        assert bench.opener.tries == 3


@in_fake_time
async def test_a05_timedwait_expires_after_wait_timeout_with_an_error_of_its_own() -> None:
    async with Bench(max=1, getmode=TIMEDWAIT, wait_timeout=2.5) as bench:
        await bench.take()
        before = bench.now()
        with pytest.raises(PoolTimeout):
            await bench.pool.acquire(bench.key)
        assert 2.5 <= bench.now() - before <= 2.51


@in_fake_time
async def test_a06_the_timeout_of_a_request_overrides_the_configured_one() -> None:
    async with Bench(max=1, getmode=TIMEDWAIT, wait_timeout=30.0) as bench:
        await bench.take()
        for wanted in (0.5, 60.0):
            before = bench.now()
            with pytest.raises(PoolTimeout):
                await bench.pool.acquire(bench.key, wait_timeout=wanted)
            assert wanted <= bench.now() - before <= wanted + 0.01


@in_fake_time
async def test_a07_wait_timeout_is_read_back_in_its_unit_and_settable_at_run_time() -> None:
    written = PoolSettings.model_validate({"backend": URL, "wait_timeout": "1500ms", "max": 1})
    async with Bench(limits=written.limits) as bench:
        assert bench.pool.limits.wait_timeout == 1.5
        await bench.take()
        bench.pool.reconfigure(replace(bench.pool.limits, wait_timeout=0.2))
        assert bench.pool.limits.wait_timeout == 0.2
        before = bench.now()
        with pytest.raises(PoolTimeout):
            await bench.pool.acquire(bench.key)
        assert 0.2 <= bench.now() - before <= 0.21


@pytest.mark.parametrize("what", ["ping", "connect"])
@in_fake_time
async def test_a08_the_budget_of_timedwait_includes_ping_and_connect(what: str) -> None:
    async with Bench(max=1, ping_interval=0.0, ping_timeout=60.0, connect_timeout=60.0) as bench:
        if what == "ping":
            (session,) = await bench.idle()
            bench.opener.backends[0].pinging.shut()
            assert session is not None
        else:
            bench.opener.opening.shut()
        before = bench.now()
        with pytest.raises(PoolTimeout):
            await bench.pool.acquire(bench.key, TIMEDWAIT, 2.0)
        assert 2.0 <= bench.now() - before <= 2.01
        # What came too late is kept: nothing is opened twice.
        bench.open_gates()
        await asyncio.sleep(1)
        assert bench.counts == (1, 0, 1)


@in_fake_time
async def test_a09_after_twenty_timeouts_on_a_full_pool_opened_never_exceeds_max() -> None:
    async with Bench(max=3, wait_timeout=1.0, max_forced=0) as bench:
        most = 0

        def watch() -> None:
            nonlocal most
            most = max(most, bench.opener.living)

        asyncio.get_running_loop().watch = watch  # type: ignore[attr-defined]
        held = await bench.take(3)
        late = [bench.run(bench.pool.acquire(bench.key)) for _ in range(20)]
        await asyncio.sleep(1.5)
        assert all(isinstance(one.exception(), PoolTimeout) for one in late)
        more = [bench.run(bench.pool.acquire(bench.key, WAIT)) for _ in range(20)]
        await turns()
        for session in held:
            bench.pool.release(session)
        for one in more:
            session = await one
            assert bench.opened <= 3
            bench.pool.release(session)
        assert most == 3
        assert bench.counts == (3, 0, 3)


@pytest.mark.parametrize("offset", [-0.001, 0.0, 0.001, 0.002])
@in_fake_time
async def test_a10_a_timeout_at_the_instant_of_a_handoff_loses_no_session(offset: float) -> None:
    async with Bench(max=1) as bench:
        (session,) = await bench.take()
        waiting = bench.run(bench.pool.acquire(bench.key, TIMEDWAIT, 1.0))
        await turns()
        asyncio.get_running_loop().call_later(1.0 + offset, bench.pool.release, session)
        await asyncio.sleep(2)
        assert waiting.done()
        if waiting.exception() is None:
            bench.pool.release(waiting.result())
        else:
            assert isinstance(waiting.exception(), PoolTimeout)
        assert bench.counts == (1, 0, 1)
        assert not bench.pool.ledger.queue


@in_fake_time
async def test_a11_forceget_holds_ten_with_max_three_and_goes_back_to_three() -> None:
    async with Bench(max=3, max_forced=7, getmode=FORCEGET) as bench:
        held = [await bench.pool.acquire(bench.key) for _ in range(10)]
        assert len({session.number for session in held}) == 10
        assert len({id(session.backend) for session in held}) == 10
        assert bench.counts == (10, 10, 0)
        bench.release(held)
        await turns()
        assert bench.counts == (3, 0, 3)
        assert bench.opener.living == 3


@pytest.mark.parametrize("seed", range(30))
@in_fake_time
async def test_a12_a_forced_session_is_absorbed_below_max_and_opened_is_the_truth(seed: int) -> None:
    async with Bench(max=2, max_forced=2, getmode=FORCEGET) as bench:
        first, second, forced = await bench.take(2) + [await bench.pool.acquire(bench.key)]
        bench.pool.drop(first, DropReason.UNCERTAIN)
        await turns()
        bench.pool.release(forced)
        assert bench.counts == (2, 1, 1), "below max the forced session stays"
        bench.pool.release(second)
        await _any_sequence(bench, random.Random(seed))
        assert bench.opened == bench.opener.living <= 2


async def _any_sequence(bench: Bench, chance: random.Random) -> None:
    held = []
    for _ in range(60):
        step = chance.randrange(4)
        if step <= 1 and len(held) < 4:
            held.append(await bench.pool.acquire(bench.key))
        elif held and step == 2:
            bench.pool.release(held.pop(chance.randrange(len(held))))
        elif held:
            bench.pool.drop(held.pop(chance.randrange(len(held))), DropReason.UNCERTAIN)
        await turns()
        bench.check()
        assert bench.opened == bench.opener.living
    bench.release(held)
    await turns()


@in_fake_time
async def test_a13_waiters_are_served_in_order_and_by_whatever_comes_first() -> None:
    async with Bench(max=2) as bench:
        held = await bench.take(2)
        queue = [waits(bench.key) for _ in range(4)]
        bench.queue(*queue)
        newcomer = timed(bench.key)
        bench.pool.release(held[0])
        assert bench.pool.try_acquire(newcomer) is None, "a newcomer does not overtake"
        bench.queue(newcomer)
        bench.pool.release(held[1])
        assert [waiter.session for waiter in queue] == [held[0], held[1], None, None]
        for waiter in (*queue, newcomer):
            assert waiter.session is not None
            bench.pool.release(waiter.session)
    async with Bench(max=2) as bench:
        (session,) = await bench.take()
        bench.opener.opening.shut()
        first, second = waits(bench.key), waits(bench.key)
        bench.queue(first, second)
        await turns()
        assert len(bench.pool.ledger.opening) == 1, "a connect is under way for the first"
        bench.pool.release(session)
        assert first.session is session, "and it does not have to wait for it"
        bench.opener.opening.open()
        await turns()
        assert second.session not in (None, session)


@in_fake_time
async def test_a14_a_pool_with_min_zero_serves_its_first_acquire() -> None:
    async with Bench(min=0, max=4) as bench:
        bench.pool.start()
        (session,) = await bench.take()
        assert bench.counts == (1, 1, 0)
        bench.pool.release(session)


@in_fake_time
async def test_a15_a_growth_step_returns_after_one_connect_and_goes_on_in_the_background() -> None:
    async with Bench(max=5, increment=3, max_opening=1) as bench:
        (first,) = await bench.take()
        assert bench.opened == 1, "the others of the step are not waited for"
        assert len(bench.pool.ledger.opening) == 2
        await turns()
        assert bench.counts == (3, 1, 2)
        held = [first, *await bench.take(3)]
        await turns()
        assert bench.counts == (5, 4, 1), "the second step ends at max"
        bench.release(held)


@in_fake_time
async def test_a16_increment_zero_is_one_below_max_and_allowed_where_the_size_is_fixed() -> None:
    growing = PoolSettings.model_validate({"backend": URL, "min": 1, "max": 3, "increment": 0})
    assert growing.limits.increment == 1
    async with Bench(limits=growing.limits) as bench:
        await bench.take(3)
        assert bench.counts == (3, 3, 0)
    fixed = PoolSettings.model_validate({"backend": URL, "min": 3, "max": 3, "increment": 0})
    async with Bench(limits=fixed.limits, slow_start=False) as bench:
        await bench.started()
        assert bench.opened == 3


@in_fake_time
async def test_a17_max_below_min_is_refused() -> None:
    with pytest.raises(ValidationError, match="above max"):
        PoolSettings.model_validate({"backend": URL, "min": 3, "max": 2})
    async with Bench(min=1, max=2) as bench:
        with pytest.raises(ValueError, match="min"):
            bench.pool.reconfigure(replace(bench.limits, min=3))
        assert bench.pool.limits.min == 1


@in_fake_time
async def test_a18_another_getmode_counts_from_the_next_acquire_on() -> None:
    async with Bench(max=1, getmode=WAIT) as bench:
        (session,) = await bench.take()
        waiting = bench.run(bench.pool.acquire(bench.key))
        await turns()
        bench.pool.reconfigure(replace(bench.pool.limits, getmode=NOWAIT))
        with pytest.raises(PoolBusy):
            await bench.pool.acquire(bench.key)
        assert not waiting.done(), "whoever waits goes on waiting"
        bench.pool.reconfigure(replace(bench.pool.limits, getmode=FORCEGET, max_forced=1))
        forced = await bench.pool.acquire(bench.key)
        assert bench.counts == (2, 2, 0)
        bench.pool.release(forced)
        bench.pool.release(session)
        await waiting


@in_fake_time
async def test_a19_a_failed_connect_is_told_to_whoever_caused_it_and_costs_nothing() -> None:
    async with Bench(max=2) as bench:
        bench.opener.errors = [DOWN]
        with pytest.raises(BackendError, match="down"):
            await bench.pool.acquire(bench.key)
        assert bench.pool.ledger.used == 0
        assert bench.pool.counters.opens_failed == 1
        await asyncio.sleep(0.2)
        held = await bench.take(2)
        assert bench.counts == (2, 2, 0)
        bench.release(held)


@in_fake_time
async def test_a20_twenty_clients_with_many_acquires_each_all_succeed_and_nothing_leaks() -> None:
    async with Bench(min=5, max=20, wait_timeout=60.0) as bench:
        bench.pool.start()
        chance = random.Random(1)

        async def client() -> None:
            for _ in range(50):
                session = await bench.pool.acquire(bench.key)
                await asyncio.sleep(chance.random() * 0.01)
                bench.pool.release(session)

        await asyncio.gather(*(client() for _ in range(20)))
        assert bench.opened <= 20
        assert bench.counts[1] == 0
        assert bench.pool.snapshot().acquires["timedwait", "granted"] == 1000


@in_fake_time
async def test_the_getmode_of_a_preset_is_the_one_of_its_library() -> None:
    """Oracle's drivers differ in exactly this: cx_Oracle refuses, python-oracledb waits."""
    async with preset_bench("cx_oracle", max=1) as bench:
        await bench.take()
        with pytest.raises(PoolBusy):
            await bench.pool.acquire(bench.key)
    async with preset_bench("oracle", max=1) as bench:
        (session,) = await bench.take()
        waiting = bench.run(bench.pool.acquire(bench.key))
        await asyncio.sleep(1e5)
        assert not waiting.done()
        bench.pool.release(session)
        await waiting
    async with preset_bench("bursty", max=1) as bench:
        (session,) = await bench.take()
        waiter = forceget(bench.key)
        bench.queue(waiter)
        await turns()
        assert waiter.session not in (None, session)
        bench.pool.release(session)
        assert session.state not in (CLOSING, GONE)

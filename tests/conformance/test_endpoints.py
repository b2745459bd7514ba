"""E: several servers in one pool, each with a bound of its own."""

import asyncio

import pytest

from conformance.bench import Bench, backend_of
from fakes import in_fake_time, timed, turns, waits
from proxy.errors import PoolBusy, PoolTimeout
from proxy.pool.limits import NOWAIT, OFF, TIERED
from proxy.pool.session import CLOSING, GONE


@in_fake_time
async def test_e01_an_endpoint_has_max_per_endpoint_sessions_and_the_next_client_waits() -> None:
    async with Bench(endpoints=("a", "b"), max=10, max_per_endpoint=2, wait_timeout=1.0) as bench:
        held = await bench.take(2, bench.at("a"))
        before = bench.now()
        with pytest.raises(PoolTimeout):
            await bench.pool.acquire(bench.at("a"))
        assert 1.0 <= bench.now() - before <= 1.01
        assert bench.counts == (2, 2, 0)
        bench.pool.release(held[0])
        assert await bench.take(1, bench.at("a")) == [held[0]]


@in_fake_time
async def test_e02_the_total_bound_holds_up_another_endpoint() -> None:
    async with Bench(endpoints=("a", "b"), max=2, wait_timeout=1.0) as bench:
        held = await bench.take(2, bench.at("a"))
        with pytest.raises(PoolTimeout):
            await bench.pool.acquire(bench.at("b"))
        waiter = waits(bench.at("b"))
        bench.queue(waiter)
        bench.pool.release(held[0])
        await turns()
        assert waiter.session is not None
        assert waiter.session.endpoint.name == "b"
        assert bench.counts == (2, 2, 0)
        bench.pool.release(waiter.session)


@in_fake_time
async def test_e03_at_the_total_bound_an_idle_session_elsewhere_makes_room() -> None:
    async with Bench(endpoints=("a", "b"), max=2) as bench:
        (held,) = await bench.take(1, bench.at("a"))
        (idle,) = await bench.idle(1, bench.at("b"))
        (new,) = await bench.take(1, bench.at("a"))
        assert new.endpoint.name == "a"
        assert idle.state == GONE
        assert backend_of(idle).closes == 1
        assert bench.counts == (2, 2, 0)
        bench.release([held, new])
    async with Bench(endpoints=("a", "b"), max=2, evict=False, wait_timeout=1.0) as bench:
        await bench.idle(2, bench.at("b"))
        with pytest.raises(PoolTimeout):
            await bench.pool.acquire(bench.at("a"))
        assert bench.counts == (2, 0, 2)


@in_fake_time
async def test_e04_extras_make_room_before_the_core_and_the_soonest_to_end_first() -> None:
    async with Bench(
        endpoints=("a", "b"),
        max=4,
        min_per_endpoint=2,
        reuse=TIERED,
        idle_timeout=60.0,
        max_lifetime=OFF,
    ) as bench:
        one, two, three, four = await bench.take(4, bench.at("b"))
        for session in (two, one, three, four):
            bench.pool.release(session)
            await asyncio.sleep(1)
        assert [session.core for session in (one, two, three, four)] == [False, False, True, True]
        order = []
        for _ in range(4):
            await bench.take(1, bench.at("a"))
            gone = [session for session in (one, two, three, four) if session.state in (CLOSING, GONE)]
            order += [session for session in gone if session not in order]
        assert order == [two, one, three, four]


@in_fake_time
async def test_e05_where_one_shard_is_full_another_can_still_open() -> None:
    async with Bench(endpoints=("a", "b"), max=10, max_per_endpoint=1) as bench:
        await bench.take(1, bench.at("a"))
        (other,) = await bench.take(1, bench.at("b"))
        assert other.endpoint.name == "b"
        waiter = timed(bench.at("a"), 5.0)
        bench.queue(waiter)
        await asyncio.sleep(6)
        assert isinstance(waiter.error, PoolTimeout)
        with pytest.raises(PoolBusy):
            await bench.pool.acquire(bench.at("b"), NOWAIT)

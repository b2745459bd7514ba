"""C: the end of a pool, and its limits changed while it runs."""

import asyncio
from dataclasses import asdict, replace

import pytest

from conformance.bench import Bench, backend_of
from fakes import in_fake_time, timed, turns, waits
from proxy.errors import BackendError, LocalProtocolError, PoolBusy, PoolClosed
from proxy.pool.limits import NOWAIT
from proxy.pool.session import BUSY, GONE


@in_fake_time
async def test_c01_a_pool_that_nobody_uses_closes() -> None:
    async with Bench(max=3) as bench:
        await bench.idle(3)
        bench.pool.close()
        await turns()
        assert bench.pool.ledger.used == bench.opener.living == 0


@in_fake_time
async def test_c02_a_pool_in_use_refuses_to_close_and_goes_on() -> None:
    async with Bench(max=1) as bench:
        (session,) = await bench.take()
        waiter = waits(bench.key)
        with pytest.raises(PoolBusy):
            bench.pool.close()
        bench.queue(waiter)
        with pytest.raises(PoolBusy):
            bench.pool.close()
        bench.pool.release(session)
        assert waiter.session is session
        bench.pool.release(session)
        assert await bench.take() == [session]


@in_fake_time
async def test_c03_force_cuts_who_holds_and_refuses_who_waits() -> None:
    async with Bench(max=2) as bench:
        held = await bench.take(2)
        waiting = bench.run(bench.pool.acquire(bench.key))
        waiter = waits(bench.key)
        bench.queue(waiter)
        await turns()
        bench.pool.close(force=True)
        assert isinstance(waiter.error, PoolClosed)
        await turns()
        assert isinstance(waiting.exception(), PoolClosed)
        assert [len(backend_of(session).taken_away) for session in held] == [1, 1], "each has been told"
        assert bench.pool.ledger.used == bench.opener.living == 0


@in_fake_time
async def test_c04_after_the_end_an_acquire_says_closed() -> None:
    async with Bench(max=1) as bench:
        await bench.idle()
        bench.pool.close()
        for getmode in (None, NOWAIT):
            with pytest.raises(PoolClosed):
                await bench.pool.acquire(bench.key, getmode)
        assert bench.opener.tries == 1


@in_fake_time
async def test_c05_a_drain_waits_for_who_holds_and_then_cuts_them() -> None:
    async with Bench(max=2, drain_timeout=5.0) as bench:
        patient, stubborn = await bench.take(2)
        drained = bench.run(bench.pool.drain())
        await asyncio.sleep(4)
        bench.pool.release(patient)
        await turns()
        assert patient.state == GONE
        assert backend_of(patient).taken_away == []
        assert stubborn.state == BUSY
        assert not drained.done()
        await asyncio.sleep(1.1)
        assert drained.done()
        assert backend_of(stubborn).taken_away != []
        assert bench.opener.living == 0


@in_fake_time
async def test_c06_nothing_is_opened_once_the_end_has_begun() -> None:
    async with Bench(min=2, max=4) as bench:
        await bench.started()
        held = await bench.take(2)
        bench.opener.opening.shut()
        waiter = waits(bench.key)
        bench.queue(waiter)
        await turns()
        tries = bench.opener.tries
        ending = bench.run(bench.pool.drain())
        await turns()
        assert isinstance(waiter.error, PoolClosed)
        bench.opener.opening.open()
        await asyncio.sleep(10)
        bench.release(held)
        await ending
        assert bench.opener.tries == tries
        assert bench.opener.living == 0


@pytest.mark.parametrize("force", [False, True])
@in_fake_time
async def test_c07_a_release_after_the_end_neither_fails_nor_pools(force: bool) -> None:
    async with Bench(max=2) as bench:
        a, b = await bench.take(2)
        if force:
            bench.pool.close(force=True)
            await turns()
            # They were taken away: who held them has been told, and holds nothing to give back.
            assert [backend_of(session).taken_away != [] for session in (a, b)] == [True, True]
            with pytest.raises(LocalProtocolError):
                bench.pool.release(a)
        else:
            ending = bench.run(bench.pool.drain())
            await turns()
            bench.pool.release(a)
            bench.pool.reset(b)
            await ending
        assert bench.pool.ledger.used == bench.opener.living == 0


@in_fake_time
async def test_c08_clear_closes_what_is_idle_even_where_one_close_fails() -> None:
    async with Bench(max=4) as bench:
        held = await bench.take(4)
        bench.release(held[:3])
        backend_of(held[0]).close_error = BackendError("no such session")
        assert bench.pool.clear() == 3
        await turns()
        assert bench.counts == (1, 1, 0)
        assert held[3].state == BUSY
        assert bench.opener.living == 1
        bench.pool.release(held[3])


@in_fake_time
async def test_c09_to_change_one_limit_leaves_the_others_as_they_were() -> None:
    async with Bench(min=1, max=4, ping_interval=7.0, wait_timeout=3.0) as bench:
        before = asdict(bench.pool.limits)
        bench.pool.reconfigure(replace(bench.pool.limits, max=6))
        assert asdict(bench.pool.limits) == before | {"max": 6}
        assert len(await bench.take(6)) == 6


@in_fake_time
async def test_c10_an_invalid_value_refuses_the_whole_change() -> None:
    async with Bench(min=1, max=4) as bench:
        before = bench.pool.limits
        for wrong in ({"max": 0}, {"min": 5}, {"max_forced": -1}):
            with pytest.raises(ValueError, match="max"):
                bench.pool.reconfigure(replace(before, wait_timeout=99.0, **wrong))
            assert bench.pool.limits is before
            assert bench.pool.ledger.limits is before
        waiter = timed(bench.key)
        bench.queue(waiter)
        await turns()
        assert waiter.session is not None
        bench.pool.release(waiter.session)

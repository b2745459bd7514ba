"""O: which of several idle sessions is handed out."""

from conformance.bench import Bench
from fakes import in_fake_time, turns
from proxy.pool.limits import LIFO, LRU, TIERED
from proxy.reasons import DropReason


@in_fake_time
async def test_o01_lifo_hands_out_the_one_that_came_back_last() -> None:
    async with Bench(max=3, reuse=LIFO) as bench:
        a, b, c = await bench.take(3)
        bench.release([b, c, a])
        assert await bench.take(3) == [a, c, b]


@in_fake_time
async def test_o02_lru_hands_out_the_one_that_came_back_first() -> None:
    async with Bench(max=3, reuse=LRU) as bench:
        a, b, c = await bench.take(3)
        bench.release([b, c, a])
        assert await bench.take(3) == [b, c, a]


@in_fake_time
async def test_o03_tiered_takes_the_core_in_turn_and_the_extras_last_in_first_out() -> None:
    async with Bench(max=5, reuse=TIERED, min_per_endpoint=2) as bench:
        a, b, c, d, e = await bench.take(5)
        # Those still held count for the core: the last two that come back are it.
        bench.release([a, b, c, d, e])
        assert [session.core for session in (a, b, c, d, e)] == [False, False, False, True, True]
        turn = []
        for _ in range(4):
            (session,) = await bench.take()
            turn.append(session)
            bench.pool.release(session)
        assert turn == [d, e, d, e], "round robin over the core"
        assert await bench.take(5) == [d, e, c, b, a]


@in_fake_time
async def test_o04_a_used_session_goes_before_one_that_nobody_has_held() -> None:
    async with Bench(min=3, max=3, reuse=LIFO) as bench:
        await bench.started()
        (used,) = await bench.take()
        bench.pool.release(used)
        for _ in range(3):
            assert await bench.take() == [used]
            bench.pool.release(used)
        bench.pool.drop(used, DropReason.UNCERTAIN)
        await turns()

"""H: whether an idle session still lives, and what becomes of one that does not."""

import asyncio

import pytest

from conformance.bench import Bench, backend_of
from fakes import in_fake_time, no_answer, nowait, timed, turns, waits
from proxy.errors import BackendError
from proxy.pool.limits import OFF, PING_BOTH, PING_IN_BACKGROUND
from proxy.pool.session import GONE
from servers import Penstock


@in_fake_time
async def test_h01_a_ping_is_due_after_ping_interval_and_made_once() -> None:
    async with Bench(max=1, ping_interval=60.0) as bench:
        (session,) = await bench.take()
        await asyncio.sleep(50)  # in use: that is no idle time
        bench.pool.release(session)
        await asyncio.sleep(59)
        assert await bench.take() == [session]
        assert bench.pings == 0
        bench.pool.release(session)
        await asyncio.sleep(61)
        assert await bench.take() == [session]
        assert bench.pings == 1
        bench.pool.release(session)


@in_fake_time
async def test_h02_always_pings_each_reuse_and_off_none_and_a_new_session_is_not_pinged() -> None:
    async with Bench(max=1, ping_interval=0.0) as bench:
        (session,) = await bench.take()
        assert bench.pings == 0, "it was opened for this client"
        for count in (1, 2, 3):
            bench.pool.release(session)
            assert await bench.take() == [session]
            assert bench.pings == count
    async with Bench(max=1, ping_interval=OFF, idle_timeout=OFF, max_lifetime=OFF) as bench:
        (session,) = await bench.idle()
        await asyncio.sleep(1e6)
        assert await bench.take() == [session]
        assert bench.pings == 0


@in_fake_time
async def test_h03_after_a_failed_ping_the_next_one_is_tried_and_then_one_is_opened() -> None:
    async with Bench(max=3, ping_interval=0.0) as bench:
        a, b, c = await bench.idle(3)
        for session in (b, c):
            backend_of(session).ping_error = no_answer()
        assert await bench.take() == [a], "c and b were tried first"
        await turns()
        assert bench.drops == {"ping_failed": 2}
        backend_of(a).ping_error = no_answer()
        bench.pool.release(a)
        (fresh,) = await bench.take()
        assert fresh not in (a, b, c)
        assert [backend_of(session).closes for session in (a, b, c)] == [1, 1, 1]


@in_fake_time
async def test_h04_when_every_idle_session_was_killed_a_client_sees_nothing_and_min_comes_back() -> None:
    async with Bench(min=3, max=3, ping_interval=OFF) as bench:
        await bench.started()
        for backend in bench.opener.backends:
            backend.die()
        (session,) = await bench.take()
        bench.pool.release(session)
        await asyncio.sleep(1)
        assert bench.opened == 3
        for backend in list(bench.opener.backends):
            if not backend.ended:
                backend.die()
        assert bench.opened == 0
        await asyncio.sleep(2)
        assert bench.counts == (3, 0, 3), "nobody had to ask"


@in_fake_time
async def test_h05_a_black_hole_costs_ping_timeout_at_most_and_holds_up_nobody_else() -> None:
    async with Bench(max=2, ping_interval=0.0, ping_timeout=2.0, close_timeout=1.0) as bench:
        a, b = await bench.idle(2)
        backend_of(b).pinging.shut()
        unlucky, lucky = bench.run(bench.pool.acquire(bench.key)), bench.run(bench.pool.acquire(bench.key))
        before = bench.now()
        await turns()
        assert lucky.done() or unlucky.done(), "the other ping is not behind this one"
        assert bench.now() == before
        await asyncio.gather(unlucky, lucky)
        assert bench.now() - before <= 2.01
        assert {unlucky.result(), lucky.result()} >= {a}
        assert b.state == GONE


@in_fake_time
async def test_h06_the_background_pings_what_is_overdue_the_longest_first_and_nothing_else() -> None:
    order: list[int] = []
    async with Bench(
        max=3, ping_interval=10.0, ping_mode=PING_IN_BACKGROUND, io_parallel=1, idle_timeout=OFF
    ) as bench:
        bench.pool.start()
        await asyncio.sleep(30)  # an idle pool of hardly any sessions: nothing to ping, nothing breaks
        held = await bench.take(3)
        for session in held:
            backend = backend_of(session)
            backend.pinging.passed = _noting(order, session.number)  # type: ignore[method-assign]
        before = bench.pings
        b, c, a = held[1], held[2], held[0]
        bench.pool.release(b)
        await asyncio.sleep(3)
        bench.pool.release(c)
        await asyncio.sleep(3)
        bench.pool.release(a)
        await asyncio.sleep(5)
        assert order == [b.number]
        await asyncio.sleep(3)
        assert order == [b.number, c.number]
        await asyncio.sleep(3)
        assert order == [b.number, c.number, a.number]
        assert bench.pings - before == 3
        backend_of(b).die()
        await asyncio.sleep(30)
        assert bench.opened >= 2


def _noting(order: list[int], number: int):  # type: ignore[no-untyped-def]
    async def passed() -> None:
        order.append(number)

    return passed


@pytest.mark.parametrize("error", [BackendError("too many locks", "53200"), OSError("no route")])
@in_fake_time
async def test_h07_an_unexpected_error_of_a_ping_loses_no_slot(error: Exception) -> None:
    async with Bench(min=2, max=2, ping_interval=5.0, ping_mode=PING_BOTH, idle_timeout=OFF) as bench:
        await bench.started()
        for backend in bench.opener.backends:
            backend.ping_error = error
        await asyncio.sleep(10)
        assert bench.drops["ping_failed"] == 2
        assert bench.counts == (2, 0, 2)
        assert len(await bench.take(2)) == 2


@in_fake_time
async def test_h08_a_session_that_the_server_ended_is_never_handed_out_even_without_pings() -> None:
    async with Bench(max=2, ping_interval=OFF, peek=True) as bench:
        a, b = await bench.idle(2)
        # The end has come to the socket, and nobody has read it yet.
        backend_of(b).ended = backend_of(b).has_news = True
        await asyncio.sleep(1)
        waiter = timed(bench.key)
        assert bench.pool.try_acquire(waiter) is None
        bench.queue(waiter)
        await turns()
        assert waiter.session is a
        assert b.state == GONE
        assert bench.pool.counters.peek_dead == 1
        bench.pool.release(a)
    async with Bench(max=2, ping_interval=OFF) as bench:
        a, b = await bench.idle(2)
        backend_of(b).die()
        assert await bench.take() == [a], "here it has been read"


@in_fake_time
async def test_h09_the_socket_of_a_dead_session_is_closed() -> None:
    async with Bench(max=1, ping_interval=0.0, close_timeout=3.0) as bench:
        (session,) = await bench.idle()
        backend = backend_of(session)
        backend.ping_error = no_answer()
        backend.closing.shut()
        waiter = waits(bench.key)
        bench.queue(waiter)
        await turns()
        assert backend.closes == 1
        assert waiter.session is None, "its slot is taken until it has really ended"
        await asyncio.sleep(4)
        assert backend.abandons == 1
        assert waiter.session not in (None, session)
        bench.pool.release(waiter.session)


@pytest.mark.integration
def test_h10_a_ping_leaves_the_settings_of_a_session_as_they_were(penstock_pinging: Penstock) -> None:
    import psycopg

    with psycopg.connect(penstock_pinging.dsn(), autocommit=True) as client:
        client.execute("SET statement_timeout = '7s'")
        client.execute("SET lock_timeout = '3s'")
        for _ in range(3):
            row = client.execute(
                "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"
            ).fetchone()
            assert row == ("7s", "3s")
    assert penstock_pinging.metric("penstock_pool_pings_total", outcome="ok") >= 3


@in_fake_time
async def test_a_nowait_client_is_told_when_the_last_ping_has_failed() -> None:
    async with Bench(max=1, ping_interval=0.0, close_timeout=5.0) as bench:
        await bench.idle()
        waiter = nowait(bench.key)
        bench.queue(waiter)
        bench.opener.backends[0].ping_error = no_answer()
        await turns()
        assert waiter.session is not None or waiter.error is not None
        if waiter.session is not None:
            bench.pool.release(waiter.session)

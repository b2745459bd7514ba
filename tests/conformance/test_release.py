"""R: how a session comes home, or does not."""

import asyncio

import pytest
from structlog.testing import capture_logs

from conformance.bench import Bench, backend_of
from fakes import FakeWaiter, in_fake_time, timed, turns, waits
from proxy.errors import BackendError, LocalProtocolError
from proxy.pool.session import BUSY, GONE, IDLE
from proxy.reasons import DropReason


@in_fake_time
async def test_r01_nobody_gets_a_session_before_what_the_last_client_left_is_undone() -> None:
    async with Bench(max=1) as bench:
        (session,) = await bench.take()
        backend = backend_of(session)
        backend.resetting.shut()
        waiter = waits(bench.key)
        bench.queue(waiter)
        bench.pool.reset(session)
        await turns()
        assert backend.resets == 1
        assert waiter.session is None
        backend.resetting.open()
        await turns()
        assert waiter.session is session
        bench.pool.release(session)


@in_fake_time
async def test_r02_a_session_that_cannot_be_cleaned_is_closed_and_its_slot_is_free() -> None:
    async with Bench(max=1) as bench:
        (session,) = await bench.take()
        backend_of(session).reset_error = BackendError("rollback failed")
        bench.pool.reset(session)
        await turns()
        assert session.state == GONE
        assert backend_of(session).closes == 1
        (other,) = await bench.take()
        assert other is not session
        assert bench.drops == {"reset_failed": 1}


@in_fake_time
async def test_r03_a_second_release_is_an_error_and_changes_nothing() -> None:
    async with Bench(max=2) as bench, Bench(max=2) as elsewhere:
        a, b = await bench.take(2)
        bench.pool.release(a)
        (foreign,) = await elsewhere.take()
        for session in (a, foreign):
            for give_back in (bench.pool.release, bench.pool.reset, bench.pool.recover):
                with pytest.raises(LocalProtocolError):
                    give_back(session)
        assert bench.counts == (2, 1, 1)
        assert elsewhere.counts == (1, 1, 0)
        assert await bench.take() == [a]
        bench.release([a, b])


@in_fake_time
async def test_r04_drop_lowers_opened_and_busy_and_min_comes_back() -> None:
    async with Bench(min=2, max=3) as bench:
        await bench.started()
        a, b = await bench.take(2)
        bench.pool.drop(a, DropReason.UNCERTAIN)
        assert bench.counts == (1, 1, 0)
        await asyncio.sleep(1)
        assert bench.counts == (2, 1, 1)
        assert bench.opener.living == 2
        bench.pool.release(b)


@pytest.mark.parametrize("told", [True, False])
@in_fake_time
async def test_r05_a_session_that_is_found_closed_on_its_way_home_is_not_pooled(told: bool) -> None:
    async with Bench(max=2) as bench:
        (session,) = await bench.take()
        if told:
            backend_of(session).die()
        else:
            # The end has not been read yet; the reset finds it.
            backend_of(session).ended = True
            bench.pool.reset(session)
            await turns()
        assert session.state == GONE
        assert bench.counts == (0, 0, 0)
        assert await bench.take() != [session]


@in_fake_time
async def test_r06_above_max_idle_the_returned_session_is_closed_below_it_is_kept() -> None:
    async with Bench(max=4, max_idle=2) as bench:
        a, b, c, d = await bench.take(4)
        bench.release([a, b])
        await turns()
        assert bench.counts == (4, 2, 2)
        bench.release([c, d])
        await turns()
        assert bench.counts == (2, 0, 2)
        assert [session.state for session in (a, b, c, d)] == [IDLE, IDLE, GONE, GONE]
        assert bench.drops == {"max_idle": 2}


@in_fake_time
async def test_r07_to_close_a_session_that_has_gone_already_is_silent() -> None:
    async with Bench(max=2, max_idle=0) as bench:
        a, b = await bench.take(2)
        backend_of(a).ended = True
        backend_of(b).close_error = BackendError("it was gone")
        with capture_logs() as logs:
            bench.release([a, b])
            await turns()
        assert bench.pool.ledger.used == 0
        assert backend_of(a).closes == 0
        assert {entry["log_level"] for entry in logs} <= {"info", "debug"}


@in_fake_time
async def test_r08_a_release_does_not_wait_for_the_io_of_another_session() -> None:
    async with Bench(max=3, ping_interval=0.0) as bench:
        a, b = await bench.take(2)
        bench.opener.opening.shut()
        backend_of(b).resetting.shut()
        connecting = waits(bench.key)
        bench.queue(connecting)
        bench.pool.reset(b)
        await turns()
        bench.pool.release(a)
        assert connecting.session is a
        bench.open_gates()
        await turns()
        bench.pool.release(a)


@in_fake_time
async def test_r09_who_breaks_while_being_handed_a_session_costs_no_slot() -> None:
    """What ran on the session is not known then: it is closed, where generic_connection_pool keeps it."""
    async with Bench(max=1) as bench:
        (session,) = await bench.take()
        broken, next_one = timed(bench.key), waits(bench.key)
        broken.crash = RuntimeError("the hook failed")
        bench.queue(broken, next_one)
        with capture_logs() as logs:
            bench.pool.release(session)
            await turns()
        assert [entry["event"] for entry in logs if entry["log_level"] == "error"]
        assert session.state == GONE
        assert next_one.session not in (None, session), "the others are served"
        bench.pool.release(next_one.session)
    async with Bench(max=1) as bench:
        (session,) = await bench.take()
        gone, next_one = FakeWaiter(bench.key), waits(bench.key)
        gone.willing = False
        bench.queue(gone, next_one)
        bench.pool.release(session)
        assert next_one.session is session
        assert session.state == BUSY
        bench.pool.release(session)

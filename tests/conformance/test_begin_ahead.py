"""B: transactions that are begun before anybody asks (Spanner's TransactionPingingPool)."""

import asyncio

import pytest

from conformance.bench import Bench, backend_of, preset_bench
from fakes import in_fake_time, turns, waits
from proxy.errors import BackendError
from proxy.pool.limits import BEGIN_AHEAD
from proxy.pool.session import GONE, IDLE


@in_fake_time
async def test_b01_after_the_start_each_session_has_one_begun_transaction() -> None:
    async with preset_bench("transaction_pinging", max=3) as bench:
        bench.pool.start()
        await bench.pool.filled()
        await turns()
        assert bench.counts == (3, 0, 3)
        assert [backend.begins for backend in bench.opener.backends] == [1, 1, 1]


@in_fake_time
async def test_b02_after_a_finished_transaction_one_is_begun_before_the_session_is_to_be_had() -> None:
    """By us, in the background; Spanner's waits until the application calls begin_pending_transactions."""
    async with Bench(max=1, begin=BEGIN_AHEAD) as bench:
        (session,) = await bench.idle()
        await turns()
        begins = backend_of(session).begins
        (session,) = await bench.take()
        backend_of(session).beginning.shut()
        bench.pool.release(session)
        waiter = waits(bench.key)
        await turns()
        assert backend_of(session).begins == begins + 1
        assert session.state != IDLE
        assert bench.pool.try_acquire(waiter) is None
        bench.queue(waiter)
        backend_of(session).beginning.open()
        await turns()
        assert waiter.session is session
        assert backend_of(session).begins == begins + 1, "once for each client"
        bench.pool.release(session)
        await asyncio.sleep(0)


@in_fake_time
async def test_b03_an_open_transaction_is_rolled_back_and_never_passed_on() -> None:
    """Spanner's pool hands it to the next user."""
    async with Bench(max=1, begin=BEGIN_AHEAD) as bench:
        (session,) = await bench.idle()
        await turns()
        (session,) = await bench.take()
        backend = backend_of(session)
        begins = backend.begins
        backend.resetting.shut()
        bench.pool.reset(session)
        waiter = waits(bench.key)
        bench.queue(waiter)
        await turns()
        assert waiter.session is None
        backend.resetting.open()
        await turns()
        assert backend.resets == 1
        assert waiter.session is session
        assert backend.begins <= begins + 1
        bench.pool.release(session)


@pytest.mark.parametrize("stage", ["start", "release"])
@in_fake_time
async def test_b04_a_begin_that_fails_loses_no_slot(stage: str) -> None:
    async with Bench(max=1, begin=BEGIN_AHEAD) as bench:
        if stage == "start":

            def sick(backend) -> None:  # type: ignore[no-untyped-def]
                if len(bench.opener.backends) == 0:
                    backend.begin_error = BackendError("cannot begin")

            bench.opener.prepare = sick
            bench.pool.start()
            await asyncio.sleep(2)
        else:
            (session,) = await bench.take()
            backend_of(session).begin_error = BackendError("cannot begin")
            bench.pool.release(session)
            await turns()
            assert session.state == GONE
        assert bench.drops == {"begin_failed": 1}
        (session,) = await bench.take()
        bench.pool.release(session)
        await turns()
        assert bench.counts == (1, 0, 1)

import asyncio
import gc

import pytest

from fakes import (
    DOWN,
    STARTING,
    UNKNOWN,
    FakeBackend,
    FakeOpener,
    FakeWaiter,
    forceget,
    in_fake_time,
    no_answer,
    nowait,
    timed,
    turns,
)
from proxy.errors import (
    BackendError,
    LocalProtocolError,
    PoolBusy,
    PoolClosed,
    PoolTimeout,
    QueueFull,
)
from proxy.pool.limits import FORCEGET, LRU, NOWAIT, OFF, TIMEDWAIT, WAIT, Limits
from proxy.pool.pool import Pool
from proxy.pool.session import BUSY, CLOSING, Key, Session
from proxy.pool.stats import OUTCOMES
from proxy.reasons import DropReason


class Bench:
    """A pool, its fake world, and how it is cleared away."""

    def __init__(self, pool_mode: str = "transaction", **limits: object) -> None:
        loop = asyncio.get_running_loop()
        self.opener = FakeOpener()
        self.limits = Limits(**{"slow_start": False, **limits})  # type: ignore[arg-type]
        self.pool = Pool("orders", self.limits, self.opener, ("orders", "ann"), pool_mode, loop.time)
        self.opener.lost = self.pool.lost
        self.key = self.pool.key("orders", "ann")
        self.other = self.pool.key("orders", "bob")

    async def __aenter__(self) -> "Bench":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        pool, ledger = self.pool, self.pool.ledger
        ledger.check()
        self.opener.opening.open()
        for backend in self.opener.backends:
            backend.closing.open()
            backend.recovering.open()
            backend.resetting.open()
            backend.pinging.open()
        closing = asyncio.create_task(pool.drain())
        await turns(1)
        for session in list(ledger.busy):
            pool.release(session)
        async with asyncio.timeout(100):
            await closing
        await turns()
        assert ledger.used == 0, "every slot came back"
        assert self.opener.living == 0
        assert not ledger.queue

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def idle(self, count: int = 1, key: Key | None = None) -> list[FakeBackend]:
        """That many sessions of a key, opened and given back, with their backends."""
        held = [await self.pool.acquire(key or self.key, WAIT) for _ in range(count)]
        for session in held:
            self.pool.release(session)
        return [backend_of(session) for session in held]

    def counted(self, outcome: str) -> int:
        column = OUTCOMES.index(outcome)
        return sum(row[column] for row in self.pool.counters.acquires)

    def queue(self, *waiters: FakeWaiter) -> None:
        for waiter in waiters:
            self.pool.enqueue(waiter)


def backend_of(session: Session) -> FakeBackend:
    assert isinstance(session.backend, FakeBackend)
    return session.backend


# -- acquire and release ------------------------------------------------------------------------


@in_fake_time
async def test_a_released_session_serves_the_next_client_at_once() -> None:
    """No ping, no task, no waiting: the warm path."""
    async with Bench() as bench:
        session = await bench.pool.acquire(bench.key)
        bench.pool.release(session)
        before = asyncio.all_tasks()
        waiter = timed(bench.key)
        assert bench.pool.try_acquire(waiter) is session
        assert asyncio.all_tasks() == before
        assert bench.opener.tries == 1
        assert backend_of(session).pings == 0
        assert bench.counted("granted") == 2


@in_fake_time
async def test_a_pool_without_min_opens_nothing_until_it_is_asked() -> None:
    async with Bench(min=0) as bench:
        await asyncio.sleep(60)
        assert bench.opener.tries == 0
        assert bench.pool.try_acquire(timed(bench.key)) is None
        await bench.pool.acquire(bench.key)
        assert bench.opener.tries == 1


@pytest.mark.parametrize("getmode", [WAIT, NOWAIT, TIMEDWAIT, FORCEGET])
@in_fake_time
async def test_every_getmode_is_served_while_there_is_room(getmode: int) -> None:
    async with Bench(max=3) as bench:
        held = [await bench.pool.acquire(bench.key, getmode) for _ in range(3)]
        assert len(set(held)) == 3


@in_fake_time
async def test_wait_returns_as_soon_as_another_client_releases() -> None:
    async with Bench(max=1, max_lifetime=OFF) as bench:
        session = await bench.pool.acquire(bench.key)
        waiting = asyncio.create_task(bench.pool.acquire(bench.key, WAIT))
        await asyncio.sleep(1e6)
        assert not waiting.done()
        bench.pool.release(session)
        assert await waiting is session


@in_fake_time
async def test_nowait_is_refused_at_once_and_the_pool_works_afterwards() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        before = bench.now()
        with pytest.raises(PoolBusy) as caught:
            await bench.pool.acquire(bench.key, NOWAIT)
        assert bench.now() == before
        assert "opened=1/1 busy=1" in caught.value.picture
        bench.pool.release(session)
        assert await bench.pool.acquire(bench.key, NOWAIT) is session
        assert bench.counted("busy") == 1


@pytest.mark.parametrize("wait_timeout", [0.25, 0.5])
@in_fake_time
async def test_timedwait_gives_up_after_wait_timeout_and_not_before(wait_timeout: float) -> None:
    async with Bench(max=1, wait_timeout=0.5) as bench:
        await bench.pool.acquire(bench.key)
        before = bench.now()
        with pytest.raises(PoolTimeout) as caught:
            await bench.pool.acquire(bench.key, TIMEDWAIT, None if wait_timeout == 0.5 else wait_timeout)
        assert wait_timeout <= bench.now() - before <= wait_timeout + 0.01
        assert f"({wait_timeout:g}s)" in caught.value.message
        assert f"waited {wait_timeout:.2f}s" in caught.value.picture
        assert bench.counted("timeout") == 1


@in_fake_time
async def test_a_shorter_wait_behind_a_longer_one_ends_in_its_own_time() -> None:
    async with Bench(max=1) as bench:
        await bench.pool.acquire(bench.key)
        long, short, middle = timed(bench.key, 3.0), timed(bench.key, 1.0), timed(bench.key, 2.0)
        bench.queue(long, short, middle)
        await asyncio.sleep(1.01)
        assert [bool(waiter.error) for waiter in (long, short, middle)] == [False, True, False]
        await asyncio.sleep(1.0)
        assert [bool(waiter.error) for waiter in (long, short, middle)] == [False, True, True]
        await asyncio.sleep(1.0)
        assert isinstance(long.error, PoolTimeout)


@in_fake_time
async def test_a_pool_that_timed_out_many_never_grows_above_max() -> None:
    """They must not be remembered as room, or as need."""
    async with Bench(max=2, wait_timeout=0.1) as bench:
        held = [await bench.pool.acquire(bench.key) for _ in range(2)]
        for _ in range(2):
            results = await asyncio.gather(
                *(bench.pool.acquire(bench.key) for _ in range(10)), return_exceptions=True
            )
            assert all(isinstance(result, PoolTimeout) for result in results)
        assert (bench.opener.tries, bench.pool.ledger.used) == (2, 2)
        bench.pool.release(held[0])
        assert await bench.pool.acquire(bench.key) is held[0]


@in_fake_time
async def test_a_timeout_in_the_same_step_as_a_hand_over_loses_nothing() -> None:
    """Granted first: the session is the client's. Refused first: the next one's."""
    async with Bench(max=1, wait_timeout=1.0) as bench:
        session = await bench.pool.acquire(bench.key)
        waiting = asyncio.create_task(bench.pool.acquire(bench.key))
        loop = asyncio.get_running_loop()
        await turns()
        loop.call_at(loop.time() + 1.001, bench.pool.release, session)
        await asyncio.wait((waiting,))
        if waiting.exception() is None:
            bench.pool.release(waiting.result())
        await turns()
        assert len(bench.pool.ledger.busy) == 0
        assert bench.pool.ledger.idle == 1


@in_fake_time
async def test_wait_timeout_covers_the_connect() -> None:
    async with Bench(wait_timeout=1.0) as bench:
        bench.opener.opening.shut()
        before = bench.now()
        with pytest.raises(PoolTimeout):
            await bench.pool.acquire(bench.key)
        assert bench.now() - before < 1.01
        assert len(bench.pool.ledger.opening) == 1, "the open goes on, for the next one"


@in_fake_time
async def test_wait_timeout_covers_the_ping() -> None:
    async with Bench(wait_timeout=1.0, ping_interval=0.0, ping_timeout=50.0) as bench:
        [backend] = await bench.idle()
        backend.pinging.shut()
        before = bench.now()
        with pytest.raises(PoolTimeout):
            await bench.pool.acquire(bench.key)
        assert bench.now() - before < 1.01
        backend.pinging.open()
        await turns()
        assert bench.pool.ledger.idle == 1


@in_fake_time
async def test_clients_are_served_first_in_first_out() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        waiters = [timed(bench.key) for _ in range(5)]
        bench.queue(*waiters)
        for number, waiter in enumerate(waiters):
            bench.pool.release(session)
            assert waiter.session is session
            assert not any(later.offers for later in waiters[number + 1 :])


@in_fake_time
async def test_a_newcomer_cannot_overtake() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        first = timed(bench.key)
        bench.queue(first)
        bench.pool.release(session)
        assert bench.pool.try_acquire(timed(bench.key)) is None
        assert first.session is session


@in_fake_time
async def test_a_release_serves_the_waiter_whose_open_hangs() -> None:
    """No pool-wide lock: and what was opened for it is there for the next one."""
    async with Bench(max=2) as bench:
        session = await bench.pool.acquire(bench.key)
        bench.opener.opening.shut()
        waiter = timed(bench.key)
        bench.queue(waiter)
        await turns()
        bench.pool.release(session)
        assert waiter.session is session
        bench.opener.opening.open()
        await turns()
        assert bench.pool.ledger.idle == 1


@in_fake_time
async def test_max_waiting_refuses_at_once() -> None:
    async with Bench(max=1, max_waiting=1) as bench:
        await bench.pool.acquire(bench.key)
        bench.queue(timed(bench.key))
        with pytest.raises(QueueFull):
            await bench.pool.acquire(bench.key)
        assert bench.counted("queue_full") == 1


@in_fake_time
async def test_the_first_of_a_step_is_served_after_one_connect() -> None:
    async with Bench(max=5, increment=3) as bench:
        session = await bench.pool.acquire(bench.key)
        await turns()
        assert bench.opener.tries == 3
        assert bench.pool.ledger.idle == 2
        bench.pool.release(session)


@in_fake_time
async def test_many_clients_share_few_sessions_and_nothing_leaks() -> None:
    async with Bench(min=5, max=20) as bench:

        async def client() -> None:
            for _ in range(20):
                session = await bench.pool.acquire(bench.key, WAIT)
                await asyncio.sleep(0.001)
                bench.pool.release(session)

        await asyncio.gather(*(client() for _ in range(60)))
        assert bench.counted("granted") == 1200
        assert bench.opener.tries == 20
        assert bench.pool.ledger.idle == 20


# -- misuse -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["release", "reset", "recover"])
@in_fake_time
async def test_giving_back_twice_is_an_error_that_changes_nothing(verb: str) -> None:
    async with Bench() as bench:
        session = await bench.pool.acquire(bench.key)
        bench.pool.release(session)
        before = bench.pool.snapshot()
        with pytest.raises(LocalProtocolError, match="by somebody who does not hold it"):
            getattr(bench.pool, verb)(session)
        assert bench.pool.snapshot() == before


@pytest.mark.parametrize("verb", ["release", "reset", "recover"])
@in_fake_time
async def test_the_session_of_another_pool_is_not_taken(verb: str) -> None:
    async with Bench(max=1) as bench, Bench() as elsewhere:
        stranger = await elsewhere.pool.acquire(elsewhere.key)
        await bench.pool.acquire(bench.key)
        waiter = timed(bench.key)
        bench.queue(waiter)
        with pytest.raises(LocalProtocolError, match="does not hold it"):
            getattr(bench.pool, verb)(stranger)
        with pytest.raises(RuntimeError, match="no session of pool"):
            bench.pool.drop(stranger, DropReason.UNCERTAIN)
        assert list(bench.pool.ledger.queue) == [waiter]


@in_fake_time
async def test_dropping_twice_is_an_error() -> None:
    async with Bench() as bench:
        session = await bench.pool.acquire(bench.key)
        bench.pool.drop(session, DropReason.UNCERTAIN)
        with pytest.raises(RuntimeError, match="cannot go from closing to closing"):
            bench.pool.drop(session, DropReason.UNCERTAIN)
        await turns()
        assert backend_of(session).closes == 1


# -- receivers that have gone, or break ---------------------------------------------------------


@in_fake_time
async def test_a_waiter_that_has_gone_refuses_and_the_next_one_gets_the_session() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        absent, present = timed(bench.key), timed(bench.key)
        absent.willing = False
        bench.queue(absent, present)
        bench.pool.release(session)
        assert present.session is session
        assert (absent.offers, bench.counted("gone")) == (1, 1)


@in_fake_time
async def test_when_nobody_is_there_any_more_the_session_rests() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        absent = timed(bench.key)
        absent.willing = False
        bench.queue(absent)
        bench.pool.release(session)
        assert bench.pool.ledger.idle == 1


@in_fake_time
async def test_a_waiter_that_breaks_costs_its_session_and_nobody_else_anything() -> None:
    """Nobody knows what was sent; whoever released the session did nothing wrong."""
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        broken, fine = timed(bench.key), timed(bench.key)
        broken.crash = ZeroDivisionError("a bug")
        bench.queue(broken, fine)
        bench.pool.release(session)
        assert isinstance(broken.error, BackendError)
        await turns()
        assert fine.session is not None
        assert fine.session is not session
        assert bench.pool.counters.drops["uncertain"] == 1


@in_fake_time
async def test_an_interrupt_in_a_waiter_drops_the_session_and_goes_on() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        waiter = timed(bench.key)
        waiter.crash = SystemExit()
        bench.queue(waiter)
        with pytest.raises(SystemExit):
            bench.pool.release(session)
        assert session.state == CLOSING


@in_fake_time
async def test_a_waiter_that_breaks_at_its_refusal_does_not_silence_the_others() -> None:
    async with Bench(max=1) as bench:
        await bench.pool.acquire(bench.key)
        broken, fine = timed(bench.key, 1.0), timed(bench.key, 1.0)
        broken.crash = ZeroDivisionError("a bug")
        bench.queue(broken, fine)
        await asyncio.sleep(1.1)
        assert isinstance(fine.error, PoolTimeout)


@in_fake_time
async def test_a_waiter_that_breaks_when_its_session_is_opened_loses_no_slot() -> None:
    async with Bench(max=1) as bench:
        broken, fine = timed(bench.key), timed(bench.key)
        broken.crash = ZeroDivisionError("a bug")
        bench.queue(broken, fine)
        await turns()
        assert fine.session is not None


@pytest.mark.parametrize("answer", ["no", "crash"])
@in_fake_time
async def test_a_fresh_idle_session_that_its_waiter_does_not_take_loses_no_slot(answer: str) -> None:
    async with Bench(ping_interval=OFF, max_lifetime=100.0, idle_timeout=OFF) as bench:
        await bench.idle(2)
        fresh, expired = bench.pool.ledger.idle_sessions()
        expired.expires = bench.now()
        waiter = timed(bench.key)
        waiter.willing, waiter.crash = False, ZeroDivisionError("a bug") if answer == "crash" else None
        bench.queue(waiter)
        assert waiter.offers == 1
        assert fresh in (bench.pool.ledger.idle_sessions() if answer == "no" else bench.pool.ledger.closing)


# -- cancellation, at every await of acquire ----------------------------------------------------


async def cancelled(task: "asyncio.Task[Session]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@in_fake_time
async def test_cancelled_in_the_queue() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        task = asyncio.create_task(bench.pool.acquire(bench.key))
        await turns()
        await cancelled(task)
        assert not bench.pool.ledger.queue
        bench.pool.release(session)
        assert bench.pool.ledger.idle == 1
        assert bench.counted("gone") == 1


@in_fake_time
async def test_cancelled_in_the_queue_but_released_to_before_it_runs() -> None:
    """The future knows already; the session goes to the next one."""
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        task = asyncio.create_task(bench.pool.acquire(bench.key))
        await turns()
        following = timed(bench.key)
        bench.queue(following)
        task.cancel()
        bench.pool.release(session)
        assert following.session is session
        with pytest.raises(asyncio.CancelledError):
            await task


@in_fake_time
async def test_cancelled_after_the_hand_over() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        task = asyncio.create_task(bench.pool.acquire(bench.key))
        await turns()
        following = timed(bench.key)
        bench.queue(following)
        bench.pool.release(session)
        assert len(bench.pool.ledger.busy) == 1
        await cancelled(task)
        assert following.session is session


@in_fake_time
async def test_cancelled_after_the_hand_over_of_a_session_that_was_lost_since() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        task = asyncio.create_task(bench.pool.acquire(bench.key))
        await turns()
        bench.pool.release(session)
        backend_of(session).die()
        await cancelled(task)
        assert bench.pool.ledger.used == 0


@in_fake_time
async def test_a_session_lost_between_the_hand_over_and_its_use_is_not_returned() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        task = asyncio.create_task(bench.pool.acquire(bench.key))
        await turns()
        bench.pool.release(session)
        backend_of(session).die()
        with pytest.raises(BackendError, match="before it could be used"):
            await task


@in_fake_time
async def test_cancelled_during_the_open() -> None:
    """The session is opened all the same, and rests."""
    async with Bench() as bench:
        bench.opener.opening.shut()
        task = asyncio.create_task(bench.pool.acquire(bench.key))
        await turns()
        await cancelled(task)
        bench.opener.opening.open()
        await turns()
        assert bench.pool.ledger.idle == 1


@in_fake_time
async def test_cancelled_during_the_ping() -> None:
    async with Bench(ping_interval=0.0) as bench:
        [backend] = await bench.idle()
        backend.pinging.shut()
        task = asyncio.create_task(bench.pool.acquire(bench.key))
        await turns()
        await cancelled(task)
        backend.pinging.open()
        await turns()
        assert (bench.pool.ledger.idle, backend.pings) == (1, 1)


@pytest.mark.parametrize("turn", range(12))
@in_fake_time
async def test_cancelled_at_any_turn(turn: int) -> None:
    """Through ping, failed ping, open and hand-over: the Bench sees that every slot comes back."""
    async with Bench(max=1, ping_interval=0.0) as bench:
        [backend] = await bench.idle()
        backend.ping_error = no_answer()
        task = asyncio.create_task(bench.pool.acquire(bench.key))
        await turns(turn)
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            bench.pool.release(task.result())
        await turns()
        assert not bench.pool.ledger.busy
        assert not bench.pool.ledger.queue


@in_fake_time
async def test_a_refusal_that_nobody_awaits_any_more_is_no_noise() -> None:
    async with Bench() as bench:
        bench.opener.error = DOWN
        task = asyncio.create_task(bench.pool.acquire(bench.key))
        await turns(2)
        task.cancel()
        await asyncio.wait((task,))
        await turns()
        del task
        gc.collect()


# -- ping ---------------------------------------------------------------------------------------


@in_fake_time
async def test_a_ping_is_sent_only_after_ping_interval_and_once() -> None:
    async with Bench(ping_interval=60.0) as bench:
        [backend] = await bench.idle()
        await asyncio.sleep(59)
        await bench.idle()
        assert backend.pings == 0
        await asyncio.sleep(60)
        await bench.idle()
        assert backend.pings == 1
        assert bench.pool.counters.pings_ok == 1


@in_fake_time
async def test_a_new_session_is_not_pinged_even_if_ping_interval_is_0() -> None:
    async with Bench(ping_interval=0.0) as bench:
        session = await bench.pool.acquire(bench.key)
        assert backend_of(session).pings == 0


@in_fake_time
async def test_a_failed_ping_costs_the_session_and_the_client_never_sees_it() -> None:
    """Next idle, then a new one."""
    async with Bench(max=2, ping_interval=0.0) as bench:
        bench.opener.prepare = lambda backend: setattr(backend, "ping_error", no_answer())
        old = await bench.idle(2)
        session = await bench.pool.acquire(bench.key)
        assert [backend.pings for backend in old] == [1, 1]
        await turns()
        assert [(backend.closes, backend.abandons) for backend in old] == [(1, 1), (1, 1)]
        assert backend_of(session) not in old
        assert bench.pool.counters.drops["ping_failed"] == 2
        assert bench.pool.counters.pings_failed == 2


@in_fake_time
async def test_a_failed_ping_is_followed_by_the_next_idle_session() -> None:
    async with Bench(max=2, ping_interval=0.0) as bench:
        first, second = await bench.idle(2)
        second.ping_error = no_answer()
        assert backend_of(await bench.pool.acquire(bench.key)) is first


@in_fake_time
async def test_a_server_that_does_not_answer_costs_at_most_ping_timeout() -> None:
    async with Bench(max=1, ping_interval=0.0, ping_timeout=5.0) as bench:
        [backend] = await bench.idle()
        backend.pinging.shut()
        before = bench.now()
        session = await bench.pool.acquire(bench.key)
        assert 5.0 <= bench.now() - before < 5.1
        assert backend_of(session) is not backend


@in_fake_time
async def test_a_hanging_ping_holds_nobody_else_up() -> None:
    async with Bench(max=2, ping_interval=0.0) as bench:
        first, second = await bench.idle(2)
        second.pinging.shut()
        stuck = timed(bench.key)
        bench.queue(stuck)
        await turns()
        before = bench.now()
        waiting = asyncio.create_task(bench.pool.acquire(bench.key))
        await turns()
        # What comes first serves whoever came first.
        assert stuck.session is not None
        assert backend_of(stuck.session) is first
        assert bench.now() == before
        second.pinging.open()
        assert backend_of(await waiting) is second


@in_fake_time
async def test_a_crash_in_a_ping_loses_no_slot() -> None:
    async with Bench(max=1, ping_interval=0.0) as bench:
        [backend] = await bench.idle()
        backend.ping_error = ZeroDivisionError("a bug")
        session = await bench.pool.acquire(bench.key, NOWAIT)
        assert backend_of(session) is not backend
        assert backend.closes == 1


@in_fake_time
async def test_a_session_that_ends_right_after_its_pong_is_not_handed_out() -> None:
    async with Bench(ping_interval=0.0) as bench:
        [backend] = await bench.idle()
        backend.pinging.shut()
        task = asyncio.create_task(bench.pool.acquire(bench.key))
        await turns()
        backend.pinging.open()
        backend.die()
        assert backend_of(await task) is not backend
        assert bench.pool.counters.drops["server_closed"] == 1


@in_fake_time
async def test_a_session_that_ends_right_after_its_login_is_not_handed_out() -> None:
    async with Bench(max=1) as bench:
        bench.opener.prepare = lambda backend: setattr(backend, "ended", len(bench.opener.backends) == 0)
        session = await bench.pool.acquire(bench.key, NOWAIT)
        assert len(bench.opener.backends) == 2
        assert not backend_of(session).ended


@in_fake_time
async def test_with_ping_off_a_fresh_session_is_handed_out_past_an_expired_one() -> None:
    async with Bench(max=2, ping_interval=OFF) as bench:
        first, second = await bench.idle(2)
        second.session.expires = bench.now()
        waiter = timed(bench.key)
        assert bench.pool.try_acquire(waiter) is None
        bench.queue(waiter)
        assert waiter.session is first.session
        assert first.pings == 0


@in_fake_time
async def test_an_lru_pool_uses_all_its_sessions_in_turn() -> None:
    async with Bench(max=3, reuse=LRU) as bench:
        backends = await bench.idle(3)
        for _ in range(2):
            assert [(await bench.idle())[0] for _ in range(3)] == backends


# -- opening ------------------------------------------------------------------------------------


@in_fake_time
async def test_opens_run_in_parallel_behind_a_gate() -> None:
    async with Bench(max=10, max_opening=3) as bench:
        bench.opener.opening.shut()
        waiters = [timed(bench.key) for _ in range(6)]
        bench.queue(*waiters)
        await turns()
        assert (bench.opener.opening.inside, len(bench.pool.ledger.opening)) == (3, 6)
        bench.opener.opening.open()
        await turns()
        assert all(waiter.session for waiter in waiters)
        assert bench.opener.opening.most == 3


@in_fake_time
async def test_a_failed_open_is_told_to_whoever_waits_and_counts_go_back() -> None:
    async with Bench(max=2) as bench:
        bench.opener.errors = [DOWN]
        with pytest.raises(BackendError) as caught:
            await bench.pool.acquire(bench.key)
        assert caught.value is DOWN
        assert bench.pool.ledger.used == 0
        assert (bench.counted("failed"), bench.pool.counters.opens_failed) == (1, 1)
        assert (bench.pool.ready, bench.pool.last_error) == (False, "the server is down")
        await asyncio.sleep(0.2)
        await bench.pool.acquire(bench.key)
        assert (bench.pool.ready, bench.pool.last_error) == (True, "")


@in_fake_time
async def test_whoever_has_another_session_to_wait_for_does_not_hear_of_a_failed_open() -> None:
    async with Bench(max=2) as bench:
        session = await bench.pool.acquire(bench.key)
        bench.opener.error = DOWN
        waiter, hasty = timed(bench.key), nowait(bench.key)
        bench.queue(waiter)
        await turns()
        assert waiter.error is None
        bench.queue(hasty)
        assert hasty.error is not None
        bench.queue(later := timed(bench.key))
        assert later.error is None, "known down, but one session is there to wait for"
        bench.pool.release(session)
        assert waiter.session is session


@in_fake_time
async def test_while_the_server_is_known_down_a_client_is_refused_at_once() -> None:
    async with Bench() as bench:
        bench.opener.error = DOWN
        with pytest.raises(BackendError):
            await bench.pool.acquire(bench.key)
        before, tries = bench.now(), bench.opener.tries
        with pytest.raises(BackendError) as caught:
            await bench.pool.acquire(bench.key, WAIT)
        assert caught.value is DOWN
        assert (bench.now(), bench.opener.tries) == (before, tries)


@in_fake_time
async def test_only_the_key_that_failed_is_known_down() -> None:
    async with Bench() as bench:
        bench.opener.errors = [UNKNOWN]
        with pytest.raises(BackendError):
            await bench.pool.acquire(bench.other)
        await bench.pool.acquire(bench.key)
        assert bench.pool.ready


@in_fake_time
async def test_a_server_that_is_starting_up_is_waited_for() -> None:
    """57P03 says that it will be there soon; the pool comes back by itself."""
    async with Bench(max=2, wait_timeout=60.0) as bench:
        bench.opener.errors = [STARTING] * 4
        before = bench.now()
        waiters = [timed(bench.key, 60.0), timed(bench.key, 60.0)]
        bench.queue(*waiters)
        await turns()
        assert not any(waiter.error for waiter in waiters)
        late = asyncio.create_task(bench.pool.acquire(bench.key))
        await asyncio.sleep(3)
        assert all(waiter.session for waiter in waiters)
        bench.pool.release(waiters[0].session)  # type: ignore[arg-type]
        await late
        assert bench.now() - before < 5


@in_fake_time
async def test_a_nowait_client_does_not_wait_for_a_server_that_is_starting_up() -> None:
    async with Bench() as bench:
        bench.opener.error = STARTING
        with pytest.raises(BackendError) as caught:
            await bench.pool.acquire(bench.key, NOWAIT)
        assert caught.value is STARTING


@in_fake_time
async def test_back_off_doubles_with_every_round_up_to_5_s() -> None:
    async with Bench() as bench:
        bench.opener.error = DOWN
        bench.pool.start()
        await asyncio.sleep(10)
        assert 6 <= bench.opener.tries <= 10, "not a storm of logins"
        await asyncio.sleep(60)
        before = bench.opener.tries
        await asyncio.sleep(60)
        assert 11 <= bench.opener.tries - before <= 25
        bench.opener.error = None
        await asyncio.sleep(5.1)
        assert bench.pool.ready


@in_fake_time
async def test_opens_that_fail_side_by_side_are_one_failure() -> None:
    """Otherwise a short hiccup under load would keep the pool away for seconds."""
    async with Bench(max=10, max_opening=10) as bench:
        bench.opener.error = DOWN
        waiters = [timed(bench.key) for _ in range(10)]
        bench.queue(*waiters)
        await turns()
        assert all(waiter.error is DOWN for waiter in waiters)
        bench.opener.error = None
        await asyncio.sleep(0.12)
        await bench.pool.acquire(bench.key)


@in_fake_time
async def test_an_open_that_hangs_ends_after_connect_timeout() -> None:
    async with Bench(connect_timeout=15.0) as bench:
        bench.opener.opening.shut()
        before = bench.now()
        with pytest.raises(BackendError, match=r"within connect_timeout \(15s\)"):
            await bench.pool.acquire(bench.key, WAIT)
        assert 15.0 <= bench.now() - before < 15.1
        assert bench.opener.cancelled == 1
        assert bench.pool.ledger.used == 0


@in_fake_time
async def test_the_wait_at_the_gate_is_no_part_of_connect_timeout() -> None:
    async with Bench(max=2, max_opening=1, connect_timeout=1.0) as bench:
        opening = bench.opener.opening
        opening.shut()
        bench.opener.prepare = lambda _: opening.shut()
        bench.queue(first := timed(bench.key), second := timed(bench.key))
        for waiter in (first, second):
            await asyncio.sleep(0.8)
            opening.open()
            await turns()
            assert waiter.session is not None, waiter.error


@in_fake_time
async def test_a_refused_connection_is_explained() -> None:
    async with Bench() as bench:
        bench.opener.error = ConnectionRefusedError(111, "Connection refused")
        with pytest.raises(BackendError, match=r"cannot connect: .*Connection refused"):
            await bench.pool.acquire(bench.key)


@in_fake_time
async def test_a_crash_in_an_open_is_backed_off_from_like_any_failure() -> None:
    """No loop that opens and crashes, no client left waiting, no slot lost."""
    async with Bench() as bench:
        bench.opener.error = ZeroDivisionError("a bug")
        with pytest.raises(BackendError, match="ZeroDivisionError inside Penstock"):
            await bench.pool.acquire(bench.key, WAIT)
        await turns(200)
        assert bench.opener.tries == 1
        assert bench.pool.ledger.used == 0


# -- ends ---------------------------------------------------------------------------------------


@in_fake_time
async def test_what_is_closing_counts_until_the_server_has_ended_it() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        backend_of(session).closing.shut()
        bench.pool.drop(session, DropReason.UNCERTAIN)
        waiter = timed(bench.key)
        bench.queue(waiter)
        await turns()
        assert (waiter.session, bench.opener.tries, bench.pool.ledger.used) == (None, 1, 1)
        with pytest.raises(PoolBusy):
            await bench.pool.acquire(bench.key, NOWAIT)
        backend_of(session).closing.open()
        await turns()
        assert waiter.session is not None


@in_fake_time
async def test_a_server_that_does_not_end_a_session_holds_its_slot_for_close_timeout() -> None:
    async with Bench(max=1, close_timeout=30.0, wait_timeout=100.0) as bench:
        session = await bench.pool.acquire(bench.key)
        backend_of(session).closing.shut()
        bench.pool.drop(session, DropReason.UNCERTAIN)
        before = bench.now()
        await bench.pool.acquire(bench.key)
        assert 30.0 <= bench.now() - before < 30.1
        assert backend_of(session).abandons == 1
        assert bench.pool.counters.drops["abandoned"] == 1


@pytest.mark.parametrize("error", [OSError("reset"), BackendError("odd"), ZeroDivisionError("a bug")])
@in_fake_time
async def test_a_close_that_fails_frees_its_slot_all_the_same(error: Exception) -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        backend_of(session).close_error = error
        bench.pool.drop(session, DropReason.UNCERTAIN)
        await bench.pool.acquire(bench.key)
        assert backend_of(session).abandons == 1


@in_fake_time
async def test_dropping_a_session_serves_whoever_waits_with_a_new_one() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        waiter = timed(bench.key)
        bench.queue(waiter)
        bench.pool.drop(session, DropReason.PROTOCOL_ERROR, "nonsense")
        await turns()
        assert waiter.session is not None
        assert waiter.session is not session
        assert bench.pool.counters.drops["protocol_error"] == 1


@pytest.mark.parametrize("held", [False, True])
@in_fake_time
async def test_a_lost_session_is_never_handed_out(held: bool) -> None:
    async with Bench(ping_interval=OFF) as bench:
        session = await bench.pool.acquire(bench.key)
        if not held:
            bench.pool.release(session)
        backend_of(session).die(DropReason.SERVER_FATAL)
        assert bench.pool.ledger.used == 0
        assert bench.pool.counters.drops["server_fatal"] == 1
        assert backend_of(session).closes == 0, "the server has ended it"
        assert await bench.pool.acquire(bench.key) is not session


@in_fake_time
async def test_a_fatal_message_closes_an_idle_session_that_still_stands() -> None:
    async with Bench() as bench:
        [backend] = await bench.idle()
        bench.pool.lost(backend.session, DropReason.SERVER_FATAL)
        assert bench.pool.try_acquire(timed(bench.key)) is None
        await turns()
        assert (backend.closes, bench.pool.ledger.used) == (1, 0)


@in_fake_time
async def test_a_session_lost_in_care_is_left_to_its_carer() -> None:
    async with Bench() as bench:
        session = await bench.pool.acquire(bench.key)
        backend = backend_of(session)
        backend.resetting.shut()
        backend.reset_error = BackendError("connection lost")
        bench.pool.reset(session)
        await turns()
        backend.die()
        assert len(bench.pool.ledger.care) == 1
        backend.resetting.open()
        await turns()
        assert bench.pool.ledger.used == 0
        assert bench.pool.counters.drops["reset_failed"] == 1
        assert bench.pool.counters.drops["server_closed"] == 0


# -- care ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["reset", "recover"])
@in_fake_time
async def test_a_session_in_care_is_nobody_elses_until_it_is_clean(verb: str) -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        backend = backend_of(session)
        backend.resetting.shut()
        backend.recovering.shut()
        getattr(bench.pool, verb)(session)
        waiter = timed(bench.key)
        bench.queue(waiter)
        await turns()
        assert waiter.session is None
        assert (bench.pool.ledger.opened, len(bench.pool.ledger.care)) == (1, 1)
        backend.resetting.open()
        backend.recovering.open()
        await turns()
        assert waiter.session is session


@pytest.mark.parametrize(("verb", "reason"), [("reset", "reset_failed"), ("recover", "recover_failed")])
@in_fake_time
async def test_a_session_whose_care_fails_is_closed_and_its_slot_freed(verb: str, reason: str) -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        backend_of(session).reset_error = BackendError("no")
        getattr(bench.pool, verb)(session)
        assert await bench.pool.acquire(bench.key) is not session
        assert bench.pool.counters.drops[reason] == 1
        assert backend_of(session).closes == 1


@in_fake_time
async def test_a_reset_that_hangs_has_failed_but_a_recovery_may_take_its_time() -> None:
    async with Bench(max=2, reset_timeout=5.0) as bench:
        first, second = [await bench.pool.acquire(bench.key) for _ in range(2)]
        backend_of(first).resetting.shut()
        backend_of(second).recovering.shut()
        bench.pool.reset(first)
        bench.pool.recover(second)
        await asyncio.sleep(5.1)
        assert bench.pool.counters.drops["reset_failed"] == 1
        await asyncio.sleep(1000)
        assert len(bench.pool.ledger.care) == 1


@in_fake_time
async def test_a_nowait_client_is_refused_when_the_reset_it_counted_on_brings_nothing() -> None:
    """The session was above max and is dropped: whoever is left would wait for another client."""
    async with Bench(max=2, max_forced=1) as bench:
        held = [await bench.pool.acquire(bench.key, FORCEGET) for _ in range(2)]
        for session in held:
            backend_of(session).resetting.shut()
        bench.pool.reset(held[0])
        await turns()
        hasty = nowait(bench.key)
        bench.queue(hasty)
        assert hasty.error is None
        bench.queue(keen := forceget(bench.key))
        await turns()
        assert hasty.session is None
        assert keen.session is not None
        backend_of(held[0]).closing.shut()
        backend_of(held[0]).resetting.open()
        await turns()
        assert isinstance(hasty.error, PoolBusy), "at once, not when the server has ended the session"


@in_fake_time
async def test_a_nowait_client_is_refused_when_the_ping_it_counted_on_fails() -> None:
    """And the slot that comes free is above max, so it is not for this client either."""
    async with Bench(max=1, max_forced=1, ping_interval=0.0) as bench:
        [backend] = await bench.idle()
        await bench.pool.acquire(bench.other, FORCEGET)
        backend.ping_error = no_answer()
        backend.closing.shut()
        bench.queue(hasty := nowait(bench.key))
        assert hasty.error is None
        await turns()
        assert isinstance(hasty.error, PoolBusy)


@in_fake_time
async def test_a_forceget_whose_session_went_to_the_first_waiter_has_another_opened() -> None:
    """The pool has shrunk to max since, so what was opened for one serves the first in the queue."""
    async with Bench(max=1, max_forced=2) as bench:
        session = await bench.pool.acquire(bench.key)
        backend_of(session).closing.shut()
        bench.opener.opening.shut()
        bench.queue(plain := timed(bench.key), keen := forceget(bench.key))
        bench.pool.drop(session, DropReason.UNCERTAIN)
        bench.opener.opening.open()
        await turns()
        assert plain.session is not None
        assert keen.session is not None


# -- forceget -----------------------------------------------------------------------------------


@in_fake_time
async def test_forceget_opens_above_max_and_the_extras_go_when_they_are_released() -> None:
    async with Bench(max=3, max_forced=7) as bench:
        held = [await bench.pool.acquire(bench.key, FORCEGET) for _ in range(10)]
        assert len(set(held)) == 10
        assert bench.pool.ledger.opened == len(bench.pool.ledger.busy) == 10
        for session in held:
            bench.pool.release(session)
        await turns()
        assert bench.pool.ledger.opened == bench.opener.living == 3
        assert bench.pool.counters.drops["forced"] == 7


@in_fake_time
async def test_forceget_is_bounded_too() -> None:
    async with Bench(max=1, max_forced=1, wait_timeout=1.0) as bench:
        held = [await bench.pool.acquire(bench.key, FORCEGET) for _ in range(2)]
        with pytest.raises(PoolTimeout):
            await bench.pool.acquire(bench.key, FORCEGET)
        bench.queue(keen := forceget(bench.key))
        bench.pool.release(held[0])
        assert keen.session is held[0]


@in_fake_time
async def test_a_forced_session_is_absorbed_when_the_pool_has_shrunk() -> None:
    async with Bench(max=1, max_forced=1) as bench:
        first, second = [await bench.pool.acquire(bench.key, FORCEGET) for _ in range(2)]
        bench.pool.drop(first, DropReason.UNCERTAIN)
        bench.pool.release(second)
        assert bench.pool.ledger.idle_sessions() == [second]


@in_fake_time
async def test_a_timedwait_client_never_gets_what_a_forceget_had_opened() -> None:
    async with Bench(max=1, max_forced=1) as bench:
        held = await bench.pool.acquire(bench.key)
        plain, keen = timed(bench.key), forceget(bench.key)
        bench.queue(plain, keen)
        await turns()
        assert plain.session is None
        assert keen.session is not None
        bench.pool.release(keen.session)
        await turns()
        assert (plain.session, bench.opener.living) == (None, 1)
        bench.pool.release(held)
        assert plain.session is held


@in_fake_time
async def test_what_was_opened_for_a_forceget_that_left_is_closed_again() -> None:
    async with Bench(max=1, max_forced=1) as bench:
        await bench.pool.acquire(bench.key)
        bench.opener.opening.shut()
        bench.queue(plain := timed(bench.key), keen := forceget(bench.key))
        await turns()
        bench.pool.withdraw(keen)
        bench.opener.opening.open()
        await turns()
        assert (plain.session, bench.opener.living) == (None, 1)


# -- keys ---------------------------------------------------------------------------------------


@in_fake_time
async def test_a_key_is_one_object() -> None:
    async with Bench() as bench:
        assert bench.pool.key("orders", "ann") is bench.key
        assert bench.key is not bench.other
        assert repr(bench.other) == "bob@orders"


@in_fake_time
async def test_the_same_user_gets_its_session_back_and_another_never_does() -> None:
    async with Bench() as bench:
        [mine] = await bench.idle()
        [other] = await bench.idle(key=bench.other)
        assert mine is not other
        assert backend_of(await bench.pool.acquire(bench.key)) is mine


@in_fake_time
async def test_at_max_the_idle_session_of_another_user_is_replaced() -> None:
    async with Bench(max=1) as bench:
        [mine] = await bench.idle()
        session = await bench.pool.acquire(bench.other)
        assert backend_of(session) is not mine
        assert (mine.closes, bench.pool.ledger.opened) == (1, 1)
        assert bench.pool.counters.drops["replaced"] == 1


@in_fake_time
async def test_a_waiter_of_another_user_is_served_by_a_release_with_a_session_of_its_own() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        bench.queue(waiter := timed(bench.other))
        bench.pool.release(session)
        await turns()
        assert waiter.session is not None
        assert waiter.session.key is bench.other
        assert bench.opener.living == 1


@in_fake_time
async def test_a_replacement_that_fails_to_open_loses_no_slot() -> None:
    async with Bench(max=1) as bench:
        await bench.idle()
        bench.opener.errors = [UNKNOWN]
        with pytest.raises(BackendError):
            await bench.pool.acquire(bench.other)
        await bench.pool.acquire(bench.key)


@in_fake_time
async def test_two_users_share_one_slot_and_neither_starves() -> None:
    async with Bench(max=1, wait_timeout=1000.0) as bench:
        served = {bench.key: 0, bench.other: 0}

        async def client(key: Key) -> None:
            for _ in range(10):
                session = await bench.pool.acquire(key)
                served[key] += 1
                await asyncio.sleep(0.01)
                bench.pool.release(session)
                assert abs(served[bench.key] - served[bench.other]) <= 8

        await asyncio.gather(*(client(key) for key in served for _ in range(4)))
        assert set(served.values()) == {40}


# -- keeping ------------------------------------------------------------------------------------


@in_fake_time
async def test_start_opens_min_sessions_and_one_at_least() -> None:
    for floor in (0, 3):
        async with Bench(min=floor) as bench:
            bench.pool.start()
            await turns()
            assert bench.pool.ledger.idle == max(1, floor)
            assert bench.pool.ready


@in_fake_time
async def test_nowait_counts_on_the_sessions_of_the_first_fill() -> None:
    async with Bench(min=1, max=1) as bench:
        bench.pool.start()
        await turns(1)
        assert len(bench.pool.ledger.opening) == 1
        await bench.pool.acquire(bench.key, NOWAIT)


@in_fake_time
async def test_a_dormant_pool_shrinks_to_min_not_later_than_twice_idle_timeout() -> None:
    async with Bench(min=2, max=5, idle_timeout=5.0) as bench:
        bench.pool.start()
        await bench.idle(5)
        await asyncio.sleep(10)
        assert bench.pool.ledger.opened == bench.opener.living == 2
        assert bench.pool.counters.drops["idle_timeout"] == 3


@in_fake_time
async def test_lost_sessions_are_opened_again_up_to_min_without_anybody_asking() -> None:
    async with Bench(min=2) as bench:
        bench.pool.start()
        await turns()
        for backend in list(bench.opener.backends):
            backend.die()
        await asyncio.sleep(1.1)
        assert bench.pool.ledger.idle == bench.opener.living == 2


@in_fake_time
async def test_max_lifetime_ends_a_session_at_its_release_but_never_cuts_it() -> None:
    async with Bench(max_lifetime=100.0) as bench:
        bench.pool.start()
        session = await bench.pool.acquire(bench.key)
        await asyncio.sleep(500)
        assert session.state == BUSY
        bench.pool.release(session)
        assert session.state == CLOSING
        assert bench.pool.counters.drops["max_lifetime"] >= 1


@in_fake_time
async def test_max_lifetime_ends_idle_sessions_even_of_min_and_not_all_at_once() -> None:
    """Jittered by a tenth: sessions opened together do not end together."""
    async with Bench(min=20, max=20, max_lifetime=100.0, idle_timeout=OFF) as bench:
        bench.pool.start()
        await turns()
        first = [session.expires - bench.now() for session in bench.pool.ledger.idle_sessions()]
        assert all(89.9 < left <= 100.0 for left in first)
        assert len({round(left, 2) for left in first}) > 10
        await asyncio.sleep(101)
        await asyncio.sleep(1)
        assert all(backend.closes for backend in bench.opener.backends[:20])
        assert bench.pool.ledger.opened == 20


@in_fake_time
async def test_an_expired_session_is_not_handed_out_before_the_reaper_comes() -> None:
    async with Bench(max_lifetime=10.0) as bench:
        [old] = await bench.idle()
        await asyncio.sleep(10)
        session = await bench.pool.acquire(bench.key)
        assert backend_of(session) is not old
        assert bench.pool.counters.drops["max_lifetime"] == 1


@in_fake_time
async def test_the_keeper_survives_whatever_goes_wrong_in_a_tick() -> None:
    async with Bench(min=1) as bench:
        bench.pool.start()
        await turns()
        lane = bench.pool.ledger.lanes.pop(bench.key)
        bench.pool.ledger.lanes[bench.other] = None  # type: ignore[assignment]
        await asyncio.sleep(3)
        del bench.pool.ledger.lanes[bench.other]
        bench.pool.ledger.lanes[bench.key] = lane
        bench.opener.backends[0].die()
        await asyncio.sleep(1.1)
        assert bench.pool.ledger.idle == 1


# -- close --------------------------------------------------------------------------------------


@in_fake_time
async def test_close_refuses_whoever_waits_and_whoever_comes() -> None:
    async with Bench(max=1) as bench:
        session = await bench.pool.acquire(bench.key)
        bench.queue(waiter := timed(bench.key))
        closing = asyncio.create_task(bench.pool.drain())
        await turns()
        assert isinstance(waiter.error, PoolClosed)
        with pytest.raises(PoolClosed):
            await bench.pool.acquire(bench.key)
        assert bench.counted("closed") == 2
        assert not closing.done(), "a session is still held"
        bench.pool.release(session)
        await closing
        assert bench.pool.counters.drops["drain"] == 1


@in_fake_time
async def test_close_returns_when_the_server_has_ended_every_session() -> None:
    async with Bench() as bench:
        [first, second] = await bench.idle(2)
        second.closing.shut()
        closing = asyncio.create_task(bench.pool.drain())
        await turns()
        assert (first.ended, closing.done()) == (True, False)
        second.closing.open()
        await closing


@in_fake_time
async def test_close_gives_up_what_is_being_opened_and_opens_nothing_more() -> None:
    async with Bench(min=3) as bench:
        bench.opener.opening.shut()
        bench.pool.start()
        await turns()
        await bench.pool.drain()
        assert bench.opener.cancelled == 3
        tries = bench.opener.tries
        await asyncio.sleep(100)
        assert bench.opener.tries == tries


@in_fake_time
async def test_close_in_the_very_step_in_which_an_open_was_begun() -> None:
    """Its task never ran; its slot must come back all the same."""
    async with Bench() as bench:
        bench.queue(waiter := timed(bench.key))
        assert len(bench.pool.ledger.opening) == 1
        async with asyncio.timeout(1):
            await bench.pool.drain()
        assert isinstance(waiter.error, PoolClosed)
        assert bench.opener.tries == 0


@in_fake_time
async def test_close_waits_for_care_and_then_ends_the_session() -> None:
    async with Bench() as bench:
        session = await bench.pool.acquire(bench.key)
        backend_of(session).recovering.shut()
        bench.pool.recover(session)
        closing = asyncio.create_task(bench.pool.drain())
        await turns()
        backend_of(session).recovering.open()
        await closing
        assert backend_of(session).closes == 1


@in_fake_time
async def test_close_twice_and_even_if_one_is_given_up() -> None:
    async with Bench() as bench:
        session = await bench.pool.acquire(bench.key)
        closings = [asyncio.create_task(bench.pool.drain()) for _ in range(3)]
        await turns()
        closings[1].cancel()
        await turns()
        bench.pool.release(session)
        await asyncio.wait(closings, timeout=1)
        assert [closing.cancelled() for closing in closings] == [False, True, False]
        assert all(closing.done() for closing in closings)


@in_fake_time
async def test_close_ends_the_retries_of_a_server_that_is_down() -> None:
    async with Bench(min=1) as bench:
        bench.opener.error = DOWN
        bench.pool.start()
        await turns()
        await bench.pool.drain()
        await turns()
        tries = bench.opener.tries
        loop = asyncio.get_running_loop()
        live = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert live == [], "no timer is left behind"
        await asyncio.sleep(100)
        assert bench.opener.tries == tries


# -- looking ------------------------------------------------------------------------------------


@in_fake_time
async def test_the_snapshot_says_everything() -> None:
    async with Bench("session", min=1, max=4, max_forced=2, getmode=WAIT, max_opening=1) as bench:
        pool = bench.pool
        held = [await pool.acquire(bench.key) for _ in range(3)]
        pool.release(held[0])
        backend_of(held[1]).closing.shut()
        pool.drop(held[1], DropReason.UNCERTAIN)
        bench.opener.opening.shut()
        bench.queue(timed(bench.other))
        await asyncio.sleep(2)
        pool.counters.queries, pool.counters.transactions = 5, 3
        pool.counters.bytes_client, pool.counters.bytes_server = 100, 200
        stats = pool.snapshot()
        assert (stats.name, stats.pool_mode, stats.getmode) == ("orders", "session", "wait")
        assert (stats.min, stats.max, stats.max_forced) == (1, 4, 2)
        assert (stats.opened, stats.busy, stats.idle) == (2, 1, 1)
        assert (stats.opening, stats.closing, stats.waiting) == (1, 1, 1)
        assert stats.oldest_wait == pytest.approx(2.0)
        assert stats.acquires["wait", "granted"] == 3
        assert len(stats.acquires) == 4 * len(OUTCOMES)
        assert stats.opens == {"ok": 3, "failed": 0}
        assert stats.pings == {"ok": 0, "failed": 0, "timed_out": 0}
        assert set(stats.drops) == {str(reason) for reason in DropReason}
        assert stats.drops["uncertain"] == 1
        assert (stats.acquire.cumulative[-1], stats.hold.cumulative[-1], stats.open.cumulative[-1]) == (
            3,
            1,
            3,
        )
        assert (stats.queries, stats.transactions) == (5, 3)
        assert (stats.bytes_client, stats.bytes_server) == (100, 200)
        assert (stats.ready, stats.last_error) == (True, "")


@in_fake_time
async def test_withdrawing_whoever_does_not_wait_says_so() -> None:
    async with Bench(max=1) as bench:
        await bench.pool.acquire(bench.key)
        waiter = timed(bench.key)
        assert not bench.pool.withdraw(waiter)
        bench.queue(waiter)
        assert bench.pool.withdraw(waiter)
        assert bench.counted("gone") == 1

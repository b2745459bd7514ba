"""The differences kept on purpose, shown on the libraries themselves, so that the list stays true.

Each test is named for one of them: what the library does, and what our pool does instead.
"""

import asyncio
import queue
import threading
import warnings

import psycopg2
import pytest
from generic_connection_pool.exceptions import ConnectionPoolClosedError
from google.cloud.exceptions import NotFound
from google.cloud.spanner_v1 import pool as spanner
from pydantic import ValidationError

from conformance.bench import URL, Bench, backend_of, preset_bench, preset_limits
from conformance.differences import DIFFERENCES, PAGE, SHOWN_BY, with_tables
from conformance.ids import BEHAVIOURS
from conformance.libraries import Generic, Psycopg2, Spanner, StubConnection, StubSession
from conformance.parameters import PARAMETERS
from fakes import FakeClock, in_fake_time, no_answer, turns, waits
from proxy.errors import BackendError, LocalProtocolError, PoolBusy, PoolTimeout
from proxy.pool.session import GONE, IDLE
from proxy.settings.pools import PoolSettings

IDS = {one.id for one in DIFFERENCES}


def test_each_difference_is_listed_once() -> None:
    assert len(IDS) == len(DIFFERENCES)


def test_each_difference_is_shown() -> None:
    tests = [name for name in globals() if name.startswith("test_")]
    for name in IDS:
        on_the_library = any(test.startswith(f"test_{name}") for test in tests)
        assert on_the_library != (name in SHOWN_BY), name
    assert set(SHOWN_BY) <= IDS
    assert {behaviour for shown in SHOWN_BY.values() for behaviour in shown} <= {*BEHAVIOURS, *PARAMETERS}


def test_the_page_has_the_list() -> None:
    """Run ``python tests/conformance/differences.py`` where this fails."""
    page = PAGE.read_text()
    assert with_tables(page) == page


# -- all of them --------------------------------------------------------------------------------


@in_fake_time
async def test_waits_on() -> None:
    theirs = Psycopg2(FakeClock(), 0, 2)
    theirs.acquire(0)
    theirs.fail_next = True
    assert theirs.acquire(0) == "failed"
    async with Bench(max=2, wait_timeout=20.0) as bench:
        (session,) = await bench.take()
        bench.opener.error = BackendError("too many connections", "53300")
        waiting = bench.run(bench.pool.acquire(bench.key))
        await asyncio.sleep(10)
        bench.pool.release(session)
        assert await waiting is session
        bench.pool.release(session)
        bench.opener.error = None


@in_fake_time
async def test_first_session() -> None:
    theirs = Psycopg2(FakeClock(), 0, 2)
    assert theirs.idle() == []
    async with Bench(min=0, max=2, idle_timeout=5.0) as bench:
        bench.pool.start()
        await asyncio.sleep(1)
        assert bench.opened == 1
        await asyncio.sleep(60)
        assert bench.opened == 0, "it is not kept"


# -- psycopg2 -----------------------------------------------------------------------------------


def test_psycopg2_slot_leak_there() -> None:
    pool = Psycopg2(FakeClock(), 1, 1)
    connection = pool.acquire(0)
    connection.rollback_error = psycopg2.OperationalError("gone")
    with pytest.raises(psycopg2.OperationalError):
        pool.release_dirty(connection)
    assert pool.acquire(0) == "busy", "for ever"


@in_fake_time
async def test_psycopg2_slot_leak_here() -> None:
    async with preset_bench("psycopg2", min=1, max=1) as bench:
        (session,) = await bench.take()
        backend_of(session).reset_error = BackendError("gone")
        bench.pool.reset(session)
        await turns()
        (other,) = await bench.take()
        assert other is not session


@in_fake_time
async def test_psycopg2_dead() -> None:
    theirs = Psycopg2(FakeClock(), 1, 1)
    connection = theirs.acquire(0)
    theirs.release(connection)
    theirs.kill(connection)
    assert theirs.acquire(0) is connection, "it is handed out all the same"
    async with preset_bench("psycopg2", min=1, max=1) as bench:
        (session,) = await bench.idle()
        backend_of(session).die()
        assert await bench.take() != [session]


@in_fake_time
async def test_psycopg2_key() -> None:
    theirs = Psycopg2(FakeClock(), 1, 2, ("a",))
    assert theirs.acquire(0) is theirs.acquire(0), "to both at once"
    async with preset_bench("psycopg2", min=1, max=2) as bench:
        (session,) = await bench.take(1, affinity="a")
        with pytest.raises(PoolBusy):
            await bench.pool.acquire(bench.key, affinity="a")
        bench.pool.release(session)


def test_psycopg2_min_above_max() -> None:
    theirs = Psycopg2(FakeClock(), 3, 2)
    assert all(isinstance(theirs.acquire(0), StubConnection) for _ in range(3)), "three, with maxconn 2"
    with pytest.raises(ValidationError, match="above max"):
        PoolSettings.model_validate({"backend": URL, "preset": "psycopg2", "min": 3, "max": 2})


@in_fake_time
async def test_psycopg2_closeall() -> None:
    theirs = Psycopg2(FakeClock(), 1, 1)
    connection = theirs.acquire(0)
    theirs.pool.closeall()
    with pytest.raises(psycopg2.pool.PoolError):
        theirs.release(connection)
    async with preset_bench("psycopg2", min=1, max=1, drain_timeout="10s") as bench:
        (session,) = await bench.take()
        bench.pool.shut()
        bench.pool.release(session)
        await turns()
        assert session.state == GONE


# -- Spanner ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["check", "creation"])
def test_spanner_slot_leak_there(what: str) -> None:
    pool = Spanner(FakeClock(), spanner.FixedSizePool, size=2, max_age_minutes=0)
    try:
        head = pool.idle()[-1]
        if what == "check":
            head.error = OSError("unavailable")
        else:
            head.gone, pool.fail_next = True, True
        assert pool.acquire(0) == "failed"
        assert len(pool.idle()) == 1, "a pool of two is a pool of one from now on"
    finally:
        pool.close()


@pytest.mark.parametrize("what", ["check", "creation"])
@in_fake_time
async def test_spanner_slot_leak_here(what: str) -> None:
    async with preset_bench("fixed", max=2) as bench:
        await bench.started()
        for backend in bench.opener.backends:
            backend.ping_error = no_answer() if what == "creation" else OSError("unavailable")
        if what == "creation":
            bench.opener.errors = [BackendError("down", "08001")]
        waiter = waits(bench.key)
        bench.queue(waiter)
        await asyncio.sleep(5)
        for backend in bench.opener.backends:
            backend.ping_error = None
        if waiter.session is not None:
            bench.pool.release(waiter.session)
        await asyncio.sleep(5)
        assert bench.counts == (2, 0, 2)


@in_fake_time
async def test_spanner_create_at_max() -> None:
    theirs = Spanner(FakeClock(), spanner.FixedSizePool, size=2, max_age_minutes=0)
    try:
        idle, dead = theirs.idle()
        theirs.kill(dead)
        assert theirs.acquire(0) not in (idle, dead)
        assert theirs.idle() == [idle]
    finally:
        theirs.close()
    for most in (2, 3):
        async with preset_bench("fixed", max=most, min=2) as bench:
            await bench.started()
            idle_one, dead_one = await bench.idle(2)
            backend_of(dead_one).ping_error = no_answer()
            (session,) = await bench.take()
            assert (session is idle_one) == (most == 2)
            await asyncio.sleep(1)
            assert bench.counts == (2, 1, 1), "the dead one was replaced"


@in_fake_time
async def test_spanner_unbounded() -> None:
    theirs = Spanner(FakeClock(), spanner.BurstyPool, target_size=2)
    try:
        assert len(set(map(id, [theirs.acquire(0) for _ in range(50)]))) == 50
    finally:
        theirs.close()
    async with preset_bench("bursty", max=2, wait_timeout="1s") as bench:
        held = [await bench.pool.acquire(bench.key) for _ in range(4)]
        with pytest.raises(PoolTimeout):
            await bench.pool.acquire(bench.key)
        bench.release(held)


@in_fake_time
async def test_spanner_pending() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = Spanner(FakeClock(), spanner.TransactionPingingPool, size=1)
    try:
        session = theirs.acquire(0)
        session.begun = None
        theirs.release(session)
        assert theirs.acquire(0) == "timeout", "it is there, and cannot be had"
        theirs.pool.begin_pending_transactions()
        session.begun = object()
    finally:
        theirs.close()
    async with preset_bench("transaction_pinging", max=1) as bench:
        await bench.started()
        (session,) = await bench.idle()
        await turns()
        assert await bench.take() == [session]
        assert backend_of(session).begins == 2


@in_fake_time
async def test_spanner_stranger() -> None:
    theirs = Spanner(FakeClock(), spanner.FixedSizePool, size=1)
    try:
        rightful = theirs.acquire(0)
        theirs.release(StubSession(theirs))
        with pytest.raises(queue.Full):
            theirs.release(rightful)
    finally:
        theirs.close()
    async with preset_bench("fixed", max=1) as bench, Bench(max=1) as elsewhere:
        await bench.started()
        (stranger,) = await elsewhere.take()
        (rightful,) = await bench.take()
        with pytest.raises(LocalProtocolError):
            bench.pool.release(stranger)
        bench.pool.release(rightful)
        elsewhere.pool.release(stranger)


@in_fake_time
async def test_spanner_clear() -> None:
    theirs = Spanner(FakeClock(), spanner.FixedSizePool, size=3)
    try:
        theirs.idle()[-1].gone = True
        with pytest.raises(NotFound):
            theirs.pool.clear()
        assert len(theirs.idle()) == 2
    finally:
        theirs.close()
    async with preset_bench("fixed", max=3, prefill="lazy", keep_min=False) as bench:
        held = await bench.idle(3)
        backend_of(held[-1]).close_error = BackendError("no such session")
        assert bench.pool.clear() == 3
        await turns()
        assert bench.opened == 0


# -- generic_connection_pool --------------------------------------------------------------------


@in_fake_time
async def test_generic_expired() -> None:
    theirs = Generic(FakeClock(), ("a",), max_lifetime=100.0, idle_timeout=10.0)
    try:
        connection = theirs.acquire(0)
        theirs.release(connection)
        theirs.advance(1000.0)
        assert theirs.acquire(0) is connection
    finally:
        theirs.close()
    async with preset_bench("generic", max_lifetime="100s", idle_timeout="10s") as bench:
        (session,) = await bench.idle()
        await asyncio.sleep(1000)
        assert await bench.take() != [session]


@in_fake_time
async def test_generic_dead_socket() -> None:
    theirs = Generic(FakeClock(), ("a",))
    try:
        connection = theirs.acquire(0)
        theirs.release(connection)
        theirs.kill(connection)
        assert theirs.acquire(0) is not connection
        assert theirs.manager.disposed == []
    finally:
        theirs.close()
    async with preset_bench("generic") as bench:
        (session,) = await bench.idle()
        backend_of(session).ping_error = no_answer()
        assert await bench.take() != [session]
        assert backend_of(session).closes == 1


@in_fake_time
async def test_generic_floor() -> None:
    settings = {"max": 4, "max_per_endpoint": 3, "min_per_endpoint": 1, "wait_timeout": "0s"}
    theirs = Generic(FakeClock(), ("a", "b"), min_idle=1, max_size=3, total_max_size=4)
    try:
        extra, core = theirs.acquire(0), theirs.acquire(0)
        theirs.release(extra)
        theirs.release(core)
        theirs.kill(core)
        assert theirs.acquire(0) is extra, "the core is tried first, and found dead"
        second = theirs.acquire(0)
        theirs.release(extra)
        theirs.kill(second)
        theirs.advance(100.0)
        other = theirs.acquire(1)
        theirs.release(other)
        assert extra in theirs.manager.disposed
    finally:
        theirs.close()
    async with Bench(limits=preset_limits("generic", **settings), endpoints=("a", "b")) as bench:
        extra, core = await bench.take(2, bench.at("a"))
        bench.release([extra, core])
        backend_of(core).die()
        await asyncio.sleep(100)
        (other,) = await bench.take(1, bench.at("b"))
        bench.pool.release(other)
        await turns()
        assert [len(at.sessions) for at in bench.pool.ledger.endpoints.all] == [1, 1]


@in_fake_time
async def test_generic_evict_core() -> None:
    theirs = Generic(
        FakeClock(),
        ("a", "b"),
        min_idle=1,
        max_size=2,
        total_max_size=2,
        max_lifetime=100.0,
        idle_timeout=60.0,
    )
    try:
        core = theirs.acquire(0)
        theirs.advance(50.0)
        extra = theirs.acquire(0)
        theirs.release(extra)
        theirs.release(core)
        theirs.advance(40.0)  # the core will be too old in 10 seconds, the extra idle for too long in 20
        other = theirs.acquire(1)
        assert theirs.manager.disposed == [core]
        assert other not in (core, extra)
    finally:
        theirs.close()
    async with Bench(
        limits=preset_limits("generic", max=2, max_per_endpoint=2, max_lifetime="100s"), endpoints=("a", "b")
    ) as bench:
        (core,) = await bench.take(1, bench.at("a"))
        await asyncio.sleep(50)
        (extra,) = await bench.take(1, bench.at("a"))
        bench.release([extra, core])
        assert (core.core, extra.core) == (True, False)
        await asyncio.sleep(40)
        await bench.take(1, bench.at("b"))
        assert extra.state == GONE
        assert core.state == IDLE


def test_generic_close_there() -> None:
    """close() goes round and round for as long as somebody holds a connection, whatever its timeout."""
    theirs = Generic(FakeClock(), ("a",))
    try:
        connection = theirs.acquire(0)
        closing = threading.Thread(target=theirs.pool.close, kwargs={"timeout": 0.0})
        closing.start()
        closing.join(0.3)
        assert closing.is_alive()
        with pytest.raises(ConnectionPoolClosedError):
            theirs.release(connection)
        closing.join(10)
        assert not closing.is_alive()
    finally:
        theirs.close()


@in_fake_time
async def test_generic_close_here() -> None:
    async with preset_bench("generic", max=1, max_per_endpoint=1, drain_timeout="2s") as bench:
        await bench.take()
        before = bench.now()
        await bench.pool.drain()
        assert 2.0 <= bench.now() - before <= 2.01

"""Sessions that are one client's alone: within the bound, shared with nobody, blamed on nobody."""

import asyncio

import pytest

from fakes import DOWN, REFUSED, FakeOpener, in_fake_time, turns
from proxy.errors import BackendError, PoolBusy
from proxy.pool.endpoints import CLOSED
from proxy.pool.limits import NOWAIT, Limits
from proxy.pool.pool import Pool
from proxy.pool.session import BUSY, Key

TOO_MANY = BackendError("number of requested standby connections exceeds max_wal_senders", "53300")


def pool_of(opener: FakeOpener, **limits: object) -> Pool:
    return Pool("orders", Limits(**{"min": 0, "max": 2, **limits}), opener, ("orders", "ann"))  # type: ignore[arg-type]


def own(pool: Pool) -> Key:
    return pool.key("orders", "ann").alone("what it is opened with")


@in_fake_time
async def test_each_has_a_session_that_suits_nobody_else() -> None:
    opener = FakeOpener()
    pool = pool_of(opener, increment=2)
    common = await pool.acquire(pool.key("orders", "ann"))
    pool.release(common)
    await turns()
    session = await pool.acquire(own(pool))
    assert session is not common
    assert session.key.private == "what it is opened with"
    # No second one was opened for those behind it, for there is nobody whom that could serve.
    assert pool.ledger.used <= 2
    assert {one.key.private for one in pool.ledger.sessions() if one is not session} == {None}


@in_fake_time
async def test_an_idle_session_makes_room_and_nobody_else_does() -> None:
    opener = FakeOpener()
    pool = pool_of(opener, max=1)
    pool.release(await pool.acquire(pool.key("orders", "ann")))
    session = await pool.acquire(own(pool))
    assert session.state == BUSY
    with pytest.raises(PoolBusy):
        await pool.acquire(own(pool), NOWAIT)
    with pytest.raises(PoolBusy):
        await pool.acquire(pool.key("orders", "ann"), NOWAIT)


@in_fake_time
async def test_one_whose_client_has_gone_meanwhile_never_rests() -> None:
    opener = FakeOpener()
    pool = pool_of(opener)
    wanted = asyncio.ensure_future(pool.acquire(own(pool)))
    await asyncio.sleep(0)
    assert len(pool.ledger.opening) == 1
    wanted.cancel()
    await turns()
    await asyncio.sleep(1)
    assert pool.ledger.used == 0
    assert pool.counters.drops["replication"] in (0, 1)
    pool.ledger.check()


@pytest.mark.parametrize("error", [TOO_MANY, DOWN, REFUSED])
def test_what_the_server_says_to_one_is_held_against_nobody_else(error: BackendError) -> None:
    @in_fake_time
    async def tell() -> None:
        opener = FakeOpener()
        pool = pool_of(opener, max=4, breaker_failures=1)
        opener.error = error
        for _ in range(3):
            with pytest.raises(BackendError) as caught:
                await pool.acquire(own(pool))
            assert caught.value is error
        (endpoint,) = pool.ledger.endpoints.all
        assert (endpoint.failures, endpoint.is_broken, endpoint.last_error) == (0, False, "")
        assert endpoint.breaker(0.0) == CLOSED
        opener.error = None
        session = await pool.acquire(pool.key("orders", "ann"), NOWAIT)
        pool.release(session)

    tell()


@in_fake_time
async def test_they_are_counted_with_the_others_of_their_user() -> None:
    pool = pool_of(FakeOpener())
    await pool.acquire(own(pool))
    await pool.acquire(own(pool))
    (key,) = pool.snapshot().keys
    assert (key.user, key.busy) == ("ann", 2)

"""F: who names the same key gets the same session (psycopg2's getconn(key))."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from conformance.bench import Bench, preset_bench
from fakes import in_fake_time, turns
from proxy.errors import LocalProtocolError
from proxy.pool.limits import BY_KEY, NOWAIT, WAIT
from servers import Penstock


@in_fake_time
async def test_f01_the_same_key_means_the_same_session_even_at_max() -> None:
    """psycopg2 hands it to both at once; here the second waits until the first is done with it."""
    async with Bench(max=2, affinity=BY_KEY, getmode=WAIT) as bench:
        (mine,) = await bench.take(1, affinity="a")
        (other,) = await bench.take(1, affinity="b")
        second = bench.run(bench.pool.acquire(bench.key, affinity="a"))
        await turns()
        bench.pool.release(other)
        await turns()
        assert not second.done(), "no other session will do"
        bench.pool.release(mine)
        assert await second is mine
        bench.pool.release(mine)


@in_fake_time
async def test_f02_once_it_is_given_up_the_key_is_free_and_so_is_the_session() -> None:
    async with preset_bench("psycopg2", min=1, max=2) as bench:
        (first,) = await bench.take(1, affinity="a")
        bench.pool.release(first)
        assert await bench.take(1, affinity="b") == [first]
        (second,) = await bench.take(1, affinity="a")
        assert second is not first
        bench.release([first, second])


@in_fake_time
async def test_f03_to_give_it_up_twice_is_an_error() -> None:
    async with Bench(max=2, affinity=BY_KEY) as bench:
        (session,) = await bench.take(1, affinity="a")
        bench.pool.release(session)
        with pytest.raises(LocalProtocolError):
            bench.pool.release(session)
        assert bench.counts == (1, 0, 1)
        (again,) = await bench.take(1, affinity="a")
        bench.pool.release(again)


@pytest.mark.integration
def test_f04_with_affinity_by_client_a_client_keeps_its_session_until_it_goes(
    make_proxy: Callable[..., Penstock],
) -> None:
    penstock = make_proxy(max=2, affinity="client", wait_timeout="500ms")
    with psycopg.connect(penstock.dsn(), autocommit=True) as one:
        with psycopg.connect(penstock.dsn(), autocommit=True) as two:
            mine, yours = _pid(one), _pid(two)
            assert mine != yours
            for _ in range(5):
                assert (_pid(two), _pid(one)) == (yours, mine)
            with (
                psycopg.connect(penstock.dsn(), autocommit=True) as three,
                pytest.raises(psycopg.OperationalError, match="wait_timeout"),
            ):
                _pid(three)
        with psycopg.connect(penstock.dsn(), autocommit=True) as three:
            assert _pid(three) == yours
            assert _pid(one) == mine


def _pid(client: psycopg.Connection) -> int:
    row = client.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


@in_fake_time
async def test_whoever_waits_for_a_key_and_loses_its_session_gets_another() -> None:
    async with Bench(max=1, affinity=BY_KEY, getmode=WAIT) as bench:
        (mine,) = await bench.take(1, affinity="a")
        second = bench.run(bench.pool.acquire(bench.key, affinity="a"))
        await turns()
        bench.opener.backends[0].die()
        other = await second
        assert other is not mine
        third = bench.run(bench.pool.acquire(bench.key, NOWAIT, affinity="a"))
        await asyncio.sleep(0)
        assert third.exception() is not None
        bench.pool.release(other)

"""One small thing for each parameter: turn it, and something that can be seen is different."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest
from structlog.testing import capture_logs

from conformance.bench import URL, Bench, backend_of, preset_limits
from conformance.test_postgres import asked
from fakes import forceget, in_fake_time, no_answer, timed, turns, waits
from integration.looking import directly, pool_of, trusting, until, wait_for
from integration.raw import Raw
from proxy.embedded import EmbeddedPostgres
from proxy.errors import PoolBusy, PoolTimeout, QueueFull
from proxy.pool.limits import (
    AFFINITIES,
    BEGIN_AHEAD,
    BEGIN_PASS,
    BY_IDLE,
    BY_KEY,
    BY_OPENED,
    CREATE,
    EAGER,
    FORCEGET,
    GETMODES,
    LAZY,
    LIFO,
    LRU,
    NO_AFFINITY,
    NOWAIT,
    OFF,
    PING_AT_ACQUIRE,
    PING_BOTH,
    PING_IN_BACKGROUND,
    REAP_AT_ACCESS,
    REAP_AT_RELEASE,
    REAP_IN_BACKGROUND,
    TAGS_EXACT,
    TAGS_OFF,
    TIERED,
    TIMEDWAIT,
    TRY_NEXT,
    WAIT,
)
from proxy.settings.pools import PoolSettings
from servers import Penstock

Make = Callable[..., Penstock]


@pytest.mark.parametrize(("preset", "max_"), [("oracle", 2), ("fixed", 10), ("generic", 100)])
def test_preset(preset: str, max_: int) -> None:
    assert preset_limits(preset).max == max_
    assert preset_limits(preset, max=7).max == 7


@pytest.mark.parametrize("count", [0, 3])
@in_fake_time
async def test_min(count: int) -> None:
    async with Bench(min=count, max=5) as bench:
        await bench.started()
        assert bench.opened == max(1, count), "one is opened to see whether the server is there"


@pytest.mark.parametrize("count", [1, 4])
@in_fake_time
async def test_max(count: int) -> None:
    async with Bench(max=count) as bench:
        await bench.take(count)
        with pytest.raises(PoolBusy):
            await bench.pool.acquire(bench.key, NOWAIT)


@pytest.mark.parametrize("step", [1, 4])
@in_fake_time
async def test_increment(step: int) -> None:
    async with Bench(max=10, increment=step) as bench:
        await bench.take()
        await turns()
        assert bench.opened == step


@pytest.mark.parametrize(("most", "kept"), [(None, 4), (1, 1), (0, 0)])
@in_fake_time
async def test_max_idle(most: int | None, kept: int) -> None:
    async with Bench(max=4, max_idle=most) as bench:
        await bench.idle(4)
        await turns()
        assert bench.opened == kept


@pytest.mark.parametrize("floor", [0, 2])
@in_fake_time
async def test_min_per_endpoint(floor: int) -> None:
    async with Bench(max=4, min_per_endpoint=floor, idle_timeout=5.0, reuse=TIERED) as bench:
        bench.pool.start()
        await bench.idle(4)
        await asyncio.sleep(20)
        assert bench.opened == floor


@pytest.mark.parametrize("most", [1, 2, None])
@in_fake_time
async def test_max_per_endpoint(most: int | None) -> None:
    async with Bench(endpoints=("a", "b"), max=3, max_per_endpoint=most) as bench:
        waiters = [waits(bench.at("a")) for _ in range(3)]
        bench.queue(*waiters)
        await turns()
        held = [waiter.session for waiter in waiters if waiter.session is not None]
        assert len(held) == (most or 3)
        for waiter in waiters:
            bench.pool.withdraw(waiter)
        bench.release(held)


@pytest.mark.parametrize("evict", [True, False])
@in_fake_time
async def test_evict(evict: bool) -> None:
    async with Bench(max=1, evict=evict) as bench:
        await bench.idle(1, bench.key)
        waiter = timed(bench.other, 1.0)
        bench.queue(waiter)
        await asyncio.sleep(2)
        assert (waiter.session is not None) == evict
        if waiter.session is not None:
            bench.pool.release(waiter.session)


@pytest.mark.parametrize("prefill", [EAGER, LAZY])
@in_fake_time
async def test_prefill(prefill: int) -> None:
    async with Bench(min=3, max=3, prefill=prefill) as bench:
        bench.pool.start()
        await asyncio.sleep(5)
        assert bench.opened == (1 if prefill == LAZY else 3)


@pytest.mark.parametrize("keep", [True, False])
@in_fake_time
async def test_keep_min(keep: bool) -> None:
    async with Bench(min=2, max=2, keep_min=keep) as bench:
        await bench.started()
        bench.opener.backends[0].die()
        await asyncio.sleep(5)
        assert bench.opened == (2 if keep else 1)


@pytest.mark.parametrize("getmode", range(len(GETMODES)))
@in_fake_time
async def test_getmode(getmode: int) -> None:
    async with Bench(max=1, max_forced=1, getmode=getmode, wait_timeout=1.0) as bench:
        await bench.take()
        asked = bench.run(bench.pool.acquire(bench.key))
        await asyncio.sleep(100)
        if getmode == WAIT:
            assert not asked.done()
        elif getmode == FORCEGET:
            assert bench.opened == 2
            bench.pool.release(asked.result())
        else:
            assert isinstance(asked.exception(), PoolBusy if getmode == NOWAIT else PoolTimeout)


@pytest.mark.parametrize("wait_timeout", [0.0, 0.5, 20.0])
@in_fake_time
async def test_wait_timeout(wait_timeout: float) -> None:
    async with Bench(max=1, getmode=TIMEDWAIT, wait_timeout=wait_timeout) as bench:
        await bench.take()
        before = bench.now()
        with pytest.raises(PoolTimeout):
            await bench.pool.acquire(bench.key)
        assert wait_timeout <= bench.now() - before <= wait_timeout + 0.01


@pytest.mark.parametrize("most", [None, 2])
@in_fake_time
async def test_max_waiting(most: int | None) -> None:
    async with Bench(max=1, max_waiting=most) as bench:
        await bench.take()
        waiters = [waits(bench.key) for _ in range(4)]
        bench.queue(*waiters)
        refused = [waiter for waiter in waiters if isinstance(waiter.error, QueueFull)]
        assert refused == ([] if most is None else waiters[2:])
        for waiter in waiters:
            bench.pool.withdraw(waiter)


@pytest.mark.parametrize("extra", [0, 2])
@in_fake_time
async def test_max_forced(extra: int) -> None:
    async with Bench(max=1, max_forced=extra, getmode=FORCEGET) as bench:
        waiters = [forceget(bench.key) for _ in range(4)]
        bench.queue(*waiters)
        await turns()
        assert bench.opened == 1 + extra
        for waiter in waiters:
            bench.pool.withdraw(waiter)
            if waiter.session is not None:
                bench.pool.release(waiter.session)


@pytest.mark.parametrize(("rule", "kept"), [(BY_OPENED, 1), (BY_IDLE, 3)])
@in_fake_time
async def test_forced_release(rule: int, kept: int) -> None:
    async with Bench(max=1, max_forced=4, max_idle=3, getmode=FORCEGET, forced_release=rule) as bench:
        bench.release([await bench.pool.acquire(bench.key) for _ in range(1)])
        bench.release([await bench.pool.acquire(bench.key) for _ in range(5)])
        await turns()
        assert bench.opened == kept


@pytest.mark.parametrize(("reuse", "place"), [(LIFO, -1), (LRU, 0)])
@in_fake_time
async def test_reuse(reuse: int, place: int) -> None:
    async with Bench(max=3, reuse=reuse) as bench:
        held = await bench.idle(3)
        assert await bench.take() == [held[place]]


@pytest.mark.parametrize("affinity", [NO_AFFINITY, BY_KEY])
@in_fake_time
async def test_affinity(affinity: int) -> None:
    assert AFFINITIES[affinity] in ("none", "key")
    async with Bench(max=2, affinity=affinity) as bench:
        name = "a" if affinity == BY_KEY else ""  # as the clients of a pool without it are
        await bench.take(1, affinity=name)
        second = timed(bench.key, 1.0)
        second.affinity, second.picky = name, bool(name)
        bench.queue(second)
        await turns()
        assert (second.session is None) == (affinity == BY_KEY)
        bench.pool.withdraw(second)


@pytest.mark.parametrize("peek", [True, False])
@in_fake_time
async def test_peek(peek: bool) -> None:
    async with Bench(max=1, peek=peek, ping_interval=OFF) as bench:
        (session,) = await bench.idle()
        backend_of(session).ended = backend_of(session).has_news = True
        await asyncio.sleep(1)
        assert (await bench.take() == [session]) == (not peek)


@pytest.mark.parametrize(("interval", "pings"), [(0.0, 1), (60.0, 0), (OFF, 0)])
@in_fake_time
async def test_ping_interval(interval: float, pings: int) -> None:
    async with Bench(max=1, ping_interval=interval) as bench:
        await bench.idle()
        await asyncio.sleep(30)
        await bench.take()
        assert bench.pings == pings


@pytest.mark.parametrize(
    ("mode", "before", "after"), [(PING_AT_ACQUIRE, 0, 1), (PING_IN_BACKGROUND, 2, 2), (PING_BOTH, 2, 2)]
)
@in_fake_time
async def test_ping_mode(mode: int, before: int, after: int) -> None:
    async with Bench(max=1, ping_interval=10.0, ping_mode=mode, idle_timeout=OFF) as bench:
        bench.pool.start()
        await asyncio.sleep(0.5)
        await bench.idle()
        await asyncio.sleep(25)
        assert bench.pings == before
        await bench.take()
        assert bench.pings == after


@pytest.mark.parametrize("patience", [1.0, 4.0])
@in_fake_time
async def test_ping_timeout(patience: float) -> None:
    async with Bench(max=1, ping_interval=0.0, ping_timeout=patience, close_timeout=0.1) as bench:
        (session,) = await bench.idle()
        backend_of(session).pinging.shut()
        before = bench.now()
        await bench.take()
        assert patience <= bench.now() - before <= patience + 0.01
        assert bench.pool.counters.pings_timed_out == 1


@pytest.mark.parametrize("rule", [TRY_NEXT, CREATE])
@in_fake_time
async def test_ping_failure(rule: int) -> None:
    async with Bench(max=3, ping_interval=0.0, ping_failure=rule) as bench:
        a, b = await bench.idle(2)
        backend_of(b).ping_error = no_answer()
        (session,) = await bench.take()
        assert (session is a) == (rule == TRY_NEXT)
        assert bench.opener.tries == (2 if rule == TRY_NEXT else 3)


@pytest.mark.parametrize(("timeout", "left"), [(5.0, 0), (OFF, 1)])
@in_fake_time
async def test_idle_timeout(timeout: float, left: int) -> None:
    async with Bench(max=1, idle_timeout=timeout, max_lifetime=OFF) as bench:
        bench.pool.start()
        await bench.idle()
        await asyncio.sleep(1000)
        assert bench.opened == left


@pytest.mark.parametrize(("lifetime", "same"), [(50.0, False), (OFF, True)])
@in_fake_time
async def test_max_lifetime(lifetime: float, same: bool) -> None:
    async with Bench(max=1, max_lifetime=lifetime) as bench:
        (session,) = await bench.idle()
        await asyncio.sleep(100)
        assert (await bench.take() == [session]) == same


@pytest.mark.parametrize("jitter", [0.0, 0.5])
@in_fake_time
async def test_lifetime_jitter(jitter: float) -> None:
    async with Bench(max=8, max_lifetime=100.0, lifetime_jitter=jitter) as bench:
        ends = {round(session.expires - session.opened_at, 6) for session in await bench.idle(8)}
        assert (len(ends) == 1) == (jitter == 0.0)
        assert all(100.0 * (1.0 - jitter) <= end <= 100.0 for end in ends)


@pytest.mark.parametrize("reap", [REAP_IN_BACKGROUND, REAP_AT_RELEASE, REAP_AT_ACCESS])
@in_fake_time
async def test_reap(reap: int) -> None:
    async with Bench(max=3, idle_timeout=5.0, reap=reap, max_lifetime=OFF, ping_interval=OFF) as bench:
        bench.pool.start()
        await bench.idle(3)
        await asyncio.sleep(100)
        assert (bench.opened == 0) == (reap == REAP_IN_BACKGROUND)
        (session,) = await bench.take()
        await turns()
        assert (bench.opened == 3) == (reap == REAP_AT_RELEASE)
        bench.pool.release(session)
        await turns()
        assert bench.opened == 1


@pytest.mark.parametrize("batch", [1, 3])
@in_fake_time
async def test_reap_batch(batch: int) -> None:
    async with Bench(max=6, idle_timeout=5.0, reap=REAP_AT_RELEASE, reap_batch=batch) as bench:
        await bench.idle(6)
        await asyncio.sleep(100)
        (session,) = await bench.take()
        bench.pool.release(session)
        assert bench.drops == {"idle_timeout": batch}


@pytest.mark.parametrize("patience", [1.0, 5.0])
@in_fake_time
async def test_close_timeout(patience: float) -> None:
    async with Bench(max=1, max_idle=0, close_timeout=patience) as bench:
        (session,) = await bench.take()
        backend_of(session).closing.shut()
        bench.pool.release(session)
        before = bench.now()
        await bench.take()
        assert patience <= bench.now() - before <= patience + 0.01
        assert bench.drops == {"max_idle": 1, "abandoned": 1}


@pytest.mark.parametrize("patience", [1.0, 5.0])
@in_fake_time
async def test_reset_timeout(patience: float) -> None:
    async with Bench(max=1, reset_timeout=patience) as bench:
        (session,) = await bench.take()
        backend_of(session).resetting.shut()
        bench.pool.reset(session)
        before = bench.now()
        assert await bench.take() != [session]
        assert patience <= bench.now() - before <= patience + 0.01


@pytest.mark.parametrize("rule", ["close", "error"])
@in_fake_time
async def test_put_full(rule: str) -> None:
    limits = PoolSettings.model_validate({"backend": URL, "max": 2, "max_idle": 1, "put_full": rule}).limits
    async with Bench(limits=limits) as bench:
        with capture_logs() as logs:
            await bench.idle(2)
            await turns()
        warned = [entry for entry in logs if entry["log_level"] in ("warning", "error")]
        assert bool(warned) == (rule == "error")
        assert bench.opened == 1


@pytest.mark.parametrize("tags", [TAGS_OFF, TAGS_EXACT])
@in_fake_time
async def test_tags(tags: int) -> None:
    async with Bench(max=2, tags=tags) as bench:
        a, b = await bench.take(2)
        a.tag, b.tag = "red", "blue"
        bench.release([a, b])
        assert (await bench.take(1, tag=a.tag) == [a]) == (tags == TAGS_EXACT)


@in_fake_time
async def test_cclass() -> None:
    async with Bench(max=2, cclass="web") as bench:
        named, unnamed = bench.pool.key("orders", "ann", "web"), bench.pool.key("orders", "ann")
        assert named is unnamed
        (session,) = await bench.idle(1, unnamed)
        assert session.key.cclass == "web"
        assert bench.pool.key("orders", "ann", "batch") is not named


@pytest.mark.parametrize("new", [True, False])
@in_fake_time
async def test_purity_of_one_acquire(new: bool) -> None:
    async with Bench(max=2) as bench:
        (session,) = await bench.idle()
        assert (await bench.take(1, wants_new=new) == [session]) == (not new)


@pytest.mark.parametrize(("begin", "begun"), [(BEGIN_PASS, 0), (BEGIN_AHEAD, 1)])
@in_fake_time
async def test_begin(begin: int, begun: int) -> None:
    async with Bench(max=1, begin=begin) as bench:
        await bench.idle()
        await turns()
        assert bench.opener.backends[0].begins == begun


@pytest.mark.parametrize(("age", "begins"), [(5.0, 2), (60.0, 1)])
@in_fake_time
async def test_begin_max_age(age: float, begins: int) -> None:
    async with Bench(max=1, begin=BEGIN_AHEAD, begin_max_age=age) as bench:
        (session,) = await bench.idle()
        await asyncio.sleep(7)
        assert await bench.take() == [session]
        assert backend_of(session).begins == begins


@in_fake_time
async def test_route() -> None:
    async with Bench(endpoints=("north", "south")) as bench:
        for name in ("south", "north"):
            (session,) = await bench.take(1, bench.at(name))
            assert session.endpoint.name == name
        with pytest.raises(ValueError, match="leads to no endpoint"):
            bench.at("west")


@pytest.mark.parametrize("width", [1, 3])
@in_fake_time
async def test_io_parallel(width: int) -> None:
    async with Bench(max=5, io_parallel=width, ping_interval=0.0) as bench:
        await bench.idle(5)
        for backend in bench.opener.backends:
            backend.pinging.shut()
        waiters = [waits(bench.key) for _ in range(5)]
        bench.queue(*waiters)
        await turns()
        assert bench.pings == width
        bench.open_gates()
        await turns()
        bench.release([waiter.session for waiter in waiters if waiter.session is not None])


@pytest.mark.parametrize("patience", [1.0, 5.0])
@in_fake_time
async def test_drain_timeout(patience: float) -> None:
    async with Bench(max=1, drain_timeout=patience) as bench:
        await bench.take()
        before = bench.now()
        await bench.pool.drain()
        assert patience <= bench.now() - before <= patience + 0.01


# -- what only a server can show ------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("command", ["auto", "peek", "SELECT 'a ping of ours'"])
def test_ping_command(make_proxy: Make, postgres: EmbeddedPostgres, command: str) -> None:
    penstock = make_proxy(max=1, ping_interval="200ms", ping_mode="background", ping_command=command)
    with psycopg.connect(penstock.dsn(), autocommit=True) as client, directly(postgres) as straight:
        pid = asked(client, "SELECT pg_backend_pid()")
        until(lambda: penstock.metric("penstock_pool_pings_total", outcome="ok") >= 2)
        last = asked(straight, f"SELECT query FROM pg_stat_activity WHERE pid = {pid}")
        assert ("a ping of ours" in last) == command.startswith("SELECT")
        assert ("pg_backend_pid" in last) == (command == "peek"), "nothing has been sent since"


@pytest.mark.integration
@pytest.mark.parametrize(("reset", "left"), [("none", "9MB"), ("full", "4MB")])
def test_reset(make_proxy: Make, reset: str, left: str) -> None:
    penstock = make_proxy(max=1, pool_mode="session", reset=reset)
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        client.execute("SET work_mem = '9MB'")
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        assert asked(client, "SHOW work_mem") == left


@pytest.mark.integration
@pytest.mark.parametrize("init", [None, "SET work_mem = '9MB'"])
def test_session_init(make_proxy: Make, init: str | None) -> None:
    penstock = make_proxy(max=1, **({} if init is None else {"session_init": init}))
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        assert asked(client, "SHOW work_mem") == ("4MB" if init is None else "9MB")


@pytest.mark.integration
def test_labels(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(more='\n[pools.app.labels]\nteam = "web"\n'), max=2, min=2)
    with Raw.logged_in(penstock.port) as one, Raw.logged_in(penstock.port) as two:
        for client in (one, two):
            client.ask("BEGIN")
            assert client.value("SELECT current_setting('label.team')") == "web", "those made ahead, too"
            client.ask("COMMIT")


@pytest.mark.integration
def test_role(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, role="pg_monitor")
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        row = client.execute("SELECT session_user, current_user").fetchone()
        assert row == ("app", "pg_monitor")


@pytest.mark.integration
@pytest.mark.parametrize("fixup", ["auto", "SET app.fixed = 'yes'"])
def test_tag_fixup(make_proxy: Make, fixup: str) -> None:
    penstock = make_proxy(trusting(), max=1, tags="exact", tag_fixup=fixup)
    with Raw.logged_in(penstock.port, options="-c penstock.tag=work_mem=9MB") as client:
        assert client.value("SHOW work_mem") == "9MB"
        found = client.value("SELECT coalesce(current_setting('app.fixed', true), '')")
        assert found == ("" if fixup == "auto" else "yes")


@pytest.mark.integration
@pytest.mark.parametrize("cache", [1, 3])
def test_stmt_cache(make_proxy: Make, cache: int) -> None:
    penstock = make_proxy(max=1, stmt_cache=cache)
    with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=0) as client:
        for number in range(3):
            assert asked(client, f"SELECT {number}") == number
        client.prepare_threshold = None
        held = asked(client, "SELECT count(*) FROM pg_prepared_statements WHERE name ~ 'penstock_[0-9]'")
    assert held == cache


@pytest.mark.integration
@pytest.mark.parametrize("purity", ["self", "new"])
def test_purity(make_proxy: Make, purity: str) -> None:
    penstock = make_proxy(max=1, purity=purity)
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        pids = {asked(client, "SELECT pg_backend_pid()") for _ in range(3)}
    assert len(pids) == (1 if purity == "self" else 3)


@pytest.mark.integration
@pytest.mark.parametrize("homogeneous", [True, False])
def test_homogeneous(make_proxy: Make, postgres: EmbeddedPostgres, homogeneous: bool) -> None:
    with directly(postgres) as straight:
        straight.execute("DROP ROLE IF EXISTS yan")
        straight.execute("CREATE ROLE yan LOGIN PASSWORD 'yan'")
        try:
            text = trusting(more='\n[users.yan]\npassword = "yan"\n').replace('auth = "trust"', "")
            penstock = make_proxy(text, max=2, homogeneous=homogeneous)
            if homogeneous:
                with pytest.raises(psycopg.OperationalError, match="own user only"):
                    psycopg.connect(penstock.dsn("yan", "app", "yan"))
            else:
                with psycopg.connect(penstock.dsn("yan", "app", "yan"), autocommit=True) as client:
                    assert asked(client, "SELECT current_user") == "yan"
            penstock.stop()
        finally:
            straight.execute("DROP ROLE yan")


@pytest.mark.integration
@pytest.mark.parametrize("pool_mode", ["transaction", "session", "statement"])
def test_pool_mode(make_proxy: Make, pool_mode: str) -> None:
    penstock = make_proxy(max=1, pool_mode=pool_mode)
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        client.execute("SELECT 1")
        wait_for(penstock, busy=1 if pool_mode == "session" else 0)
        if pool_mode == "statement":
            with pytest.raises(psycopg.Error):
                client.execute("BEGIN")
        else:
            client.execute("BEGIN")
            client.execute("SELECT 1")
            assert pool_of(penstock)["busy"] == 1
            client.execute("COMMIT")

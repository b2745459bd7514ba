"""Opens: the gate with its slow start, whose failure it was, the breaker, and when it is tried again."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from fakes import DOWN, REFUSED, STARTING, FakeOpener, Gate, in_fake_time, timed, turns
from proxy.errors import BackendError, PoolTimeout
from proxy.pool.endpoints import CLOSED, HALF_OPEN, OPEN, Endpoint, Endpoints
from proxy.pool.gate import Gate as Door
from proxy.pool.ledger import Ledger
from proxy.pool.limits import Limits
from proxy.pool.opening import Opening
from proxy.pool.pool import Pool
from proxy.pool.routes import Routes
from proxy.pool.session import GONE, IDLE, Key, Session
from proxy.pool.stats import Counters

FULL = BackendError("sorry, too many clients already", "53300")


class Desk:
    """A ledger and its openings, with nobody else in the house."""

    def __init__(self, count: int = 1, **limits: Any) -> None:
        loop = asyncio.get_running_loop()
        self.opener = FakeOpener()
        endpoints = Endpoints(tuple("abc"[:count]))
        self.ledger = Ledger("orders", Limits(**{"max": 100, **limits}), endpoints)
        self.counters = Counters()
        self.key = Key("orders", "ann")
        self.other = Key("orders", "bob")
        self.failures: list[tuple[Key, BackendError]] = []
        self.retries: list[float] = []
        self.now = loop.time
        self.opening = Opening(
            self.ledger,
            self.counters,
            self.opener,
            self.key,
            loop.time,
            self._arrived,
            self.ledger.gone,
            lambda key, error: self.failures.append((key, error)),
            lambda: self.retries.append(loop.time()),
        )

    def _arrived(self, session: Session) -> None:
        self.ledger.rest(session, self.now())

    @property
    def at(self) -> tuple[Endpoint, ...]:
        return self.ledger.endpoints.all

    def start(self, count: int = 1, key: Key | None = None, endpoint: int = 0) -> list[Session]:
        sessions = []
        for _ in range(count):
            sessions.append(self.ledger.open(key or self.key, self.at[endpoint], self.now()))
            self.opening.start(sessions[-1])
        return sessions

    async def fail(self, error: BaseException = DOWN, key: Key | None = None, endpoint: int = 0) -> None:
        """One open that fails, after whatever back-off there is."""
        await asyncio.sleep(max(0.0, self.at[endpoint].until - self.now()) + 0.01)
        self.opener.errors = [error]
        self.start(1, key, endpoint)
        await turns()

    async def work(self, key: Key | None = None, endpoint: int = 0) -> None:
        """One open that works."""
        self.start(1, key, endpoint)
        await turns()

    def set(self, **limits: Any) -> None:
        self.ledger.limits = Limits(**{"max": 100, **limits})
        self.opening.adjust()


# -- the gate -------------------------------------------------------------------------------------


@in_fake_time
async def test_a_slow_start_begins_with_one_and_doubles_with_each_success() -> None:
    desk = Desk(max_opening=8)
    desk.opener.opening.shut()
    desk.start(30)
    widths = []
    while desk.ledger.opening:
        await turns()
        widths.append(desk.opener.opening.inside)
        desk.opener.opening.open()
        await asyncio.sleep(0)
        desk.opener.opening.shut()
        await turns()
    assert widths[:3] == [1, 2, 8]  # two successes side by side double it twice
    assert max(widths) == 8
    assert desk.ledger.idle == 30


@in_fake_time
async def test_without_a_slow_start_the_gate_is_wide_at_once() -> None:
    desk = Desk(max_opening=5, slow_start=False)
    desk.opener.opening.shut()
    desk.start(9)
    await turns()
    assert desk.opener.opening.inside == 5
    desk.opener.opening.open()
    await turns()
    assert desk.ledger.idle == 9


@in_fake_time
async def test_a_failure_narrows_the_gate_to_one() -> None:
    desk = Desk(max_opening=8)
    for _ in range(3):
        await desk.work()
    await desk.fail()
    await asyncio.sleep(1)
    desk.opener.opening.shut()
    desk.start(5)
    await turns()
    assert desk.opener.opening.inside == 1
    desk.opener.opening.open()
    await turns()
    assert desk.ledger.idle == 8


@in_fake_time
async def test_the_gate_follows_limits_that_change() -> None:
    desk = Desk(max_opening=2, slow_start=False)
    desk.opener.opening.shut()
    desk.start(6)
    await turns()
    assert desk.opener.opening.inside == 2
    desk.set(max_opening=4, slow_start=False)
    await turns()
    assert desk.opener.opening.inside == 4
    desk.set(max_opening=1, slow_start=False)
    desk.opener.opening.open()
    await asyncio.sleep(0)
    desk.opener.opening.shut()
    await turns()
    assert desk.opener.opening.inside == 1  # the four went through, and only one followed
    desk.opener.opening.open()
    await turns()
    assert desk.ledger.idle == 6


@in_fake_time
async def test_every_server_has_a_gate_of_its_own() -> None:
    """One that hangs holds up nobody who is going elsewhere."""
    desk = Desk(2, max_opening=4)
    desk.opener.at[0] = Gate()
    desk.opener.at[0].shut()
    desk.start(3, endpoint=0)
    desk.start(3, endpoint=1)
    await turns()
    assert len(desk.at[1].sessions) == 3
    assert all(session.state == IDLE for session in desk.at[1].sessions)
    assert desk.opener.at[0].inside == 1
    desk.opening.stop()
    await turns()


@in_fake_time
async def test_who_waits_at_the_gate_of_a_server_that_fails_is_turned_away_at_once() -> None:
    """Otherwise each would find out for itself, one connect_timeout after the other."""
    desk = Desk(max_opening=1, connect_timeout=15.0)
    desk.opener.opening.shut()
    began = desk.now()
    desk.start(3)
    desk.start(2, desk.other)
    await asyncio.sleep(15.1)
    assert desk.now() - began < 15.2
    assert desk.opener.tries == 1
    assert [key for key, _ in desk.failures] == [desk.key, desk.other]
    assert (desk.ledger.used, desk.counters.opens_failed) == (0, 1)


@in_fake_time
async def test_who_waits_with_a_key_that_is_refused_is_turned_away_and_others_are_not() -> None:
    desk = Desk(max_opening=1)
    desk.opener.errors = [REFUSED]
    desk.start(3)
    desk.start(2, desk.other)
    await turns()
    assert desk.failures == [(desk.key, REFUSED)]
    assert {session.key for session in desk.ledger.idle_sessions()} == {desk.other}
    assert desk.opener.tries == 3


@in_fake_time
async def test_a_gate_that_is_given_up_by_everybody_is_open_again() -> None:
    desk = Desk(max_opening=1)
    desk.opener.opening.shut()
    [session, _] = desk.start(2)
    await turns()
    desk.opening._tasks[session].cancel()
    desk.opener.opening.open()
    await turns()
    assert session.state == GONE
    assert desk.ledger.idle == 1


@in_fake_time
async def test_stop_frees_every_slot_and_starts_nothing() -> None:
    desk = Desk(2, max_opening=2)
    desk.opener.opening.shut()
    await turns()
    desk.start(3, endpoint=0)
    desk.start(3, endpoint=1)
    await turns()
    desk.ledger.closed = True
    desk.opening.stop()
    await turns()
    assert desk.ledger.used == 0
    assert desk.opener.tries == 2
    await asyncio.sleep(60)
    assert (desk.retries, desk.opener.tries) == ([], 2)


def test_a_door_lets_in_who_came_first() -> None:
    door, limits = Door(), Limits(max_opening=4)
    key, at = Key("orders", "ann"), Endpoint(0, "a")
    sessions = [Session(number, key, at, 0.0) for number in range(3)]
    door.waiting.extend(sessions)
    assert door.next(limits) is sessions[0]
    assert door.next(limits) is None
    door.widen(limits)
    assert door.next(limits) is sessions[1]
    assert door.turn_away(Key("orders", "bob")) == []
    assert door.turn_away(key) == [sessions[2]]
    assert not door.waiting


# -- whose failure it was -------------------------------------------------------------------------


@in_fake_time
async def test_what_the_server_refuses_to_anybody_is_held_against_its_endpoint() -> None:
    for error in (DOWN, FULL, STARTING, ConnectionRefusedError(111, "Connection refused"), TimeoutError()):
        desk = Desk()
        await desk.fail(error, desk.other)
        assert desk.at[0].failures == 1
        assert desk.at[0].refusals == {}
        for key in (desk.key, desk.other):
            assert desk.opening.why_down(key) is desk.at[0].error
        assert desk.at[0].last_error
        desk.opening.stop()


@in_fake_time
async def test_what_it_refuses_to_a_key_is_held_against_that_key() -> None:
    desk = Desk()
    await desk.fail(REFUSED, desk.other)
    assert desk.at[0].failures == 0
    assert list(desk.at[0].refusals) == [desk.other]
    assert desk.opening.why_down(desk.other) is REFUSED
    assert desk.opening.why_down(desk.key) is None
    assert desk.at[0].last_error == REFUSED.message
    await desk.work()
    assert desk.at[0].last_error == ""
    await asyncio.sleep(0.2)
    assert desk.opening.why_down(desk.other) is None
    await desk.work(desk.other)
    assert desk.at[0].refusals == {}


@in_fake_time
async def test_a_key_that_one_of_two_servers_refuses_is_served_by_the_other() -> None:
    desk = Desk(2)
    await desk.fail(REFUSED)
    assert desk.ledger.endpoints.may_open(desk.key, asyncio.get_running_loop().time())
    assert desk.opening.why_down(desk.key) is None
    await desk.fail(REFUSED, endpoint=1)
    assert not desk.ledger.endpoints.may_open(desk.key, asyncio.get_running_loop().time())
    assert desk.opening.why_down(desk.key) is REFUSED
    desk.opening.stop()


@in_fake_time
async def test_an_answer_to_a_wrong_password_is_a_sign_of_life() -> None:
    desk = Desk(breaker_failures=2)
    await desk.fail()
    await desk.fail()
    assert desk.at[0].breaker(desk.now()) == OPEN
    await desk.fail(REFUSED, desk.other)
    assert desk.at[0].breaker(desk.now()) == CLOSED
    assert desk.opening.why_down(desk.key) is None
    desk.opening.stop()


@in_fake_time
async def test_one_dead_endpoint_does_not_make_the_pool_down() -> None:
    desk = Desk(2)
    await desk.work(endpoint=1)
    for _ in range(10):
        await desk.fail()
    assert desk.opening.why_down(desk.key) is None
    assert desk.opening.ready
    assert desk.opening.last_error == ""
    assert desk.at[0].last_error == DOWN.message
    await desk.fail(endpoint=1)
    assert not desk.opening.ready
    assert desk.opening.last_error == DOWN.message
    assert desk.opening.why_down(desk.key) is DOWN
    desk.opening.stop()


@in_fake_time
async def test_ready_is_about_the_default_key_where_it_is_not_about_the_server() -> None:
    desk = Desk()
    await desk.work(desk.other)
    assert not desk.opening.ready
    await desk.work()
    assert desk.opening.ready
    await desk.fail(REFUSED, desk.other)
    assert desk.opening.ready
    await desk.fail(REFUSED)
    assert (desk.opening.ready, desk.opening.last_error) == (False, REFUSED.message)
    await asyncio.sleep(1)
    await desk.work()
    await desk.fail(DOWN, desk.other)
    assert (desk.opening.ready, desk.opening.last_error) == (False, DOWN.message)
    desk.opening.stop()


@in_fake_time
async def test_a_bug_is_backed_off_from_like_any_other_failure() -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    desk = Desk()
    with capture_logs() as logs:
        await desk.fail(KeyError("oops"))
    assert "task_crashed" in [entry["event"] for entry in logs]
    [(_, error)] = desk.failures
    assert (error.sqlstate, "KeyError inside Penstock" in error.message) == ("XX000", True)
    assert desk.opening.why_down(desk.key) is error
    desk.opening.stop()


# -- the breaker ----------------------------------------------------------------------------------


@in_fake_time
async def test_the_breaker_opens_half_opens_and_closes_and_says_so() -> None:
    desk = Desk(breaker_failures=3, breaker_timeout=5.0)
    with capture_logs() as logs:
        for _ in range(3):
            await desk.fail()
        assert desk.at[0].breaker(desk.now()) == OPEN
        await asyncio.sleep(5.1)
        assert desk.at[0].breaker(desk.now()) == HALF_OPEN
        [probe] = desk.start()
        assert desk.at[0].probe is probe
        desk.opener.errors = [DOWN]
        await turns()
        assert desk.at[0].breaker(desk.now()) == OPEN
        await asyncio.sleep(5.1)
        await desk.work()
        assert desk.at[0].breaker(desk.now()) == CLOSED
        assert desk.at[0].probe is None
    told = [entry for entry in logs if entry["event"].startswith("breaker_")]
    assert [entry["event"] for entry in told] == [
        "breaker_opened",
        "breaker_half_open",
        "breaker_opened",
        "breaker_half_open",
        "breaker_closed",
    ]
    assert all((entry["pool"], entry["endpoint"]) == ("orders", "a") for entry in told)


@in_fake_time
async def test_while_the_breaker_is_open_nothing_is_tried_and_everybody_is_told_why() -> None:
    desk = Desk(breaker_failures=1, breaker_timeout=5.0)
    await desk.fail(FULL)
    for _ in range(20):
        assert desk.opening.why_down(desk.key) is FULL
        assert desk.ledger.endpoints.choose(desk.key, desk.now(), None) is None
        await asyncio.sleep(0.1)
    desk.opening.stop()


@in_fake_time
async def test_only_one_login_is_tried_while_the_breaker_is_half_open() -> None:
    desk = Desk(breaker_failures=1, breaker_timeout=1.0, max_opening=8, slow_start=False)
    await desk.fail()
    await asyncio.sleep(1.1)
    desk.opener.opening.shut()
    desk.start()
    assert desk.ledger.endpoints.choose(desk.key, desk.now(), None) is None
    await turns()
    desk.opener.opening.open()
    await turns()
    assert desk.ledger.endpoints.choose(desk.key, desk.now(), None) is desk.at[0]


@in_fake_time
async def test_a_probe_that_is_given_up_leaves_the_breaker_half_open() -> None:
    desk = Desk(breaker_failures=1, breaker_timeout=1.0)
    await desk.fail()
    await asyncio.sleep(1.1)
    desk.opener.opening.shut()
    [probe] = desk.start()
    await turns()
    desk.opening._tasks[probe].cancel()
    await turns()
    assert (probe.state, desk.at[0].probe) == (GONE, None)
    assert desk.at[0].breaker(desk.now()) == HALF_OPEN
    assert desk.at[0].may_open(desk.now())


@in_fake_time
async def test_opens_that_hang_side_by_side_are_one_failure() -> None:
    """They end one after the other, each after the back-off that the one before has caused."""
    desk = Desk(breaker_failures=3, max_opening=8, slow_start=False, connect_timeout=10.0)
    desk.opener.opening.shut()
    for _ in range(6):
        desk.start()
        await asyncio.sleep(0.5)
    await asyncio.sleep(15)
    assert desk.counters.opens_failed == 6
    assert desk.at[0].failures == 1
    assert desk.at[0].breaker(desk.now()) == CLOSED


# -- trying again ---------------------------------------------------------------------------------


@in_fake_time
async def test_it_is_tried_again_as_soon_as_the_back_off_is_over() -> None:
    for error in (DOWN, REFUSED):
        desk = Desk()
        await desk.fail(error)
        began = desk.now()
        assert desk.opening.why_down(desk.key) is error
        await asyncio.sleep(0.11)
        [retry] = desk.retries
        assert 0.05 <= retry - began <= 0.102
        assert desk.opening.why_down(desk.key) is None


@in_fake_time
async def test_many_failures_in_parallel_are_tried_again_once() -> None:
    desk = Desk(max_opening=10, slow_start=False)
    desk.opener.error = DOWN
    desk.start(10)
    await asyncio.sleep(1)
    assert desk.counters.opens_failed == 10
    assert len(desk.retries) == 1
    assert desk.at[0].failures == 1


@in_fake_time
async def test_delays_differ_from_daemon_to_daemon() -> None:
    untils = set()
    for _ in range(20):
        desk = Desk()
        began = desk.now() + 0.01
        await desk.fail()
        untils.add(desk.at[0].until - began)
        desk.opening.stop()
    assert len(untils) > 10
    assert all(0.05 <= until <= 0.1001 for until in untils)


@in_fake_time
async def test_sessions_that_are_opened_together_do_not_end_together() -> None:
    desk = Desk(max_lifetime=1000.0, lifetime_jitter=0.2)
    desk.start(50)
    await turns()
    ends = [session.expires - session.opened_at for session in desk.ledger.idle_sessions()]
    assert all(800.0 < end <= 1000.0 for end in ends)
    assert len(set(ends)) > 40
    desk.set(max_lifetime=1000.0, lifetime_jitter=0.0)
    [session] = desk.start()
    await turns()
    assert session.expires - session.opened_at == pytest.approx(1000.0)


# -- in a pool ------------------------------------------------------------------------------------


def a_pool(opener: FakeOpener, **limits: Any) -> Pool:
    loop = asyncio.get_running_loop()
    made = Pool("orders", Limits(**limits), opener, ("orders", "ann"), clock=loop.time, endpoints=("a", "b"))
    opener.lost = made.lost
    return made


@in_fake_time
async def test_a_waiter_whose_open_failed_on_one_server_gets_a_session_of_the_other() -> None:
    opener = FakeOpener()
    pool = a_pool(opener)
    opener.at[0] = DOWN
    session = await pool.acquire(pool.key("orders", "ann"))
    assert opener.tried == [0, 1]
    assert session.endpoint.name == "b"
    pool.release(session)
    await pool.drain()


@in_fake_time
async def test_waiters_are_refused_when_the_last_server_has_failed_too() -> None:
    opener = FakeOpener()
    pool = a_pool(opener, max=4)
    opener.error = DOWN
    with pytest.raises(BackendError) as caught:
        await pool.acquire(pool.key("orders", "ann"))
    assert caught.value is DOWN
    assert opener.tried == [0, 1]
    with pytest.raises(BackendError):  # not PoolTimeout: nothing is full
        await pool.acquire(pool.key("orders", "bob"))
    assert opener.tried == [0, 1]
    await pool.drain()


@in_fake_time
async def test_a_full_server_beside_a_dead_one_is_a_full_pool() -> None:
    opener = FakeOpener()
    pool = a_pool(opener, max=10, max_per_endpoint=2, wait_timeout=1.0)
    opener.at[0] = DOWN
    key = pool.key("orders", "ann")
    held = [await pool.acquire(key) for _ in range(2)]
    with pytest.raises(PoolTimeout):
        await pool.acquire(key)
    waiter = timed(key)
    pool.enqueue(waiter)
    await turns()
    pool.release(held.pop())
    assert waiter.session is not None
    for session in (*held, waiter.session):
        pool.release(session)
    await pool.drain()


@in_fake_time
async def test_a_key_of_the_dead_server_is_told_so_while_others_are_served() -> None:
    opener = FakeOpener()
    pool = Pool(
        "orders",
        Limits(),
        opener,
        ("orders", "ann"),
        clock=asyncio.get_running_loop().time,
        endpoints=("a", "b"),
        routes=Routes("orders", lists={"eu": 0, "us": 1}),
    )
    opener.at[0] = DOWN
    with pytest.raises(BackendError) as caught:
        await pool.acquire(pool.key("orders", "ann", shard_key="eu"))
    assert caught.value is DOWN
    session = await pool.acquire(pool.key("orders", "ann", shard_key="us"))
    assert session.endpoint.name == "b"
    pool.release(session)
    with pytest.raises(ValueError, match="shard key 'asia' leads to no endpoint"):
        pool.key("orders", "ann", shard_key="asia")
    await pool.drain()


@in_fake_time
async def test_a_server_that_comes_back_is_used_again() -> None:
    opener = FakeOpener()
    pool = a_pool(opener, max=4, breaker_failures=2, breaker_timeout=2.0)
    opener.at[0] = DOWN
    key = pool.key("orders", "ann")
    pool.start()
    await asyncio.sleep(10)
    first = pool.ledger.endpoints.all[0]
    assert first.failures >= 2
    assert first.breaker(asyncio.get_running_loop().time()) != CLOSED
    del opener.at[0]
    await asyncio.sleep(3)
    assert first.failures == 0  # the keeper has looked; no client had to
    held = [await pool.acquire(key) for _ in range(4)]
    assert sorted(session.endpoint.name for session in held) == ["a", "a", "b", "b"]
    for session in held:
        pool.release(session)
    await pool.drain()


@in_fake_time
async def test_nobody_waits_for_a_server_that_is_known_to_have_failed_while_another_is_healthy() -> None:
    opener = FakeOpener()
    pool = a_pool(opener, max=8, connect_timeout=15.0)
    hangs = Gate()
    hangs.shut()
    opener.at[0] = hangs
    key, now = pool.key("orders", "ann"), asyncio.get_running_loop().time
    began = now()
    first = await pool.acquire(key)  # finds out
    assert now() - began < 15.1
    held = [first]
    for _ in range(5):
        await asyncio.sleep(7)
        began = now()
        held.append(await pool.acquire(key))
        assert now() - began < 0.1
    hangs.open()
    for session in held:
        pool.release(session)
    await pool.drain()


@in_fake_time
async def test_a_pool_with_a_route_keeps_min_sessions_open_over_all_its_shards() -> None:
    opener = FakeOpener()
    pool = Pool(
        "orders",
        Limits(min=4),
        opener,
        ("orders", "ann"),
        clock=asyncio.get_running_loop().time,
        endpoints=("a", "b"),
        routes=Routes("orders", lists={"eu": 0, "us": 1}, demands_key=True),
    )
    pool.start()
    await turns()
    assert sorted(opener.tried) == [0, 0, 1, 1]
    assert pool.ready
    for shard in ("eu", "us"):
        key = pool.key("orders", "ann", shard_key=shard)
        assert pool.try_acquire(waiter := timed(key)) is not None, waiter
    assert opener.tries == 4
    for session in list(pool.ledger.busy):
        pool.release(session)
    await pool.drain()


@in_fake_time
async def test_whose_time_is_over_while_the_server_is_starting_is_told_that() -> None:
    """Not that the pool was full."""
    opener = FakeOpener()
    pool = a_pool(opener, wait_timeout=1.0, breaker_failures=2)
    opener.error = STARTING
    with pytest.raises(BackendError) as caught:
        await pool.acquire(pool.key("orders", "ann"))
    assert caught.value is STARTING
    await pool.drain()


@in_fake_time
async def test_what_nobody_has_asked_for_may_be_opened_a_little_later() -> None:
    opener = FakeOpener()
    pool = a_pool(opener, min=3)
    pool.start(delay=0.4)
    await asyncio.sleep(0.3)
    assert opener.tries == 0
    pool.release(await pool.acquire(pool.key("orders", "ann")))
    assert opener.tries == 1
    await asyncio.sleep(0.11)
    assert pool.ledger.idle == 3
    await pool.drain()


@in_fake_time
async def test_room_on_a_dead_server_is_no_room() -> None:
    """The healthy one is full of idle sessions of somebody else: one of them makes way."""
    opener = FakeOpener()
    pool = a_pool(
        opener, max=10, max_per_endpoint=2, wait_timeout=3.0, breaker_failures=1, breaker_timeout=60.0
    )
    opener.at[0] = DOWN
    ann, bob = pool.key("orders", "ann"), pool.key("orders", "bob")
    held = [await pool.acquire(ann) for _ in range(2)]
    for session in held:
        pool.release(session)
    session = await pool.acquire(bob)
    assert session.endpoint.name == "b"
    pool.release(session)
    # And while they are busy, the first that is given up does.
    held = [await pool.acquire(ann) for _ in range(2)]
    waiter = timed(bob)
    pool.enqueue(waiter)
    await turns()
    pool.release(held.pop())
    await turns()
    assert waiter.session is not None
    for session in (*held, waiter.session):
        pool.release(session)
    await pool.drain()

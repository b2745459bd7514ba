"""What the servers of a pool are, who is sent to which of them, and who is held while one takes over."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from fakes import DOWN, REFUSED, STARTING, FakeOpener, FakeWaiter, Gate, in_fake_time, nowait, timed, turns
from proxy.errors import BackendError, PoolBusy, PoolTimeout
from proxy.pool.limits import Limits
from proxy.pool.pool import Pool
from proxy.pool.session import BUSY, IDLE, Key, Session
from proxy.reasons import DropReason
from proxy.roles import ANY, PREFER_STANDBY, PRIMARY, READ_ONLY, READ_WRITE, STANDBY, TARGETS, UNKNOWN, suits


class Cluster:
    """A pool over three servers: ``a`` the primary, ``b`` and ``c`` its standbys."""

    def __init__(self, target: int = READ_WRITE, **limits: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.opener = FakeOpener()
        self.opener.roles = {0: PRIMARY, 1: STANDBY, 2: STANDBY}
        given = {"max": 6, "failover_wait": 15.0, "slow_start": False, **limits}
        self.pool = Pool(
            "orders",
            Limits(**given),
            self.opener,
            ("orders", "ann"),
            clock=self.loop.time,
            endpoints=("a", "b", "c"),
            target=target,
        )
        self.opener.lost = self.pool.lost
        self.at = self.pool.ledger.endpoints.all

    def key(self, target: str = "") -> Key:
        return self.pool.key("orders", "ann", target=target)

    async def get(self, target: str = "") -> Session:
        return await self.pool.acquire(self.key(target))

    def ask(self, waiter: FakeWaiter) -> FakeWaiter:
        session = self.pool.try_acquire(waiter)
        if session is None:
            self.pool.enqueue(waiter)
        else:
            waiter.granted(session)
        return waiter

    def crash(self, number: int, error: BackendError = DOWN) -> None:
        """The server ends every session, and lets nobody in."""
        self.opener.at[number] = error
        for backend in self.opener.backends:
            if backend.session.endpoint.number == number and not backend.ended:
                backend.die()

    def promote(self, number: int) -> None:
        self.opener.roles[number] = PRIMARY

    async def after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await turns()
        self.pool.ledger.check()

    async def end(self) -> None:
        self.pool.close(force=True)
        await self.pool.drain()
        assert self.pool.ledger.used == 0
        assert self.opener.living == 0


def endpoint(session: Session) -> str:
    return session.endpoint.name


@pytest.mark.parametrize(
    ("target", "roles"),
    [
        ("any", {UNKNOWN, PRIMARY, READ_ONLY, STANDBY}),
        ("read-write", {PRIMARY}),
        ("read-only", {READ_ONLY, STANDBY}),
        ("primary", {PRIMARY, READ_ONLY}),
        ("standby", {STANDBY}),
        ("prefer-standby", {STANDBY}),
    ],
)
def test_which_roles_suit_which_target(target: str, roles: set[int]) -> None:
    suited = {role for role in (UNKNOWN, PRIMARY, READ_ONLY, STANDBY) if suits(TARGETS.index(target), role)}
    assert suited == roles


@in_fake_time
async def test_each_target_has_its_servers() -> None:
    cluster = Cluster()
    cluster.pool.start()
    await cluster.after(2.0)
    assert endpoint(await cluster.get()) == "a"
    assert {endpoint(await cluster.get("replica")), endpoint(await cluster.get("replica"))} == {"b", "c"}
    assert cluster.key("primary") is cluster.key()
    assert cluster.key("replica") is not cluster.key("any")
    assert [role.role for role in cluster.at] == [PRIMARY, STANDBY, STANDBY]
    await cluster.end()


@in_fake_time
async def test_a_server_that_nobody_knows_is_asked_by_one_login() -> None:
    cluster = Cluster()
    cluster.opener.roles = {0: STANDBY, 1: STANDBY, 2: PRIMARY}
    waiters = [cluster.ask(timed(cluster.key())) for _ in range(4)]
    await turns()
    assert all(waiter.session is not None and endpoint(waiter.session) == "c" for waiter in waiters)
    assert cluster.opener.tried.count(0) == cluster.opener.tried.count(1) == 1
    await cluster.end()


@in_fake_time
async def test_clients_are_held_until_a_standby_has_taken_over() -> None:
    cluster = Cluster()
    cluster.pool.start()
    cluster.pool.release(await cluster.get())
    with capture_logs() as logs:
        cluster.crash(0)
        waiters = [cluster.ask(timed(cluster.key())) for _ in range(3)]
        impatient = cluster.ask(nowait(cluster.key()))
        await cluster.after(3.0)
        assert [waiter.session for waiter in waiters] == [None] * 3
        assert [waiter.error for waiter in waiters] == [None] * 3
        assert impatient.error is not None
        cluster.promote(1)
        await cluster.after(0.5)
    assert [endpoint(waiter.session) for waiter in waiters if waiter.session] == ["b"] * 3
    events = [entry["event"] for entry in logs]
    assert events.count("failover_began") == events.count("failover_ended") == 1
    [ended] = [entry for entry in logs if entry["event"] == "failover_ended"]
    assert ended["clients"] == 3
    assert 3.0 <= ended["took"] <= 3.5
    await cluster.end()


@in_fake_time
async def test_after_failover_wait_they_are_told_and_so_is_everybody_else_at_once() -> None:
    cluster = Cluster(failover_wait=4.0)
    cluster.pool.release(await cluster.get())
    cluster.crash(0)
    first = cluster.ask(timed(cluster.key()))
    await cluster.after(3.9)
    assert first.error is None
    await cluster.after(0.5)
    assert isinstance(first.error, BackendError)
    assert "no server can be had that is read-write" in first.error.message
    assert "b is standby" in first.error.message
    late = cluster.ask(timed(cluster.key()))
    await cluster.after(1.5)
    assert isinstance(late.error, BackendError)
    # The replicas have been there all the time.
    assert endpoint(await cluster.get("replica")) in ("b", "c")
    cluster.promote(2)
    await cluster.after(10.0)
    again = cluster.ask(timed(cluster.key()))
    await cluster.after(1.5)
    if again.session is None:
        again = cluster.ask(timed(cluster.key()))
        await cluster.after(1.5)
    assert again.session is not None
    await cluster.end()


@in_fake_time
async def test_wait_timeout_still_bounds_the_wait() -> None:
    cluster = Cluster()
    cluster.crash(0)
    waiter = cluster.ask(timed(cluster.key(), 2.0))
    await cluster.after(2.5)
    assert isinstance(waiter.error, BackendError | PoolTimeout)
    await cluster.end()


@in_fake_time
async def test_without_failover_wait_nobody_is_held() -> None:
    cluster = Cluster(failover_wait=0.0)
    cluster.crash(0)
    waiter = cluster.ask(timed(cluster.key()))
    await cluster.after(0.1)
    assert isinstance(waiter.error, BackendError)
    await cluster.end()


@in_fake_time
async def test_an_error_of_the_login_holds_nobody() -> None:
    cluster = Cluster()
    cluster.opener.error = REFUSED
    waiter = cluster.ask(timed(cluster.key()))
    await cluster.after(0.1)
    assert waiter.error is REFUSED
    assert not cluster.pool.failover.outages
    await cluster.end()


@in_fake_time
async def test_a_single_server_that_restarts_is_waited_for_where_that_is_wanted() -> None:
    cluster = Cluster(target=ANY)
    for number in range(3):
        cluster.crash(number)
    waiter = cluster.ask(timed(cluster.key()))
    await cluster.after(2.0)
    assert waiter.error is None
    del cluster.opener.at[1]
    await cluster.after(0.5)
    assert waiter.session is not None
    assert endpoint(waiter.session) == "b"
    await cluster.end()


@in_fake_time
async def test_a_server_that_only_starts_is_waited_for_as_ever() -> None:
    cluster = Cluster(failover_wait=1.0)
    cluster.crash(0, STARTING)
    waiter = cluster.ask(timed(cluster.key()))
    await cluster.after(5.0)
    assert waiter.error is None
    del cluster.opener.at[0]
    await cluster.after(6.0)
    assert waiter.session is not None
    await cluster.end()


@in_fake_time
async def test_sessions_that_no_longer_suit_end() -> None:
    cluster = Cluster()
    cluster.pool.start()
    await cluster.after(2.0)
    sessions = [await cluster.get("replica") for _ in range(3)]
    left = next(one for one in "bc" if [endpoint(session) for session in sessions].count(one) == 1)
    idle, held = [session for session in sessions if endpoint(session) != left]
    cluster.pool.release(idle)
    cluster.promote(idle.endpoint.number)
    cluster.pool.failover.learn(held)
    await turns()
    assert idle.state not in (IDLE, BUSY)
    assert held.state == BUSY
    cluster.pool.release(held)
    await turns()
    assert held.state not in (IDLE, BUSY)
    assert idle.doom is held.doom is DropReason.ROLE
    assert endpoint(await cluster.get("replica")) == left
    await cluster.end()


@in_fake_time
async def test_the_primary_stands_in_for_a_replica_until_there_is_one() -> None:
    cluster = Cluster()
    cluster.pool.start()
    cluster.pool.release(await cluster.get())
    cluster.crash(1)
    cluster.crash(2)
    assert cluster.key("replica").target == PREFER_STANDBY
    session = await cluster.get("replica")
    assert endpoint(session) == "a"
    cluster.pool.release(session)
    cluster.opener.at.clear()
    await cluster.after(20.0)
    assert session.state not in (IDLE, BUSY)
    assert endpoint(await cluster.get("replica")) in ("b", "c")
    await cluster.end()


@in_fake_time
async def test_a_client_that_wants_a_replica_only_is_told_that_there_is_none() -> None:
    cluster = Cluster(failover_wait=0.0)
    cluster.pool.ledger.endpoints.falls_back = False
    cluster.pool.release(await cluster.get())
    cluster.crash(1)
    cluster.crash(2)
    waiter = cluster.ask(timed(cluster.key("replica")))
    await cluster.after(0.1)
    assert isinstance(waiter.error, BackendError)
    # Now and then a server is tried again; between two tries everybody is told at once.
    told = set()
    for _ in range(20):
        later = cluster.ask(timed(cluster.key("replica")))
        await cluster.after(0.01)
        assert isinstance(later.error, BackendError)
        told.add(later.error.message)
    assert any("no server can be had that is standby" in text for text in told)
    await cluster.end()


@in_fake_time
async def test_a_standby_is_asked_now_and_then_whether_it_still_is_one() -> None:
    cluster = Cluster(role_check_interval=10.0)
    cluster.pool.start()
    await cluster.after(2.0)
    assert [each.role for each in cluster.at] == [PRIMARY, STANDBY, STANDBY]
    replica = await cluster.get("replica")
    cluster.pool.release(replica)
    tried = len(cluster.opener.tried)
    await cluster.after(12.0)
    # One that has an idle session is pinged, the other is logged in to.
    assert sum(backend.pings for backend in cluster.opener.backends) >= 1
    other = 3 - replica.endpoint.number
    assert cluster.opener.tried[tried:] == [other]
    assert cluster.pool.ledger.used == 2
    await cluster.end()


@in_fake_time
async def test_a_refused_write_costs_one_session_a_second() -> None:
    cluster = Cluster()
    first, second = await cluster.get(), await cluster.get()
    cluster.pool.failover.doubt(first)
    cluster.pool.failover.doubt(second)
    cluster.pool.release(first)
    cluster.pool.release(second)
    assert first.state not in (IDLE, BUSY)
    assert second.state == IDLE
    replica = await cluster.get("replica")
    cluster.pool.failover.doubt(replica)
    assert replica.doom is None
    await cluster.end()


@in_fake_time
async def test_in_order_the_first_that_can_be_had_has_them_all() -> None:
    cluster = Cluster(target=ANY)
    cluster.pool.ledger.endpoints.in_order = True
    cluster.pool.ledger.endpoints.first = 2
    assert [endpoint(await cluster.get()) for _ in range(3)] == ["a", "a", "a"]
    cluster.crash(0)
    assert endpoint(await cluster.get()) == "b"
    await cluster.end()


@in_fake_time
async def test_the_bound_holds_while_everything_is_tried() -> None:
    cluster = Cluster(max=2)
    cluster.crash(0)
    hanging = Gate()
    hanging.shut()
    cluster.pool.start()
    cluster.opener.at[0] = hanging
    waiters = [cluster.ask(timed(cluster.key())) for _ in range(5)]
    for _ in range(40):
        await cluster.after(0.2)
        assert cluster.pool.ledger.used <= 2
    cluster.promote(1)
    await cluster.after(6.0)
    assert any(waiter.session is not None for waiter in waiters)
    await cluster.end()


@in_fake_time
async def test_a_nowait_client_on_a_full_pool_is_told_so() -> None:
    cluster = Cluster(max=1)
    await cluster.get()
    waiter = cluster.ask(nowait(cluster.key()))
    assert isinstance(waiter.error, PoolBusy)
    await cluster.end()

"""Primaries that come, go and change places under clients of every target: nobody is lost, or sent astray."""

import asyncio
import random

import pytest

from fakes import DOWN, STARTING, FakeBackend, FakeLoop, FakeOpener, turns
from proxy.errors import BackendError, PoolError
from proxy.pool.limits import Limits
from proxy.pool.pool import Pool
from proxy.pool.session import BUSY, IDLE, Session
from proxy.roles import PRIMARY, READ_WRITE, STANDBY

WORDS = ("", "", "primary", "replica", "any")


class Weather:
    """Three servers, one of them the primary at most times."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.loop = asyncio.get_running_loop()
        self.opener = FakeOpener()
        self.opener.roles = {0: PRIMARY, 1: STANDBY, 2: STANDBY}
        limits = Limits(
            max=self.random.choice([1, 2, 5, 12]),
            max_per_endpoint=self.random.choice([None, None, 3]),
            failover_wait=self.random.choice([0.0, 2.0, 15.0]),
            role_check_interval=self.random.choice([0.5, 5.0]),
            slow_start=self.random.random() < 0.5,
            close_timeout=1.0,
            breaker_timeout=2.0,
        )
        self.pool = Pool(
            "orders",
            limits,
            self.opener,
            ("orders", "ann"),
            clock=self.loop.time,
            endpoints=("a", "b", "c"),
            target=READ_WRITE,
        )
        self.pool.ledger.endpoints.falls_back = self.random.random() < 0.7
        self.opener.lost = self.pool.lost
        self.granted = self.refused = 0
        self.over = False

    def backends(self, number: int) -> list[FakeBackend]:
        found = [backend for backend in self.opener.backends if not backend.ended]
        return [backend for backend in found if backend.session.endpoint.number == number]

    def blow(self) -> None:
        """Something happens to one server."""
        number = self.random.randrange(3)
        what = self.random.randrange(5)
        if what == 0:
            self.opener.at[number] = self.random.choice([DOWN, STARTING])
            for backend in self.backends(number):
                backend.die()
        elif what == 1:
            # Only who is restarted becomes a standby.
            for backend in self.backends(number):
                backend.die()
            self.opener.roles[number] = STANDBY
        elif what == 2:
            self.opener.roles[number] = PRIMARY
            for backend in self.backends(number):
                if self.random.random() < 0.5:
                    self.pool.failover.learn(backend.session)
        else:
            self.opener.at.pop(number, None)

    def look(self) -> None:
        ledger = self.pool.ledger
        ledger.check()
        assert ledger.used <= ledger.limits.max
        for endpoint in ledger.endpoints.all:
            assert endpoint.scout is None or endpoint.scout in ledger.opening

    def check(self, session: Session, word: str) -> None:
        # What the pool knew of the server when it handed the session over.
        role = session.endpoint.role
        if word in ("", "primary"):
            assert role in (PRIMARY, 0)
        elif word == "replica" and not self.pool.ledger.endpoints.falls_back:
            assert role in (STANDBY, 0)

    async def client(self) -> None:
        while not self.over:
            word = self.random.choice(WORDS)
            key = self.pool.key("orders", self.random.choice(["ann", "bob"]), target=word)
            try:
                session = await self.pool.acquire(key, wait_timeout=self.random.choice([0.5, 30.0]))
            except (BackendError, PoolError):
                self.refused += 1
                await asyncio.sleep(0.05)
                continue
            self.granted += 1
            self.check(session, word)
            await asyncio.sleep(self.random.choice([0.0, 0.01, 0.3]))
            if session.state == BUSY:
                self.pool.release(session)

    async def settle(self) -> None:
        """Whoever asks for the primary now gets it, soon."""
        for _ in range(10):
            try:
                session = await self.pool.acquire(self.pool.key("orders", "ann"))
            except (BackendError, PoolError):
                await asyncio.sleep(1.0)
                continue
            assert session.endpoint.name == "b"
            self.pool.release(session)
            break
        else:
            raise AssertionError("nobody is let in")
        await turns()


async def storm(seed: int) -> None:
    weather = Weather(seed)
    loop = weather.loop
    assert isinstance(loop, FakeLoop)
    loop.watch = weather.look
    weather.pool.start()
    clients = [asyncio.create_task(weather.client()) for _ in range(8)]
    for _ in range(60):
        await asyncio.sleep(weather.random.choice([0.02, 0.2, 1.0]))
        weather.blow()
    # The weather clears: everybody is served.
    weather.opener.at.clear()
    weather.opener.roles = {0: STANDBY, 1: PRIMARY, 2: STANDBY}
    for number in (0, 2):
        for backend in weather.backends(number):
            backend.die()
    await asyncio.sleep(20.0)
    before = weather.granted
    await asyncio.sleep(10.0)
    assert weather.granted > before
    weather.over = True
    await asyncio.wait_for(asyncio.gather(*clients), 120.0)
    await asyncio.sleep(5.0)
    await weather.settle()
    assert not weather.pool.failover.outages
    assert not weather.pool.ledger.queue
    assert all(session.state == IDLE for session in weather.pool.ledger.sessions())
    assert weather.opener.living == weather.pool.ledger.used
    weather.pool.close(force=True)
    await weather.pool.drain()
    assert weather.opener.living == weather.pool.ledger.used == 0


@pytest.mark.parametrize("seed", range(12))
def test_a_storm_of_roles(seed: int) -> None:
    problems: list[object] = []
    with asyncio.Runner(loop_factory=FakeLoop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: problems.append(context))
        runner.run(storm(seed))
    assert not problems

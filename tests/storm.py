"""The storm: clients of every getmode, over a server on which everything fails now and then.

After every turn of the loop the invariants are looked at; at the end nothing is busy, nobody waits,
every session has been ended exactly once, and no slot is taken. A seed makes a storm repeatable.
"""

import asyncio
import random
from collections.abc import Callable
from typing import cast

from fakes import (
    DOWN,
    STARTING,
    FakeBackend,
    FakeLoop,
    FakeOpener,
    FakeWaiter,
    no_answer,
    turns,
)
from proxy.errors import BackendError, PoolError
from proxy.pool.limits import LIFO, LRU, OFF, Limits
from proxy.pool.pool import Pool
from proxy.pool.session import BUSY, IDLE, Backend, Session, Waiter
from proxy.reasons import DropReason


class StormBackend(FakeBackend):
    """Slow, and sometimes worse."""

    died = False

    @property
    def random(self) -> random.Random:
        return cast(StormOpener, self.opener).random

    async def ping(self) -> None:
        self.pings += 1
        await self._work(no_answer())

    async def reset(self) -> None:
        self.resets += 1
        await self._work(BackendError("no reset"))

    async def recover(self) -> None:
        self.recoveries += 1
        await self._work(BackendError("no recovery"))

    async def _work(self, error: Exception) -> None:
        await asyncio.sleep(self.random.choice([0, 0, 0.002, 0.02, 0.2]))
        if self.random.random() < 0.1:
            raise self.random.choice([error, ConnectionResetError("reset"), ZeroDivisionError("a bug")])

    async def close(self) -> None:
        self.closes += 1
        await asyncio.sleep(self.random.choice([0] * 8 + [0.001, 0.01, 0.02, 1000.0]))
        self.ended = True
        if self.random.random() < 0.1:
            raise ConnectionResetError("reset")

    @property
    def is_lost(self) -> bool:
        """To whoever held it."""
        return self.died or bool(self.taken_away)

    async def begin(self) -> None:
        self.begins += 1
        await self._work(BackendError("no begin"))

    def peek(self) -> bool:
        return self.random.random() < 0.02

    def die(self, reason: DropReason = DropReason.SERVER_CLOSED) -> None:
        self.died = True
        super().die(reason)


class StormOpener(FakeOpener):
    """One open in ten fails; logins take their time, and are counted by the server, too."""

    def __init__(self, seed: random.Random) -> None:
        super().__init__()
        self.random = seed
        self.now_opening = 0

    async def open(self, session: Session) -> Backend:
        self.now_opening += 1
        try:
            await asyncio.sleep(self.random.choice([0, 0, 0.003, 0.03, 0.3]))
            if self.random.random() < 0.1:
                raise self.random.choice([DOWN, STARTING, OSError("no route"), ZeroDivisionError("a bug")])
            backend = StormBackend(self, session)
            self.backends.append(backend)
            return backend
        finally:
            self.now_opening -= 1


class Storm:
    """One pool, its server and its clients."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        random.seed(seed)  # the pool's own jitter
        self.limits = self.weather()
        self.opener = StormOpener(self.random)
        self.pool = self.make_pool(asyncio.get_running_loop().time)
        self.opener.lost = self.pool.lost
        self.keys = [self.pool.key("orders", "ann"), self.pool.key("orders", "bob")]
        self.holders: dict[Session, object] = {}
        self.served = self.refused = 0

    def weather(self) -> Limits:
        choice = self.random.choice
        return Limits(
            min=choice([0, 0, 2]),
            max=choice([2, 3, 5]),
            max_forced=choice([0, 1, 3]),
            increment=choice([1, 1, 3]),
            max_waiting=choice([None, None, 5]),
            ping_interval=choice([0.0, 0.01, OFF]),
            ping_timeout=0.1,
            idle_timeout=choice([0.05, OFF]),
            max_lifetime=choice([0.3, OFF]),
            reuse=choice([LIFO, LRU]),
            max_opening=choice([1, 4]),
            connect_timeout=0.2,
            reset_timeout=0.1,
            close_timeout=0.5,
        )

    def make_pool(self, clock: Callable[[], float]) -> Pool:
        return Pool("storm", self.limits, self.opener, ("orders", "ann"), clock=clock)

    def wishes(self, waiter: Waiter) -> None:
        """What else a client may want."""

    # -- clients --------------------------------------------------------------------------------

    async def client(self) -> None:
        """Comes, asks, holds, gives back in one way or another."""
        await asyncio.sleep(self.random.uniform(0, 5.0))
        for _ in range(self.random.randint(1, 4)):
            session = await (self.asks() if self.random.random() < 0.5 else self.queues())
            if session is not None:
                await self.holds(session)

    async def asks(self) -> Session | None:
        """Through ``acquire``, and sometimes gone before it returns."""
        key, getmode = self.random.choice(self.keys), self.random.randrange(4)
        wish = FakeWaiter(key)
        self.wishes(wish)
        asking = asyncio.create_task(
            self.pool.acquire(
                key,
                getmode,
                self.random.uniform(0, 0.5),
                wants_new=wish.wants_new,
                tag=wish.tag,
                affinity=wish.affinity,
                priority=wish.priority,
            )
        )
        if self.random.random() < 0.3:
            await asyncio.sleep(self.random.choice([0, 0, 0.001, 0.01, 0.1]))
            asking.cancel()
        await asyncio.wait((asking,))
        if asking.cancelled():
            return None
        if asking.exception() is not None:
            assert isinstance(asking.exception(), (PoolError, BackendError))
            self.refused += 1
            return None
        return self.unless_lost(asking.result())

    async def queues(self) -> Session | None:
        """As a waiter of its own, which may have gone without a word, or break."""
        waiter = FakeWaiter(
            self.random.choice(self.keys), self.random.randrange(4), self.random.uniform(0, 0.5)
        )
        self.wishes(waiter)
        waiter.willing = self.random.random() < 0.9
        if self.random.random() < 0.03:
            waiter.crash = ZeroDivisionError("a bug")
        session = self.pool.try_acquire(waiter)
        if session is not None:
            return session
        self.pool.enqueue(waiter)
        patience = self.random.choice([1, 1, 30])
        for _ in range(patience):
            if waiter.session is not None or waiter.error is not None or not waiter.willing:
                break
            await asyncio.sleep(0.02)
        if waiter.session is None and waiter.error is None:
            self.pool.withdraw(waiter)
        return self.unless_lost(waiter.session) if waiter.session is not None else None

    def unless_lost(self, session: Session) -> Session | None:
        """Sessions die while a client looks the other way."""
        if session.state == BUSY:
            return session
        assert cast(StormBackend, session.backend).is_lost
        return None

    async def holds(self, session: Session) -> None:
        assert session not in self.holders, "one session, two clients"
        assert session.state == BUSY
        self.holders[session] = self
        self.served += 1
        await asyncio.sleep(self.random.choice([0, 0, 0.001, 0.01, 0.05]))
        backend = cast(StormBackend, session.backend)
        del self.holders[session]
        if session.state != BUSY:
            assert backend.is_lost
            return
        verb = self.random.random()
        if verb < 0.65:
            self.pool.release(session)
        elif verb < 0.8:
            self.pool.reset(session)
        elif verb < 0.9:
            self.pool.recover(session)
        elif verb < 0.95:
            self.pool.drop(session, DropReason.UNCERTAIN)
        else:
            backend.die()

    async def lightning(self) -> None:
        """The server ends a session, whoever has it."""
        while True:
            await asyncio.sleep(self.random.uniform(0, 0.2))
            standing = [b for b in self.opener.backends if not b.ended and b.session.state in (IDLE, BUSY)]
            if standing:
                self.random.choice(standing).die()

    # -- what always holds ----------------------------------------------------------------------

    def watch(self) -> None:
        ledger, opener, limits = self.pool.ledger, self.opener, self.pool.limits
        ledger.check()
        bound = limits.ceiling + ledger.excess
        assert ledger.used <= bound
        assert opener.living + opener.now_opening <= bound, "the server sees more than the bound"
        assert set(self.holders) <= {b.session for b in opener.backends}
        assert all(waiter.deadline > 0 for waiter in ledger.queue)
        self.nobody_waits_beside_an_idle_session()

    def nobody_waits_beside_an_idle_session(self) -> None:
        ledger, limits = self.pool.ledger, self.pool.limits
        now = asyncio.get_running_loop().time()
        coming = ledger.coming()
        for key, lane in ledger.lanes.items():
            if not lane:
                continue
            session = lane[-1] if limits.reuse == LIFO else lane[0]
            if now - session.proven_at < limits.ping_interval and now < session.expires:
                waiting = sum(waiter.key is key for waiter in ledger.queue)
                assert waiting <= coming.get(key, 0), "somebody waits beside an idle session"

    async def rage(self, clients: int) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeLoop)
        loop.watch = self.watch
        self.pool.start()
        lightning = asyncio.create_task(self.lightning())
        async with asyncio.timeout(200):
            await asyncio.gather(*(self.client() for _ in range(clients)))
        lightning.cancel()
        await asyncio.sleep(5)
        ledger = self.pool.ledger
        assert not ledger.queue, "nobody waits"
        assert not ledger.busy, "nothing is busy"
        assert not ledger.care
        assert not self.holders
        async with asyncio.timeout(5):
            await self.pool.drain()
        await turns()
        loop.watch = None
        assert (ledger.opened, len(ledger.opening), len(ledger.closing)) == (0, 0, 0)
        for backend in self.opener.backends:
            assert backend.ended
            assert backend.closes == (0 if cast(StormBackend, backend).died else 1), "ended once, no more"
            assert backend.abandons <= 1
        counters = self.pool.counters
        assert counters.opens_ok == len(self.opener.backends)
        assert sum(counters.drops.values()) - counters.drops["abandoned"] == counters.opens_ok
        assert self.served > clients / 30
        assert self.refused > 0

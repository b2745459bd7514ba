"""A pool in a fake world, for the tests of its behaviours: no server, and hours that pass in no time.

``Bench(max=3)`` has the limits that are named, and no jitter; ``preset_bench("pinging", max=3)`` those
that the configuration makes of a preset. At the end every slot must have come back.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from fakes import FakeBackend, FakeOpener, FakeWaiter, turns
from proxy.pool.limits import WAIT, Limits
from proxy.pool.pool import Pool
from proxy.pool.routes import Routes
from proxy.pool.session import Key, Session
from proxy.settings.pools import PoolSettings

# What the behaviours below do not speak about, so that it does not blur them.
PLAIN: dict[str, Any] = {"lifetime_jitter": 0.0, "slow_start": False, "max_opening": 32}
URL = "postgresql://ann@db.internal/orders"


def preset_limits(preset: str, **written: object) -> Limits:
    """What the configuration makes of a preset, and of what is written beside it."""
    values = {"backend": URL, "preset": preset, "slow_start": False, "max_opening": 32, **written}
    return PoolSettings.model_validate(values).limits


class Bench:
    """A pool, its fake world, and how it is cleared away. ``endpoints`` can be wished for by shard key."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        endpoints: tuple[str, ...] = (),
        cclass: str = "",
        **more: Any,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.opener = FakeOpener()
        self.limits = replace(limits, **more) if limits is not None else Limits(**(PLAIN | more))
        routes = (
            Routes("orders", lists={name: at for at, name in enumerate(endpoints)}) if endpoints else None
        )
        self.pool = Pool(
            "orders",
            self.limits,
            self.opener,
            ("orders", "ann"),
            "session",
            loop.time,
            endpoints,
            routes,
            cclass,
        )
        self.opener.lost = self.pool.lost
        self.key = self.pool.key("orders", "ann")
        self.other = self.pool.key("orders", "bob")
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> "Bench":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        await turns()
        self.check()
        self.open_gates()
        if not self.pool.ledger.closed:
            self.pool.resume()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await turns(1)
        ending = asyncio.create_task(self.pool.drain())
        await turns(1)
        for session in list(self.pool.ledger.busy):
            self.pool.release(session)
        async with asyncio.timeout(1000):
            await ending
        await turns()
        assert self.pool.ledger.used == 0, "every slot came back"
        assert self.opener.living == 0, "no session is left on the server"
        assert not self.pool.ledger.queue

    def check(self) -> None:
        """The ledger agrees with itself, and with the server."""
        ledger = self.pool.ledger
        ledger.check()
        on_server = sum(
            session.backend is not None and not session.backend.is_gone() for session in ledger.sessions()
        )
        assert self.opener.living == on_server, "the server runs sessions that the pool has forgotten"

    def open_gates(self) -> None:
        """Nothing hangs any more."""
        self.opener.opening.open()
        for backend in self.opener.backends:
            for gate in (
                backend.closing,
                backend.recovering,
                backend.resetting,
                backend.pinging,
                backend.beginning,
            ):
                gate.open()

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start something; what of it is still running at the end is cancelled."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def take(self, count: int = 1, key: Key | None = None, **wishes: Any) -> list[Session]:
        """That many sessions, held."""
        return [await self.pool.acquire(key or self.key, WAIT, **wishes) for _ in range(count)]

    async def idle(self, count: int = 1, key: Key | None = None) -> list[Session]:
        """That many sessions, opened, used and given back in the order in which they were opened."""
        held = await self.take(count, key)
        self.release(held)
        return held

    def release(self, sessions: list[Session]) -> None:
        for session in sessions:
            self.pool.release(session)

    def queue(self, *waiters: FakeWaiter) -> None:
        for waiter in waiters:
            self.pool.enqueue(waiter)

    def at(self, endpoint: str) -> Key:
        """The key that leads to this endpoint."""
        return self.pool.key("orders", "ann", shard_key=endpoint)

    async def started(self) -> None:
        """Start the pool, and let ``min`` be filled."""
        self.pool.start()
        await asyncio.sleep(0.5)

    @property
    def counts(self) -> tuple[int, int, int]:
        """opened, busy, idle."""
        ledger = self.pool.ledger
        return ledger.opened, len(ledger.busy), ledger.idle

    @property
    def opened(self) -> int:
        return self.pool.ledger.opened

    @property
    def drops(self) -> dict[str, int]:
        """Drops by reason, those that happened."""
        return {reason: count for reason, count in self.pool.counters.drops.items() if count}

    @property
    def pings(self) -> int:
        return sum(backend.pings for backend in self.opener.backends)


def preset_bench(preset: str, **written: object) -> Bench:
    """A pool as the preset has it."""
    return Bench(limits=preset_limits(preset, **written))


def backend_of(session: Session) -> FakeBackend:
    assert isinstance(session.backend, FakeBackend)
    return session.backend

"""The storm over pools with every policy, several servers, and an operator who keeps turning the knobs."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from fakes import in_fake_time
from proxy.errors import PoolBusy
from proxy.pool.limits import (
    BEGINS,
    BY_KEY,
    FORCED_RELEASES,
    NO_AFFINITY,
    PING_FAILURES,
    PING_MODES,
    PREFILLS,
    REAPS,
    REUSES,
    TAGS,
    Limits,
)
from proxy.pool.pool import Pool
from proxy.pool.session import Session, Waiter
from proxy.reasons import DropReason
from storm import Storm

SOME_TAGS = (None, None, object(), object())


class WildStorm(Storm):
    """As the storm, with everything else that a pool can be."""

    def weather(self) -> Limits:
        choice, randrange = self.random.choice, self.random.randrange
        limits = super().weather()
        return replace(
            limits,
            max_idle=choice([None, None, 1]),
            min_per_endpoint=choice([0, 0, 1]),
            max_per_endpoint=choice([None, limits.max, 2]),
            evict=choice([True, True, False]),
            prefill=randrange(len(PREFILLS)),
            keep_min=choice([True, False]),
            forced_release=randrange(len(FORCED_RELEASES)),
            refuse_early=choice([True, False]),
            weights=choice([(1.0,), (1.0, 4.0, 0.5)]),
            reuse=randrange(len(REUSES)),
            affinity=choice([NO_AFFINITY, BY_KEY]),
            tags=randrange(len(TAGS)),
            ping_mode=randrange(len(PING_MODES)),
            ping_failure=randrange(len(PING_FAILURES)),
            reap=randrange(len(REAPS)),
            reap_batch=choice([0, 1]),
            slow_start=choice([True, False]),
            breaker_failures=choice([1, 3]),
            breaker_timeout=0.2,
            io_parallel=choice([1, 32]),
            begin=choice([0, 0, len(BEGINS) - 1]),
            begin_max_age=0.05,
        )

    def make_pool(self, clock: Callable[[], float]) -> Pool:
        names = ("north", "south")[: self.random.choice([1, 2])]
        return Pool("storm", self.limits, self.opener, ("orders", "ann"), clock=clock, endpoints=names)

    def wishes(self, waiter: Waiter) -> None:
        limits, choice = self.pool.limits, self.random.choice
        waiter.wants_new = self.random.random() < 0.1
        waiter.priority = choice([0, 1, 2])
        if limits.tags:
            waiter.tag = choice(SOME_TAGS)
        if limits.affinity == BY_KEY:
            waiter.affinity = choice(["", "x", "y"])
        waiter.picky = waiter.wants_new or waiter.tag is not None or waiter.affinity != ""

    async def holds(self, session: Session) -> None:
        if session.affinity:
            others = [other for other in self.holders if other.affinity == session.affinity]
            assert not others, "two sessions for one key"
        session.tag = self.random.choice(SOME_TAGS)
        await super().holds(session)

    def nobody_waits_beside_an_idle_session(self) -> None:
        limits = self.pool.limits
        for endpoint in self.pool.ledger.endpoints.all:
            if (
                limits.max_per_endpoint is not None
                and limits.max_per_endpoint == self.limits.max_per_endpoint
            ):
                assert len(endpoint.sessions) <= limits.max_per_endpoint
        assert set(self.pool.ledger.shared) <= {"x", "y"}

    async def operator(self) -> None:
        """Turns one knob after the other, in the middle of it all."""
        pool = self.pool
        while True:
            await asyncio.sleep(self.random.uniform(0.05, 0.4))
            verb = self.random.randrange(6)
            if verb == 0:
                low = self.random.choice([1, 2, 5])
                changed = replace(
                    self.weather(), max=low, min=0, max_per_endpoint=self.limits.max_per_endpoint
                )
                pool.reconfigure(changed)
            elif verb == 1:
                pool.pause()
                try:
                    await asyncio.sleep(self.random.uniform(0, 0.2))
                finally:
                    pool.resume()
            elif verb == 2:
                pool.renew()
            elif verb == 3:
                pool.clear()
            elif verb == 4 and pool.ledger.busy:
                session = self.random.choice(sorted(pool.ledger.busy, key=lambda held: held.number))
                if session in self.holders:
                    pool.expel(session, DropReason.CLOSED, "by the operator")
            elif verb == 5 and pool.ledger.busy:
                with pytest.raises(PoolBusy):
                    pool.close()

    async def rage(self, clients: int) -> None:
        operator = asyncio.create_task(self.operator())
        stop = asyncio.get_running_loop().call_later(6.0, operator.cancel)
        await super().rage(clients)
        stop.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await operator


@pytest.mark.parametrize("seed", range(20))
@in_fake_time
async def test_a_short_wild_storm(seed: int) -> None:
    """200 clients, and whatever a pool can be configured to be."""
    await WildStorm(seed).rage(200)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2000, 2300))
@in_fake_time
async def test_a_long_wild_storm(seed: int) -> None:
    """1000 clients, many weathers."""
    await WildStorm(seed).rage(1000)

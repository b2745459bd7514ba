"""The same trace through a library and through our pool with its preset, step by step.

A library is wrapped as an ``Ancestor``; ours is ``Ours``. After each step both are looked at: what the
step came to, which session it was about, how many are open, idle and busy, how many pings succeeded. Sessions
are named by the order in which they were first handed out, for one that nobody has held is like any other.

Where the two differ, the difference must be one of those kept on purpose (differences.py), and a predicate
must say that it is this one; anything else fails the test. Most differences change the state, and end the
trace there.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from structlog.testing import capture_logs

from conformance.bench import Bench, backend_of
from conformance.differences import BY_ID
from fakes import DOWN, FakeClock, FakeLoop, no_answer, turns
from proxy.errors import PoolBusy, PoolClosed, PoolTimeout, ProxyError
from proxy.pool.limits import Limits
from proxy.pool.session import BUSY, IDLE, Session
from proxy.reasons import DropReason

GRANTED, FULL, TIMEOUT, FAILED, DONE = "granted", "busy", "timeout", "failed", "done"
A_MOMENT = 0.01  # passes with each step, so that no two things happen at the same time


@dataclass(frozen=True)
class Step:
    """``what`` happens, to the session or place number ``which`` (modulo how many there are)."""

    what: str
    which: int = 0


@dataclass(frozen=True)
class Seen:
    """What can be seen after a step. ``session`` is named by the order of first hand-out."""

    outcome: str
    session: int | None
    opened: int
    idle: int
    busy: int
    pings: int


class Names:
    """Names things by the order in which they are first shown."""

    def __init__(self) -> None:
        self._names: dict[int, int] = {}
        self._things: list[object] = []  # kept, so that no id is used again

    def __call__(self, thing: object) -> int:
        if id(thing) not in self._names:
            self._things.append(thing)
            self._names[id(thing)] = len(self._names)
        return self._names[id(thing)]

    def known(self, thing: object) -> bool:
        return id(thing) in self._names


class Ancestor(ABC):
    """A library's pool with stubs behind it; ``clock`` is its time."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.held: list[Any] = []
        self.names = Names()
        self.pings = 0
        self.fail_next = False  # the next connect fails

    @abstractmethod
    def acquire(self, which: int) -> Any:
        """A connection, or one of the outcomes above as a string."""

    @abstractmethod
    def release(self, connection: Any) -> None:
        """Give it back."""

    @abstractmethod
    def idle(self) -> list[Any]:
        """Every idle connection."""

    def release_dirty(self, connection: Any) -> None:
        """Give it back in the middle of a transaction."""
        self.release(connection)

    def drop(self, connection: Any) -> None:
        """Give it back to be closed."""
        raise NotImplementedError

    def lose(self, connection: Any) -> None:
        """The server ends it while it is held; then it is given back."""
        raise NotImplementedError

    def kill(self, connection: Any) -> None:
        """The server ends it while it is idle, and nobody is told."""
        raise NotImplementedError

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    def close(self) -> None:  # noqa: B027 - most have nothing to leave behind
        """Leave nothing behind."""

    def do(self, step: Step) -> Seen:
        self.clock.advance(A_MOMENT)
        session, outcome = None, DONE
        if step.what == "acquire":
            found = self.acquire(step.which)
            if isinstance(found, str):
                outcome = found
            else:
                outcome, session = GRANTED, self.names(found)
                if not any(found is held for held in self.held):
                    self.held.append(found)
        elif step.what == "fail":
            self.fail_next = True
        elif step.what == "kill":
            used = sorted((c for c in self.idle() if self.names.known(c)), key=self.names)
            if used:
                self.kill(used[step.which % len(used)])
        elif step.what == "advance":
            self.advance(float(step.which))
        elif self.held:
            connection = self.held.pop(step.which % len(self.held))
            session = self.names(connection)
            getattr(self, step.what)(connection)
        idle = len(self.idle())
        return Seen(outcome, session, idle + len(self.held), idle, len(self.held), self.pings)


class Ours:
    """Our pool under the same steps. ``told``: it reads the end of a session that the server ends."""

    def __init__(
        self,
        limits: Limits,
        *,
        started: bool = False,
        told: bool = False,
        endpoints: tuple[str, ...] = (),
        keys: tuple[str, ...] = (),
    ) -> None:
        self.runner = asyncio.Runner(loop_factory=FakeLoop)
        self.clock: FakeClock = self.runner.get_loop().clock  # type: ignore[attr-defined]
        self.told = told
        self.endpoints = endpoints
        self.keys = keys
        self.held: list[Session] = []
        self.names = Names()
        self.fail_next = False
        self.bench = self.runner.run(self._make(limits, started))

    async def _make(self, limits: Limits, started: bool) -> Bench:
        bench = Bench(limits=limits, endpoints=self.endpoints)
        if started:
            bench.pool.start()
            await bench.pool.filled()
            await turns()
        return bench

    def do(self, step: Step) -> Seen:
        with capture_logs():
            return self.runner.run(self._do(step))

    async def _do(self, step: Step) -> Seen:
        await asyncio.sleep(A_MOMENT)
        session, outcome = None, DONE
        if step.what == "acquire":
            outcome, session = await self._acquire(step.which)
        elif step.what == "fail":
            self.fail_next = True
            self.bench.opener.errors = [DOWN]
        elif step.what == "kill":
            self._kill(step.which)
        elif step.what == "advance":
            await asyncio.sleep(step.which)
        elif self.held:
            session = self._give_back(step)
        await turns()
        self.bench.check()
        opened, busy, idle = self.bench.counts
        pings = self.bench.pool.counters.pings_ok
        return Seen(outcome, None if session is None else self.names(session), opened, idle, busy, pings)

    async def _acquire(self, which: int) -> tuple[str, Session | None]:
        bench, affinity = self.bench, ""
        key = bench.key
        if self.endpoints:
            key = bench.at(self.endpoints[which % len(self.endpoints)])
        elif self.keys:
            affinity = self.keys[which % len(self.keys)]
        try:
            session = await bench.pool.acquire(key, affinity=affinity)
        except PoolBusy:
            return FULL, None
        except PoolTimeout:
            return TIMEOUT, None
        except (PoolClosed, ProxyError):
            return FAILED, None
        self.held.append(session)
        return GRANTED, session

    def _kill(self, which: int) -> None:
        idle = [one for one in self.bench.pool.ledger.idle_sessions() if self.names.known(one)]
        idle.sort(key=self.names)
        if not idle:
            return
        backend = backend_of(idle[which % len(idle)])
        if self.told:
            backend.die()
        else:
            backend.ping_error = no_answer()

    def _give_back(self, step: Step) -> Session:
        session = self.held.pop(step.which % len(self.held))
        pool = self.bench.pool
        if step.what == "release":
            pool.release(session)
        elif step.what == "release_dirty":
            pool.reset(session)
        elif step.what == "drop":
            pool.drop(session, DropReason.CLOSED)
        else:
            assert session.state == BUSY
            backend_of(session).die()
            assert session.state != IDLE
        return session

    def close(self) -> None:
        with capture_logs():
            self.runner.run(self._close())
        self.runner.close()

    async def _close(self) -> None:
        self.bench.pool.close(force=True)
        await turns()
        assert self.bench.pool.ledger.used == 0
        assert self.bench.opener.living == 0


# Says whether a step at which the two differ is explained by a difference: its id, or None.
Explain = Callable[[Step, Seen, Seen, list[Step]], str | None]
# Differences after which both are in the same state: the trace goes on.
HARMLESS = {"psycopg2_key", "waits_on"}


def compare(
    ancestor: Ancestor, ours: Ours, steps: list[Step], explain: Explain, seen: Counter[str] | None = None
) -> None:
    """Run the steps through both. Raises AssertionError where they differ and nothing explains it."""
    done: list[Step] = []
    try:
        for step in steps:
            ancestor.clock.now = ours.clock.now
            theirs_is = ancestor.do(step)
            ours_is = ours.do(step)
            done.append(step)
            if seen is not None:
                seen["steps"] += 1
            if theirs_is != ours_is:
                name = _of_all(theirs_is, ours_is, done) or explain(step, theirs_is, ours_is, done)
                assert name is not None, _story(done, theirs_is, ours_is)
                assert name in BY_ID, f"{name} is not in the list of differences"
                if seen is not None:
                    seen[name] += 1
                if name not in HARMLESS:
                    return
            if FAILED in (theirs_is.outcome, ours_is.outcome):
                # The one difference that time heals: back_off.
                if seen is not None:
                    seen["back_off"] += 1
                ancestor.fail_next = False
                ours.bench.opener.errors = []
                theirs_is, ours_is = ancestor.do(Step("advance", 6)), ours.do(Step("advance", 6))
                if theirs_is != ours_is:
                    assert _of_all(theirs_is, ours_is, [*done, Step("fail")]), _story(
                        done, theirs_is, ours_is
                    )
                    return
    finally:
        ancestor.close()
        ours.close()


def _of_all(theirs: Seen, ours: Seen, done: list[Step]) -> str | None:
    # After a failed connect ours has opened one more for each server, to see whether it is back.
    extra = ours.opened - theirs.opened
    more = extra > 0 and ours.idle - theirs.idle == extra and ours.busy == theirs.busy
    if more and any(step.what == "fail" for step in done):
        return "first_session"
    same = (theirs.opened, theirs.idle, theirs.busy) == (ours.opened, ours.idle, ours.busy)
    if same and ours.busy and (theirs.outcome, ours.outcome) == (FAILED, TIMEOUT):
        return "waits_on"
    return None


def _story(done: list[Step], theirs: Seen, ours: Seen) -> str:
    steps = "\n".join(f"  {step.what} {step.which}" for step in done)
    return f"after\n{steps}\nthe library: {theirs}\nour pool:    {ours}"

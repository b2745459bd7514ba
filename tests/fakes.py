"""What the pool asks of the world, made of nothing: a clock, an opener, backends and waiters to command."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from proxy.errors import BackendError, PingFailed, ProxyError
from proxy.pool.endpoints import Refusal
from proxy.pool.ledger import Ledger
from proxy.pool.limits import FORCEGET, NOWAIT, TIMEDWAIT, WAIT
from proxy.pool.session import Backend, Key, Opener, Session, Waiter
from proxy.reasons import DropReason

UNKNOWN = BackendError("there is no such user", "28000")
DOWN = BackendError("the server is down", "08001")
STARTING = BackendError("the database system is starting up", "57P03")
REFUSED = BackendError("password authentication failed", "28P01")


class FakeClock:
    """Stands still until it is told to go on."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class _Leap(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    # Waits for nothing: where the loop would sleep until its next timer, the clock leaps there.

    clock: FakeClock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits, and nothing will ever wake them")
        self.clock.advance(max(0.0, timeout))
        return super().select(0)


class FakeLoop(asyncio.SelectorEventLoop):
    """An event loop in which hours pass in no time, and in which a lost wake-up is an error at once."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        selector = _Leap()
        selector.clock = self.clock
        super().__init__(selector)
        self.watch: Callable[[], None] | None = None  # called after every turn; what it raises ends the run

    def time(self) -> float:
        return self.clock.now

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        if self.watch is not None:
            self.watch()


def in_fake_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in a FakeLoop; it leaves no task and no exception behind."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        problems: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=FakeLoop) as runner:
            loop = runner.get_loop()
            loop.set_exception_handler(lambda _, context: problems.append(context))
            runner.run(test(*args, **kwargs))
        assert not problems

    return run


async def turns(count: int = 40) -> None:
    """Let everything happen that can happen now; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


class Gate:
    """Lets through whoever passes, unless it is shut; then all wait until it is opened."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.inside = 0
        self.most = 0  # how many were inside at once

    def shut(self) -> None:
        self.is_open.clear()

    def open(self) -> None:
        self.is_open.set()

    async def passed(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.is_open.wait()
        finally:
            self.inside -= 1


class FakeBackend(Backend):
    """A backend that counts what it is asked to do, and fails or hangs on command."""

    def __init__(self, opener: "FakeOpener", session: Session) -> None:
        self.opener = opener
        self.session = session
        self.pings = self.resets = self.recoveries = 0
        self.closes = self.abandons = 0
        self.begins = self.peeks = 0
        self.has_news = False  # something has come that nobody has read
        self.taken_away: list[str] = []
        self.begin_error: BaseException | None = None
        self.beginning = Gate()
        self.ended = False  # by the server
        self.address = ""
        self.ping_error: BaseException | None = None
        self.reset_error: BaseException | None = None
        self.close_error: BaseException | None = None
        self.pinging, self.resetting, self.recovering, self.closing = Gate(), Gate(), Gate(), Gate()

    async def ping(self) -> None:
        self.pings += 1
        await self._through(self.pinging, self.ping_error)

    async def reset(self) -> None:
        self.resets += 1
        await self._through(self.resetting, self.reset_error)

    async def recover(self) -> None:
        self.recoveries += 1
        await self._through(self.recovering, self.reset_error)

    async def begin(self) -> None:
        self.begins += 1
        await self._through(self.beginning, self.begin_error)

    def peek(self) -> bool:
        self.peeks += 1
        return self.has_news

    def take_away(self, detail: str) -> None:
        self.taken_away.append(detail)

    async def _through(self, gate: Gate, error: BaseException | None) -> None:
        await asyncio.sleep(0)
        await gate.passed()
        if error is not None:
            raise error

    async def close(self) -> None:
        self.closes += 1
        await asyncio.sleep(0)
        await self.closing.passed()
        self.ended = True
        if self.close_error is not None:
            raise self.close_error

    def abandon(self) -> None:
        self.abandons += 1
        self.ended = True

    def is_gone(self) -> bool:
        return self.ended

    def role(self) -> int:
        return self.opener.roles.get(self.session.endpoint.number, 0)

    def place(self) -> str:
        return self.address

    def die(self, reason: DropReason = DropReason.SERVER_CLOSED) -> None:
        """The server ends the session, and the pool is told."""
        self.ended = True
        assert self.opener.lost is not None
        self.opener.lost(self.session, reason)


class FakeOpener(Opener):
    """Opens fake backends. ``errors`` is used up from the left, then ``error`` is what every open raises.

    ``at`` says what is particular about an endpoint, by its number: an error of its opens, a gate before
    them.
    """

    def __init__(self) -> None:
        self.backends: list[FakeBackend] = []
        self.errors: list[BaseException | None] = []
        self.error: BaseException | None = None
        self.opening = Gate()
        self.at: dict[int, BaseException | Gate] = {}
        self.roles: dict[int, int] = {}  # what each endpoint is, by its number
        self.tried: list[int] = []  # the endpoint of each try
        self.tries = 0
        self.cancelled = 0
        self.prepare: Callable[[FakeBackend], None] = lambda backend: None
        self.lost: Callable[[Session, DropReason], None] | None = None

    async def open(self, session: Session) -> Backend:
        self.tries += 1
        self.tried.append(session.endpoint.number)
        own = self.at.get(session.endpoint.number)
        try:
            await asyncio.sleep(0)
            await self.opening.passed()
            if isinstance(own, Gate):
                await own.passed()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        error = self.errors.pop(0) if self.errors else self.error
        if isinstance(own, BaseException):
            error = own
        if error is not None:
            raise error
        backend = FakeBackend(self, session)
        self.prepare(backend)
        self.backends.append(backend)
        return backend

    @property
    def living(self) -> int:
        """Sessions that the server runs now."""
        return sum(not backend.ended for backend in self.backends)


class FakeWaiter(Waiter):
    """Remembers what it was given or told; ``willing`` False refuses, ``crash`` is raised instead."""

    def __init__(self, key: Key, getmode: int = TIMEDWAIT, wait_timeout: float = 30.0) -> None:
        super().__init__(key)
        self.getmode = getmode
        self.wait_timeout = wait_timeout
        self.willing = True
        self.crash: BaseException | None = None
        self.offers = 0
        self.session: Session | None = None
        self.error: ProxyError | None = None

    def granted(self, session: Session) -> bool:
        self.offers += 1
        if self.crash is not None:
            raise self.crash
        if not self.willing:
            return False
        assert self.session is None
        assert self.error is None
        self.session = session
        return True

    def refused(self, error: ProxyError) -> None:
        assert self.session is None
        assert self.error is None
        self.error = error
        if self.crash is not None:
            raise self.crash


def waits(key: Key) -> FakeWaiter:
    return FakeWaiter(key, WAIT)


def nowait(key: Key) -> FakeWaiter:
    return FakeWaiter(key, NOWAIT)


def timed(key: Key, wait_timeout: float = 30.0) -> FakeWaiter:
    return FakeWaiter(key, TIMEDWAIT, wait_timeout)


def forceget(key: Key) -> FakeWaiter:
    return FakeWaiter(key, FORCEGET)


def back_off(ledger: Ledger, key: Key, until: float) -> None:
    """The server has just refused this key: nothing is tried for it before."""
    for endpoint in ledger.endpoints.allowed(key):
        refusal = endpoint.refusals[key] = Refusal(UNKNOWN)
        refusal.until = until


def no_answer() -> PingFailed:
    return PingFailed("no answer")

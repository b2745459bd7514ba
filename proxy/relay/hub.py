"""The session that listens for many clients: its shell.

A hub holds one session of the pool, within the bound, as long as somebody listens and a little longer. It is
given the session of the first client that listens; it asks the pool for one only where its own was lost. It
reads at its own pace: what a slow client has not taken waits with that client (see ``Link.tell``). What is
listened to is the protocol's business.
"""

import asyncio
from typing import Final

import structlog

from proxy.errors import PoolClosed, ProxyError, RemoteProtocolError
from proxy.hearing import Hub, HubCodec
from proxy.pool.limits import OFF
from proxy.pool.pool import Pool
from proxy.pool.session import BUSY, Key, Session
from proxy.reasons import DropReason
from proxy.relay.backend import SocketBackend
from proxy.relay.holder import Holder
from proxy.relay.talk import Talk
from proxy.tasks import spawn

LINGER: Final = 2.0  # seconds that a hub keeps its session when nobody listens
_TRY_AGAIN: Final = 0.5  # seconds between two attempts to get another session
_log = structlog.get_logger("penstock")


class Hubs:
    """The hubs of one pool."""

    def __init__(self, pool: Pool, linger: float = LINGER) -> None:
        self.pool = pool
        self.linger = linger
        self.all: dict[ListenHub, None] = {}

    def make(self, codec: HubCodec) -> Hub:
        """A hub without a session."""
        return ListenHub(self, codec)

    def stop(self) -> None:
        """The daemon stops, and every client has gone: let go of all sessions."""
        for hub in [*self.all]:
            hub.leave()


class ListenHub(Hub, Holder):
    """One hub."""

    def __init__(self, hubs: Hubs, codec: HubCodec) -> None:
        self.hubs = hubs
        self.pool = hubs.pool
        self.codec = codec
        self.session: Session | None = None
        self.backend: SocketBackend | None = None
        self._waits: list[tuple[int, asyncio.Future[bool]]] = []
        self._settling: list[asyncio.Future[bool]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._reserved = False
        self._missed = False  # those who listen may have missed something

    # -- for the protocol -----------------------------------------------------------------------

    def say(self, data: bytes) -> None:
        """Send bytes to the session."""
        if self.backend is not None:
            self.backend.write(data)

    async def until(self, number: int) -> bool:
        """Wait until the session has answered so many requests."""
        if self.backend is None:
            return False
        if self.codec.answered >= number:
            return True
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waits.append((number, future))
        return await self._in_time(future)

    async def settled(self) -> None:
        """Wait until what was reserved has been given, or not."""
        if self._reserved:
            future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._settling.append(future)
            await self._in_time(future)

    async def _in_time(self, future: "asyncio.Future[bool]") -> bool:
        most = self.pool.limits.wait_timeout
        try:
            async with asyncio.timeout(None if most == OFF else most):
                return await future
        except TimeoutError:
            return False

    def reserve(self) -> bool:
        """One session of the pool at least is for those who do more than listen."""
        if self._reserved or self.pool.ledger.closed:
            return False
        taken = sum(1 for hub in self.hubs.all if hub is not self)
        if taken + 1 >= self.pool.limits.max:
            return False
        self._reserved = True
        self.hubs.all[self] = None
        return True

    def unreserve(self) -> None:
        """It gets no session for now."""
        self._settle(False)
        if self.backend is None:
            self.hubs.all.pop(self, None)

    def _settle(self, found: bool) -> None:
        self._reserved = False
        settling, self._settling = self._settling, []
        for future in settling:
            if not future.done():
                future.set_result(found)

    def deserted(self) -> None:
        """Nobody listens: keep the session for a moment, lest the next one needs another."""
        if self._timer is None and self.backend is not None:
            linger = 0.0 if self.pool.ledger.closed else self.hubs.linger
            self._timer = asyncio.get_running_loop().call_later(linger, self._deserted)

    def _deserted(self) -> None:
        self._timer = None
        if not self.codec.is_wanted():
            self.leave()

    # -- the session ----------------------------------------------------------------------------

    def take(self, session: Session, backend: SocketBackend) -> None:
        """Hold this session, which nobody else holds, and listen."""
        self.session, self.backend = session, backend
        self.hubs.all[self] = None
        if session.affinity:
            self.pool.ledger.unshare(session)  # nobody shares it any more
        _log.info("listening_began", pool=self.pool.name, session=session.number)
        self.codec.taken(backend.codec)
        self._settle(True)
        backend.attach(self)
        if not self.codec.is_wanted():
            self.deserted()
        elif self._missed:
            self._missed = False
            spawn(self._restore(), f"warning of those who listen on session {session.number}")

    async def _restore(self) -> None:
        if await self.until(self.codec.asked):
            self.codec.restored()

    def leave(self) -> None:
        """Give the session back."""
        session, backend = self.session, self.backend
        if session is None or backend is None:
            return
        self._part()
        backend.holder = None
        self.hubs.all.pop(self, None)
        _log.info("listening_ended", pool=self.pool.name, session=session.number, reason="deserted")
        talk = backend.talk(self.codec.parting(backend.codec))
        spawn(_give_back(self.pool, session, backend, talk), f"end of listening on session {session.number}")

    def _part(self) -> None:
        self.session = self.backend = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waits, self._waits = self._waits, []
        for _, future in waits:
            if not future.done():
                future.set_result(False)

    async def _reopen(self, key: Key, detail: str) -> None:
        """Have the pool open another session, or find one that is idle."""
        loop, most = asyncio.get_running_loop(), self.pool.limits.wait_timeout
        deadline = loop.time() + most
        while self._may_reopen():
            try:
                session = await self.pool.acquire(key)
                await self._try(session)
                return
            except (ProxyError, OSError) as error:
                if isinstance(error, PoolClosed) or loop.time() > deadline:
                    detail = f"{detail}; and then: {error}"
                    break
            await asyncio.sleep(_TRY_AGAIN)
        if self.backend is None and not self._reserved:
            self.hubs.all.pop(self, None)
            self.codec.abandon(detail)

    def _may_reopen(self) -> bool:
        return self.codec.is_wanted() and self.backend is None and not self._reserved

    async def _try(self, session: Session) -> None:
        backend = session.backend
        assert isinstance(backend, SocketBackend)
        try:
            if self._may_reopen():
                await backend.converse(self.codec.ready(backend.codec, []))
        except (ProxyError, OSError):
            if session.state == BUSY:
                self.pool.recover(session)
            raise
        except BaseException:
            if session.state == BUSY:
                self.pool.drop(session, DropReason.PREPARE_FAILED)
            raise
        if self._may_reopen():
            self.take(session, backend)
        else:
            backend.go_home()

    # -- as the holder of the session -----------------------------------------------------------

    def from_backend(self, data: bytes) -> None:
        """The session said something."""
        self.pool.counters.bytes_server += len(data)
        try:
            self.codec.heard(data)
        except RemoteProtocolError as error:
            session = self.session
            if session is not None and self.backend is not None:
                self.backend.holder = None
                self.pool.drop(session, DropReason.PROTOCOL_ERROR, str(error))
                self.backend_lost(str(error))
            return
        if self._waits:
            self._answered()

    def _answered(self) -> None:
        answered = self.codec.answered
        due = [future for number, future in self._waits if number <= answered]
        self._waits = [wait for wait in self._waits if wait[0] > answered]
        for future in due:
            if not future.done():
                future.set_result(True)

    def backend_lost(self, detail: str) -> None:
        """The session is gone; it belongs to nobody any more."""
        session = self.session
        assert session is not None
        self._part()
        _log.warning("listening_lost", pool=self.pool.name, session=session.number, detail=detail)
        if self.codec.lost(detail):
            self._missed = True
            spawn(self._reopen(session.key, detail), f"another session for those who listened on {session!r}")
        else:
            self.hubs.all.pop(self, None)

    def backend_ended(self) -> bool:
        """The server has said all it will say, so the session is over."""
        return False

    def is_running(self) -> bool:
        """Nothing that would have to be cancelled."""
        return False

    def pause_reading(self) -> None:
        """What is sent is short: LISTEN and UNLISTEN."""

    def resume_reading(self) -> None:
        """Nobody was paused."""


async def _give_back(pool: Pool, session: Session, backend: SocketBackend, talk: Talk) -> None:
    try:
        await backend.complete(talk)
    except (ProxyError, OSError):
        if session.state == BUSY:
            pool.recover(session)
        return
    except BaseException:
        if session.state == BUSY:
            pool.drop(session, DropReason.UNCERTAIN)
        raise
    if session.state == BUSY:
        backend.go_home()

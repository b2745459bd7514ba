"""A client that has a session and is given its settings on it, and what it is told when it has none.

Cold: the one task of a client's life runs here. Whatever becomes of it, the session is released, recovered
or dropped, and the client is answered.
"""

import asyncio

import structlog

from proxy.errors import BackendError, PoolError, ProxyError
from proxy.pool.limits import OFF
from proxy.pool.session import BUSY, Session
from proxy.reasons import CloseReason, DropReason
from proxy.relay.backend import SocketBackend
from proxy.relay.hub import ListenHub
from proxy.relay.link import CLOSED, PREPARING, READY, Link
from proxy.relay.talk import Talk
from proxy.tasks import spawn

_log = structlog.get_logger("penstock")


class Preparing(Link):
    """The part of a client that waits for what is done to its session. Abstract: see ``client.Client``."""

    def answer_refusal(self, error: Exception) -> None:
        """There is no session: answer what waited, and go on."""
        self.phase = READY
        asyncio.get_running_loop().call_soon(self.look_again)
        if self.watch is not None:
            self.watch.refused(error, self.user, self.since)
        if isinstance(error, PoolError):
            self.write(self.codec.refuse(error))
        elif isinstance(error, BackendError):
            self.write(self.codec.backend_refused(error.sqlstate, error.message, error.fields))
        else:
            self.write(self.codec.backend_refused("08006", str(error), {}))
        self.go_on()

    def begin_to_prepare(self, waiting: bytes, asked: bool) -> None:
        """Give the held session the client's settings, then send it what waits.

        ``asked``: the client waits for an answer, though perhaps nothing can be sent yet.
        """
        # In this step: whatever the session says from now on is for the conversation.
        backend, session = self.backend, self.session
        assert backend is not None
        assert session is not None
        self.phase = PREPARING
        self.pool.counters.fixups += asked
        session.begun_at = OFF  # this ends a transaction that was begun ahead
        backend.holder = None
        self.codec.bell = self.tell
        talk = backend.talk(self.codec.prepare())
        spawn(self._prepare(backend, session, talk, waiting, asked), f"settings of client {self.number}")

    async def _prepare(
        self, backend: SocketBackend, session: Session, talk: Talk, waiting: bytes, asked: bool
    ) -> None:
        """Give the session the client's settings, then send what waits."""
        try:
            told = await backend.finish(talk)
        except (ProxyError, OSError) as error:
            self.part(backend)
            if session.state == BUSY:  # unless it was taken away
                if backend.codec.last_words():
                    backend.go_home()
                else:
                    self.pool.recover(session)
            self._not_prepared(error, asked)
            return
        except BaseException:
            self.part(backend)
            if session.state == BUSY:
                self.pool.drop(session, DropReason.PREPARE_FAILED)
            raise
        wanted, self.cancel_wanted = self.cancel_wanted and asked, False
        if (self.phase == CLOSED and not self.leaving) or wanted:
            self._give_up(backend, session, asked)
            return
        self.write(told)
        self._prepared(backend, waiting, asked)

    def _prepared(self, backend: SocketBackend, waiting: bytes, asked: bool) -> None:
        if self.phase == PREPARING:
            self.phase = READY
        if not asked:
            self._note_pin()
            hub = self.codec.gift()
            if hub is not None:
                self._give_away(backend, hub)
                return
        backend.attach(self)
        if self.backend is not backend:
            return
        if self.is_full:
            backend.pause_reading()
        if waiting:
            backend.write(waiting)
        if not asked or self.codec.more:
            asyncio.get_running_loop().call_soon(self.look_again)
        self.go_on()

    def _give_away(self, backend: SocketBackend, hub: object) -> None:
        """The session has become one that listens for all."""
        assert isinstance(hub, ListenHub)
        session = self.session
        assert session is not None
        self.part(backend)
        hub.take(session, backend)
        asyncio.get_running_loop().call_soon(self.look_again)
        self.go_on()

    def _note_pin(self) -> None:
        session, before = self.session, self.pinned
        self.pinned = pinned = self.codec.pinned()
        if pinned and pinned != before and session is not None:
            _log.info(
                "session_pinned",
                pool=self.pool.name,
                reason=pinned,
                client=self.number,
                user=self.user,
                session=session.number,
            )

    def _not_prepared(self, error: Exception, is_asked: bool) -> None:
        if self.phase != PREPARING:
            return
        if is_asked:
            self.answer_refusal(error)
        else:
            # Nothing waits for an answer, and what the client had on its own session is lost.
            self.write(self.codec.fatal(CloseReason.SESSION_LOST, str(error)))
            self.close(CloseReason.SESSION_LOST)

    def _give_up(self, backend: SocketBackend, session: Session, untouched: bool) -> None:
        # The client went, or cancelled, while its settings were being made.
        if untouched:
            self.part(backend)
            self.pool.release(session)
        else:
            self.give_back()
        self.answer_cancel()

    def go_on(self) -> None:
        """Look at what came in while nobody could."""
        if self.leaving:
            self.leave_now()
            return
        if self.holds_reading & 5:
            self.hold_reading(5, False)
        if self.late and self.phase == READY:
            data, self.late = self.late, b""
            self.data_received(data)
        if self.draining:
            self.drain()
        if self.codec.news:
            self.tell()

    def answer_cancel(self) -> None:
        """What waited was cancelled: say so, and go on."""
        if self.phase != CLOSED:
            self.phase = READY
            asyncio.get_running_loop().call_soon(self.look_again)
            self.write(self.codec.canceled())
            self.go_on()

    def look_again(self) -> None:
        """The codec may have held bytes back that can go on now.

        In a step of its own: what comes of them may be refused at once, and so on, for as long as a client
        has sent ahead.
        """
        if self.phase == READY:
            self.data_received(b"")

    def leave_now(self) -> None:
        """What the client sent before it said goodbye is on its way."""
        self.phase = READY
        self.end(CloseReason.CLIENT_LEFT)

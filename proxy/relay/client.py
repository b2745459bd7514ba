"""One accepted connection: the client, which is also the waiter in its pool's queue.

Warm: ``data_received`` asks the codec, writes, and acquires; no task, no future, no timer. A client that
waits keeps the bytes of its first read and stops reading at the second. How it logs in is in entrance.py,
how it holds a session in link.py; how it ends is here.
"""

import asyncio

from proxy.codec import CLOSE, FORWARD, PAUSE, RELEASE, REPLY, TERMS
from proxy.errors import BackendError, LocalProtocolError, PoolError, ProxyError
from proxy.pool.limits import OFF
from proxy.pool.session import BUSY, Session
from proxy.reasons import CloseReason, DropReason
from proxy.relay.backend import SocketBackend
from proxy.relay.link import CLOSED, PREPARING, READY, WAITING, Link
from proxy.relay.sockets import has_hung_up
from proxy.relay.talk import Talk
from proxy.tasks import spawn


class Client(Link):
    """A client after its login. ``pool`` and ``codec`` never change."""

    def welcomed(self, ahead: bytes, ended: bool) -> None:
        """It is in. ``ahead`` is what it sent before, ``ended``: and it will send no more."""
        if ahead:
            self.data_received(ahead)

    # -- called by the event loop, through the connection ---------------------------------------

    def data_received(self, data: bytes) -> None:
        """The client sent something."""
        if self.phase != READY:
            self._keep(data)
            return
        codec = self.codec
        self.activity += 1
        self.pool.counters.bytes_client += len(data)
        flags = codec.client(data)
        backend = self.backend
        if flags == FORWARD and backend is not None:
            backend.write(codec.out)
        elif flags:
            self._act(flags)

    def eof_received(self) -> bool:
        """The client leaves; our side of the connection follows."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The client has gone."""
        if self.phase != CLOSED:
            self.close(CloseReason.CLIENT_LEFT if self.leaving else CloseReason.CLIENT_GONE)

    # -- the way to a session -------------------------------------------------------------------

    def _act(self, flags: int) -> None:
        codec = self.codec
        if flags & TERMS:
            self.adopt_terms()
        if flags & REPLY:
            self.transport.write(codec.reply)
        if flags & PAUSE:
            self.hold_reading(4, True)
        if flags & CLOSE:
            self.leaving = codec.closing is CloseReason.CLIENT_LEFT
        if flags & FORWARD:
            if self.backend is not None:
                self.backend.write(codec.out)
            else:
                self._request()
        if flags & CLOSE and (self.phase == READY or not self.leaving):
            self.end(codec.closing)
        elif flags & RELEASE and self.phase == READY:
            self.release()
            if self.draining:
                self.drain()

    def _request(self) -> None:
        if self.terms_changed:
            self.terms_changed = False
            self.adopt_terms()
        session = self.pool.try_acquire(self)
        if session is not None:
            self._link(session)
        else:
            self.phase = WAITING
            self.pool.enqueue(self)

    def granted(self, session: Session) -> bool:
        """Take the session and send what waits for it."""
        if self.phase != WAITING:
            return False
        if self.holds_reading and self.transport is not None and self._has_hung_up():
            # Nobody reads, so nobody has been told.
            self.close(CloseReason.CLIENT_GONE)
            return False
        self._link(session)
        return True

    def _has_hung_up(self) -> bool:
        sock = self.transport.get_extra_info("socket")
        return not self.leaving and (self.transport.is_closing() or has_hung_up(sock))

    def _link(self, session: Session) -> None:
        backend = session.backend
        if not isinstance(backend, SocketBackend):
            raise LocalProtocolError(f"{session!r} has no socket")
        self.session = session
        self.backend = backend
        if self.codec.join(backend.codec):
            self.begin_to_prepare(self.codec.out)
        else:
            self.phase = READY
            backend.holder = self
            if session.begun_at != OFF:
                # The transaction that was begun ahead is this client's.
                session.begun_at = OFF
                self.pool.counters.begins_used += 1
            if self.is_full:
                backend.pause_reading()
            backend.write(self.codec.out)
            if self.late or self.leaving or self.draining or self.holds_reading:
                self._go_on()

    def refused(self, error: ProxyError) -> None:
        """There is no session: answer, and stay."""
        if self.phase == WAITING:
            self._answer_refusal(error)

    def _answer_refusal(self, error: Exception) -> None:
        self.phase = READY
        asyncio.get_running_loop().call_soon(self._look_again)
        if isinstance(error, PoolError):
            self.write(self.codec.refuse(error))
        elif isinstance(error, BackendError):
            self.write(self.codec.backend_refused(error.sqlstate, error.message, error.fields))
        else:
            self.write(self.codec.backend_refused("08006", str(error), {}))
        self._go_on()

    def begin_to_prepare(self, waiting: bytes) -> None:
        """Give the held session the client's settings, then send it what waits."""
        # In this step: whatever the session says from now on is for the conversation.
        backend, session = self.backend, self.session
        assert backend is not None
        assert session is not None
        self.phase = PREPARING
        self.pool.counters.fixups += 1
        session.begun_at = OFF  # this ends a transaction that was begun ahead
        backend.holder = None
        talk = backend.talk(self.codec.prepare())
        spawn(self._prepare(backend, session, talk, waiting), f"settings of client {self.number}")

    async def _prepare(self, backend: SocketBackend, session: Session, talk: Talk, waiting: bytes) -> None:
        """Give the session the client's settings, then send what waits."""
        try:
            told = await backend.finish(talk)
        except (ProxyError, OSError) as error:
            self.part(backend)
            if session.state == BUSY:
                self.pool.recover(session)  # unless it was taken away
            self._not_prepared(error, bool(waiting))
            return
        except BaseException:
            self.part(backend)
            if session.state == BUSY:
                self.pool.drop(session, DropReason.PREPARE_FAILED)
            raise
        wanted, self.cancel_wanted = self.cancel_wanted and bool(waiting), False
        if (self.phase == CLOSED and not self.leaving) or wanted:
            self._give_up(backend, session, bool(waiting))
            return
        self.write(told)
        if self.phase == PREPARING:
            self.phase = READY
        backend.attach(self)
        if self.backend is not backend:
            return
        if self.is_full:
            backend.pause_reading()
        if waiting:
            backend.write(waiting)
        else:
            asyncio.get_running_loop().call_soon(self._look_again)
        self._go_on()

    def _not_prepared(self, error: Exception, is_asked: bool) -> None:
        if self.phase != PREPARING:
            return
        if is_asked:
            self._answer_refusal(error)
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
        self._canceled()

    def _go_on(self) -> None:
        """Look at what came in while nobody could."""
        if self.leaving:
            self._leave()
            return
        if self.holds_reading & 5:
            self.hold_reading(5, False)
        if self.late and self.phase == READY:
            data, self.late = self.late, b""
            self.data_received(data)
        if self.draining:
            self.drain()

    def _keep(self, data: bytes) -> None:
        # The second read of a client that waits: keep it, and read no further.
        self.late += data
        if self.phase != CLOSED:
            self.hold_reading(1, True)

    def _canceled(self) -> None:
        if self.phase != CLOSED:
            self.phase = READY
            asyncio.get_running_loop().call_soon(self._look_again)
            self.write(self.codec.canceled())
            self._go_on()

    def _look_again(self) -> None:
        # The codec may have held bytes back that can go on now. In a step of its own: what comes of them
        # may be refused at once, and so on, for as long as a client has sent ahead.
        if self.phase == READY:
            self.data_received(b"")

    # -- cancel, sweep, end ---------------------------------------------------------------------

    async def cancel(self) -> None:
        """Cancel what this client runs or waits for; returns when the server knows."""
        if self.phase == WAITING:
            if self.pool.withdraw(self):
                self._canceled()
        elif self.phase == PREPARING:
            self.cancel_wanted = True
        elif self.backend is not None and self.codec.is_running():
            await asyncio.wait((self.backend.cancel(),))

    def sweep(self, now: float) -> None:
        """End the client if it has held a session idle for ``idle_transaction_timeout``."""
        if self.phase != READY or not self.codec.is_holding_idle():
            self.activity_seen = -1
        elif self.activity_seen != self.activity:
            self.activity_seen, self.idle_since = self.activity, now
        elif now - self.idle_since >= self.pool.limits.idle_transaction_timeout:
            self.end(CloseReason.IDLE_TRANSACTION)

    def look_for_hangup(self) -> None:
        """End the client if it has gone while nobody reads what it sends: no event would tell."""
        if self.holds_reading and self.phase != CLOSED and self._has_hung_up():
            self.close(CloseReason.CLIENT_GONE)

    def drain(self) -> None:
        """End the client now if it has nothing under way, otherwise when it has."""
        self.draining = True
        if self.phase == READY and (self.backend is None or self.codec.is_clean()):
            self.end(CloseReason.DRAIN)

    def end(self, reason: CloseReason, detail: str = "") -> None:
        """Say why, and close the connection."""
        if self.phase == CLOSED:
            return
        if reason not in (CloseReason.CLIENT_LEFT, CloseReason.PROTOCOL_ERROR):
            self.write(self.codec.fatal(reason, detail))
        self.close(reason)

    def close(self, reason: CloseReason) -> None:
        """Let go of everything and close the connection. Once only."""
        phase, self.phase = self.phase, CLOSED
        ended, self.ended = self.ended, _told
        ended(self, reason)
        if phase == WAITING:
            if self.leaving:
                # What it sent before it said goodbye is still to be done.
                self.phase = WAITING
            else:
                self.pool.withdraw(self)
        elif phase == READY and self.backend is not None:
            self.give_back()
        if not self.transport.is_closing():
            self.transport.close()

    def _leave(self) -> None:
        """What the client sent before it said goodbye is on its way."""
        self.phase = READY
        self.end(CloseReason.CLIENT_LEFT)


def _told(client: Client, reason: CloseReason) -> None:
    # Whoever had to be told has been.
    return

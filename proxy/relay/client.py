"""One accepted connection: the client, which is also the waiter in its pool's queue.

Warm: ``data_received`` asks the codec, writes, and acquires; no task, no future, no timer. A client that
waits keeps the bytes of its first read and stops reading at the second. How it logs in is in entrance.py,
how it holds a session in link.py, how it is given its settings in preparing.py; how it ends is here.
"""

import asyncio
from typing import Final

from proxy.codec import CLOSE, FORWARD, PAUSE, RELEASE, REPLY, TERMS, nobody_hears
from proxy.errors import LocalProtocolError, ProxyError
from proxy.pool.limits import OFF
from proxy.pool.session import Session
from proxy.reasons import CloseReason
from proxy.relay.backend import SocketBackend
from proxy.relay.link import CLOSED, PREPARING, READY, WAITING
from proxy.relay.preparing import Preparing
from proxy.relay.sockets import has_hung_up

_LINGER: Final = 10.0  # seconds that a client has to take what it was sent before it was closed


class Client(Preparing):
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
        if self.watch is not None and backend is not None:
            self.watch.sent()
        if flags == FORWARD:
            if backend is not None:
                backend.write(codec.out)
            else:
                self._request()
        elif flags:
            self._act(flags)

    def eof_received(self) -> bool:
        """The client leaves; our side of the connection follows, and takes with it what was not written."""
        self.tell_now()
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
            self.write(codec.reply)
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
        if self.watch is not None:
            self.watch.granted(self.since if self.phase == WAITING else -1.0)
        self.session = session
        self.backend = backend
        codec = self.codec
        if codec.join(backend.codec):
            self.begin_to_prepare(codec.out, True)
        else:
            self.phase = READY
            backend.holder = self
            if session.begun_at != OFF:
                # The transaction that was begun ahead is this client's.
                session.begun_at = OFF
                self.pool.counters.begins_used += 1
            if self.is_full:
                backend.pause_reading()
            if codec.more:
                self._send_more(backend)
            else:
                backend.write(codec.out)
            if self.late or self.leaving or self.draining or self.holds_reading:
                self.go_on()

    def _send_more(self, backend: SocketBackend) -> None:
        """What follows depends on the session, and now there is one. One write for all of it."""
        codec = self.codec
        out = codec.out
        flags = codec.client(b"")
        if self.watch is not None:
            self.watch.sent()
        if flags & FORWARD:
            out += codec.out
        if out:
            backend.write(out)
        if flags & ~FORWARD:
            self._act(flags & ~FORWARD)

    def refused(self, error: ProxyError) -> None:
        """There is no session: answer, and stay."""
        if self.phase == WAITING:
            self.answer_refusal(error)

    def _keep(self, data: bytes) -> None:
        # The second read of a client that waits: keep it, and read no further.
        self.late += data
        if self.phase != CLOSED:
            self.hold_reading(1, True)

    # -- cancel, sweep, end ---------------------------------------------------------------------

    async def cancel(self) -> None:
        """Cancel what this client runs or waits for; returns when the server knows."""
        if self.phase == WAITING:
            if self.pool.withdraw(self):
                self.answer_cancel()
        elif self.phase == PREPARING:
            self.cancel_wanted = True
        elif self.backend is not None and self.codec.is_running():
            await asyncio.wait((self.backend.cancel(),))

    def stop_query(self) -> None:
        """Have the server cancel the query that runs, which has taken too long."""
        if self.backend is not None and not self.backend.cancels:
            self.codec.timed_out()
            self.backend.cancel()

    def look_for_hangup(self) -> None:
        """End the client if it has gone while nobody reads what it sends: no event would tell."""
        if self.holds_reading and self.phase != CLOSED and self._has_hung_up():
            self.close(CloseReason.CLIENT_GONE)

    def drain(self) -> None:
        """End the client now if it has nothing under way, otherwise when it has."""
        self.draining = True
        if self.phase == READY and (self.backend is None or self.codec.is_at_rest()):
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
        if self.phase == CLOSED:
            self.codec.leave()
            self.codec.bell = nobody_hears
        if not self.transport.is_closing():
            self.tell_now()
            self.transport.close()
            if self.is_full:
                # Who takes nothing does not hear the last words either, and must not keep the socket.
                asyncio.get_running_loop().call_later(_LINGER, self.transport.abort)


def _told(client: Client, reason: CloseReason) -> None:
    # Whoever had to be told has been.
    return

"""A client whose bytes mean nothing to us: it holds one session for as long as it is there.

The session is acquired when the client connects, for the server may be the one that speaks first. Either
side's end is passed on as it came: the end of one direction as that, a reset as a reset. A session that
nobody has said anything on goes back to the pool; what becomes of another is for the codec to say.

An end of one direction needs the system's own sockets: TLS ends both at once, and so do we.
"""

from collections.abc import Callable
from typing import Any

import structlog

from proxy.codec import ClientCodec
from proxy.errors import LocalProtocolError, PoolError, ProxyError
from proxy.pool.pool import Pool
from proxy.pool.session import Key, Session
from proxy.reasons import CloseReason, DropReason
from proxy.relay.backend import SocketBackend
from proxy.relay.client import Client
from proxy.relay.link import CLOSED, READY, WAITING
from proxy.relay.proxy_header import Origin, header
from proxy.relay.sockets import cut, was_reset

_log = structlog.get_logger("penstock")


class Pipe(Client):
    """A client and the session that it holds from its first moment to its last."""

    def __init__(
        self,
        number: int,
        transport: Any,
        pool: Pool,
        key: Key,
        codec: ClientCodec,
        ended: Callable[[Any, CloseReason], None],
        origin: Origin,
    ) -> None:
        super().__init__(number, transport, pool, key, codec, ended)
        self.origin = origin
        self.client_done = False  # the client will send no more
        self.server_done = False  # the server will send no more
        self.is_cut = False  # the client's connection broke

    def welcomed(self, ahead: bytes, ended: bool) -> None:
        """It is in: acquire, before it has said anything."""
        if self.phase == READY:
            self._request()
        if self.phase != CLOSED:
            if ahead:
                self.data_received(ahead)
            if ended and not self.eof_received():
                self.transport.close()

    # -- from the client --------------------------------------------------------------------------

    def eof_received(self) -> bool:
        """The client will send no more; it may still listen. One that has said nothing at all leaves."""
        self.tell_now()
        if self.client_done or self.phase == CLOSED:
            return self.phase != CLOSED
        backend = self.backend
        if not self.transport.can_write_eof() or self.server_done:
            return False
        if backend is None:
            self.client_done = bool(self.late)
            return self.client_done
        if self.codec.is_clean() or not backend.can_half_close():
            return False
        self.client_done = True
        backend.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """The client has gone, and did not say so where there is an error."""
        if self.phase != CLOSED:
            self.is_cut = error is not None
            self.close(CloseReason.CLIENT_LEFT if error is None else CloseReason.CLIENT_GONE)

    # -- the session --------------------------------------------------------------------------------

    def _link(self, session: Session) -> None:
        backend = session.backend
        if not isinstance(backend, SocketBackend):
            raise LocalProtocolError(f"{session!r} has no socket")
        self.session = session
        self.backend = backend
        self.phase = READY
        self.listen_to(backend)
        announced = header(backend.endpoint.send_proxy, self.origin)
        late, self.late = announced + self.late, b""
        if late:
            self.data_received(late)
        if self.client_done:
            self._pass_end_on(backend)
        elif self.holds_reading & 1:
            self.hold_reading(1, False)
        if self.draining and self.phase == READY:
            self.drain()

    def _pass_end_on(self, backend: SocketBackend) -> None:
        # It came while the client was waiting.
        if backend.can_half_close():
            backend.write_eof()
        else:
            self.close(CloseReason.CLIENT_LEFT)

    def refused(self, error: ProxyError) -> None:
        """There is no session, and no way to say so but to break the connection."""
        if self.phase != WAITING:
            return
        self.phase = READY
        _log.warning(
            "client_refused",
            client=self.number,
            peer=self.peer,
            pool=self.pool.name,
            reason="pool",
            detail=f"{error.message}: {error.picture}" if isinstance(error, PoolError) else str(error),
        )
        cut(self.transport)
        self.close(CloseReason.REFUSED)

    def backend_ended(self) -> bool:
        """The server will say no more; it may still listen."""
        backend = self.backend
        assert backend is not None
        if self.server_done:
            return True
        self.server_done = True
        if self.client_done or not backend.can_half_close() or not self.transport.can_write_eof():
            self.close(CloseReason.SERVER_LEFT)
            return False
        self.tell_now()
        self.transport.write_eof()
        return True

    def backend_lost(self, detail: str) -> None:
        """The held session is gone; the pool knows."""
        backend = self.backend
        assert backend is not None
        self.part(backend)
        if self.phase == CLOSED:
            return
        if backend.was_cut():
            cut(self.transport)
            self.close(CloseReason.SESSION_LOST)
        else:
            self.close(CloseReason.SERVER_LEFT)

    def give_back(self) -> None:
        """Let go of the session: it is as it was, or it is over."""
        backend, session = self.backend, self.session
        assert backend is not None
        assert session is not None
        is_clean = self.codec.is_clean() and not self.server_done and not self.client_done
        self.part(backend)
        if is_clean:
            self.pool.reset(session)
            return
        if self.is_cut:
            backend.cut()
        self.pool.drop(session, DropReason.SPENT)
        self.pool.keeper.refill()

    # -- the sweep ----------------------------------------------------------------------------------

    def _has_hung_up(self) -> bool:
        # One that will send no more may still be listening, so only a reset tells.
        return bool(self.transport.is_closing()) or was_reset(self.transport.get_extra_info("socket"))

    def look_for_hangup(self) -> None:
        """End the client if it was reset while nobody reads what it sends: no event would tell."""
        if (self.holds_reading or self.client_done) and self.phase != CLOSED and self._has_hung_up():
            self.is_cut = True
            self.close(CloseReason.CLIENT_GONE)

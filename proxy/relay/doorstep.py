"""What stands before everything else on a connection: the header of the PROXY protocol, and TLS that begins
at once.

What is behind the header belongs to TLS or to the protocol, so not one byte of it may be read here. The
loop's own transport reads what it can get, from the moment it is made; therefore the socket is taken out
of its hands, looked at without being read (MSG_PEEK), and given back as what it is by then.
"""

import asyncio
import os
import socket
from typing import Any

import structlog

from proxy.errors import RemoteProtocolError
from proxy.reasons import RefusalReason
from proxy.reception import Reception
from proxy.relay.entrance import Entrance
from proxy.relay.house import House, Leaver
from proxy.relay.proxy_header import MOST, HeaderReader, Origin
from proxy.relay.tls_failures import explain
from proxy.relay.tls_transport import TlsTransport
from proxy.tasks import spawn

_log = structlog.get_logger("penstock")


class Doorstep(Leaver):
    """One accepted connection that nobody has heard yet. ``login_timeout`` counts from here on."""

    def __init__(self, house: House, reception: Reception, login_timeout: float) -> None:
        self._house = house
        self._reception = reception
        self._login_timeout = login_timeout
        self._loop = asyncio.get_running_loop()
        self._header = HeaderReader()
        self._socket: socket.socket | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._entering: asyncio.Task[None] | None = None

    # -- called by the event loop ---------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """A connection was accepted: keep its socket, and let the transport go."""
        descriptor = transport.get_extra_info("socket").fileno()
        if self._house.is_out_of_descriptors(descriptor):
            transport.abort()
            self._refuse(
                "the daemon has only its reserve of file descriptors left", RefusalReason.DESCRIPTORS
            )
            return
        try:
            self._socket = socket.socket(fileno=os.dup(descriptor))
        except OSError as error:
            transport.abort()
            self._refuse(str(error), RefusalReason.DESCRIPTORS)
            return
        # Before it has read anything: it begins to when this method returns.
        transport.abort()
        self._socket.setblocking(False)
        self._house.enter(self)
        self._deadline = self._loop.call_later(self._login_timeout, self._late)
        if self._house.announced:
            self._loop.add_reader(self._socket, self._look)
        else:
            self._let_in()

    def data_received(self, data: bytes) -> None:
        """Nothing is read through the transport."""

    def eof_received(self) -> bool:
        """Nothing is read through the transport."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The transport has let go of the socket."""

    def pause_writing(self) -> None:
        """Nothing is written."""

    def resume_writing(self) -> None:
        """Nothing is written."""

    # -- the header -----------------------------------------------------------------------------

    def _look(self) -> None:
        sock = self._socket
        assert sock is not None
        try:
            ahead = sock.recv(MOST, socket.MSG_PEEK)
            if not ahead:
                self.end()
                return
            taken = self._header.feed(ahead)
            if taken:
                sock.recv(taken)
        except BlockingIOError:
            return
        except OSError:
            self.end()
            return
        except RemoteProtocolError as error:
            self._refuse(str(error), RefusalReason.PROTOCOL)
            return
        if self._header.done:
            self._let_in()

    def _let_in(self) -> None:
        sock, deadline = self._socket, self._deadline
        assert sock is not None
        assert deadline is not None
        self._loop.remove_reader(sock)
        deadline.cancel()
        left = max(0.001, deadline.when() - self._loop.time())
        self._entering = spawn(self._enter(sock, left, self._header.origin), "a connection at the door")

    async def _enter(self, sock: socket.socket, left: float, origin: Origin | None) -> None:
        def entrance() -> Any:  # asyncio wants its own classes; the loop calls methods by name
            return Entrance(self._house, self._reception, left, origin)

        tls = self._house.tls if self._reception.begins_with_tls() else None
        try:
            if tls is None:
                await self._loop.connect_accepted_socket(entrance, sock)
            else:
                secured = TlsTransport(tls, entrance(), left, announce=True)

                def below() -> Any:
                    return secured

                await self._loop.connect_accepted_socket(below, sock)
                await secured.secured()
        except OSError as error:
            if tls is not None:
                kind, text = explain(error, "client")
                self._house.tls_failed(kind)
                self._refuse(f"TLS failed: {text}", RefusalReason.TLS)
            sock.close()
        except BaseException:
            sock.close()
            raise
        finally:
            self._socket = None
            self._house.leave(self)

    def _late(self) -> None:
        text = f"no PROXY header came within login_timeout ({self._login_timeout:g}s)"
        self._refuse(text, RefusalReason.LOGIN_TIMEOUT)

    def _refuse(self, detail: str, reason: RefusalReason) -> None:
        self._house.refused(reason)
        peer = _name(self._socket)
        _log.warning(
            "client_refused", listener=self._house.name, peer=peer, reason=str(reason), detail=detail
        )
        self.end()

    def end(self) -> None:
        """Close the connection: it left, it was refused, or the daemon stops."""
        sock, self._socket = self._socket, None
        self._house.leave(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._entering is not None:
            if self._entering is not asyncio.current_task():
                self._entering.cancel()
        elif sock is not None:
            self._loop.remove_reader(sock)
            sock.close()


def _name(sock: socket.socket | None) -> str:
    try:
        name = sock.getpeername() if sock is not None else ""
    except OSError:
        return ""
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"

"""Where a pool's sessions go to: the address, its TLS, and how a connection to it is made."""

import asyncio
import ssl
from typing import Any

import structlog
from mypy_extensions import mypyc_attr

from proxy.errors import BackendError, OpenFailed, ProxyError
from proxy.relay.certificates import Kept
from proxy.relay.names import Names
from proxy.relay.proxy_header import NO_HEADER
from proxy.relay.sockets import KeepAlive, tune
from proxy.relay.talk import Talk, Talker
from proxy.relay.tls_start import begin_towards_server, told
from proxy.steps import Conversation, StartTls

_CANCEL_TIMEOUT = 10.0  # seconds that one cancel request may take
_log = structlog.get_logger("penstock")


@mypyc_attr(allow_interpreted_subclasses=True)
class Endpoint:
    """One server. ``path`` is a Unix socket and goes before ``host``; ``tls`` None: never TLS."""

    def __init__(
        self, host: str, port: int, path: str, tls: ssl.SSLContext | None, keepalive: KeepAlive
    ) -> None:
        self.host = host
        self.port = port
        self.path = path
        self.tls = tls
        self.keepalive = keepalive
        self.names: Names | None = None  # the addresses behind `host`, where that is a name
        self.kept: Kept | None = None  # the files that `tls` is made of
        self.tls_hint = ""  # what is said when the server ends the connection instead of beginning TLS
        self.sni = True  # the server is told which name it was reached by
        self.send_proxy = NO_HEADER  # the version in which a client is announced, see proxy_header

    async def connect(self, protocol: Any, at: str = "") -> None:
        """Connect ``protocol``, ``at`` one address of the server where that is given. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self.path:
            await loop.create_unix_connection(lambda: protocol, self.path)
        elif at or self.names is None:
            await loop.create_connection(lambda: protocol, at or self.host, self.port)
        else:
            await self.names.connect(protocol)

    async def start_tls(self, transport: Any, protocol: Any) -> Any:
        """Begin TLS on a connected transport that is not being read; returns the new one.

        Raises BackendError with what was wrong.
        """
        if self.tls is None:
            raise OpenFailed("TLS was agreed on, but this endpoint has none")
        name = self.host if self.sni else ""
        return await begin_towards_server(transport, protocol, self.tls, name, self.tls_hint)


class Errand(Talker):
    """One conversation on a connection of its own, until it ends or the server closes the connection."""

    def __init__(self, endpoint: Endpoint, conversation: "Conversation[None]", at: str = "") -> None:
        self._endpoint = endpoint
        self._at = at  # the address where the session is that this is about
        self._transport: Any = None
        self._talk = Talk(conversation, self)

    async def run(self) -> None:
        """Connect, talk, and return when the server has closed the connection. Raises ProxyError, OSError."""
        try:
            await self._endpoint.connect(self, self._at)
            self._talk.begin()
            await self._talk.future
        except _ServerClosed:
            return
        finally:
            self._talk.fail(BackendError("the errand was given up"))
            if self._transport is not None:
                self._transport.abort()

    async def cancel(self, session: int) -> None:
        """Have a cancel request passed on; what goes wrong is logged, with the number of its session.

        The server closes the connection once it has passed it on: only then is it certain that it will hit
        no later query. Whoever gives the session on waits for that.
        """
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT):
                await self.run()
        except (OSError, TimeoutError, ProxyError) as error:
            _log.warning("cancel_failed", session=session, error=str(error))

    def connection_made(self, transport: Any) -> None:
        """The connection stands."""
        self._transport = transport
        tune(transport.get_extra_info("socket"), self._endpoint.keepalive)

    def data_received(self, data: bytes) -> None:
        """The server said something."""
        self._talk.feed(data)

    def eof_received(self) -> bool:
        """The server has done it."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The server has done it, or cannot be reached."""
        self._talk.fail(_ServerClosed("closed"))

    def pause_writing(self) -> None:
        """An errand writes a few bytes only."""

    def resume_writing(self) -> None:
        """An errand writes a few bytes only."""

    def say(self, data: bytes) -> None:
        """Write bytes to the server."""
        self._transport.write(data)

    def hold(self) -> None:
        """Stop reading: what comes next is TLS."""
        self._transport.pause_reading()

    async def start_tls(self, step: StartTls) -> bytes | None:
        """Turn the connection into a TLS connection."""
        self._transport = await self._endpoint.start_tls(self._transport, self)
        return told(step, self._transport)


class _ServerClosed(ProxyError):
    pass

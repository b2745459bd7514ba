"""Where a pool's sessions go to: the address, its TLS, and how a connection to it is made."""

import asyncio
import ssl
from typing import Any

from mypy_extensions import mypyc_attr

from proxy.codec import Conversation
from proxy.errors import BackendError, OpenFailed, ProxyError
from proxy.relay.proxy_header import NO_HEADER
from proxy.relay.sockets import KeepAlive, tune
from proxy.relay.talk import Talk, Talker


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
        self.send_proxy = NO_HEADER  # the version in which a client is announced, see proxy_header

    async def connect(self, protocol: Any) -> None:
        """Connect ``protocol``. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self.path:
            await loop.create_unix_connection(lambda: protocol, self.path)
        else:
            await loop.create_connection(lambda: protocol, self.host, self.port)

    async def start_tls(self, transport: Any, protocol: Any) -> Any:
        """Begin TLS on a connected transport that is not being read; returns the new one. Raises OSError."""
        if self.tls is None:
            raise OpenFailed("TLS was agreed on, but this endpoint has none")
        loop = asyncio.get_running_loop()
        upgraded = await loop.start_tls(transport, protocol, self.tls, server_hostname=self.host or None)
        if upgraded is None:
            raise OpenFailed("the connection was lost while TLS began")
        return upgraded


async def start_tls_server(transport: Any, protocol: Any, context: ssl.SSLContext | None) -> Any:
    """Begin TLS with a client on a transport that is not being read; returns the new one. Raises OSError."""
    assert context is not None
    loop = asyncio.get_running_loop()
    upgraded = await loop.start_tls(transport, protocol, context, server_side=True)
    if upgraded is None:
        raise ConnectionResetError("the connection was lost while TLS began")
    return upgraded


class Errand(Talker):
    """One conversation on a connection of its own, until it ends or the server closes the connection."""

    def __init__(self, endpoint: Endpoint, conversation: "Conversation[None]") -> None:
        self._endpoint = endpoint
        self._transport: Any = None
        self._talk = Talk(conversation, self)

    async def run(self) -> None:
        """Connect, talk, and return when the server has closed the connection. Raises ProxyError, OSError."""
        try:
            await self._endpoint.connect(self)
            self._talk.begin()
            await self._talk.future
        except _ServerClosed:
            return
        finally:
            self._talk.fail(BackendError("the errand was given up"))
            if self._transport is not None:
                self._transport.abort()

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

    async def start_tls(self) -> bytes | None:
        """Turn the connection into a TLS connection."""
        self._transport = await self._endpoint.start_tls(self._transport, self)
        return None


class _ServerClosed(ProxyError):
    pass

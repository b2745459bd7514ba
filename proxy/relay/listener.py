"""One address where clients are accepted, TCP or Unix socket."""

import asyncio
import os
import time
from typing import Any

from proxy.reasons import CloseReason
from proxy.reception import Reception
from proxy.relay.certificates import Kept
from proxy.relay.doorstep import Doorstep
from proxy.relay.entrance import Entrance
from proxy.relay.house import House
from proxy.relay.sockets import tune_listening
from proxy.relay.timing import interval, sweep
from proxy.tasks import spawn
from proxy.unix_sockets import remove_own, remove_stale

_BACKLOG = 1024


class Listener:
    """Accepts connections for one house. ``path`` is a Unix socket and goes before ``host`` and ``port``."""

    def __init__(
        self,
        house: House,
        reception: Reception,
        host: str,
        port: int,
        path: str,
        unix_socket_mode: int,
        login_timeout: float,
        kept: Kept | None = None,
    ) -> None:
        self.house = house
        self.host = host
        self.port = port
        self.path = path
        self.kept = kept  # the files that the TLS of the house is made of
        self._reception = reception
        self._mode = unix_socket_mode
        self._login_timeout = login_timeout
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def bound(self) -> bool:
        """Clients are accepted."""
        return self._server is not None

    @property
    def address(self) -> str:
        """Where clients connect to, as the configuration writes it."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def start(self) -> None:
        """Bind and accept. Raises OSError with a sentence when the address cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            if self.path:
                remove_stale(self.path)
                server = await loop.create_unix_server(self._accept, self.path, backlog=_BACKLOG)
                os.chmod(self.path, self._mode)
                self._inode = os.stat(self.path).st_ino
            else:
                server = await loop.create_server(self._accept, self.host, self.port, backlog=_BACKLOG)
                self.port = server.sockets[0].getsockname()[1]
        except OSError as error:
            raise OSError(
                f"listeners.{self.house.name}.address: cannot listen on {self.address}: {error}"
            ) from error
        self._server = server
        self._tune()
        self._sweeper = spawn(self._sweep(), f"sweeper of listener {self.house.name}")

    def _tune(self) -> None:
        if self._server is not None:
            for sock in self._server.sockets:
                tune_listening(sock, self.house.keepalive)

    def _accept(self) -> Any:  # asyncio wants its own classes; the loop calls methods by name
        if self.house.announced or self._reception.begins_with_tls():
            return Doorstep(self.house, self._reception, self._login_timeout)
        return Entrance(self.house, self._reception, self._login_timeout)

    async def _sweep(self) -> None:
        """Look for clients that have gone unseen, and for those that take too long."""
        while True:
            now = time.monotonic()
            shortest = sweep(list(self.house.clients), self.house.commons.timeouts, now)
            self.house.warn_of_long_holds(now)
            await asyncio.sleep(interval(shortest))

    def stop_accepting(self) -> None:
        """No new connections; those that are in stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
            if self.path:
                remove_own(self.path, self._inode)

    def adopt(self, other: "Listener") -> None:
        """Treat connections to come as ``other``, which was never started, would; the address stays."""
        house, its = self.house, other.house
        house.max_clients, house.keepalive, house.tls = its.max_clients, its.keepalive, its.tls
        house.announced = its.announced
        self._tune()
        if self.kept is not None and other.kept is not None:
            other.kept.follow(self.kept)
        self.kept = other.kept
        self._reception, self._login_timeout = other._reception, other._login_timeout

    def drain(self) -> None:
        """End every client that has nothing under way; the others end when they have."""
        for client in list(self.house.clients):
            client.drain()

    def stop(self) -> None:
        """End everybody who is left."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for entrance in list(self.house.entering):
            entrance.end()
        for client in list(self.house.clients):
            client.end(CloseReason.DRAIN_TIMEOUT)

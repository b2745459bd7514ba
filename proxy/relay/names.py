"""The addresses behind a server's name: looked up off the loop, kept for a while, followed when they change.

What cannot be looked up is not remembered: the next who asks looks again, and until then the addresses of
before are taken. Sessions to an address that is gone from the name are renewed, so that a fail-over by DNS
reaches them.
"""

import asyncio
import ipaddress
import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from proxy.pool.limits import OFF
from proxy.pool.pool import Pool
from proxy.reasons import DropReason
from proxy.tasks import spawn

_log = structlog.get_logger("penstock")
_EACH = 3.0  # seconds for each address of a name but the last
_SHORTEST = 0.2  # seconds between two look-ups of a follower

Lookup = Callable[[str, int], Awaitable[list[str]]]


async def look_up(host: str, port: int) -> list[str]:
    """Every address of a name, in the order of the resolver. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_name(host: str) -> bool:
    """Something that has to be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(host)
    return False


class Names:
    """One host name. ``ttl`` in seconds; OFF: looked up each time, and not followed."""

    def __init__(
        self,
        host: str,
        port: int,
        ttl: float,
        *,
        shuffled: bool = False,
        lookup: Lookup = look_up,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self.port = port
        self.ttl = ttl
        self.known: tuple[str, ...] = ()
        self._shuffled = shuffled
        self._lookup = lookup
        self._clock = clock
        self._fresh_until = 0.0

    async def connect(self, protocol: Any) -> None:
        """Connect to the first address that answers. Raises OSError; whoever tries next looks again."""
        loop, addresses = asyncio.get_running_loop(), await self.addresses()
        for address in addresses[:-1]:
            try:
                async with asyncio.timeout(_EACH):
                    await loop.create_connection(lambda: protocol, address, self.port)
            except OSError:  # TimeoutError is one
                continue
            return
        try:
            await loop.create_connection(lambda: protocol, addresses[-1], self.port)
        except OSError:
            self._fresh_until = 0.0
            raise

    async def addresses(self) -> list[str]:
        """Where to connect to, one after the other. Raises OSError when the name is not known."""
        if not self.known or self._clock() >= self._fresh_until:
            await self.renew()
        found = list(self.known)
        if self._shuffled:
            random.shuffle(found)
        return found

    async def renew(self) -> bool:
        """Look the name up; True when an address is gone. Raises OSError when it was never known."""
        try:
            found = tuple(await self._lookup(self.host, self.port))
            if not found:
                raise OSError("the name has no address")
        except OSError as error:
            if not self.known:
                raise
            _log.warning("lookup_failed", host=self.host, error=str(error))
            return False
        before, self.known = self.known, found
        if self.ttl != OFF:
            self._fresh_until = self._clock() + self.ttl
        gone = [address for address in before if address not in found]
        if gone:
            _log.info("addresses_changed", host=self.host, gone=gone, addresses=list(found))
        return bool(gone)


class Follower:
    """Renews the sessions of a pool whose addresses are gone. ``names`` are those of its endpoints."""

    def __init__(self, pool: Pool, names: Sequence[Names | None]) -> None:
        self._pool = pool
        self._names = tuple(names)

    def start(self) -> None:
        """Follow those that are to be followed, for as long as the pool is open. Needs a running loop."""
        for number, names in enumerate(self._names):
            if names is not None and names.ttl != OFF:
                spawn(self._follow(number, names), f"addresses of {names.host}")

    async def _follow(self, number: int, names: Names) -> None:
        while not self._pool.ledger.closed:
            await asyncio.sleep(max(_SHORTEST, names.ttl))
            await self.look(number, names)

    async def look(self, number: int, names: Names) -> None:
        """Look one name up, and let go of the sessions that are connected to none of its addresses."""
        sessions = self._pool.ledger.endpoints.all[number].sessions
        if not sessions:
            return
        try:
            await names.renew()
        except OSError:
            return
        for session in list(sessions):
            backend = session.backend
            if backend is not None and backend.place() not in ("", *names.known):
                self._pool.failover.doom(session, DropReason.MOVED)

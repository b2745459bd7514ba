"""The door of the status server: its listening socket, and who is let in, for how long.

One visit is one connection with one request. It must never let visitors hurt the daemon: at most
``ROOM`` visits at a time (the oldest makes room for the newest), at most ``STAY`` seconds each, at
most ``PACE`` new ones a second. It keeps a few spare descriptors, so that probes and scrapes are
answered even when pools and clients have used up all the others.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from proxy.tasks import spawn

ROOM: Final = 64
STAY: Final = 10.0
PACE: Final = 100.0
BURST: Final = 60.0
HEAD_LIMIT: Final = 16 * 1024  # bytes; browsers send every cookie of localhost, whatever its port
_SPARES: Final = 4
_AT_ONCE: Final = 2
_REST: Final = 0.1
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# Only what is a bug of ours is worth a line; what visitors send wrongly is answered and forgotten.
_log = logging.getLogger("penstock.http")
_log.setLevel(logging.ERROR)


async def listen(host: str, port: int) -> socket.socket:
    """Bind and listen on the first address that ``host`` means; port 0 takes any free port.

    Raises OSError with a sentence when the name means nothing or the address cannot be had.
    """
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as failure:
        raise _refusal(place, failure) from None
    family, kind, proto, _, address = found[0]
    listening = socket.socket(family, kind, proto)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(ROOM)
    except OSError as failure:
        listening.close()
        raise _refusal(place, failure) from None
    return listening


def _refusal(place: str, failure: OSError) -> OSError:
    sentence = f"the status server cannot listen on {place}: {failure.strerror or failure}"
    if failure.errno == errno.EADDRINUSE:
        sentence += "; stop what listens there, or choose another [http] address"
    refusal = OSError(sentence)
    refusal.errno = failure.errno
    return refusal


class Visit(H11Protocol):
    """One connection: uvicorn speaks HTTP, the door says how long it may."""

    def __init__(self, config: Config, state: ServerState, door: "Door") -> None:
        super().__init__(config=config, server_state=state, app_state={}, _loop=asyncio.get_running_loop())
        self.logger = _log
        self.access_log = False
        self._door = door
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the visit and its deadline."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self._door.stay, transport.abort)
        self._door.entered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the visit."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)
        self._door.left(self)


class Door:
    """Accepts visits on a listening socket and hands each to ``app``, an ASGI application."""

    def __init__(self, listening: socket.socket, app: Callable[..., Any], stay: float | None = None) -> None:
        self._stay = stay
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._state = ServerState()
        self._config = Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=HEAD_LIMIT,
            timeout_keep_alive=1,
        )
        self._config.load()
        self._visits: dict[Visit, None] = {}  # in order of arrival
        self._spares: list[int] = []
        self._allowed = BURST
        self._counted = self._loop.time()
        self._resting: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._closed = False

    @property
    def stay(self) -> float:
        """Seconds that one visit may take."""
        return STAY if self._stay is None else self._stay

    @property
    def hurried(self) -> bool:
        """Whether visits come so fast that answers had better be cheap."""
        return self._allowed < BURST - 20

    def open(self) -> None:
        """Start to accept."""
        self.keep_spares()
        self._loop.add_reader(self._listening, self._knock)

    async def close(self, patience: float = 1.0) -> None:
        """Stop accepting; give what is being written ``patience`` seconds to arrive, then cut it."""
        self._closed = True
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for visit in list(self._visits):
            visit.transport.close()
        if self._visits:
            try:
                async with asyncio.timeout(patience):
                    await self._empty.wait()
            except TimeoutError:
                for visit in list(self._visits):
                    visit.transport.abort()
        self.lend_spares()

    def lend_spares(self) -> None:
        """Give up the spare descriptors for a moment, to whoever opens files in this very step."""
        while self._spares:
            os.close(self._spares.pop())

    def keep_spares(self) -> None:
        """Hold spare descriptors again, as many as can be had."""
        while len(self._spares) < _SPARES and not self._closed:
            try:
                self._spares.append(os.dup(self._listening.fileno()))
            except OSError:
                return

    def entered(self, visit: Visit) -> None:
        """Note a visit that begins; the oldest one goes when the room is full."""
        self._visits[visit] = None
        if self._closed:
            visit.transport.abort()
        elif len(self._visits) > ROOM:
            oldest = next(iter(self._visits))
            del self._visits[oldest]
            oldest.transport.abort()

    def left(self, visit: Visit) -> None:
        """Note a visit that ended."""
        self._visits.pop(visit, None)
        if not self._visits:
            self._empty.set()
        if not self._closed and len(self._spares) < _SPARES:
            self._loop.call_later(_REST, self.keep_spares)  # its own descriptor is free only then

    def _knock(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._may_enter():
                self._rest()
                return
            try:
                visitor, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as failure:
                if failure.errno not in _EXHAUSTED:
                    continue  # that visitor has gone already
                if not self._spares:
                    self._rest()
                    return
                os.close(self._spares.pop())
                continue
            self._allowed -= 1
            self._empty.clear()
            spawn(self._admit(visitor), "status_visit")

    def _may_enter(self) -> bool:
        now = self._loop.time()
        self._allowed = min(BURST, self._allowed + (now - self._counted) * PACE)
        self._counted = now
        return self._allowed >= 1

    def _rest(self) -> None:
        # A listening socket stays readable: without a pause this would spin.
        self._loop.remove_reader(self._listening)
        self._resting = self._loop.call_later(_REST, self._resume)

    def _resume(self) -> None:
        self._resting = None
        self.keep_spares()
        self._loop.add_reader(self._listening, self._knock)

    async def _admit(self, visitor: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: Visit(self._config, self._state, self), visitor)
        except OSError:
            visitor.close()  # it has gone in the meantime

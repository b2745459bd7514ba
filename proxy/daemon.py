"""The daemon: starts the parts, waits for a signal, drains, stops.

The order of starting: probes, the control socket, listeners, sessions; a listener that leads to a pool
with ``prefill = "eager"`` accepts nobody before that pool is filled.
The order of stopping: nobody new, idle clients told, running transactions finished or cut after
``drain_timeout``, sessions ended and their ends awaited, and the HTTP endpoint last.
"""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import structlog

from proxy import __version__
from proxy.build import compiled
from proxy.building import Parts, build
from proxy.control.commands import CommandRefused
from proxy.control.server import ControlServer
from proxy.holding import holders, queries
from proxy.observe.http import StatusServer
from proxy.observe.snapshot import DaemonStats, Holders, ListenerStats, PoolQueries
from proxy.operator import Operator
from proxy.pool.limits import EAGER
from proxy.reasons import CloseReason
from proxy.relay.tied import Tied
from proxy.renewing import Renewal, certificates
from proxy.settings import Loaded, Settings, raise_descriptor_limit
from proxy.tasks import spawn

_log = structlog.get_logger("penstock")
_GOODBYE = 1.0  # seconds for sessions to end when the start has failed
_LAG_INTERVAL = 0.5  # seconds between two looks at the event loop
_FIRST_DELAY = 0.5  # seconds until sessions are opened that nobody has asked for, at most


class Daemon:
    """One run of the daemon. ``run`` returns the exit code: 0 clean, 1 failed.

    ``read`` reads the configuration again, for a reload; it raises ConfigError.
    """

    def __init__(self, settings: Settings, read: Callable[[], Loaded] | None = None) -> None:
        self._settings = settings  # as it was started with
        self._read = read
        self._operator: Operator | None = None
        self._servers: list[StatusServer | ControlServer] = []
        self._filling: set[str] = set()  # pools that listeners wait for
        self._started = time.monotonic()
        self._lag = 0.0
        self._parts: Parts | None = None
        self._draining = False
        self._signals = 0
        self._stop: asyncio.Event | None = None
        self._stop_now: asyncio.Event | None = None

    async def run(self) -> int:
        """Serve until TERM or INT, then drain."""
        self._stop, self._stop_now = asyncio.Event(), asyncio.Event()
        self._listen_for_signals()
        try:
            parts = self._parts = build(self._settings, raise_descriptor_limit())
            self._operator = Operator(parts, self._settings, self.snapshot, self._read)
            await self._start(parts)
        except OSError as error:
            _log.error("start_failed", error=str(error))
            await self._give_up()
            return 1
        if not self._stop.is_set():
            _log.info(
                "daemon_started", version=__version__, compiled=compiled(), listeners=self._addresses(parts)
            )
        await self._stop.wait()
        await self._drain(parts, self._operator.settings.drain_timeout)
        for server in self._servers:
            await server.stop()
        _log.info("daemon_stopped")
        return 0

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            loop.add_signal_handler(number, self._told, number)

    def _told_to_stop(self) -> None:
        assert self._stop is not None
        assert self._stop_now is not None
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            self._stop_now.set()

    def _told(self, number: signal.Signals) -> None:
        operator = self._operator
        if operator is None:
            _log.warning("signal_ignored", signal=number.name, detail="Penstock has not started yet")
        elif number == signal.SIGHUP:
            spawn(self._reload(operator), "reload")
        elif number == signal.SIGUSR1:
            operator.pause(None)
        else:
            operator.resume(None)

    async def _reload(self, operator: Operator) -> None:
        try:
            await operator.reload()
        except CommandRefused:
            pass  # why is in the log

    async def _start(self, parts: Parts) -> None:
        """Raises OSError with a sentence when something cannot be had."""
        assert self._operator is not None
        spawn(self._watch_loop(), "loop lag")
        operator = self._operator
        renewal = Renewal(parts, lambda: operator.settings.tls_reload_interval)
        spawn(renewal.run(), "certificates")
        http, control = self._settings.http.address, self._settings.control.address
        if http is not None:
            place = http.host or "", http.port
            await self._serve(StatusServer(place, self.snapshot, self.holders, self.queries))
        if control is not None:
            await self._serve(ControlServer(control.path or "", self._operator))
        self._filling = {name for name, pool in parts.pools.items() if pool.limits.prefill == EAGER}
        late = {name for name in parts.listeners if self._filling & self._pools_behind(name)}
        for name, listener in parts.listeners.items():
            if name not in late:
                await listener.start()
        for pool in parts.pools.values():
            # A hundred Penstocks that are restarted together do not all knock at once.
            pool.start(random.uniform(0.0, _FIRST_DELAY) if pool.limits.slow_start else 0.0)
        if late and await self._filled(parts):
            for name in late:
                await parts.listeners[name].start()

    async def _give_up(self) -> None:
        if self._parts is not None:
            for listener in self._parts.listeners.values():
                listener.stop_accepting()
            ends = spawn(self._close_pools(self._parts), "closing of pools")
            await asyncio.wait((ends,), timeout=_GOODBYE)
        for server in self._servers:
            await server.stop()

    async def _serve(self, server: StatusServer | ControlServer) -> None:
        await server.start()
        self._servers.insert(0, server)  # the last to start is the first to stop

    def _pools_behind(self, listener: str) -> set[str]:
        settings = self._settings.listeners[listener]
        if str(settings.protocol) != "postgres" and settings.pool is not None:
            return {settings.pool}
        return set(self._settings.pools)  # a client says which one it wants

    async def _filled(self, parts: Parts) -> bool:
        """Wait until every pool that must be is filled; False when told to stop meanwhile."""
        assert self._stop is not None
        filling = spawn(self._fill(parts), "filling of pools")
        stop = spawn(self._stop.wait(), "signal while filling")
        await asyncio.wait((filling, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        filling.cancel()
        return not self._stop.is_set()

    async def _fill(self, parts: Parts) -> None:
        for name in sorted(self._filling):
            await parts.pools[name].filled()
            self._filling.discard(name)

    def _addresses(self, parts: Parts) -> list[str]:
        return [listener.address for listener in parts.listeners.values()]

    async def _watch_loop(self) -> None:
        while True:
            due = time.monotonic() + _LAG_INTERVAL
            await asyncio.sleep(_LAG_INTERVAL)
            self._lag = max(0.0, time.monotonic() - due)

    # -- stopping -------------------------------------------------------------------------------

    async def _drain(self, parts: Parts, patience: float) -> None:
        assert self._stop_now is not None
        self._draining = parts.commons.draining = True
        clients = sum(len(listener.house.clients) for listener in parts.listeners.values())
        _log.info("drain_started", clients=clients, timeout=patience)
        for listener in parts.listeners.values():
            listener.stop_accepting()
            listener.drain()
        hurry = spawn(self._stop_now.wait(), "second signal")
        await self._finish(self._clients_gone(parts), hurry, patience)
        for listener in parts.listeners.values():
            listener.stop()
        for hubs in parts.hubs.values():
            hubs.stop()
        closing = spawn(self._close_pools(parts), "closing of pools")
        longest = max((pool.limits.close_timeout for pool in parts.pools.values()), default=0.0)
        await self._finish(closing, hurry, longest + 1.0)
        hurry.cancel()

    async def _finish(self, work: "asyncio.Task[None]", hurry: "asyncio.Task[Any]", most: float) -> None:
        """Wait for ``work``, ``most`` seconds at most, or until told to hurry; then let go of it."""
        timeout = most if most != float("inf") else None
        await asyncio.wait((work, hurry), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()

    async def _close_pools(self, parts: Parts) -> None:
        await asyncio.gather(*(pool.drain() for pool in parts.pools.values()))

    def _clients_gone(self, parts: Parts) -> "asyncio.Task[None]":
        async def gone() -> None:
            while clients := [client for one in parts.listeners.values() for client in one.house.clients]:
                if all(isinstance(client, Tied) for client in clients):
                    # A stream goes on for ever, and nobody is left whose changes it could still bring.
                    for client in clients:
                        client.end(CloseReason.DRAIN)
                await asyncio.sleep(0.02)

        return spawn(gone(), "clients leaving")

    # -- looking --------------------------------------------------------------------------------

    def holders(self, pool: str) -> Holders | None:
        """Who holds the sessions of a pool; None when there is no such pool."""
        return holders(self._parts, pool) if self._parts is not None else None

    def queries(self) -> tuple[PoolQueries, ...]:
        """What was asked of the pools that count it."""
        return queries(self._parts)

    def snapshot(self) -> DaemonStats:
        """The daemon at this moment."""
        parts = self._parts
        listeners = parts.listeners.values() if parts is not None else ()
        pools = parts.pools.values() if parts is not None else ()
        return DaemonStats(
            version=__version__,
            compiled=compiled(),
            uptime=time.monotonic() - self._started,
            draining=self._draining,
            bound=bool(listeners) and all(listener.bound for listener in listeners),
            loop_lag=self._lag,
            listeners=tuple(
                ListenerStats(
                    name=listener.house.name,
                    protocol=self._settings.listeners[listener.house.name].protocol,
                    address=listener.address,
                    max_clients=listener.house.max_clients,
                    clients=listener.house.states(),
                    refusals=dict(listener.house.refusals),
                    tls_failures=dict(listener.house.tls_failures),
                )
                for listener in listeners
            ),
            pools=tuple(pool.snapshot() for pool in pools),
            certificates=certificates(parts),
            filling=tuple(sorted(self._filling)),
        )

"""The daemon: starts the parts, waits for a signal, drains, stops.

The order of stopping: nobody new, idle clients told, running transactions finished or cut after
``drain_timeout``, sessions ended and their ends awaited, and the HTTP endpoint last.
"""

import asyncio
import signal
import time
from typing import Any

import structlog

from proxy import __version__
from proxy.build import compiled
from proxy.building import Parts, build
from proxy.observe.http import StatusServer
from proxy.observe.snapshot import DaemonStats, ListenerStats
from proxy.settings import Settings, raise_descriptor_limit
from proxy.tasks import spawn

_log = structlog.get_logger("penstock")
_LAG_INTERVAL = 0.5  # seconds between two looks at the event loop


class Daemon:
    """One run of the daemon. ``run`` returns the exit code: 0 clean, 1 failed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
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
            status = await self._start(parts)
        except OSError as error:
            _log.error("start_failed", error=str(error))
            for listener in self._parts.listeners.values() if self._parts is not None else ():
                listener.stop_accepting()
            return 1
        _log.info(
            "daemon_started", version=__version__, compiled=compiled(), listeners=self._addresses(parts)
        )
        await self._stop.wait()
        await self._drain(parts)
        if status is not None:
            await status.stop()
        _log.info("daemon_stopped")
        return 0

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        # They would end the process otherwise.
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            loop.add_signal_handler(number, self._told_what_is_not_built, number)

    def _told_to_stop(self) -> None:
        assert self._stop is not None
        assert self._stop_now is not None
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            self._stop_now.set()

    def _told_what_is_not_built(self, number: signal.Signals) -> None:
        detail = "reload, pause and resume are not built yet: restart to change the configuration"
        _log.warning("signal_ignored", signal=number.name, detail=detail)

    async def _start(self, parts: Parts) -> StatusServer | None:
        spawn(self._watch_loop(), "loop lag")
        status: StatusServer | None = None
        address = self._settings.http.address
        if address is not None:
            status = StatusServer((address.host or "", address.port), self.snapshot)
            await status.start()
        for listener in parts.listeners.values():
            await listener.start()
        for pool in parts.pools.values():
            pool.start()
        return status

    def _addresses(self, parts: Parts) -> list[str]:
        return [listener.address for listener in parts.listeners.values()]

    async def _watch_loop(self) -> None:
        while True:
            due = time.monotonic() + _LAG_INTERVAL
            await asyncio.sleep(_LAG_INTERVAL)
            self._lag = max(0.0, time.monotonic() - due)

    # -- stopping -------------------------------------------------------------------------------

    async def _drain(self, parts: Parts) -> None:
        assert self._stop_now is not None
        self._draining = parts.commons.draining = True
        clients = sum(len(listener.house.clients) for listener in parts.listeners.values())
        _log.info("drain_started", clients=clients, timeout=self._settings.drain_timeout)
        for listener in parts.listeners.values():
            listener.stop_accepting()
            listener.drain()
        hurry = spawn(self._stop_now.wait(), "second signal")
        await self._finish(self._clients_gone(parts), hurry, self._settings.drain_timeout)
        for listener in parts.listeners.values():
            listener.stop()
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
        await asyncio.gather(*(pool.close() for pool in parts.pools.values()))

    def _clients_gone(self, parts: Parts) -> "asyncio.Task[None]":
        async def gone() -> None:
            while any(listener.house.clients for listener in parts.listeners.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

        return spawn(gone(), "clients leaving")

    # -- looking --------------------------------------------------------------------------------

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
                    protocol="postgres",
                    address=listener.address,
                    max_clients=listener.house.max_clients,
                    clients=listener.house.states(),
                    refusals=dict(listener.house.refusals),
                )
                for listener in listeners
            ),
            pools=tuple(pool.snapshot() for pool in pools),
        )

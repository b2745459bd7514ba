"""Certificates that are exchanged while the daemon runs: what follows from it, for listeners and for pools.

A listener shows the new one in the next handshake; connections that stand stay. A pool opens sessions by the
new ones, and has those of before replaced as they come home.
"""

from collections.abc import Callable, Iterator

import structlog

from proxy.building import Parts
from proxy.observe.snapshot import CertificateStats
from proxy.relay.certificates import Kept, watch

_log = structlog.get_logger("penstock")


class Renewal:
    """The files of all ``parts``. ``interval`` says how often they are looked at, in seconds."""

    def __init__(self, parts: Parts, interval: Callable[[], float]) -> None:
        self._parts = parts
        self._interval = interval

    async def run(self) -> None:
        """Watch the files, for ever."""
        await watch(lambda: list(every(self._parts)), self._interval, self._changed)

    def _changed(self, kept: Kept) -> None:
        parts = self._parts
        for listener in parts.listeners.values():
            if listener.kept is kept:
                listener.house.tls = kept.context
        for name, endpoints in parts.endpoints.items():
            mine = [endpoint for endpoint in endpoints if endpoint.kept is kept]
            for endpoint in mine:
                endpoint.tls = kept.context
            if mine:
                parts.pools[name].renew()
                _log.info("pool_renewed", pool=name, detail="the certificates towards its server changed")

    def look(self) -> None:
        """Look at the files of the pools now: those of listeners are read anew by every reload."""
        for endpoints in self._parts.endpoints.values():
            for endpoint in endpoints:
                kept = endpoint.kept
                made = kept.look() if kept is not None else None
                if kept is not None and made is not None and kept.take(made):
                    self._changed(kept)


def every(parts: Parts) -> Iterator[Kept]:
    """Every set of files, once."""
    found = [listener.kept for listener in parts.listeners.values()]
    found += [endpoint.kept for endpoints in parts.endpoints.values() for endpoint in endpoints]
    yield from dict.fromkeys(kept for kept in found if kept is not None)


def certificates(parts: Parts | None) -> tuple[CertificateStats, ...]:
    """What is known of them at this moment; a pool with several servers counts all of theirs together."""
    made: dict[tuple[str, str], CertificateStats] = {}
    for kept in every(parts) if parts is not None else ():
        before = made.get((kept.kind, kept.name), CertificateStats(kept.kind, kept.name))
        made[kept.kind, kept.name] = CertificateStats(
            kept.kind,
            kept.name,
            min(before.ends, kept.context.ends),
            before.loaded + kept.loaded,
            before.failed + kept.failed,
        )
    return tuple(made.values())

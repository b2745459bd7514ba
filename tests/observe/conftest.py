"""A daemon to look at, and the event loop that the real one runs on."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import uvloop

from proxy.observe.reference import example
from proxy.observe.snapshot import DaemonStats


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], uvloop.Loop]]:
    return {"uvloop": uvloop.new_event_loop}


class Daemon:
    """Stands in for the daemon: what ``stats`` is set to, observers see."""

    def __init__(self) -> None:
        self.stats: DaemonStats = example()
        self.asked = 0

    def __call__(self) -> DaemonStats:
        self.asked += 1
        return self.stats

    def change(self, **fields: object) -> None:
        self.stats = replace(self.stats, **fields)

    def change_pool(self, **fields: object) -> None:
        self.change(pools=(replace(self.stats.pools[0], **fields),))

    def change_listener(self, **fields: object) -> None:
        self.change(listeners=(replace(self.stats.listeners[0], **fields),))


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()

"""Sets the stage for tests of the relay, and looks afterwards that nobody kept a session."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from relay.stage import Scene, turns


@pytest.fixture
async def make_scene() -> AsyncIterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def make(pool_mode: str = "transaction", kind: type[Scene] = Scene, **limits: Any) -> Scene:
        scenes.append(kind(pool_mode, **limits))
        return scenes[-1]

    yield make
    for scene in scenes:
        for transport in scene.transports:
            if transport.ours.fileno() >= 0:
                transport.lose()
        for transport in scene.endpoint.made:
            if transport.ours.fileno() >= 0:
                transport.lose()
        await turns()
        # Nothing that was held is left, whatever the test did.
        assert scene.shows(), scene.counts()
        async with asyncio.timeout(5):
            await scene.pool.drain()

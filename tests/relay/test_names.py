"""The addresses behind a name: how long they are kept, which are tried, and whose sessions are renewed."""

import asyncio
from typing import Any

import pytest

from fakes import FakeBackend, FakeClock, FakeOpener, in_fake_time, turns
from proxy.pool.limits import OFF, Limits
from proxy.pool.pool import Pool
from proxy.pool.session import BUSY, IDLE
from proxy.reasons import DropReason
from proxy.relay.endpoint import Endpoint
from proxy.relay.names import Follower, Names, is_name
from proxy.relay.sockets import KeepAlive


class Resolver:
    """Answers what it is told to, and counts."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        assert (host, port) == ("db", 5432)
        self.asked += 1
        if not self.addresses:
            raise OSError("no such name")
        return list(self.addresses)


def names(resolver: Resolver, clock: Any, ttl: float = 15.0, **more: Any) -> Names:
    return Names("db", 5432, ttl, lookup=resolver, clock=clock, **more)


@pytest.mark.parametrize(
    ("host", "wanted"),
    [("db", True), ("db.internal", True), ("10.0.0.1", False), ("::1", False), ("", False)],
)
def test_what_is_looked_up(host: str, wanted: bool) -> None:
    assert is_name(host) is wanted


@in_fake_time
async def test_an_answer_is_kept_for_its_time() -> None:
    clock, resolver = FakeClock(), Resolver("10.0.0.1", "10.0.0.2")
    known = names(resolver, clock)
    assert await known.addresses() == ["10.0.0.1", "10.0.0.2"]
    clock.advance(14.0)
    resolver.addresses = ["10.0.0.3"]
    assert await known.addresses() == ["10.0.0.1", "10.0.0.2"]
    clock.advance(2.0)
    assert await known.addresses() == ["10.0.0.3"]
    assert resolver.asked == 2


@in_fake_time
async def test_what_cannot_be_looked_up_is_not_remembered() -> None:
    clock, resolver = FakeClock(), Resolver()
    known = names(resolver, clock)
    with pytest.raises(OSError, match="no such name"):
        await known.addresses()
    resolver.addresses = ["10.0.0.1"]
    assert await known.addresses() == ["10.0.0.1"]
    clock.advance(60.0)
    resolver.addresses = []
    assert await known.addresses() == ["10.0.0.1"]
    resolver.addresses = ["10.0.0.2"]
    assert await known.addresses() == ["10.0.0.2"]


@in_fake_time
async def test_without_a_time_each_who_asks_looks() -> None:
    resolver = Resolver("10.0.0.1")
    known = names(resolver, FakeClock(), OFF)
    await known.addresses()
    await known.addresses()
    assert resolver.asked == 2


@in_fake_time
async def test_sessions_to_an_address_that_is_gone_are_renewed() -> None:
    loop = asyncio.get_running_loop()
    resolver, opener = Resolver("10.0.0.1", "10.0.0.2"), FakeOpener()
    known = names(resolver, loop.time)
    await known.addresses()
    places = iter(["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.9"])

    def connected(backend: FakeBackend) -> None:
        backend.address = next(places)

    opener.prepare = connected
    pool = Pool("orders", Limits(max=4, slow_start=False), opener, ("orders", "ann"), clock=loop.time)
    key = pool.key("orders", "ann")
    idle, held, staying = [await pool.acquire(key) for _ in range(3)]
    pool.release(idle)
    follower = Follower(pool, [known])
    follower.start()
    await asyncio.sleep(16.0)
    await turns()
    assert (idle.state, held.state) == (IDLE, BUSY)
    resolver.addresses = ["10.0.0.2", "10.0.0.9"]
    await asyncio.sleep(16.0)
    await turns()
    assert idle.state not in (IDLE, BUSY)
    assert held.state == BUSY
    pool.release(held)
    pool.release(staying)
    await turns()
    assert held.state not in (IDLE, BUSY)
    assert staying.state == IDLE
    assert pool.counters.drops[DropReason.MOVED] == 2
    pool.close(force=True)
    await pool.drain()
    await asyncio.sleep(60.0)
    assert not [task for task in asyncio.all_tasks() if "addresses" in task.get_name()]


class Listener(asyncio.Protocol):
    """A server that takes connections."""


def test_every_address_is_tried_in_turn() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Listener, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        endpoint = Endpoint("db", port, "", None, KeepAlive())

        async def lookup(host: str, wanted: int) -> list[str]:
            return ["127.0.0.2", "127.0.0.1"]  # nobody listens at the first

        endpoint.names = Names("db", port, 15.0, lookup=lookup)
        made = asyncio.get_running_loop().create_future()

        class Client(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                made.set_result(transport)

        await endpoint.connect(Client())
        transport = await made
        assert transport.get_extra_info("peername")[0] == "127.0.0.1"
        transport.abort()
        server.close()
        await server.wait_closed()

    asyncio.run(run())

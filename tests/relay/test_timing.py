"""What clients may take their time for; the clock is the test's."""

from collections.abc import Callable
from typing import Any

import pytest

from proxy.pool.limits import OFF
from proxy.reasons import CloseReason
from proxy.relay.client import Client
from proxy.relay.stopwatch import Timeouts
from proxy.relay.timing import interval, sweep
from relay.stage import LineClient, Scene, turns

Make = Callable[..., Scene]


class TimedClient(LineClient):
    """The line protocol, and what the sweep asks of a codec besides."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.told_of_timeout = 0

    def server(self, data: bytes) -> int:
        self.seen += data.count(b"Z")
        return super().server(data)

    def part(self) -> None:
        super().part()
        self.seen = 0

    def running(self) -> int:
        return self.seen if self.session is not None and self.owed else -1

    def in_transaction(self) -> bool:
        return self.session is not None and (self.inside or self.owed > 0)

    def timed_out(self) -> None:
        self.told_of_timeout += 1

    def notice(self, text: str, detail: str) -> bytes:
        return f"notice {text}: {detail}\n".encode()


def client_of(scene: Scene) -> tuple[Client, Any, TimedClient]:
    client, transport = scene.client()
    codec = TimedClient()
    client.codec = codec
    client.user = "app"
    return client, transport, codec


@pytest.mark.parametrize(("shortest", "seconds"), [(OFF, 1.0), (2.0, 0.5), (0.2, 0.1), (60.0, 1.0)])
def test_a_sweep_is_as_frequent_as_the_shortest_limit_needs(shortest: float, seconds: float) -> None:
    assert interval(shortest) == seconds


async def test_a_query_is_cancelled_and_again_and_then_loses_its_session(make_scene: Make) -> None:
    scene = make_scene(query_timeout=2.0)
    await scene.warm()
    server = scene.server
    client, transport, codec = client_of(scene)
    transport.say(b"q1\n")
    assert sweep([client], {}, 100.0) == 2.0
    sweep([client], {}, 101.9)
    assert codec.told_of_timeout == 0
    sweep([client], {}, 102.1)
    await turns()
    assert [made.take() for made in scene.endpoint.made[1:]] == [b"cancel\n"]
    sweep([client], {}, 102.5)
    sweep([client], {}, 103.2)
    assert codec.told_of_timeout == 1, "the first cancel request is still on its way"
    scene.endpoint.made[1].lose()
    await turns()
    sweep([client], {}, 104.3)
    await turns()
    assert codec.told_of_timeout == 2
    assert scene.pool.counters.timeouts["query_timeout"] == 1
    sweep([client], {}, 107.2)
    assert transport.take() == b"lost\n"
    assert "query_timeout" in codec.lost_why
    assert scene.pool.counters.drops["query_timeout"] == 1
    assert scene.shows(closing=1)
    for made in scene.endpoint.made[2:]:
        made.lose()
    server.lose()
    await turns()
    assert scene.shows()
    assert not transport.closed


async def test_each_query_has_its_own_time_and_none_runs_while_the_client_is_idle(make_scene: Make) -> None:
    scene = make_scene(query_timeout=2.0)
    await scene.warm()
    client, transport, codec = client_of(scene)
    transport.say(b"b\nq1\n")
    sweep([client], {}, 100.0)
    scene.server.say(b"Z\n")
    sweep([client], {}, 101.5)
    sweep([client], {}, 103.0)
    scene.server.say(b"Z\n")
    sweep([client], {}, 104.0)
    sweep([client], {}, 200.0)
    transport.say(b"q2\n")
    sweep([client], {}, 201.0)
    sweep([client], {}, 202.5)
    assert codec.told_of_timeout == 0
    sweep([client], {}, 203.0)
    assert codec.told_of_timeout == 1
    scene.server.say(b"Z\n")
    await turns()
    scene.endpoint.made[-1].lose()
    await turns()


async def test_a_transaction_that_lasts_ends_its_client_and_the_session_is_recovered(
    make_scene: Make,
) -> None:
    scene = make_scene(transaction_timeout=5.0)
    await scene.warm()
    client, transport, _ = client_of(scene)
    begun = scene.pool._clock()
    transport.say(b"b\n")
    scene.server.say(b"Z\n")
    sweep([client], {}, begun + 4.0)
    transport.say(b"q\n")
    scene.server.say(b"Z\n")
    sweep([client], {}, begun + 4.9)
    assert scene.ended == []
    sweep([client], {}, begun + 5.5)
    assert scene.ended == [(1, CloseReason.TRANSACTION)]
    assert transport.take().endswith(b"fatal transaction_timeout\n")
    assert scene.shows(care=1)


async def test_a_client_without_a_transaction_may_be_idle_only_so_long(make_scene: Make) -> None:
    scene = make_scene(client_idle_timeout=10.0, max=2)
    await scene.warm()
    idle, idle_transport, _ = client_of(scene)
    inside, inside_transport, _ = client_of(scene)
    inside_transport.say(b"b\n")
    scene.server.say(b"Z\n")
    for now in (100.0, 105.0, 109.0):
        sweep([idle, inside], {}, now)
    assert scene.ended == []
    sweep([idle, inside], {}, 110.5)
    assert scene.ended == [(1, CloseReason.CLIENT_IDLE)]
    assert idle_transport.take() == b"fatal client_idle_timeout\n"
    assert scene.pool.counters.timeouts["client_idle_timeout"] == 1
    inside.close(CloseReason.CLIENT_LEFT)


async def test_what_a_user_may_counts_more_than_what_the_pool_has(make_scene: Make) -> None:
    scene = make_scene(client_idle_timeout=10.0)
    client, _, _ = client_of(scene)
    patient, impatient = Timeouts(client_idle=OFF), Timeouts(client_idle=1.0)
    sweep([client], {"app": patient}, 100.0)
    sweep([client], {"app": patient}, 1000.0)
    assert scene.ended == []
    assert sweep([client], {"app": impatient}, 1000.5) == 1.0
    sweep([client], {"app": impatient}, 1001.6)
    assert scene.ended == [(1, CloseReason.CLIENT_IDLE)]


async def test_who_waits_is_told_once_for_each_wait(make_scene: Make) -> None:
    scene = make_scene(query_wait_notify=5.0)
    await scene.warm()
    holder, holder_transport, _ = client_of(scene)
    waiter, transport, _ = client_of(scene)
    holder_transport.say(b"b\n")
    transport.say(b"q\n")
    began = waiter.since
    for later in (4.0, 5.1, 6.0, 60.0):
        sweep([holder, waiter], {}, began + later)
    told = transport.take()
    assert told.startswith(b"notice ")
    assert told.count(b"\n") == 1
    assert b"waited 5.10s" in told
    holder.close(CloseReason.CLIENT_LEFT)
    waiter.close(CloseReason.CLIENT_LEFT)

"""Answers of one turn of the loop: written at its end, in order, and never lost."""

from collections.abc import Callable

import pytest

from proxy.pool.limits import WAIT
from proxy.relay.client import Client
from proxy.relay.outbox import LONGEST, Outbox
from relay.stage import Scene, Transport, turns

Make = Callable[..., Scene]


class Two:
    """Two clients of one loop, each with a session of its own at work."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        outbox = Outbox()
        self.clients: list[Client] = []
        self.wires: list[Transport] = []
        for _ in range(2):
            client, wire = scene.client()
            client.outbox = outbox
            self.clients.append(client)
            self.wires.append(wire)

    async def ask(self) -> list[Transport]:
        """Both ask; returns the servers' ends, in the order of the clients."""
        for wire in self.wires:
            wire.say(b"q\n")
        await turns()
        return [client.backend._transport for client in self.clients]  # type: ignore[union-attr]


@pytest.fixture
def two(make_scene: Make) -> Two:
    return Two(make_scene(max=2, getmode=WAIT))


async def test_answers_of_one_turn_are_written_at_its_end(two: Two) -> None:
    ann, bob = two.wires
    first, second = await two.ask()
    first.say(b"row\n")
    second.say(b"row\n")
    first.say(b"Z\n")
    assert (ann.written, bob.written) == (b"", b"")
    assert two.scene.shows(busy=1, idle=1), "a session goes home at once"
    await turns(1)
    assert (ann.take(), bob.take()) == (b"row\nZ\n", b"row\n")
    second.say(b"Z\n")
    assert bob.take() == b"Z\n", "with one session at work there is nothing to gather"


async def test_what_is_long_is_written_at_once_and_behind_what_waits(two: Two) -> None:
    ann, _ = two.wires
    first, _ = await two.ask()
    long = b"x" * LONGEST + b"\n"
    first.say(b"row\n")
    first.say(long)
    assert ann.take() == b"row\n" + long
    await turns(1)
    assert ann.take() == b""


@pytest.mark.parametrize("ending", ["eof", "goodbye", "drain"])
async def test_whoever_leaves_in_that_turn_is_told_first(two: Two, ending: str) -> None:
    ann, _ = two.wires
    first, _ = await two.ask()
    first.say(b"row\nZ\n")
    if ending == "eof":
        assert not two.clients[0].eof_received()
    elif ending == "goodbye":
        ann.say(b"X\n")
    else:
        two.clients[0].drain()
    assert ann.take().startswith(b"row\nZ\n")


async def test_a_client_that_is_gone_by_then_costs_the_others_nothing(two: Two) -> None:
    ann, bob = two.wires
    first, second = await two.ask()
    first.say(b"row\nZ\n")
    second.say(b"row\nZ\n")
    ann.closed = True
    ann.ours.close()
    await turns(1)
    assert bob.take() == b"row\nZ\n"


async def test_one_that_fails_costs_the_others_nothing(
    two: Two, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ann, bob = two.wires
    first, second = await two.ask()
    first.say(b"row\nZ\n")
    second.say(b"row\nZ\n")
    ann.ours.close()  # the transport refuses, though it does not close
    await turns(1)
    assert bob.take() == b"row\nZ\n"
    assert "client_not_told" in capsys.readouterr().out


async def test_a_session_that_is_lost_is_told_behind_its_last_words(two: Two) -> None:
    ann, _ = two.wires
    first, _ = await two.ask()
    first.say(b"row\n")
    first.lose()
    assert ann.take().startswith(b"row\n")

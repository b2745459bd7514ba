"""Where the stream is cut changes nothing: neither what the session is sent nor what the client reads."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from random import Random

import pytest

from differential.playing import Normaliser, Straight, play, shown
from differential.scripts import AGAIN, SCRIPTS, Script
from differential.speaking import Unit
from differential.taping import Client, Cut, Player, Recorder, Tape, whole
from integration.raw import Raw
from proxy.embedded import EmbeddedPostgres
from proxy.postgres import statements
from servers import Penstock

pytestmark = pytest.mark.integration
# Longer ones are cut at fewer places: their middle is one message.
LONG = 4_000
# One end is another on purpose, or the server's end comes with the answer or behind it.
SPLIT = {name: one for name, one in SCRIPTS.items() if not name.startswith("breaking")}


def singly(data: bytes) -> Iterable[bytes]:
    """Byte by byte; of something long only the ends."""
    if len(data) <= LONG:
        return (data[at : at + 1] for at in range(len(data)))
    ends = (
        [data[at : at + 1] for at in range(200)],
        [data[at : at + 1] for at in range(len(data) - 200, len(data))],
    )
    return [*ends[0], data[200:-200], *ends[1]]


def once(at: int) -> Cut:
    """In two, or not at all where it is too short for that."""
    return lambda data: [part for part in (data[:at], data[at:]) if part]


@contextmanager
def numbered_anew() -> Iterator[None]:
    """Statements get the same names in each play."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statements, "_numbers", itertools.count(1))
        yield


def record(dsn: str, script: Script, mode: str) -> tuple[Tape, dict[str, str], list[bytes]]:
    tape = Tape()
    with Straight.to(dsn) as line, numbered_anew():
        client = Client(mode, line.parameters, Recorder(line, tape), whole, whole)
        return tape, line.parameters, [client.say(unit) for unit in script.units]


def play_back(
    script: Script, mode: str, tape: Tape, reported: dict[str, str], cut: Cut, cut_back: Cut
) -> list[bytes]:
    with numbered_anew():
        client = Client(mode, reported, Player(tape), cut, cut_back)
        return [client.say(unit) for unit in script.units]


def places(script: Script, tape: Tape, count: int, chance: Random) -> Iterable[tuple[Cut, Cut]]:
    """Both streams byte by byte, and ``count`` places where each of both is cut; 0: every place."""
    yield singly, singly
    longest = max(len(unit.data) for unit in script.units)
    longest_back = max((len(said) for _, said in tape.marks), default=1)
    for size, both in ((longest, lambda at: (once(at), whole)), (longest_back, lambda at: (whole, once(at)))):
        reach = range(1, min(size, LONG))
        for at in reach if not count or count >= len(reach) else chance.sample(reach, count):
            yield both(at)


def check(name: str, mode: str, count: int, dsn: str, upkeep: Straight) -> None:
    upkeep.ask(AGAIN)
    script = SPLIT[name]
    tape, reported, expected = record(dsn, script, mode)
    for cut, cut_back in places(script, tape, count, Random(name)):
        assert play_back(script, mode, tape, reported, cut, cut_back) == expected


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize("name", SPLIT)
def test_where_the_streams_are_cut_changes_nothing(
    name: str, mode: str, postgres: EmbeddedPostgres, upkeep: Straight
) -> None:
    check(name, mode, 8, postgres.dsn(), upkeep)


@pytest.mark.fuzz
@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
@pytest.mark.parametrize("name", SPLIT)
def test_no_place_at_all_where_the_streams_are_cut_changes_anything(
    name: str, mode: str, postgres: EmbeddedPostgres, upkeep: Straight
) -> None:
    check(name, mode, 0, postgres.dsn(), upkeep)


class Halting(Raw):
    """Sends in pieces, each in a packet of its own."""

    chance = Random(4711)

    def send(self, data: bytes) -> None:
        """Write all of it, some bytes at a time."""
        while data:
            count = self.chance.randint(1, 40) if len(data) < LONG else len(data) // 2
            self.sock.sendall(data[:count])
            data = data[count:]


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
@pytest.mark.parametrize(
    "name",
    [
        "simple: pipelined",
        "extended: two portals",
        "named: a named pipeline",
        "copies: in, cut at odd places",
    ],
)
def test_pieces_of_a_stream_are_answered_as_the_whole(
    name: str,
    mode: str,
    postgres: EmbeddedPostgres,
    proxies: dict[str, Penstock],
    upkeep: Straight,
) -> None:
    units: tuple[Unit, ...] = SCRIPTS[name].units
    upkeep.ask(AGAIN)
    with Straight.to(postgres.dsn()) as line:
        expected = Normaliser(line.parameters)(play(line, units))
    upkeep.ask(AGAIN)
    with Halting.logged_in(proxies[mode].port) as client:
        assert shown(Normaliser(client.parameters)(play(client, units))) == shown(expected)

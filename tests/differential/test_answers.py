"""The answers to a script through the pool are the server's own, in each pool_mode, to the byte."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from differential.differences import ALL, BY_ID, CHANGING, PAGE, with_table
from differential.playing import (
    Heard,
    Neighbour,
    Normaliser,
    Straight,
    play,
    shown,
    stream,
    without_places,
)
from differential.scripts import AGAIN, SCRIPTS, Script
from differential.speaking import Unit
from differential.writing import sequences
from integration.raw import Raw
from proxy.embedded import EmbeddedPostgres
from servers import Penstock

CALM: Any = {
    "phases": (Phase.generate,),  # to make a hang smaller would take its patience each time
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "print_blob": False,
}
pytestmark = pytest.mark.integration


class Stage:
    """Plays a script on the server itself, and through the pool of each mode."""

    def __init__(self, dsn: str, proxies: dict[str, Penstock], upkeep: Straight) -> None:
        self.dsn = dsn
        self.ports = {mode: penstock.port for mode, penstock in proxies.items()}
        self.upkeep = upkeep

    def directly(self, units: tuple[Unit, ...]) -> list[list[Heard]]:
        self.upkeep.ask(AGAIN)
        with Straight.to(self.dsn) as client:
            return Normaliser(client.parameters)(play(client, units))

    def through(self, mode: str, units: tuple[Unit, ...]) -> list[list[Heard]]:
        self.upkeep.ask(AGAIN)
        neighbour = Neighbour(self.ports[mode])
        try:
            with Raw.logged_in(self.ports[mode]) as client:
                told = play(client, units, neighbour.move if mode in CHANGING else lambda: None)
                return Normaliser(client.parameters)(told)
        finally:
            neighbour.leave()


@pytest.fixture(scope="module")
def stage(postgres: EmbeddedPostgres, proxies: dict[str, Penstock], upkeep: Straight) -> Iterator[Stage]:
    return Stage(postgres.dsn(), proxies, upkeep)


def check(script: Script, mode: str, told: list[list[Heard]], expected: list[list[Heard]]) -> None:
    """Equal, or different as documented."""
    expected = without_places(expected, told)
    difference = script.differs.get(mode)
    if difference is None:
        assert shown(told) == shown(expected)
        return
    known = BY_ID[difference]
    assert mode in known.modes
    assert told != expected
    assert not known.shows or stream(told).count(known.shows) > stream(expected).count(known.shows)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_answers_are_the_server_s_own(name: str, stage: Stage) -> None:
    script = SCRIPTS[name]
    expected = stage.directly(script.units)
    for mode in ALL:
        check(script, mode, stage.through(mode, script.units), expected)


def compare(stage: Stage, mode: str, examples: int) -> None:
    @settings(max_examples=examples, **CALM)
    @given(sequences(mode))
    def answers_are_equal(units: tuple[Unit, ...]) -> None:
        told = stage.through(mode, units)
        expected = without_places(stage.directly(units), told)
        assert shown(told) == shown(expected)

    answers_are_equal()


@pytest.mark.parametrize("mode", ALL)
def test_the_answers_to_anything_are_the_server_s_own(mode: str, stage: Stage) -> None:
    compare(stage, mode, 60)


@pytest.mark.fuzz
@pytest.mark.parametrize("mode", ALL)
def test_the_answers_to_many_things_are_the_server_s_own(mode: str, stage: Stage) -> None:
    compare(stage, mode, 700)


def test_the_page_has_the_differences_as_they_are() -> None:
    assert PAGE.read_text() == with_table(PAGE.read_text()), "run python tests/differential/differences.py"
    assert {one for script in SCRIPTS.values() for one in script.differs.values()} <= set(BY_ID)

"""What follows a client, and what pins it, as the operator writes it."""

import pytest

from proxy.building import state_rules
from proxy.postgres.effects import ADVISORY, EVERY_KIND, LISTENED, LOADED, SETTINGS, TEMPORARY
from proxy.settings import read

APP = '[pools.app]\nbackend = "postgresql://app:x@db/app"\n'


def test_what_holds_without_a_word(configuration) -> None:
    rules = state_rules(configuration.load(APP).pools["app"])
    assert rules.pinning(shared=True) == EVERY_KIND & ~(LISTENED | SETTINGS)
    assert rules.pinning(shared=False) & LISTENED
    assert rules.refusing(shared=True) == 0
    assert rules.asking(shared=True) == EVERY_KIND & ~LOADED
    assert rules.follows("search_path")
    assert not rules.follows("work_mem")
    assert not rules.dry_run


def test_where_statements_have_sessions_of_their_own_a_pin_is_a_refusal(configuration) -> None:
    pool = configuration.load(APP + 'pool_mode = "statement"\non_temp_tables = "allow"').pools["app"]
    rules = state_rules(pool)
    assert rules.pinning(shared=False) == 0
    assert rules.refusing(shared=True) == EVERY_KIND & ~(LISTENED | SETTINGS | TEMPORARY)
    assert rules.refusing(shared=False) & LISTENED


def test_all_of_it_can_be_variables(configuration) -> None:
    pool = configuration.load(
        APP,
        PENSTOCK_POOLS__APP__TRACK_PARAMETERS="Search_Path, app.Tenant,search_path,*",
        PENSTOCK_POOLS__APP__ON_ADVISORY_LOCKS="refuse",
        PENSTOCK_POOLS__APP__PIN_DRY_RUN="true",
    ).pools["app"]
    assert pool.track_parameters == ("search_path", "app.tenant", "*")
    rules = state_rules(pool)
    assert rules.refusing(shared=True) == ADVISORY
    assert rules.follows("anything")
    assert rules.dotted == ("app.tenant",)
    assert rules.dry_run


@pytest.mark.parametrize(
    ("line", "key", "sentence"),
    [
        ('track_parameters = ["search path"]', "track_parameters", "is not the name of a setting"),
        ('track_parameters = ["penstock.getmode"]', "track_parameters", "follows its client anyway"),
        ('on_load = "share"', "on_load", ""),
        ('on_listen = "always"', "on_listen", ""),
    ],
)
def test_mistakes_say_what_is_wrong(configuration, line: str, key: str, sentence: str) -> None:
    mistakes = configuration.mistakes(APP + line)
    assert any(place.startswith(f"penstock.toml: pools.app.{key}") for place in mistakes)
    assert sentence in "".join(mistakes.values())


@pytest.mark.parametrize("mode", ['pool_mode = "session"', 'affinity = "client"'])
def test_nothing_pins_where_sessions_are_kept_anyway(configuration, mode: str) -> None:
    said = read(configuration.write(f'{APP}{mode}\non_load = "refuse"\n'), None, {}).warnings()
    assert "clients of this pool keep their sessions to their end" in str(said)

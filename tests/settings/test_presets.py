import json

import pytest

from proxy.pool.limits import (
    BACKGROUND,
    BEGIN_AHEAD,
    BY_CLIENT,
    BY_IDLE,
    BY_KEY,
    BY_OPENED,
    CREATE,
    EAGER,
    FORCEGET,
    LAZY,
    LIFO,
    LRU,
    NOWAIT,
    OFF,
    PING_AT_ACQUIRE,
    PING_BOTH,
    REAP_AT_ACCESS,
    REAP_AT_RELEASE,
    REAP_IN_BACKGROUND,
    TIERED,
    TIMEDWAIT,
    TRY_NEXT,
    WAIT,
    WARN,
    Limits,
)
from proxy.settings import read
from proxy.settings.pools import PoolSettings
from proxy.settings.presets import PRESETS, preset_table
from proxy.settings.prose import PRESET_NOTES
from proxy.settings.show import show

APP = '[pools.app]\nbackend = "postgresql://app:x@db/app"\n'

IMMORTAL = {"idle_timeout": OFF, "max_lifetime": OFF, "lifetime_jitter": 0.0}
ORACLE = {
    "min": 1,
    "max": 2,
    "increment": 1,
    "prefill": BACKGROUND,
    "keep_min": True,
    "getmode": WAIT,
    "forced_release": BY_OPENED,
    "reuse": LIFO,
    "peek": True,
    "ping_interval": 60.0,
    "ping_mode": PING_AT_ACQUIRE,
    "ping_timeout": 5.0,
    "ping_failure": TRY_NEXT,
    "reap": REAP_IN_BACKGROUND,
    **IMMORTAL,
}
FIXED = {
    "min": 10,
    "max": 10,
    "prefill": EAGER,
    "getmode": TIMEDWAIT,
    "wait_timeout": 10.0,
    "put_full": WARN,
    "reuse": LIFO,
    "ping_interval": 0.0,
    "ping_failure": CREATE,
    **IMMORTAL,
}
PINGING = {**FIXED, "reuse": LRU, "ping_interval": 3000.0, "ping_mode": PING_BOTH}
PSYCOPG2 = {
    "min": 1,
    "max": 10,
    "max_idle": 1,
    "prefill": EAGER,
    "keep_min": False,
    "getmode": NOWAIT,
    "reuse": LIFO,
    "peek": False,
    "ping_interval": OFF,
    "affinity": BY_KEY,
    "drain_timeout": 0.0,
    "client_may_set": frozenset({"nowait", "timedwait", "wait_timeout", "key"}),
    **IMMORTAL,
}
EXPECTED = {
    "oracle": ORACLE,
    "cx_oracle": {**ORACLE, "getmode": NOWAIT, "prefill": EAGER, "reap": REAP_AT_ACCESS},
    "bursty": {
        "min": 0,
        "max": 10,
        "max_idle": 10,
        "max_forced": 10,
        "prefill": LAZY,
        "keep_min": False,
        "getmode": FORCEGET,
        "forced_release": BY_IDLE,
        "reuse": LIFO,
        "ping_interval": 0.0,
        "ping_failure": CREATE,
        **IMMORTAL,
    },
    "fixed": FIXED,
    "fixed_v3_51": {**FIXED, "ping_interval": 3300.0},
    "pinging": PINGING,
    "transaction_pinging": {**PINGING, "begin": BEGIN_AHEAD},
    "generic": {
        "min": 0,
        "max": 100,
        "max_per_endpoint": 10,
        "min_per_endpoint": 1,
        "evict": True,
        "prefill": LAZY,
        "keep_min": False,
        "getmode": WAIT,
        "reuse": TIERED,
        "ping_interval": 0.0,
        "ping_failure": TRY_NEXT,
        "idle_timeout": 60.0,
        "max_lifetime": 3600.0,
        "lifetime_jitter": 0.0,
        "reap": REAP_AT_RELEASE,
        "reap_batch": 0,
    },
    "psycopg2": PSYCOPG2,
    "psycopg2_persistent": {
        **PSYCOPG2,
        "affinity": BY_CLIENT,
        "client_may_set": frozenset({"nowait", "timedwait", "wait_timeout"}),
    },
}


def limits(configuration, preset: str, lines: str = "", **environ: str) -> Limits:
    return configuration.load(f'{APP}preset = "{preset}"\n{lines}', **environ).pools["app"].limits


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_the_limits_of_its_ancestor(configuration, preset: str) -> None:
    assert limits(configuration, preset) == Limits(**EXPECTED[preset])


def test_a_preset_gives_what_is_not_in_the_limits(configuration) -> None:
    def pool(preset: str) -> PoolSettings:
        return configuration.load(f'{APP}preset = "{preset}"').pools["app"]

    assert (pool("oracle").reset, pool("oracle").homogeneous) == ("rollback", True)
    assert pool("generic").ping_command == "peek"
    assert pool("psycopg2").reset == "rollback"
    assert pool("pinging").reset == "auto"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_value_of_a_preset_is_a_setting_and_comes_from_the_preset(configuration, preset: str) -> None:
    values = preset_table(preset)
    assert values.keys() <= PoolSettings.model_fields.keys()
    pool = configuration.load(f'{APP}preset = "{preset}"').pools["app"]
    assert pool.from_preset == values.keys()
    assert pool.model_fields_set == {"backend", "preset"}
    assert preset in PRESET_NOTES


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_written_wins_over_a_preset_even_where_it_is_the_default(configuration, preset: str) -> None:
    plain = PoolSettings(backend="postgresql://app:x@db/app")
    for key in preset_table(preset):
        if key in ("forced_release", "ping_mode"):
            continue  # their defaults contradict the rest of a preset
        default = PoolSettings.model_fields[key].default
        lines = f"{key} = {json.dumps(default)}\n"
        # The default of a size alone would be too much, or too little, beside the others.
        lines += "" if key in ("min", "max", "max_idle") else "min = 0\nmax = 50\nmax_idle = 50\n"
        if key == "max_idle":
            lines += 'forced_release = "opened"\n'
        pool = configuration.load(f'{APP}preset = "{preset}"\n{lines}').pools["app"]
        assert getattr(pool, key) == getattr(plain, key), key
        assert key not in pool.from_preset


def test_a_variable_wins_over_a_preset_and_can_name_one(configuration) -> None:
    environ = {"PENSTOCK_POOLS__APP__PRESET": "pinging", "PENSTOCK_POOLS__APP__REUSE": "lifo"}
    pool = configuration.load(APP, **environ).pools["app"]
    assert pool.limits == Limits(**{**PINGING, "reuse": LIFO})
    configuration.overrides = {"pools": {"app": {"preset": "oracle"}}}
    assert configuration.load(APP, **environ).pools["app"].limits == Limits(**ORACLE)


@pytest.mark.parametrize("preset", ["fixed", "fixed_v3_51", "pinging", "transaction_pinging"])
def test_a_pool_of_fixed_size_has_one_size_however_it_is_called(configuration, preset: str) -> None:
    for lines in ("max = 4", "min = 4"):
        found = limits(configuration, preset, lines)
        assert (found.min, found.max) == (4, 4)
    found = limits(configuration, preset, "min = 2\nmax = 4")
    assert (found.min, found.max) == (2, 4)
    found = limits(configuration, preset, PENSTOCK_POOLS__APP__MAX="25")
    assert (found.min, found.max) == (25, 25)


def test_a_bursty_pool_keeps_as_many_as_its_target_size(configuration) -> None:
    for lines in ("max = 4", "max_idle = 4"):
        found = limits(configuration, "bursty", lines)
        assert (found.max, found.max_idle, found.max_forced) == (4, 4, 4)
    found = limits(configuration, "bursty", "max = 4\nmax_idle = 2\nmax_forced = 1")
    assert (found.max, found.max_idle, found.max_forced) == (4, 2, 1)


def test_a_generic_pool_with_a_time_limit_is_timed_and_no_endpoint_is_larger_than_the_pool(
    configuration,
) -> None:
    assert limits(configuration, "generic", 'wait_timeout = "3s"').getmode == TIMEDWAIT
    assert limits(configuration, "generic", 'wait_timeout = "3s"\ngetmode = "wait"').getmode == WAIT
    small = limits(configuration, "generic", "max = 4")
    assert (small.max, small.max_per_endpoint) == (4, 4)
    large = limits(configuration, "generic", "max_per_endpoint = 200")
    assert (large.max, large.max_per_endpoint) == (200, 200)


@pytest.mark.parametrize("preset", ["psycopg2", "psycopg2_persistent"])
def test_psycopg2_keeps_minconn(configuration, preset: str) -> None:
    found = limits(configuration, preset, "min = 3\nmax = 8")
    assert (found.min, found.max, found.max_idle) == (3, 8, 3)
    found = limits(configuration, preset, "max_idle = 2")
    assert (found.min, found.max_idle) == (2, 2)


def test_a_mistake_in_a_size_is_reported_once(configuration) -> None:
    mistakes = configuration.mistakes(APP + 'preset = "fixed"\nmax = "many"')
    assert list(mistakes) == ["penstock.toml: pools.app.max"]


def test_a_preset_for_one_server_of_another_protocol_sets_nothing_of_postgres() -> None:
    from proxy.settings.presets import preset_values

    values = preset_values("oracle", {"backend": "tcp://db:9000"})
    assert "reset" not in values
    assert "homogeneous" not in values
    assert values["getmode"] == "wait"


def test_what_is_in_effect_is_shown_with_the_preset_as_its_origin(configuration) -> None:
    file = configuration.write(APP + 'preset = "fixed"\nmax = 3\nwait_timeout = "10s"\n')
    lines = show(read(file, None, {})).splitlines()
    assert 'preset = "fixed"  # from penstock.toml: pools.app.preset' in lines
    assert 'min = 3  # from preset "fixed"' in lines
    assert "max = 3  # from penstock.toml: pools.app.max" in lines
    assert 'wait_timeout = "10s"  # from penstock.toml: pools.app.wait_timeout' in lines
    assert 'ping_interval = "0s"  # from preset "fixed"' in lines
    assert 'max_lifetime = "off"  # from preset "fixed"' in lines


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_shown_is_a_file_that_means_the_same(configuration, preset: str) -> None:
    loaded = read(configuration.write(f'{APP}preset = "{preset}"'), None, {})
    again = configuration.load(show(loaded).replace("********", "x"))
    assert again.pools["app"].limits == loaded.settings.pools["app"].limits


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_alone_gives_no_warning(configuration, preset: str) -> None:
    file = configuration.write(f'{APP}preset = "{preset}"')
    assert read(file, None, {}).warnings() == []


def test_two_loads_with_a_preset_are_equal(configuration) -> None:
    text = APP + 'preset = "generic"'
    assert configuration.load(text) == configuration.load(text)

"""What only shows when settings are seen together."""

import pytest

from proxy.settings import read

APP = '[pools.app]\nbackend = "postgresql://app:x@db/app"\n'
TWO = '[pools.app.endpoints.a]\nbackend = "postgresql://app:x@a/app"\n[pools.app.endpoints.b]\nbackend = "postgresql://app:x@b/app"\n'


@pytest.mark.parametrize(
    ("lines", "key", "sentence"),
    [
        ("min = 11", "min", "min (11) is above max (10)"),
        ("min_per_endpoint = 3\nmax_per_endpoint = 2", "min_per_endpoint", "above max_per_endpoint (2)"),
        ("min_per_endpoint = 11", "min_per_endpoint", "raise max to 11"),
        ("min = 3\nmax_per_endpoint = 2", "min", "above max_per_endpoint (2) for each of 1 endpoints"),
        ('forced_release = "idle"', "forced_release", "max_idle is off: set max_idle"),
        ("min = 3\nmax_idle = 2", "max_idle", "set keep_min = false"),
        ('ping_mode = "background"\nping_interval = "off"', "ping_mode", "nothing would be pinged"),
        ('ping_mode = "background"\nping_interval = "always"', "ping_mode", "would never pause"),
        ('ping_mode = "both"\nping_interval = "always"', "ping_mode", "would never pause"),
        ('begin = "deferred"\npool_mode = "statement"', "begin", 'needs pool_mode = "transaction"'),
        ('begin = "ahead"\npool_mode = "session"', "begin", 'needs pool_mode = "transaction"'),
        ('begin = "deferred"\naffinity = "client"', "begin", "saves nothing"),
        ('affinity = "key"\npurity = "new"', "purity", "drop one"),
    ],
)
def test_settings_that_contradict_each_other_are_a_mistake(
    configuration, lines: str, key: str, sentence: str
) -> None:
    mistake = configuration.only_mistake(APP + lines)
    assert mistake.startswith(f"penstock.toml: pools.app.{key}: ")
    assert sentence in mistake


def test_floors_of_all_endpoints_together_are_within_max(configuration) -> None:
    mistake = configuration.only_mistake("[pools.app]\nmax = 5\nmin_per_endpoint = 3\n" + TWO)
    assert (
        "min_per_endpoint (3) for each of 2 endpoints is above max (5): lower it, or raise max to 6"
        in mistake
    )
    configuration.load("[pools.app]\nmax = 6\nmin_per_endpoint = 3\n" + TWO)


@pytest.mark.parametrize(
    ("lines", "key", "sentence"),
    [
        ("max_forced = 3", "max_forced", "nothing in this pool may use forceget"),
        ('forced_release = "idle"\nmax_idle = 5', "forced_release", "nothing in this pool may use forceget"),
        ('getmode = "forceget"\nmax_idle = 5\nput_full = "error"', "put_full", "as is usual"),
        ("increment = 11", "increment", "above max (10)"),
        ("max_per_endpoint = 4", "max", "is never reached"),
        ('reuse = "tiered"', "reuse", 'the same as "lifo"'),
        ('refuse_early = true\ngetmode = "wait"', "refuse_early", 'getmode = "wait"'),
        ('refuse_early = true\ngetmode = "nowait"\nclient_may_set = []', "refuse_early", "no effect"),
        ('affinity = "client"', "affinity", "max bounds the clients"),
        ('hold_warning = "1s"\npool_mode = "session"', "hold_warning", "each would be named"),
        ('affinity = "key"\nclient_may_set = []', "client_may_set", 'lacks "key"'),
        ('tags = "any"\nclient_may_set = []', "client_may_set", 'lacks "tag"'),
        ('idle_timeout = "2h"', "idle_timeout", "longer than max_lifetime (1h)"),
        ("reap_batch = 3", "reap_batch", 'reap = "background"'),
        ('ping_mode = "both"\nping_interval = "off"', "ping_mode", 'ping_interval is "off"'),
        ('tag_fixup = "CALL f()"', "tag_fixup", "tags are off"),
        ('tags = "exact"\nreset = "full"', "tags", "leaves every session as it was opened"),
        ('begin_max_age = "1s"', "begin_max_age", 'begin is not "ahead"'),
        ('reset = "none"', "reset", "the next client finds the settings"),
        ('preset = "generic"\naffinity = "client"', "affinity", "max bounds the clients"),
        ('reset = "rollback"\npool_mode = "session"', "reset", "temporary tables and locks"),
        ('preset = "psycopg2"\nreset = "none"', "reset", "the next client finds the settings"),
    ],
)
def test_what_has_no_effect_or_is_hardly_meant_is_a_warning(
    configuration, lines: str, key: str, sentence: str
) -> None:
    [(place, said)] = read(configuration.write(APP + lines), None, {}).warnings()
    assert place == f"penstock.toml: pools.app.{key}"
    assert sentence in said


@pytest.mark.parametrize(
    "lines",
    [
        'getmode = "forceget"\nmax_forced = 3',
        'client_may_set = ["forceget"]\nmax_forced = 3',
        'max_lifetime = "5m"',  # the default idle_timeout is longer, and nobody wrote it
        'refuse_early = true\ngetmode = "nowait"',
        'reuse = "tiered"\nmin_per_endpoint = 2',
        'reap = "release"\nreap_batch = 3',
        'begin = "ahead"\nbegin_max_age = "1s"',
        'max_lifetime = "off"\nidle_timeout = "2h"',
        'reset = "rollback"',
    ],
)
def test_what_has_an_effect_is_no_warning(configuration, lines: str) -> None:
    assert read(configuration.write(APP + lines), None, {}).warnings() == []


def test_a_bound_of_all_endpoints_that_is_below_max_is_a_warning(configuration) -> None:
    file = configuration.write("[pools.app]\nmax_per_endpoint = 4\n" + TWO)
    [(place, said)] = read(file, None, {}).warnings()
    assert place == "penstock.toml: pools.app.max"
    assert "for each of 2 endpoints" in said
    assert read(configuration.write("[pools.app]\nmax_per_endpoint = 5\n" + TWO), None, {}).warnings() == []


def test_a_homogeneous_pool_refuses_users_who_run_as_themselves(configuration) -> None:
    text = APP + 'homogeneous = true\n[users.bob]\npassword = "x"\n'
    mistake = configuration.only_mistake(text + 'pools = ["app"]')
    assert mistake.startswith("penstock.toml: users.bob.pools: pools.app is homogeneous")
    configuration.load(text + 'pools = ["app"]\nrun_as = "pool"')
    [(place, said)] = read(configuration.write(text), None, {}).warnings()
    assert place == "penstock.toml: users.bob.run_as"
    assert "homogeneous" in said

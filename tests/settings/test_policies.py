"""Every field of Limits has a setting, and every setting of section "pools" reaches what it is for."""

from dataclasses import fields as dataclass_fields

import pytest

from proxy.pool.limits import (
    BEGIN_DEFERRED,
    BY_IDLE,
    BY_KEY,
    CREATE,
    EAGER,
    FORCEGET,
    LOG_RAW,
    OFF,
    PING_BOTH,
    REAP_AT_RELEASE,
    TAGS_ANY,
    TIERED,
    WARN,
    Limits,
)
from proxy.settings.pools import PoolSettings
from proxy.settings.reference import schema

APP = '[pools.app]\nbackend = "postgresql://app:x@db/app"\n'

# Each of them differs from its default.
EVERY = """
min = 3
max = 20
increment = 4
max_forced = 5
max_idle = 7
min_per_endpoint = 2
max_per_endpoint = 20
evict = "off"
prefill = "eager"
keep_min = false
forced_release = "idle"
put_full = "error"
getmode = "forceget"
wait_timeout = "0s"
max_waiting = 9
refuse_early = true
reuse = "tiered"
affinity = "key"
tags = "any"
peek = false
ping_interval = "2m"
ping_timeout = "1s"
ping_mode = "both"
ping_failure = "create"
idle_timeout = "1m"
max_lifetime = "30m"
lifetime_jitter = 2.5
reap = "release"
reap_batch = 6
max_opening = 2
slow_start = false
breaker_failures = 3
breaker_timeout = "7s"
connect_timeout = "8s"
io_parallel = 16
reset_timeout = "9s"
close_timeout = "10s"
drain_timeout = "0s"
begin = "deferred"
begin_max_age = "11s"
idle_transaction_timeout = "12s"
hold_warning = "13s"
failover_wait = "3s"
role_check_interval = "4s"
query_timeout = "14s"
transaction_timeout = "15s"
client_idle_timeout = "16s"
query_wait_notify = "off"
log_min_duration = "0s"
log_statements = "raw"
log_statement_bytes = 1000
query_stats = true
client_may_set = ["cclass", "purity"]
"""


def test_every_policy_reaches_the_ledger(configuration) -> None:
    text = APP + EVERY + '[pools.app.priority.web]\nweight = 2\nusers = ["web"]\n'
    limits = configuration.load(text).pools["app"].limits
    assert limits == Limits(
        min=3,
        max=20,
        increment=4,
        max_forced=5,
        max_idle=7,
        min_per_endpoint=2,
        max_per_endpoint=20,
        evict=False,
        prefill=EAGER,
        keep_min=False,
        forced_release=BY_IDLE,
        put_full=WARN,
        getmode=FORCEGET,
        wait_timeout=0.0,
        max_waiting=9,
        refuse_early=True,
        weights=(1.0, 2.0),
        reuse=TIERED,
        affinity=BY_KEY,
        tags=TAGS_ANY,
        peek=False,
        ping_interval=120.0,
        ping_timeout=1.0,
        ping_mode=PING_BOTH,
        ping_failure=CREATE,
        idle_timeout=60.0,
        max_lifetime=1800.0,
        lifetime_jitter=0.025,
        reap=REAP_AT_RELEASE,
        reap_batch=6,
        max_opening=2,
        slow_start=False,
        breaker_failures=3,
        breaker_timeout=7.0,
        connect_timeout=8.0,
        io_parallel=16,
        reset_timeout=9.0,
        close_timeout=10.0,
        drain_timeout=0.0,
        begin=BEGIN_DEFERRED,
        begin_max_age=11.0,
        idle_transaction_timeout=12.0,
        hold_warning=13.0,
        failover_wait=3.0,
        role_check_interval=4.0,
        query_timeout=14.0,
        transaction_timeout=15.0,
        client_idle_timeout=16.0,
        query_wait_notify=OFF,
        log_min_duration=0.0,
        log_statements=LOG_RAW,
        log_statement_bytes=1000,
        query_stats=True,
        client_may_set=frozenset({"cclass", "purity"}),
    )
    plain = Limits()
    same = [
        field.name
        for field in dataclass_fields(Limits)
        if getattr(limits, field.name) == getattr(plain, field.name)
    ]
    assert same == [], "this test leaves them at their defaults"


def test_every_policy_can_be_a_variable(configuration) -> None:
    lines = dict(line.split(" = ") for line in EVERY.strip().splitlines())
    environ = {
        f"PENSTOCK_POOLS__APP__{key.upper()}": ",".join(value.strip('[]"').split('", "'))
        for key, value in lines.items()
    }
    assert (
        configuration.load(APP, **environ).pools["app"].limits
        == configuration.load(APP + EVERY).pools["app"].limits
    )


def test_every_field_of_limits_is_a_setting_or_made_of_one() -> None:
    made = {"weights": "priority"}
    for field in dataclass_fields(Limits):
        assert made.get(field.name, field.name) in PoolSettings.model_fields


def test_what_is_off_has_no_bound(configuration) -> None:
    text = 'max_idle = "off"\nmax_per_endpoint = "off"\nhold_warning = "off"\nping_interval = "off"\n'
    limits = configuration.load(APP + text).pools["app"].limits
    assert (limits.max_idle, limits.max_per_endpoint) == (None, None)
    assert (limits.hold_warning, limits.ping_interval) == (OFF, OFF)


def test_what_the_protocol_does_with_a_session(configuration) -> None:
    plain = configuration.load(APP).pools["app"]
    assert (plain.reset, plain.ping_command, plain.tag_fixup) == ("auto", "auto", "auto")
    assert (plain.session_init, plain.role, plain.labels) == (None, None, {})
    assert (plain.cclass, plain.purity, plain.homogeneous) == ("", "self", False)
    text = """
        reset = "DISCARD TEMP; RESET ALL"
        ping_command = "SELECT 1"
        tag_fixup = "CALL retag()"
        session_init = "SET work_mem = '64MB'"
        role = "writer"
        labels = { team = "web", cost = "12" }
        cclass = "web"
        purity = "new"
        homogeneous = true
        """
    pool = configuration.load(APP + text).pools["app"]
    assert (pool.reset, pool.ping_command) == ("DISCARD TEMP; RESET ALL", "SELECT 1")
    assert (pool.tag_fixup, pool.session_init) == ("CALL retag()", "SET work_mem = '64MB'")
    assert (pool.role, pool.labels) == ("writer", {"team": "web", "cost": "12"})
    assert (pool.cclass, pool.purity, pool.homogeneous) == ("web", "new", True)


def test_a_label_can_be_a_variable(configuration) -> None:
    pool = configuration.load(APP + 'labels = { Team = "web" }', PENSTOCK_POOLS__APP__LABELS__TEAM="x").pools[
        "app"
    ]
    assert pool.labels == {"Team": "x"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("max_idle = -1", "expected a whole number"),
        ("max_per_endpoint = 0", '"off" is what sets no bound'),
        ("evict = true", 'expected "idle" or "off"'),
        ("lifetime_jitter = 101", "it is a percentage"),
        ("lifetime_jitter = -1", "expected a number from 0 up"),
        ("lifetime_jitter = true", "expected a number"),
        ("lifetime_jitter = nan", "expected a number from 0 up"),
        ('reset = "rolback"', 'expected "auto", "none", "rollback", "full" or a whole statement of SQL'),
        ('reset = ""', "or text for the server"),
        ('ping_command = "selekt"', 'expected "auto", "peek" or a whole statement'),
        ('session_init = ""', "expected text for the server (SQL)"),
        ('role = ""', "is empty"),
        (f'cclass = "{"c" * 64}"', "at most 63 letters"),
        ("labels = { a = 1 }", "expected printable text in quotes for each label"),
        ("labels = { a-b = 'x' }", "letters, digits and _"),
        ("labels = { 1a = 'x' }", "letters, digits and _"),
        ('labels = "a=b"', "expected a table"),
        ('hold_warning = "always"', "no meaning here"),
        ("hold_warning = 30", "others in milliseconds"),
        ("breaker_failures = 0", "at least 1"),
        ('client_may_set = ["max"]', 'expected "wait"'),
        ('preset = "hikari"', 'expected "oracle"'),
    ],
)
def test_a_wrong_policy_is_refused_with_a_sentence(configuration, line: str, sentence: str) -> None:
    mistakes = configuration.mistakes(APP + line)
    [(place, said)] = mistakes.items()
    assert place.startswith(f"penstock.toml: pools.app.{line.split()[0]}")
    assert sentence in said


def test_the_settings_that_clients_need_are_theirs_unless_the_operator_says_otherwise(configuration) -> None:
    bare = {"nowait", "timedwait", "wait_timeout"}
    text = APP + 'affinity = "key"\ntags = "exact"\n'
    assert configuration.load(text).pools["app"].limits.client_may_set == {*bare, "key", "tag"}
    assert configuration.load(text + "client_may_set = []").pools["app"].limits.client_may_set == frozenset()


def test_each_setting_that_an_ancestor_has_says_what_it_is_called_there() -> None:
    properties = schema()["$defs"]["PoolSettings"]["properties"]
    for key, names in {
        "min": ("Oracle `min`", "`minconn`"),
        "max": ("Oracle `max`", "`maxconn`", "`target_size`", "`total_max_size`"),
        "increment": ("Oracle `increment`",),
        "max_idle": ("`minconn`", "`target_size`"),
        "min_per_endpoint": ("`min_idle`",),
        "max_per_endpoint": ("`max_size`", "`max_sessions_per_shard`"),
        "getmode": ("Oracle `getmode`",),
        "wait_timeout": ("`wait_timeout` (ms)", "`default_timeout` (s)", "`acquire_timeout` (s)"),
        "ping_interval": ("`ping_interval` (s", "`max_age_minutes` (min)"),
        "ping_timeout": ("`ping_timeout` (ms)",),
        "idle_timeout": ("`timeout` (s)", "`idle_timeout` (s)"),
        "max_lifetime": ("`max_lifetime_session` (s)", "`max_lifetime` (s)"),
        "reap_batch": ("`dispose_batch_size`",),
        "close_timeout": ("`dispose_timeout` (s)",),
        "session_init": ("`session_callback`",),
        "labels": ("Spanner `labels`",),
        "role": ("`database_role`",),
        "tags": ("`matchanytag`",),
        "cclass": ("`cclass`",),
        "purity": ("`purity`",),
        "homogeneous": ("`homogeneous`",),
        "pool_mode": ("`pool_boundary`",),
        "begin": ("TransactionPingingPool",),
        "max_waiting": ("`queueMax`",),
    }.items():
        for name in names:
            assert name in properties[key]["x-ancestors"]

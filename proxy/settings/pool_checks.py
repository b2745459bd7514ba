"""What only shows when the settings of one pool are seen together: contradictions, and what has no effect.

Each check gets the whole pool and yields sentences; a path begins below the pool.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from proxy.pool.limits import OFF
from proxy.settings.durations import format_duration
from proxy.settings.mistakes import Mistake
from proxy.settings.pool_listen import ListenSettings
from proxy.settings.pool_pins import PinSettings

if TYPE_CHECKING:
    from proxy.settings.pools import PoolSettings

# These speak PostgreSQL, so a pool of another protocol has no use for them.
POSTGRES_ONLY: Final = (
    "session_init",
    "labels",
    "role",
    "tags",
    "tag_fixup",
    "stmt_cache",
    "stmt_memory",
    "stmt_client_memory",
    "begin",
    "query_stats",
    "replication",
)
# And so do these, whose value is a time; "off" is harmless.
POSTGRES_TIMES: Final = ("query_timeout", "transaction_timeout", "client_idle_timeout", "log_min_duration")


def pool_mistakes(pool: "PoolSettings") -> Iterator[Mistake]:
    """Yield the contradictions."""
    yield from _sizes(pool)
    yield from _releases(pool)
    yield from _pings(pool)
    yield from _begins(pool)
    if pool.protocol != "postgres":
        for key in (*POSTGRES_ONLY, *PinSettings.model_fields, *ListenSettings.model_fields):
            if getattr(pool, key) != type(pool).model_fields[key].default:
                yield (key,), f"is for PostgreSQL, and the servers of this pool speak {pool.protocol}"
        for key in POSTGRES_TIMES:
            if getattr(pool, key) != OFF:
                yield (key,), f"is for PostgreSQL, and the servers of this pool speak {pool.protocol}"
    if pool.affinity == "key" and pool.purity == "new":
        yield ("purity",), 'affinity = "key" shares a session that purity = "new" gives only once: drop one'
    if pool.route_table is not None and pool.route_table.default is None and "shard_key" not in pool.freedoms:
        yield (
            ("client_may_set",),
            'lacks "shard_key", and the route has no default, so every client would be refused: add it',
        )


def pool_warnings(pool: "PoolSettings") -> Iterator[Mistake]:
    """Yield what is allowed, but has no effect or is probably not meant."""
    yield from _idle_sizes(pool)
    yield from _idle_waits(pool)
    yield from _idle_ages(pool)
    yield from _idle_states(pool)
    yield from _leaks(pool)


def _sizes(pool: "PoolSettings") -> Iterator[Mistake]:
    if pool.min > pool.max:
        yield ("min",), f"min ({pool.min}) is above max ({pool.max}): lower min, or raise max"
    floor, most, count = pool.min_per_endpoint, pool.max_per_endpoint, max(1, len(pool.endpoints))
    if most is not None and floor > most:
        yield (
            ("min_per_endpoint",),
            f"min_per_endpoint ({floor}) is above max_per_endpoint ({most}): lower it, or raise that",
        )
    elif floor * count > pool.max:
        yield (
            ("min_per_endpoint",),
            f"min_per_endpoint ({floor}) for each of {count} endpoints is above max ({pool.max}): lower it, "
            f"or raise max to {floor * count}",
        )
    if most is not None and pool.min > most * count:
        yield (
            ("min",),
            f"min ({pool.min}) is above max_per_endpoint ({most}) for each of {count} endpoints: lower min, "
            f"or raise max_per_endpoint",
        )


def _releases(pool: "PoolSettings") -> Iterator[Mistake]:
    if pool.forced_release == "idle" and pool.max_idle is None:
        yield (
            ("forced_release",),
            '"idle" keeps forced sessions until max_idle are idle, and max_idle is off: set max_idle',
        )
    if pool.max_idle is not None and pool.max_idle < pool.min and pool.keep_min:
        yield (
            ("max_idle",),
            f"max_idle ({pool.max_idle}) is below min ({pool.min}): sessions would be closed and opened for "
            f"ever; raise max_idle, or set keep_min = false",
        )


def _pings(pool: "PoolSettings") -> Iterator[Mistake]:
    if pool.ping_mode == "background" and pool.ping_interval == OFF:
        yield (
            ("ping_mode",),
            'ping_interval is "off", so nothing would be pinged in the background: set ping_interval',
        )
    if pool.ping_mode != "acquire" and pool.ping_interval == 0.0:
        yield (
            ("ping_mode",),
            'ping_interval is "always", and pings in the background would never pause: give ping_interval a '
            'duration, or set ping_mode = "acquire"',
        )


def _begins(pool: "PoolSettings") -> Iterator[Mistake]:
    if pool.begin != "pass" and pool.pool_mode != "transaction":
        yield (
            ("begin",),
            f'"{pool.begin}" needs pool_mode = "transaction": with pool_mode = "{pool.pool_mode}" a '
            "transaction does not say how long a client holds its session",
        )
    elif pool.begin != "pass" and pool.affinity == "client":
        yield (
            ("begin",),
            f'affinity = "client" ties a session to each client, so "{pool.begin}" saves nothing: set '
            'begin = "pass"',
        )


def _idle_sizes(pool: "PoolSettings") -> Iterator[Mistake]:
    may_force = pool.getmode == "forceget" or "forceget" in pool.freedoms
    if pool.max_forced and not may_force:
        yield ("max_forced",), "has no effect: nothing in this pool may use forceget"
    if pool.forced_release == "idle" and not may_force:
        yield ("forced_release",), "has no effect: nothing in this pool may use forceget"
    if pool.put_full == "error" and may_force and pool.max_idle is not None:
        yield (
            ("put_full",),
            '"error" reports every session that forceget opened and that comes back to a full pool, as is '
            "usual",
        )
    if pool.increment > pool.max:
        yield (
            ("increment",),
            f"increment ({pool.increment}) is above max ({pool.max}), which bounds each step",
        )
    most, count = pool.max_per_endpoint, max(1, len(pool.endpoint_tables))
    if most is not None and most * count < pool.max and "max_per_endpoint" not in pool.from_preset:
        yield (
            ("max",),
            f"max ({pool.max}) is never reached: max_per_endpoint ({most}) for each of {count} endpoints "
            f"is less",
        )
    if pool.reuse == "tiered" and not pool.min_per_endpoint:
        yield ("reuse",), '"tiered" without min_per_endpoint is the same as "lifo"'


def _idle_waits(pool: "PoolSettings") -> Iterator[Mistake]:
    timed = pool.getmode == "timedwait" or "timedwait" in pool.freedoms
    if pool.refuse_early and (not timed or pool.getmode == "wait"):
        yield (
            ("refuse_early",),
            f'has no effect on clients with getmode = "{pool.getmode}", which has no time limit: use '
            f'"timedwait"',
        )
    if pool.affinity == "client" and "affinity" not in pool.from_preset:
        yield (
            ("affinity",),
            '"client" gives each client a session for as long as it is connected, as pool_mode = "session" '
            "does: max bounds the clients",
        )
    if pool.hold_warning != OFF and (pool.pool_mode == "session" or pool.affinity == "client"):
        yield (
            ("hold_warning",),
            "clients of this pool hold a session for as long as they are connected, and each would be named",
        )
    for key, needed, why in (
        ("shard_key", pool.route_table is not None, "the route"),
        ("key", pool.affinity == "key", 'affinity = "key"'),
        ("tag", pool.tags != "off", "tags"),
    ):
        if needed and key not in pool.freedoms:
            yield ("client_may_set",), f'lacks "{key}", without which {why} has little to go by'


def _idle_ages(pool: "PoolSettings") -> Iterator[Mistake]:
    written = pool.model_fields_set
    if pool.max_lifetime < pool.idle_timeout < OFF and "idle_timeout" in written:
        yield (
            ("idle_timeout",),
            f"has no effect: it is longer than max_lifetime ({format_duration(pool.max_lifetime)})",
        )
    if pool.reap == "background" and pool.reap_batch:
        yield ("reap_batch",), 'has no effect: reap = "background" closes what is due at once'
    if pool.ping_mode == "both" and pool.ping_interval == OFF:
        yield ("ping_mode",), 'has no effect: ping_interval is "off"'


def _idle_states(pool: "PoolSettings") -> Iterator[Mistake]:
    written = pool.model_fields_set
    if pool.pool_mode == "session" or pool.affinity == "client":
        for key in PinSettings.model_fields:
            if key in written:
                yield (key,), "has no effect: clients of this pool keep their sessions to their end"
    if pool.tags == "off" and "tag_fixup" in written:
        yield ("tag_fixup",), "has no effect: tags are off"
    if pool.tags != "off" and pool.reset == "full":
        yield ("tags",), 'has no effect: reset = "full" leaves every session as it was opened'
    if pool.begin != "ahead" and "begin_max_age" in written:
        yield ("begin_max_age",), 'has no effect: begin is not "ahead"'


def _leaks(pool: "PoolSettings") -> Iterator[Mistake]:
    if "reset" in pool.from_preset:
        return
    if pool.reset == "none":
        yield (
            ("reset",),
            'with "none" the next client finds the settings, temporary tables and locks of the one before',
        )
    elif pool.reset == "rollback" and pool.pool_mode == "session":
        yield (
            ("reset",),
            'with "rollback" the next client finds the temporary tables and locks of the one before',
        )

"""The pools that this one descends from, each as a set of values in the words of the configuration.

What the operator writes, in a file or anywhere else, wins over a preset, even where it is the default. A few
values of a preset follow from what is written: a pool of fixed size has one size, however it is called.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args

from proxy.settings.endpoints import protocol_of

Preset = Literal[
    "oracle",
    "cx_oracle",
    "bursty",
    "fixed",
    "fixed_v3_51",
    "pinging",
    "transaction_pinging",
    "generic",
    "psycopg2",
    "psycopg2_persistent",
]
PRESETS: Final[tuple[Preset, ...]] = get_args(Preset)

Values = Mapping[str, Any]

_IMMORTAL: Final[Values] = {"idle_timeout": "off", "max_lifetime": "off", "lifetime_jitter": 0}

_ORACLE: Final[Values] = {
    "min": 1,
    "max": 2,
    "increment": 1,
    "stmt_cache": 20,
    "prefill": "background",
    "keep_min": True,
    "getmode": "wait",
    "forced_release": "opened",
    "reuse": "lifo",
    "peek": True,
    "ping_interval": "60s",
    "ping_timeout": "5s",
    "ping_mode": "acquire",
    "ping_failure": "next",
    **_IMMORTAL,
    "reap": "background",
    "reset": "rollback",
    "homogeneous": True,
}

_BURSTY: Final[Values] = {
    "min": 0,
    "max": 10,
    "max_idle": 10,
    "prefill": "lazy",
    "keep_min": False,
    "getmode": "forceget",
    "forced_release": "idle",
    "reuse": "lifo",
    "ping_interval": "always",
    "ping_failure": "create",
    **_IMMORTAL,
}

_FIXED: Final[Values] = {
    "min": 10,
    "max": 10,
    "increment": 0,
    "prefill": "eager",
    "getmode": "timedwait",
    "wait_timeout": "10s",
    "put_full": "error",
    "reuse": "lifo",
    "ping_interval": "always",
    "ping_failure": "create",
    **_IMMORTAL,
}

_PINGING: Final[Values] = {**_FIXED, "reuse": "lru", "ping_interval": "3000s", "ping_mode": "both"}

_GENERIC: Final[Values] = {
    "min": 0,
    "max": 100,
    "min_per_endpoint": 1,
    "max_per_endpoint": 10,
    "evict": "idle",
    "prefill": "lazy",
    "keep_min": False,
    "getmode": "wait",
    "reuse": "tiered",
    "ping_interval": "always",
    "ping_command": "peek",
    "ping_failure": "next",
    "idle_timeout": "60s",
    "max_lifetime": "3600s",
    "lifetime_jitter": 0,
    "reap": "release",
    "reap_batch": 0,
}

_PSYCOPG2: Final[Values] = {
    "min": 1,
    "max_idle": 1,
    "prefill": "eager",
    "keep_min": False,
    "getmode": "nowait",
    "reuse": "lifo",
    "peek": False,
    "ping_interval": "off",
    **_IMMORTAL,
    "reset": "rollback",
    "affinity": "key",
    "drain_timeout": "0s",
}

_VALUES: Final[Mapping[str, Values]] = {
    "oracle": _ORACLE,
    "cx_oracle": {**_ORACLE, "prefill": "eager", "getmode": "nowait", "reap": "access"},
    "bursty": _BURSTY,
    "fixed": _FIXED,
    "fixed_v3_51": {**_FIXED, "ping_interval": "3300s"},
    "pinging": _PINGING,
    "transaction_pinging": {**_PINGING, "begin": "ahead"},
    "generic": _GENERIC,
    "psycopg2": _PSYCOPG2,
    "psycopg2_persistent": {**_PSYCOPG2, "affinity": "client"},
}


def preset_values(name: str, written: Values) -> dict[str, Any]:
    """Return what the preset ``name`` sets beside what is ``written``; of an unknown preset, nothing."""
    values = dict(_VALUES.get(name, {}))
    backend = written.get("backend")
    if isinstance(backend, str) and protocol_of(backend) != "postgres":
        values = {key: value for key, value in values.items() if key not in _OF_POSTGRES}
    follow = _FOLLOWING.get(name)
    if follow is not None:
        values.update(follow(written))
    return {key: value for key, value in values.items() if key not in written}


def preset_table(name: str) -> Values:
    """Return every value of the preset ``name``, as it is when nothing else is written."""
    return _VALUES[name]


def _size(written: Values, key: str) -> int | None:
    """The number written for ``key``; a mistake there is reported once, not once more for who follows it."""
    text = str(written.get(key, ""))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _follow_size(written: Values) -> Values:
    """One size: whichever of min and max is written is both."""
    for key, other in (("max", "min"), ("min", "max")):
        size = _size(written, key)
        if size is not None and (other == "min" or size > 0):
            return {other: size}
    return {}


def _follow_target(written: Values) -> Values:
    """Spanner's target_size: as many are kept as may be open without being forced."""
    for key, other in (("max", "max_idle"), ("max_idle", "max")):
        size = _size(written, key)
        if size:
            return {other: size}
    return {}


def _follow_total(written: Values) -> Values:
    """No endpoint has room for more than the whole pool, and a time limit is for a wait that is timed."""
    values: dict[str, Any] = {}
    total = _size(written, "max")
    if total is not None and 0 < total < _GENERIC["max_per_endpoint"]:
        values["max_per_endpoint"] = total
    most = _size(written, "max_per_endpoint")
    if most is not None and most > _GENERIC["max"]:
        values["max"] = most
    if "wait_timeout" in written:
        values["getmode"] = "timedwait"
    return values


def _follow_minconn(written: Values) -> Values:
    """What is above minconn is closed when it comes back; there are no more than maxconn from the start."""
    least = _size(written, "min")
    if least is not None:
        return {"max_idle": least}
    kept = _size(written, "max_idle")
    return {"min": kept} if kept is not None else {}


# A pool of another protocol would refuse them. Not so `begin`: who wants one ahead must be told.
_OF_POSTGRES: Final = frozenset({"reset", "homogeneous", "stmt_cache"})

_FOLLOWING: Final[Mapping[str, Callable[[Values], Values]]] = {
    "bursty": _follow_target,
    "fixed": _follow_size,
    "fixed_v3_51": _follow_size,
    "pinging": _follow_size,
    "transaction_pinging": _follow_size,
    "generic": _follow_total,
    "psycopg2": _follow_minconn,
    "psycopg2_persistent": _follow_minconn,
}

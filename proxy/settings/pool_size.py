"""How many sessions a pool has, where, and what becomes of a surplus. Plain values; no checks."""

from typing import Literal

from proxy.settings.knobs import Count, CountOrOff, Number, NumberOrOff, Table, knob


class SizeSettings(Table):
    """How many sessions there are."""

    min: Count = knob(
        0,
        "Sessions kept open.",
        unit="sessions",
        ancestors="Oracle `min`, psycopg2 `minconn`, Spanner `size` (it is min and max)",
    )
    max: Number = knob(
        10,
        "Sessions open at most (`forceget` may go above it, by `max_forced`).",
        ge=1,
        unit="sessions",
        ancestors="Oracle `max`, psycopg2 `maxconn`, Spanner `size` and `target_size`, "
        "generic `total_max_size`",
    )
    increment: Number = knob(
        1,
        "Sessions opened at a time when one is missing (0 is taken as 1).",
        ge=0,
        unit="sessions",
        ancestors="Oracle `increment`",
    )
    max_forced: Count | None = knob(
        None,
        "Sessions that `forceget` may open above `max`. By default `max` where getmode is `forceget`, "
        "else 0.",
        unit="sessions",
        ancestors="none has a bound (Oracle `POOL_GETMODE_FORCEGET`, Spanner's BurstyPool)",
    )
    forced_release: Literal["opened", "idle"] = knob(
        "opened",
        "A session that `forceget` opened is closed when it comes back `opened`: while more than `max` are "
        "open; `idle`: only once `max_idle` others are idle.",
        ancestors="`opened`: Oracle; `idle`: Spanner's BurstyPool",
    )
    max_idle: CountOrOff = knob(
        "off",
        "A session that comes back when so many are idle is closed.",
        unit="sessions",
        ancestors="psycopg2 `minconn`, Spanner `target_size` of BurstyPool",
    )
    min_per_endpoint: Count = knob(
        0,
        "Sessions of each endpoint that `idle_timeout` does not close.",
        unit="sessions",
        ancestors="generic `min_idle`",
    )
    max_per_endpoint: NumberOrOff = knob(
        "off",
        "Sessions open at most to each endpoint.",
        unit="sessions",
        ancestors="generic `max_size`, Oracle `max_sessions_per_shard`",
    )
    evict: Literal["idle", "off"] = knob(
        "idle",
        "At `max`, when the session wanted is for another endpoint, user or class than the idle ones: "
        "`idle` closes one of those, the soonest to end, and opens here; `off` waits.",
        ancestors="generic always does; Oracle for another `cclass`",
    )
    prefill: Literal["eager", "background", "lazy"] = knob(
        "background",
        "Who opens `min` sessions at the start: `eager`: Penstock is not ready before they are open; "
        "`background`: meanwhile; `lazy`: nobody, they come with the clients.",
        ancestors="`eager`: psycopg2, cx_Oracle, Spanner's fixed and pinging pools; `background`: oracledb; "
        "`lazy`: generic, BurstyPool",
    )
    keep_min: bool = knob(
        True,
        "Lost sessions are opened again, up to `min`, without waiting for a client.",
        ancestors="Oracle does; psycopg2 and generic do not",
    )
    put_full: Literal["close", "error"] = knob(
        "close",
        "A session that comes back to a pool that cannot keep it is closed; `error` logs and counts that "
        "as an error too.",
        ancestors="`error`: `queue.Full` of Spanner's fixed and pinging pools",
    )

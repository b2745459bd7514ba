"""Whether an idle session still lives, and when it has lived long enough. Plain values; no checks."""

from typing import Annotated, Literal

from proxy.settings.knobs import Count, Percent, PingInterval, Seconds, SecondsOrOff, Table, knob, statement

PingCommand = Annotated[str, statement("auto", "peek")]


class HealthSettings(Table):
    """Whether sessions live, and for how long."""

    peek: bool = knob(
        True,
        "Look at the socket of an idle session before it is handed out: one system call, no round trip.",
        ancestors="oracledb does; generic `check_aliveness` of its socket managers",
    )
    ping_interval: PingInterval = knob(
        "60s",
        "A session that was idle for longer is pinged before it is handed out.",
        ancestors="Oracle `ping_interval` (s; 0 always, below 0 off), Spanner `ping_interval` (s) and "
        "`max_age_minutes` (min)",
    )
    ping_timeout: Seconds = knob("5s", "A slower ping has failed.", ancestors="Oracle `ping_timeout` (ms)")
    ping_mode: Literal["acquire", "background", "both"] = knob(
        "acquire",
        "When a session that is due is pinged: when a client wants it, in the background, or both.",
        ancestors="`acquire`: Oracle; `both`: PingingPool, whose `ping()` Penstock calls itself",
    )
    ping_failure: Literal["next", "create"] = knob(
        "next",
        "After a failed ping: try the next idle session, or open a new one at once.",
        ancestors="`next`: Oracle, generic; `create`: Spanner",
    )
    ping_command: PingCommand = knob(
        "auto",
        "What a ping sends: `auto` is the protocol's cheapest (PostgreSQL: an empty query), `peek` only "
        "looks at the socket.",
        ancestors="Spanner: `SELECT 1` or GetSession; generic `check_aliveness`",
    )
    idle_timeout: SecondsOrOff = knob(
        "10m",
        "A session that was idle for longer is closed, down to `min`.",
        ancestors="Oracle `timeout` (s), generic `idle_timeout` (s)",
    )
    max_lifetime: SecondsOrOff = knob(
        "1h",
        "An older session is closed once it is idle.",
        ancestors="Oracle `max_lifetime_session` (s), generic `max_lifetime` (s)",
    )
    lifetime_jitter: Percent = knob(
        10,
        "By how much of `max_lifetime` a session may end earlier, so that those opened together do not end "
        "together.",
        ancestors="none has it",
    )
    reap: Literal["background", "release", "access"] = knob(
        "background",
        "Who closes sessions that are idle or old: Penstock by itself; each release; each acquire and "
        "release.",
        ancestors="`background`: oracledb, generic `background_collector=True`; `release`: generic; "
        "`access`: cx_Oracle",
    )
    reap_batch: Count = knob(
        0,
        "How many are closed at one release or acquire; 0: more, the more there are (log2 of them, and 2).",
        unit="sessions",
        ancestors="generic `dispose_batch_size`",
    )

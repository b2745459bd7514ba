"""How sessions are opened and ended, and how much of that at a time. Plain values; no checks."""

from typing import Literal

from proxy.settings.knobs import Number, Seconds, SecondsOrOffOrZero, Table, knob


class OpeningSettings(Table):
    """How sessions are opened and ended."""

    max_opening: Number = knob(4, "Logins to each server in parallel.", ge=1, unit="logins")
    slow_start: bool = knob(
        True,
        "Begin with one login at a time and allow one more with each that works, up to `max_opening`, so "
        "that many restarting Penstocks do not storm the server.",
    )
    breaker_failures: Number = knob(
        5,
        "After so many failed logins in a row an endpoint is left alone for `breaker_timeout`; then one "
        "login is tried.",
        ge=1,
        unit="logins",
    )
    breaker_timeout: Seconds = knob("5s", "How long an endpoint that refuses logins is left alone.")
    connect_timeout: Seconds = knob("15s", "Connect, TLS and login together.")
    io_parallel: Number = knob(32, "Pings and closes in parallel.", ge=1, unit="sessions")
    close_timeout: Seconds = knob(
        "30s",
        "How long a closed session keeps its slot while the server has not ended it.",
        ancestors="generic `dispose_timeout` (s)",
    )
    replication: Literal["allow", "refuse"] = knob(
        "allow",
        "Whether clients may open replication connections. Each has a session of its own, within `max`, as "
        "long as it lasts; which users may have one is for the server to say.",
        ancestors="none has it",
    )
    drain_timeout: SecondsOrOffOrZero = knob(
        "30s",
        "When the pool is closed: how long those who hold its sessions may keep them.",
        ancestors="generic `close(timeout)` (s); `0s`: Oracle `close(force=True)`, psycopg2 `closeall()`",
    )

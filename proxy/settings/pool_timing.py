"""What a client may take its time for, and what is told of how long things took. Plain values; no checks."""

from typing import Annotated, Literal

from pydantic import Field

from proxy.settings.knobs import Number, SecondsOrOff, SecondsOrOffOrZero, Table, knob


class TimingSettings(Table):
    """Time: how much of it there is, and who is told when it is over."""

    query_timeout: SecondsOrOff = knob(
        "off",
        "A query that runs for longer is cancelled on the server; its client gets the error, and stays.",
    )
    transaction_timeout: SecondsOrOff = knob(
        "off",
        "A transaction that lasts longer, from its first statement on, is rolled back, and its client is "
        "disconnected.",
    )
    client_idle_timeout: SecondsOrOff = knob(
        "off", "A client that has no transaction open and says nothing for longer is disconnected."
    )
    query_wait_notify: SecondsOrOff = knob(
        "5s", "A client that waits for a session for longer is told so, once, by a NOTICE."
    )
    log_min_duration: SecondsOrOffOrZero = knob(
        "off", "A query that takes longer is named in the log, with the traceparent of its comment."
    )
    log_statements: Literal["fingerprint", "raw"] = knob(
        "fingerprint",
        "What the log shows of it: `fingerprint`: its text without literals and comments; `raw`: as it was "
        "sent, with whatever secrets it holds.",
    )
    log_statement_bytes: Annotated[Number, Field(ge=0, le=16384)] = knob(
        200, "So much of its text at most; 0: no text at all.", unit="bytes"
    )
    query_stats: bool = knob(
        False,
        "Count calls, time, rows and errors for each fingerprint, for `/api/v1/queries` and the status page.",
    )

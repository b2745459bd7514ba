"""How a client gets a session, and what it may choose for itself. Plain values; no checks."""

from typing import Annotated, Literal

from proxy.settings.knobs import Listing, QueueLength, SecondsOrOff, SecondsOrOffOrZero, Table, knob

Freedom = Literal[
    "wait",
    "nowait",
    "timedwait",
    "forceget",
    "wait_timeout",
    "cclass",
    "purity",
    "key",
    "tag",
    "shard_key",
    "target",
]


class AcquireSettings(Table):
    """How a client gets a session."""

    getmode: Literal["wait", "nowait", "timedwait", "forceget"] = knob(
        "timedwait",
        "When every session is taken: `wait` queues without limit, `nowait` refuses at once, `timedwait` "
        "queues for `wait_timeout`, `forceget` opens one more.",
        ancestors="Oracle `getmode`; psycopg2 is `nowait`, BurstyPool `forceget`, generic without "
        "`acquire_timeout` `wait`",
    )
    wait_timeout: SecondsOrOffOrZero = knob(
        "30s",
        "The longest wait for a session: queueing, ping and connect together. `0s` takes only what is free "
        "now.",
        ancestors="Oracle `wait_timeout` (ms), Spanner `default_timeout` (s), generic `acquire_timeout` (s)",
    )
    max_waiting: QueueLength = knob(
        "off",
        "Refuse at once when so many clients already queue.",
        unit="clients",
        ancestors="node-oracledb `queueMax`",
    )
    refuse_early: bool = knob(
        False, "Refuse at once whoever could not be served in time, at the rate at which sessions come back."
    )
    reuse: Literal["lifo", "lru", "tiered"] = knob(
        "lifo",
        "Which idle session is handed out: the latest used; the longest idle; `tiered`: the first "
        "`min_per_endpoint` of an endpoint in turn, then the latest used of the others.",
        ancestors="`lifo`: Oracle, psycopg2, Spanner's fixed and bursty pools; `lru`: PingingPool; `tiered`: "
        "generic",
    )
    affinity: Literal["none", "key", "client"] = knob(
        "none",
        "Who is tied to a session: nobody; the clients that name the same `penstock.key`, one after the "
        "other; each client, for as long as it is connected.",
        ancestors="`key`: psycopg2 `getconn(key)`; `client`: psycopg2 PersistentConnectionPool",
    )
    hold_warning: SecondsOrOff = knob(
        "off", "A client that holds a session for longer is named in the log, as a warning."
    )
    idle_transaction_timeout: SecondsOrOff = knob(
        "off", "A client that is idle in a transaction for longer is disconnected."
    )
    client_may_set: Annotated[tuple[Freedom, ...], Listing] = knob(
        ("nowait", "timedwait", "wait_timeout"),
        "What a client may choose for itself: get modes, a `wait_timeout` up to the pool's, `cclass`, "
        "`purity`, `key`, `tag`, `shard_key`, `target`. Unless this is written, `affinity` by key allows "
        "`key`, `tags` allow `tag`, a route allows `shard_key`, and several servers without one `target`.",
        ancestors="Oracle: arguments of `acquire`; psycopg2: the argument of `getconn`",
    )

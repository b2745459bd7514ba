"""What state a session is in when a client gets it. Plain values; no checks but of the text itself."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator

from proxy.settings.knobs import Number, Seconds, Table, knob, statement

_LABEL: Final = re.compile(r"[A-Za-z_]\w{0,62}(\.[A-Za-z_]\w{0,62})?", re.ASCII)


def _labels(value: Any) -> Any:
    if isinstance(value, dict):
        for name, text in value.items():
            if not isinstance(text, str) or not text.isprintable():
                raise ValueError('expected printable text in quotes for each label, as { team = "web" }')
            if not _LABEL.fullmatch(name):
                raise ValueError("a label's name has letters, digits and _, and begins with no digit")
    return value


class StateSettings(Table):
    """What state a session is in."""

    reset: Annotated[str, statement("auto", "none", "rollback", "full")] = knob(
        "auto",
        "What is done to a session between two clients, besides ending a transaction. `full`: `DISCARD ALL`. "
        "`rollback`: what a client has SET is undone when another gets the session, and nothing more. "
        "`auto`: `full` with pool_mode `session`, else `rollback`. `none`: nothing. SQL: that, each time.",
        ancestors="`rollback`: Oracle, psycopg2, generic's psycopg2 manager",
    )
    reset_timeout: Seconds = knob("5s", "Cleaning a session between two clients; a slower one is closed.")
    session_init: Annotated[str, statement()] | None = knob(
        None,
        "SQL that is run in each new session before anybody gets it, and again whenever what a client left "
        "was wiped. A session where it fails is closed.",
        examples=["SET statement_timeout = '30s'"],
        ancestors="Oracle `session_callback`",
    )
    labels: Annotated[dict[str, str], BeforeValidator(_labels)] = knob(
        {},
        "Names and values that mark each session: the server has `team` as the setting `label.team`, for "
        "`current_setting('label.team')`. A name with a dot is the setting of that name.",
        examples=[{"team": "web"}],
        ancestors="Spanner `labels`",
    )
    role: str | None = knob(
        None,
        "The role of each session from its login on; a client's `RESET ROLE` goes back to it.",
        min_length=1,
        examples=["app_writer"],
        ancestors="Spanner `database_role`",
    )
    tags: Literal["off", "exact", "any"] = knob(
        "off",
        "Prefer an idle session whose parameters (or `penstock.tag`) are already those wanted. `exact`: else "
        "one that nobody has changed, or a new one; `any`: else any, which is then changed.",
        ancestors="Oracle `tag` of `acquire`; `any`: `matchanytag`",
    )
    tag_fixup: Annotated[str, statement("auto")] = knob(
        "auto",
        "What is sent when they are not: `auto` sets the difference; SQL is run behind that. A session where "
        "it fails is closed, and the client told.",
        ancestors="Oracle `session_callback` (a procedure of the server)",
    )
    cclass: str = knob(
        "",
        "The connection class of the pool's sessions. Clients of different classes share `max`, and no "
        "session.",
        max_length=63,
        ancestors="Oracle `cclass`",
    )
    purity: Literal["self", "new"] = knob(
        "self",
        "`new`: each client gets a session that nobody has used; `self`: it may have been used.",
        ancestors="Oracle `purity`",
    )
    homogeneous: bool = knob(
        False,
        "Every session is the pool's own user's. Otherwise a listed user runs as itself, unless `run_as` "
        "says that it is the pool's.",
        ancestors="Oracle `homogeneous`",
    )
    stmt_cache: Number = knob(
        100,
        "How many named prepared statements a session holds for its clients, in pool_mode transaction and "
        "statement; the longest unused gives way. 0: clients may not have any.",
        ge=0,
        le=100_000,
        ancestors="Oracle `stmtcachesize`; PgBouncer `max_prepared_statements`",
    )
    stmt_memory: Number = knob(
        268_435_456,
        "How many bytes the texts of all clients' named statements may take, each counted once.",
        ge=65_536,
        ancestors="none has it",
    )
    stmt_client_memory: Number = knob(
        4_194_304,
        "... and those of one client. One that wants more gets an error, and keeps its connection.",
        ge=8_192,
        ancestors="none has it",
    )
    begin: Literal["pass", "deferred", "ahead"] = knob(
        "pass",
        "`pass`: BEGIN is sent when the client sends it; `deferred`: together with the first statement, so "
        "that an idle transaction holds no session; `ahead`: idle sessions carry a transaction that is begun "
        "already.",
        ancestors="`ahead`: Spanner's TransactionPingingPool",
    )
    begin_max_age: Seconds = knob(
        "5s",
        "A transaction that was begun ahead and is older is rolled back, and begun again.",
        ancestors="none has it",
    )

"""Sequences of messages that hypothesis makes: many of them senseless, all of them answered.

Left out is what is known to differ (differences.py): SQL's PREPARE and EXECUTE, a DEALLOCATE that is parsed
and not executed, a Query behind an Execute without its Sync, the unnamed statement behind an error,
transactions where a session is for one statement.
"""

from typing import Any

from hypothesis import strategies as st

from differential.speaking import (
    DONE,
    FLUSH,
    SYNC,
    Unit,
    bind,
    close,
    copied,
    describe,
    execute,
    failed,
    parse,
    query,
    say,
)

NAMES = ("", "", "a", "b", "c")
PORTALS = ("", "", "", "p")
TEXTS = (
    "SELECT 1",
    "SELECT n, t FROM kept ORDER BY n",
    "SELECT generate_series(1, 3)",
    "SELECT 1/0",
    "SELEC",
    "SELECT x FROM nowhere",
    "",
    "INSERT INTO kept VALUES (100, 'new')",
    "DELETE FROM kept WHERE n = 3 RETURNING t",
    "SHOW application_name",
    "SHOW DateStyle",
    "SELECT set_config('application_name', 'by function', false)",
    "SET application_name = 'mine'",
    "SET DateStyle = 'SQL, DMY'",
    "RESET application_name",
    "RESET ALL",
    "DO $$ BEGIN RAISE NOTICE 'n'; END $$",
    "COPY kept TO STDOUT",
    "DISCARD PLANS",
    "VACUUM kept",
)
IN_TRANSACTIONS = (
    "BEGIN",
    "BEGIN",
    "START TRANSACTION READ ONLY",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "COMMIT AND CHAIN",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "SET LOCAL application_name = 'for now'",
    "DECLARE q CURSOR FOR SELECT generate_series(1, 4)",
    "FETCH 2 FROM q",
)
FORGETTING = ("DEALLOCATE a", "DEALLOCATE ALL")
IN_QUERIES = (
    *FORGETTING,
    "SELECT 1; SELECT 2",
    "SELECT 1; SELECT 1/0; SELECT 3",
    "INSERT INTO kept VALUES (101, 'x'); SELECT count(*) FROM kept",
    "SET application_name = 'both'; SELECT 1/0",
    "DISCARD ALL",
    "; ;",
)


class Author:
    """Writes units for a client of a pool with this mode."""

    def __init__(self, draw: Any, mode: str) -> None:
        self.draw = draw
        self.texts = TEXTS if mode == "statement" else TEXTS + IN_TRANSACTIONS
        self.is_changing = mode == "transaction"
        # Behind an error the unnamed statement is lost where sessions change hands.
        self.known = NAMES if mode == "session" else NAMES[2:]

    def one_of(self, choices: Any) -> Any:
        """Any one of them."""
        return self.draw(st.sampled_from(choices))

    def units(self) -> tuple[Unit, ...]:
        """A few."""
        kinds = (self.simple, self.segment, self.segment, self.segment, self.copy)
        return tuple(self.one_of(kinds)() for _ in range(self.draw(st.integers(1, 8))))

    def simple(self) -> Unit:
        """One Query, or several at once."""
        return say(*(self.one_of(self.texts + IN_QUERIES) for _ in range(self.draw(st.integers(1, 3)))))

    def segment(self) -> Unit:
        """Extended messages with a Sync behind them, perhaps several times."""
        data = b""
        for _ in range(self.draw(st.integers(1, 3))):
            data += b"".join(self.extended() for _ in range(self.draw(st.integers(0, 6)))) + SYNC
        return say(data)

    def extended(self) -> bytes:
        """One message of the extended protocol, or the usual few."""
        name, portal = self.one_of(NAMES), self.one_of(PORTALS)
        kind = self.draw(st.integers(0, 12))
        if kind == 12:
            return parse(self.one_of(FORGETTING)) + bind() + execute()
        if kind < 4:
            text = self.one_of(self.texts)
            return (
                parse(text, name) + bind(name=name, portal=portal) + execute(portal, self.one_of((0, 0, 1)))
            )
        if kind < 6:
            return parse(self.one_of(self.texts), name)
        name = self.one_of(self.known)
        if kind < 8:
            return bind(name=name, portal=portal) + execute(portal, self.one_of((0, 0, 2)))
        choices = (
            self.fresh(name) + describe(name),
            describe(portal, "P"),
            close(name),
            close(portal, "P"),
            FLUSH,
            # Not the unnamed one, by itself: behind a Query that has failed in a transaction PostgreSQL 18
            # crashes.
            execute("p"),
        )
        return self.one_of(choices) if kind < 11 else self.with_parameter(self.one_of(NAMES))

    def fresh(self, name: str) -> bytes:
        """In a failed transaction a session may lack a statement, and cannot be given it to describe it."""
        return parse(self.one_of(self.texts), name) if self.is_changing else b""

    def with_parameter(self, name: str) -> bytes:
        """A statement with a parameter, and a value that may not fit."""
        value = self.one_of((b"1", b"x", None, b""))
        # Errors name a statement by one of the names that the client has for its text.
        return (
            parse(f"SELECT $1::int AS x{name}", name)
            + bind(value, name=name)
            + describe(kind="P")
            + execute()
        )

    def copy(self) -> Unit:
        """A COPY whose data comes without waiting for the server."""
        lines = (copied("200\tx\n"), copied("201\ty\n"), copied("20"), copied("wrong\n"), copied(b"\xff"))
        data = b"".join(self.one_of(lines) for _ in range(self.draw(st.integers(0, 3))))
        data += self.one_of((DONE, DONE, failed()))
        if self.draw(st.booleans()):
            return say(query("COPY kept FROM STDIN"), data)
        # Of a name of its own: to run it without its data is to lose the connection.
        name = "copy"
        return say(parse("COPY kept FROM STDIN", name), bind(name=name), execute(), data, close(name), SYNC)


@st.composite
def sequences(draw: Any, mode: str) -> tuple[Unit, ...]:
    """Units that wait for each other, or all of them in one."""
    units = Author(draw, mode).units()
    if draw(st.integers(0, 2)):
        return units
    return (Unit(b"".join(unit.data for unit in units), ""),)

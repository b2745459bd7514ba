"""Where an answer through the pool is not the server's own, on purpose: the one list of it.

The scripts name them where they meet them, and docs/differences.md carries the list as a table, which
``python tests/differential/differences.py`` writes.
"""

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
BEGIN, FINISH = "<!-- differences -->", "<!-- end -->"


@dataclass(frozen=True)
class Difference:
    """``modes`` are those where it shows; ```shows`` stands there more often than directly."""

    id: str
    modes: tuple[str, ...]
    directly: str
    here: str
    why: str
    shows: bytes = b""


ALL = ("session", "transaction", "statement")
CHANGING = ("transaction", "statement")

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "transactions",
        ("statement",),
        "BEGIN opens a transaction",
        "it is rolled back and refused (0A000); a BEGIN with its COMMIT or ROLLBACK behind it in the same"
        " pipeline goes through",
        "a session is held for one statement",
        b"transaction blocks are not supported in pool_mode statement",
    ),
    Difference(
        "sql_prepare",
        ("statement",),
        "PREPARE, temporary tables, advisory locks, … stay",
        "they are refused (0A000), or as `on_sql_prepare` and its kin say: see session-state.md",
        "nothing can be left for later on a session that is held for one statement",
        b"is refused by this pool",
    ),
    Difference(
        "sql_names",
        CHANGING,
        "a statement that was prepared by the protocol can be run by EXECUTE in SQL, and one of PREPARE"
        " by a Bind",
        "each is known only where it was made (26000); pg_prepared_statements shows names of"
        " Penstock's. DEALLOCATE"
        " knows both",
        "named statements follow the client under names that sessions share",
        b'Mprepared statement "a" does not exist',
    ),
    Difference(
        "deallocated",
        CHANGING,
        "DEALLOCATE takes a statement's name away when it is executed",
        "by the protocol it does so when it is parsed as the unnamed statement, and not at all where it"
        " is prepared"
        " under a name",
        "who parses it executes it",
    ),
    Difference(
        "failed_describe",
        ("transaction",),
        "in a failed transaction a statement without columns can still be described",
        "where the session had not prepared it, it is refused (25P02)",
        "nothing can be prepared on it any more; statements that end the transaction can",
    ),
    Difference(
        "two_names",
        CHANGING,
        "an error names the prepared statement that was used",
        "where the client has two names for one text it may be the other",
        "both stand for one statement of the session",
    ),
    Difference(
        "unnamed_lost",
        CHANGING,
        "a Parse of the unnamed statement that is skipped, because of an error before it, leaves the"
        " one before it",
        "that is gone (26000) from the next Sync on",
        "whether a skipped Parse was a good one is not known, and no client can mean the other",
        b"unnamed prepared statement does not exist",
    ),
    Difference(
        "told_again",
        CHANGING,
        "ParameterStatus comes when a setting changes",
        "it may come again with the value that the client knows",
        "the session that serves it had another value, of another client",
    ),
    Difference(
        "places",
        ALL,
        "errors name file, line and routine of the server's source",
        "those that Penstock gives have none, and in a failed transaction it may be another line;"
        " SQLSTATE and text"
        " are the server's",
        "no server has given them; or it has refused what Penstock sent ahead",
    ),
    Difference(
        "lone_sync",
        CHANGING,
        "a Query or FunctionCall behind an Execute without a Sync leaves PostgreSQL 18, after the next"
        " Sync, with a"
        " session whose next statement fails with XX000",
        "that session is closed, and the next statement works on another one",
        "nobody should get what another client has broken",
    ),
    Difference(
        "server_ends",
        CHANGING,
        "a FATAL error ends the connection",
        "outside of a transaction it costs the client the answers that are owed (08006), not its connection; "
        "behind the last of them nothing, unless something may have been set that Penstock has not asked for",
        "another session can serve it",
        b"C08006",
    ),
    Difference(
        "goodbye",
        ALL,
        "Terminate is read behind what was sent before, whose answers still come",
        "what was sent before is still done, but no answer is sent any more; an unfinished COPY is failed and"
        " an unfinished pipeline rolled back",
        "who says goodbye does not listen",
    ),
    Difference(
        "broken",
        ALL,
        "a message of an unknown type, or with an impossible length, ends the connection, with 08P01 or"
        " without a word",
        "it ends with 08P01, in other words, whatever came before it in the same read",
        "where the next message begins cannot be told",
        b" message of ",
    ),
    Difference(
        "cut",
        ALL,
        "a Bind or Describe that ends before its name does is refused with 08P01",
        "it may be refused as one of an unnamed statement that does not exist (26000)",
        "what cannot be understood may not reach another client's statement",
        b"C26000",
    ),
    Difference(
        "full_sync",
        CHANGING,
        "a Sync with something in it is refused with 08P01",
        "where nothing is outstanding it is answered as any other",
        "no session is taken for it",
    ),
)

BY_ID = {one.id: one for one in DIFFERENCES}


def table() -> str:
    """The list, as the page has it."""
    rows = [f"| {', '.join(one.modes)} | {one.directly} | {one.here} | {one.why} |" for one in DIFFERENCES]
    return "\n".join(["| pool_mode | directly | through Penstock | because |", "|---|---|---|---|", *rows])


def with_table(page: str) -> str:
    """The page with its table as it is in the list above."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n{FINISH}{rest.partition(FINISH)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))

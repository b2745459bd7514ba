"""The written scripts. ``kept`` is a table (n int primary key, t text) with five rows, the same each time;
``made`` is for scripts that make a table, and is not there before.

Where an answer through the pool is another one on purpose, the script names the difference and its modes.
"""

import struct
from dataclasses import dataclass, field

from differential.differences import ALL, CHANGING
from differential.speaking import (
    DONE,
    FLUSH,
    SYNC,
    TERMINATE,
    Unit,
    asked,
    bind,
    call,
    close,
    copied,
    describe,
    execute,
    failed,
    parse,
    query,
    say,
)
from integration.raw import message

SETTING_UP = """
DROP TABLE IF EXISTS kept, made;
CREATE TABLE kept (n int PRIMARY KEY, t text);
INSERT INTO kept SELECT i, 'row ' || i FROM generate_series(1, 5) i
"""
AGAIN = """
SET client_min_messages = error; DROP TABLE IF EXISTS made; TRUNCATE kept;
INSERT INTO kept SELECT i, 'row ' || i FROM generate_series(1, 5) i
"""

INT4, TEXT, UPPER, INT4_SUM = 23, 25, 871, 177
COMPLAINT = (
    "DO $$ BEGIN RAISE EXCEPTION 'whole' USING DETAIL = 'a detail', HINT = 'a hint', ERRCODE = 'P1234',"
    " SCHEMA = 's', TABLE = 't', COLUMN = 'c', DATATYPE = 'd', CONSTRAINT = 'k'; END $$"
)
IN_STATEMENTS = {"statement": "transactions"}
BROKEN = dict.fromkeys(ALL, "broken")


@dataclass(frozen=True)
class Script:
    """``differs`` names, for a mode, the difference that shows."""

    name: str
    units: tuple[Unit, ...]
    differs: dict[str, str] = field(default_factory=dict)


def script(name: str, *units: Unit, **differs: str) -> Script:
    return Script(name, units, differs)


SIMPLE = (
    script("simple", say("SELECT 1"), say("SELECT n, t FROM kept ORDER BY n"), say("TABLE kept LIMIT 0")),
    script("several statements", say("SELECT 1; SELECT 'two', 3; INSERT INTO kept VALUES (6, 'six')")),
    script("several, one fails", say("SELECT 1; SELECT 1/0; SELECT 2"), say("SELECT 3")),
    script(
        "several are a transaction", say("INSERT INTO kept VALUES (7, ''); SELECT 1/0"), say("TABLE kept")
    ),
    script("empty", say(""), say(";"), say(" ;; "), say("-- nothing"), say("/* nothing */")),
    script("not SQL", say("NONSENSE"), say("SELECT"), say("SELECT FROM"), say("SELECT 'open")),
    script("pipelined", say("SELECT 1", "SELECT 2", "SELECT 1/0", "SELECT 4", "")),
    script("types", say("SELECT 1::int8, 1.5::numeric, NULL, true, '{1,2}'::int[], '\\x00ff'::bytea, ''")),
    script("many columns", say("SELECT " + ", ".join(f"{n} AS c{n}" for n in range(600)))),
    script("many rows", say("SELECT n, repeat('x', n % 50) FROM generate_series(1, 5000) n")),
    script("large row", say("SELECT repeat('x', 300000), 1"), say("SELECT 2")),
    script("large query", say("SELECT length('" + "y" * 200_000 + "')"), say("SELECT 2")),
    script("not in the encoding", say(query(b"SELECT '\xff\xfe'")), say("SELECT 1")),
    script("no end of the string", say(message(b"Q", b"SELECT 1")), say("SELECT 1")),
    script("a zero in the middle", say(message(b"Q", b"SELECT 1\0SELECT 2\0")), say("SELECT 1")),
    script("all fields of an error", say(COMPLAINT), say("SELECT 1")),
    script(
        "constraints",
        say("INSERT INTO kept VALUES (1, 'again')"),
        say("INSERT INTO kept VALUES (NULL, NULL)"),
    ),
    script(
        "notices",
        say(
            "DO $$ BEGIN RAISE NOTICE '1 %', 1; RAISE WARNING 'two' USING HINT = 'h'; RAISE INFO 'x'; END $$"
        ),
        say("DROP TABLE IF EXISTS made"),
        say("SELECT 1"),
    ),
    script(
        "function call", say(call(UPPER, b"text")), say(call(INT4_SUM, b"1", b"2")), say(call(UPPER, None))
    ),
    script(
        "function calls that fail", say(call(4_000_000)), say(call(INT4_SUM, b"x", b"1")), say("SELECT 1")
    ),
    script("function call, cut", say(message(b"F", struct.pack("!I", UPPER))), say("SELECT 1")),
    script(
        "commands",
        say("CREATE TABLE made (a int)"),
        say("INSERT INTO made SELECT 1; UPDATE made SET a = 2; DELETE FROM made"),
        say("ALTER TABLE made ADD b text"),
        say("TABLE made"),
        say("DROP TABLE made"),
        say("VACUUM kept"),
        say("EXPLAIN (COSTS OFF) SELECT 1"),
        say("SHOW integer_datetimes"),
    ),
)

EXTENDED = (
    script(
        "unnamed", say(asked("SELECT $1::int + 1, $2::text", b"1", b"x"), SYNC), say(SYNC), say("SELECT 1")
    ),
    script("without a Describe", say(parse("SELECT 1"), bind(), execute(), SYNC)),
    script("NULL", say(asked("SELECT $1::text, $2::int", None, None), SYNC)),
    script(
        "binary",
        say(
            parse("SELECT $1, $2", types=(INT4, TEXT)),
            bind(struct.pack("!i", 258), b"t", formats=(1, 0), results=(1,)),
            describe(kind="P"),
            execute(),
            SYNC,
        ),
    ),
    script(
        "step by step",
        say(parse("SELECT $1::int"), FLUSH, awaits="1"),
        say(describe(), FLUSH, awaits="tT"),
        say(bind(b"5"), FLUSH, awaits="2"),
        say(execute(), FLUSH, awaits="DC"),
        say(SYNC),
    ),
    script(
        "unnamed, kept over a Sync",
        say(parse("SELECT $1::int"), SYNC),
        say(bind(b"1"), execute(), SYNC),
        say(bind(b"2"), execute(), SYNC),
        say("SELECT 0"),
        say(bind(b"3"), execute(), SYNC),
    ),
    script(
        "unnamed, replaced by a wrong one",
        say(parse("SELECT 1"), SYNC),
        say(parse("WRONG"), SYNC),
        say(bind(), execute(), SYNC),
    ),
    script(
        "unnamed, behind an error",
        say(parse("SELECT 1"), SYNC),
        say(asked("SELECT 1/0"), parse("SELECT 2"), SYNC),
        say(bind(), execute(), SYNC),
        **dict.fromkeys(CHANGING, "unnamed_lost"),
    ),
    script(
        "unnamed, closed",
        say(parse("SELECT 1"), SYNC),
        say(close(), SYNC),
        say(describe(), SYNC),
        say(bind(), execute(), SYNC),
    ),
    script("no unnamed", say(bind(), execute(), SYNC), say(describe(), SYNC), say(describe(kind="P"), SYNC)),
    script("empty", say(parse(""), describe(), bind(), describe(kind="P"), execute(), SYNC)),
    script("two in one Parse", say(parse("SELECT 1; SELECT 2"), SYNC), say(parse("SELECT 1;"), SYNC)),
    script(
        "an error in the middle",
        say(asked("SELECT 1"), asked("SELECT 1/0"), asked("SELECT 3"), SYNC),
        say(asked("SELECT 4"), SYNC),
    ),
    script(
        "an error, then a Sync and more", say(asked("SELECT 1/0"), SYNC, asked("SELECT 2"), SYNC, "SELECT 3")
    ),
    script("several Syncs", say(SYNC, SYNC, parse("SELECT 1"), SYNC, SYNC, bind(), execute(), SYNC)),
    script(
        "a pipeline is a transaction",
        say(asked("INSERT INTO kept VALUES (8, '')"), asked("SELECT 1/0"), SYNC),
        say("SELECT count(*) FROM kept"),
    ),
    script(
        "insert returning", say(asked("INSERT INTO kept VALUES ($1, $2) RETURNING n", b"9", b"nine"), SYNC)
    ),
    script("too few parameters", say(asked("SELECT $1::int, $2::int", b"1"), SYNC), say(SYNC)),
    script("not a number", say(asked("SELECT $1::int", b"x"), SYNC), say("SELECT 1")),
    script("not in the encoding", say(asked("SELECT $1::text", b"\xff"), SYNC)),
    script(
        "strange formats",
        say(parse("SELECT 1"), bind(results=(7,)), execute(), SYNC),
        say(parse("SELECT $1::int"), bind(b"1", formats=(0, 0, 0)), SYNC),
    ),
    script(
        "large parameter", say(asked("SELECT length($1), $1::text", b"z" * 300_000), SYNC), say("SELECT 1")
    ),
    script(
        "many parameters",
        say(asked("SELECT " + "+".join(f"${n}::int" for n in range(1, 401)), *[b"1"] * 400), SYNC),
    ),
    script(
        "parts of a result",
        say(parse("SELECT generate_series(1, 5)"), bind(), execute(rows=2), FLUSH, awaits="12DDs"),
        say(execute(rows=2), execute(rows=1), execute(), SYNC),
    ),
    script(
        "a portal ends with its Sync",
        say(parse("SELECT generate_series(1, 5)"), bind(portal="p"), execute("p", 2), SYNC),
        say(execute("p", 2), SYNC),
    ),
    script(
        "two portals",
        say(
            parse("SELECT generate_series(1, $1::int)"),
            bind(b"3", portal="p"),
            bind(b"4", portal="q"),
            describe("p", "P"),
            execute("p", 1),
            execute("q", 2),
            execute("p", 9),
            close("p", "P"),
            execute("q"),
            SYNC,
        ),
    ),
    script("a portal twice", say(parse("SELECT 1"), bind(portal="p"), bind(portal="p"), SYNC)),
    script("a portal after its end", say(parse("SELECT 1"), bind(), execute(), execute(), SYNC)),
    script("close what is not there", say(close("none"), close("none", "P"), SYNC)),
    script(
        "strange Describe and Close", say(message(b"D", b"Xa\0"), SYNC), say(message(b"C", b"Xa\0"), SYNC)
    ),
    script(
        "notices in a pipeline", say(asked("DO $$ BEGIN RAISE NOTICE 'n'; END $$"), asked("SELECT 1"), SYNC)
    ),
    script(
        "a Query instead of a Sync",
        say(asked("SELECT 1"), "SELECT 2", SYNC),
        say("SELECT 3"),
        **dict.fromkeys(CHANGING, "lone_sync"),
    ),
    script(
        "a Query instead of a Sync, which comes late",
        say(asked("SELECT 1"), "SELECT 2"),
        say(SYNC),
        say("SELECT 3"),
        **dict.fromkeys(CHANGING, "lone_sync"),
    ),
    script(
        "a FunctionCall instead of a Sync",
        say(asked("SELECT 1"), call(INT4_SUM, b"1", b"2")),
        say(SYNC),
        say("SELECT 3"),
        **dict.fromkeys(CHANGING, "lone_sync"),
    ),
    script("a Query behind a Parse", say(parse("SELECT 1"), "SELECT 2", SYNC), say("SELECT 3")),
    script(
        "an error, then a Query that is skipped",
        say(asked("SELECT 1/0"), "SELECT 2", SYNC, awaits="Z"),
        say("SELECT 3"),
    ),
    script(
        "cut messages",
        say(message(b"B", b"\0"), SYNC),
        say(message(b"P", b"\0SELECT 1"), SYNC),
        say(message(b"E", b"\0"), SYNC),
        say(message(b"D", b""), SYNC),
        say(message(b"C", b""), SYNC),
        say("SELECT 1"),
        **dict.fromkeys(ALL, "cut"),
    ),
    script(
        "too long for what they say",
        say(message(b"E", b"\0\0\0\0\0more"), SYNC),
        say(message(b"S", b"more")),
        say("SELECT 1"),
        **dict.fromkeys(CHANGING, "full_sync"),
    ),
)

NAMED = (
    script(
        "named",
        say(parse("SELECT $1::int", "a"), describe("a"), SYNC),
        say(bind(b"1", name="a"), execute(), SYNC),
        say(bind(b"2", name="a"), describe(kind="P"), execute(), SYNC),
        say(close("a"), SYNC),
        say(bind(b"3", name="a"), execute(), SYNC),
    ),
    script(
        "several names",
        *(say(parse(f"SELECT {n}", f"s{n}"), SYNC) for n in range(5)),
        *(say(bind(name=f"s{n}"), execute(), SYNC) for n in range(5)),
        say(*(bind(name=f"s{n}") + execute() for n in range(5)), SYNC),
    ),
    script(
        "the same name twice",
        say(parse("SELECT 1", "a"), SYNC),
        say(parse("SELECT 2", "a"), SYNC),
        say(bind(name="a"), execute(), SYNC),
    ),
    script(
        "the same name twice, wrong",
        say(parse("SELECT 1", "a"), SYNC),
        say(parse("WRONG", "a"), SYNC),
        say(parse("SELECT 2", "a"), parse("SELECT 3"), SYNC),
        say(bind(name="a"), execute(), SYNC),
    ),
    script(
        "one text, two names",
        say(parse("SELECT 1", "a"), parse("SELECT 1", "b"), SYNC),
        say(close("a"), SYNC),
        say(bind(name="b"), execute(), SYNC),
        say(bind(name="a"), execute(), SYNC),
    ),
    script(
        "unknown names", say(bind(name="none"), execute(), SYNC), say(describe("none"), SYNC), say("SELECT 1")
    ),
    script(
        "named, wrong",
        say(parse("SELEC", "a"), SYNC),
        say(bind(name="a"), SYNC),
        say(parse("SELECT nothing FROM nowhere", "a"), SYNC),
        say(parse("SELECT 1", "a"), SYNC),
        say(bind(name="a"), execute(), SYNC),
    ),
    script(
        "a named pipeline",
        say(
            parse("SELECT 1", "a"),
            bind(name="a"),
            execute(),
            parse("SELECT 2", "b"),
            bind(name="b"),
            execute(),
            close("a"),
            parse("SELECT 3", "a"),
            bind(name="a"),
            execute(),
            SYNC,
            bind(name="a"),
            execute(),
            bind(name="b"),
            execute(),
            SYNC,
        ),
    ),
    script(
        "an error before a Parse",
        say(
            asked("SELECT 1/0"),
            parse("SELECT 1", "a"),
            SYNC,
            bind(name="a"),
            SYNC,
            parse("SELECT 2", "a"),
            SYNC,
            bind(name="a"),
            execute(),
            SYNC,
        ),
    ),
    script(
        "an error behind a Parse",
        say(parse("SELECT 1", "a"), asked("SELECT 1/0"), close("a"), SYNC),
        say(bind(name="a"), execute(), SYNC),
    ),
    script(
        "an error before a Close",
        say(parse("SELECT 1", "a"), SYNC),
        say(asked("SELECT 1/0"), close("a"), SYNC),
        say(bind(name="a"), execute(), SYNC),
    ),
    script(
        "in a transaction that fails",
        say("BEGIN"),
        say(parse("SELECT 1", "a"), SYNC),
        say("SELECT 1/0"),
        say(bind(name="a"), execute(), SYNC),
        say(parse("SELECT 2", "b"), SYNC),
        say(describe("a"), SYNC),
        say("ROLLBACK"),
        say(bind(name="a"), execute(), SYNC),
        say(bind(name="b"), SYNC),
        **IN_STATEMENTS,
    ),
    script(
        "types",
        say(parse("SELECT $1, $2", "a", (INT4, TEXT)), describe("a"), SYNC),
        say(bind(b"1", b"x", name="a"), execute(), SYNC),
        say(parse("SELECT $1", "b", (99999,)), SYNC),
    ),
    script(
        "DEALLOCATE",
        say(parse("SELECT 1", "a"), parse("SELECT 2", "b"), SYNC),
        say("DEALLOCATE a"),
        say(bind(name="a"), SYNC),
        say(bind(name="b"), execute(), SYNC),
        say("DEALLOCATE a"),
        say("DEALLOCATE ALL"),
        say(bind(name="b"), SYNC),
        say(asked("DEALLOCATE ALL"), SYNC),
    ),
    script(
        "DEALLOCATE ALL that is skipped",
        say(parse("SELECT 1", "a"), SYNC),
        say(asked("SELECT 1/0"), "DEALLOCATE ALL", SYNC, awaits="Z"),
        say("SELECT 1"),
        say("SELECT 2"),
    ),
    script(
        "an error before a statement that was described",
        say(parse("SELECT 1", "a"), describe("a"), SYNC),
        say(asked("SELECT 1/0"), FLUSH, awaits="E"),
        say(bind(name="a"), execute(), SYNC),
        say("SELECT 2"),
        say(bind(name="a"), execute(), SYNC),
    ),
    script(
        "DEALLOCATE by the protocol",
        say(parse("SELECT 1", "a"), SYNC),
        say(asked("DEALLOCATE a"), SYNC),
        say(describe("a"), SYNC),
        say(asked("DEALLOCATE none"), SYNC),
        say("SELECT 1"),
    ),
    script(
        "DISCARD",
        say(parse("SELECT 1", "a"), SYNC),
        say("DISCARD PLANS"),
        say(bind(name="a"), execute(), SYNC),
        say("DISCARD ALL"),
        say(bind(name="a"), execute(), SYNC),
        say(parse("SELECT 2", "a"), SYNC),
        say(bind(name="a"), execute(), SYNC),
    ),
    script(
        "changed by DDL",
        say("CREATE TABLE made (a int)"),
        say(parse("SELECT * FROM made", "a"), SYNC),
        say(bind(name="a"), execute(), SYNC),
        say("ALTER TABLE made ADD b int"),
        say(bind(name="a"), execute(), SYNC),
        say(describe("a"), SYNC),
        say(close("a"), SYNC),
        say(parse("SELECT * FROM made", "a"), describe("a"), SYNC),
        say(bind(name="a"), execute(), SYNC),
    ),
    script(
        "changed by DDL, same columns",
        say("CREATE TABLE made (a int)"),
        say(parse("SELECT a FROM made", "a"), describe("a"), SYNC),
        say("ALTER TABLE made ADD b int"),
        say(bind(name="a"), execute(), SYNC),
        say("DROP TABLE made"),
        say(bind(name="a"), execute(), SYNC),
        say("CREATE TABLE made (a int)"),
        say(bind(name="a"), describe(kind="P"), execute(), SYNC),
    ),
    script(
        "a portal of a named statement",
        say(
            parse("SELECT generate_series(1, 4)", "a"),
            bind(name="a", portal="p"),
            execute("p", 1),
            close("a"),
            execute("p", 2),
            bind(name="a"),
            SYNC,
        ),
    ),
    script(
        "a name as long as may be",
        say(parse("SELECT 1", "n" * 200), SYNC),
        say(bind(name="n" * 200), execute(), SYNC),
        say(parse("SELECT 2", "od\"d na'me"), SYNC),
        say(bind(name="od\"d na'me"), execute(), SYNC),
        say(parse("SELECT 3", "od\"d na'me"), SYNC),
    ),
    script(
        "a large text",
        say(parse("SELECT length('" + "w" * 40_000 + "')", "a"), SYNC),
        say(bind(name="a"), execute(), SYNC),
        say(describe("a"), SYNC),
    ),
    script(
        "SQL sees them",
        say(parse("SELECT 1 AS x", "a"), SYNC),
        say("EXECUTE a"),
        **dict.fromkeys(CHANGING, "sql_names"),
    ),
    script(
        "SQL's own",
        say("PREPARE a (int) AS SELECT $1 + 1"),
        say("EXECUTE a(1)"),
        say(bind(b"2", name="a"), execute(), SYNC),
        say("DEALLOCATE a"),
        say("EXECUTE a(1)"),
        transaction="sql_names",
        statement="sql_prepare",
    ),
)

TRANSACTIONS = (
    script(
        "committed",
        say("BEGIN"),
        say("INSERT INTO kept VALUES (10, 'ten')"),
        say("TABLE kept"),
        say("COMMIT"),
        say("SELECT count(*) FROM kept"),
        **IN_STATEMENTS,
    ),
    script(
        "failed",
        say("BEGIN"),
        say("SELECT 1/0"),
        say("SELECT 1"),
        say(asked("SELECT 1"), SYNC),
        say("COMMIT"),
        say("SELECT 1"),
        **IN_STATEMENTS,
    ),
    script(
        "none there",
        say("COMMIT"),
        say("ROLLBACK"),
        say("SAVEPOINT x"),
        say("COMMIT AND CHAIN"),
        say("ROLLBACK TO x"),
        say("RELEASE x"),
    ),
    script("one more", say("BEGIN"), say("BEGIN"), say("ROLLBACK"), **IN_STATEMENTS),
    script(
        "chained",
        say("BEGIN ISOLATION LEVEL SERIALIZABLE"),
        say("COMMIT AND CHAIN"),
        say("SHOW transaction_isolation"),
        say("ROLLBACK AND CHAIN"),
        say("COMMIT"),
        **IN_STATEMENTS,
    ),
    script(
        "savepoints",
        say("BEGIN; SAVEPOINT a"),
        say("SELECT 1/0"),
        say("ROLLBACK TO a"),
        say("SELECT 1"),
        say("RELEASE a"),
        say("RELEASE a"),
        say("ROLLBACK"),
        **IN_STATEMENTS,
    ),
    script(
        "by the protocol",
        say(asked("BEGIN"), SYNC),
        say(asked("SELECT 1"), asked("COMMIT"), SYNC),
        say(asked("BEGIN"), asked("SELECT 1/0"), SYNC),
        say(asked("ROLLBACK"), SYNC),
        **IN_STATEMENTS,
    ),
    script("pipelined", say("BEGIN", "SELECT 1", "SELECT 1/0", "SELECT 2", "ROLLBACK", "SELECT 3")),
    script(
        "in one Query",
        say("BEGIN; SELECT 1; COMMIT"),
        say("BEGIN; SELECT 1/0; COMMIT"),
        say("ROLLBACK"),
        say("SELECT 1; COMMIT; SELECT 2"),
        **IN_STATEMENTS,
    ),
    script(
        "read only",
        say("START TRANSACTION READ ONLY"),
        say("DELETE FROM kept"),
        say("ROLLBACK"),
        **IN_STATEMENTS,
    ),
    script("not inside one", say("BEGIN"), say("VACUUM kept"), say("END"), **IN_STATEMENTS),
    script(
        "cursors",
        say("BEGIN"),
        say("DECLARE c CURSOR FOR SELECT generate_series(1, 5)"),
        say("FETCH 2 FROM c"),
        say(describe("c", "P"), execute("c", 1), SYNC),
        say("MOVE c"),
        say("FETCH ALL FROM c"),
        say("CLOSE c"),
        say("CLOSE c"),
        say("ROLLBACK"),
        **IN_STATEMENTS,
    ),
    script(
        "portals in one",
        say("BEGIN"),
        say(parse("SELECT generate_series(1, 4)"), bind(portal="p"), execute("p", 1), SYNC),
        say(execute("p", 1), SYNC),
        say("SELECT 0"),
        say(execute("p"), SYNC),
        say("COMMIT"),
        say(execute("p"), SYNC),
        **IN_STATEMENTS,
    ),
    script(
        "deferred constraint",
        say("CREATE TABLE made (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)"),
        say("INSERT INTO made VALUES (1), (1)"),
        say("BEGIN; INSERT INTO made VALUES (2), (2)"),
        say("COMMIT"),
        **IN_STATEMENTS,
    ),
    script(
        "prepared in two phases",
        say("BEGIN"),
        say("PREPARE TRANSACTION 'x'"),
        say("ROLLBACK PREPARED 'x'"),
        **IN_STATEMENTS,
    ),
)

SETTINGS = (
    script(
        "SET",
        say("SET application_name = 'here'"),
        say("SHOW application_name"),
        say("SET TimeZone = 'Asia/Tokyo'"),
        say("SELECT '2020-01-01 00:00Z'::timestamptz"),
        say("RESET application_name"),
        say("SHOW application_name"),
        say("RESET ALL"),
        say("SHOW timezone"),
    ),
    script(
        "SET that fails",
        say("SET TimeZone = 'Nowhere'"),
        say("SET nonsense = 1"),
        say("SHOW nonsense"),
        say("SET DateStyle = 'SQL, DMY'"),
        say("SELECT '2020-02-01'::date"),
    ),
    script(
        "SET in a transaction",
        say("BEGIN"),
        say("SET DateStyle = German"),
        say("ROLLBACK"),
        say("SHOW DateStyle"),
        say("BEGIN"),
        say("SET LOCAL application_name = 'local'"),
        say("SHOW application_name"),
        say("COMMIT"),
        say("SHOW application_name"),
        **IN_STATEMENTS,
    ),
    script(
        "SET LOCAL outside of one", say("SET LOCAL application_name = 'local'"), say("SHOW application_name")
    ),
    script(
        "search_path",
        say("SET search_path = pg_catalog"),
        say("SELECT 1 FROM kept"),
        say("SHOW search_path"),
        say("SET search_path TO DEFAULT"),
        say("SELECT count(*) FROM kept"),
    ),
    script(
        "set_config",
        say("SELECT set_config('application_name', 'there', false)"),
        say("SHOW application_name"),
        say(asked("SELECT set_config($1, $2, false)", b"TimeZone", b"Asia/Tokyo"), SYNC),
        say("SHOW timezone"),
    ),
    script(
        "SET by the protocol",
        say(asked("SET application_name = 'here'"), SYNC),
        say("SHOW application_name"),
        say(asked("SET application_name = 'a'"), asked("SELECT 1/0"), SYNC),
        say("SHOW application_name"),
    ),
    script(
        "several SETs",
        say("SET application_name = 'x'; SET TimeZone = 'Asia/Tokyo'; SELECT 1/0"),
        say("SHOW application_name"),
        say("SET application_name = 'y'; SELECT 1"),
        say("SHOW application_name"),
    ),
    script(
        "client_encoding",
        say("SET client_encoding = LATIN1"),
        say("SELECT chr(233)"),
        say(query(b"SELECT '\xe9'")),
        say("RESET client_encoding"),
        say("SELECT chr(233)"),
    ),
    script(
        "DISCARD ALL",
        say("SET application_name = 'gone'"),
        say("DISCARD ALL"),
        say("SHOW application_name"),
        say("BEGIN; DISCARD ALL"),
        say("DISCARD TEMP; DISCARD SEQUENCES"),
        **IN_STATEMENTS,
    ),
    script(
        "standard strings",
        say("SET standard_conforming_strings = off"),
        say("SELECT 'a\\\\b'"),
        say("RESET standard_conforming_strings"),
    ),
)

COPIES = (
    script(
        "in",
        say("COPY kept FROM STDIN", awaits="G"),
        say(copied("11\televen\n"), copied("12\t\\N\n"), DONE, awaits="Z"),
        say("TABLE kept"),
    ),
    script(
        "in, at once",
        say("COPY kept FROM STDIN", copied("11\televen\n"), DONE),
        say("SELECT count(*) FROM kept"),
    ),
    script(
        "in, cut at odd places",
        say("COPY kept FROM STDIN", copied("11\tele"), copied("ven\n12"), copied("\t\n"), copied(""), DONE),
        say("TABLE kept"),
    ),
    script(
        "in, wrong", say("COPY kept FROM STDIN", copied("x\ty\n"), copied("13\t\n"), DONE), say("SELECT 1")
    ),
    script(
        "in, one fails late",
        say("COPY kept FROM STDIN", copied("14\t\n"), copied("14\t\n"), DONE),
        say("SELECT count(*) FROM kept"),
    ),
    script(
        "in, given up",
        say("COPY kept FROM STDIN", awaits="G"),
        say(copied("15\t\n"), failed(), awaits="Z"),
        say("SELECT count(*) FROM kept"),
    ),
    script(
        "in, never begun",
        say("COPY nowhere FROM STDIN", copied("1\n"), DONE),
        say(DONE, copied("x"), failed(), awaits=""),
        say("SELECT 1"),
    ),
    script(
        "in, by the protocol",
        say(
            parse("COPY kept FROM STDIN"), bind(), describe(kind="P"), execute(), copied("16\t\n"), DONE, SYNC
        ),
        say("SELECT count(*) FROM kept"),
    ),
    script(
        "in, by the protocol, step by step",
        say(parse("COPY kept FROM STDIN"), bind(), execute(), FLUSH, awaits="G"),
        say(copied("17\t\n"), DONE, FLUSH, awaits="C"),
        say(SYNC),
        say("SELECT count(*) FROM kept"),
    ),
    script(
        "in, by the protocol, wrong",
        say(parse("COPY kept FROM STDIN"), bind(), execute(), copied("x\n"), DONE, SYNC),
        say("SELECT 1"),
    ),
    script(
        "in, by the protocol, given up", say(parse("COPY kept FROM STDIN"), bind(), execute(), failed(), SYNC)
    ),
    script(
        "in, Sync and Flush inside",
        say("COPY kept FROM STDIN", awaits="G"),
        say(SYNC, FLUSH, copied("18\t\n"), SYNC, DONE, awaits="Z"),
        say("SELECT count(*) FROM kept"),
    ),
    script(
        "in, twice in one",
        say("COPY kept FROM STDIN; COPY kept FROM STDIN; SELECT 1", awaits="G"),
        say(copied("19\t\n"), DONE, awaits="G"),
        say(copied("20\t\n"), DONE, awaits="Z"),
        say("TABLE kept"),
    ),
    script(
        "in, binary",
        say("COPY kept FROM STDIN (FORMAT binary)", awaits="G"),
        say(
            copied(b"PGCOPY\n\xff\r\n\0" + bytes(8)),
            copied(struct.pack("!hii", 2, 4, 21)),
            copied(struct.pack("!ih", -1, -1)),
            DONE,
            awaits="Z",
        ),
        say("TABLE kept"),
    ),
    script(
        "in, large",
        say("COPY kept FROM STDIN", awaits="G"),
        say(*(copied(f"{n}\t{'v' * 900}\n") for n in range(100, 400)), DONE, awaits="Z"),
        say("SELECT count(*), sum(length(t)) FROM kept"),
    ),
    script(
        "in, one large message",
        say("COPY kept FROM STDIN", copied("30\t" + "u" * 300_000 + "\n"), DONE),
        say("SELECT length(t) FROM kept WHERE n = 30"),
    ),
    script(
        "in a transaction",
        say("BEGIN"),
        say("COPY kept FROM STDIN", copied("40\t\n"), DONE),
        say("ROLLBACK"),
        say("SELECT count(*) FROM kept"),
        **IN_STATEMENTS,
    ),
    script(
        "out",
        say("COPY kept TO STDOUT"),
        say("COPY (SELECT 1/0) TO STDOUT"),
        say("COPY nowhere TO STDOUT"),
        say("COPY kept TO STDOUT (FORMAT binary)"),
        say("COPY kept TO STDOUT; SELECT 1"),
    ),
    script(
        "out, by the protocol", say(parse("COPY kept TO STDOUT"), bind(), describe(kind="P"), execute(), SYNC)
    ),
    script(
        "out, fails late",
        say("COPY (SELECT 10 / (3 - n) FROM generate_series(1, 5) n) TO STDOUT"),
        say("SELECT 1"),
    ),
    script("out, large", say("COPY (SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n) TO STDOUT")),
)

# The connection does not survive these.
BREAKING = (
    script("a type that nobody knows", say("SELECT 1"), say(message(b"y", b"hello"), awaits="$"), **BROKEN),
    script("a type of the server's", say(message(b"Z", b"I"), awaits="$"), **BROKEN),
    script("too short", say(b"Q\0\0\0\3", awaits="$"), **BROKEN),
    script("far too long", say(b"Q\x7f\xff\xff\xff", awaits="$"), **BROKEN),
    script("a negative length", say(b"P\xff\xff\xff\xff", awaits="$"), **BROKEN),
    script("a password", say(message(b"p", b"secret\0"), awaits="$"), **BROKEN),
    script(
        "a Query inside a COPY",
        say("COPY kept FROM STDIN", awaits="G"),
        say("SELECT 1", awaits="Z"),
        **dict.fromkeys(CHANGING, "server_ends"),
    ),
    script("goodbye", say("SELECT 1"), say(TERMINATE, awaits="$")),
    script(
        "goodbye in a transaction", say("BEGIN"), say("SELECT 1"), say(TERMINATE, awaits="$"), **IN_STATEMENTS
    ),
    script("goodbye in a segment", say(parse("SELECT 1"), FLUSH, awaits="1"), say(TERMINATE, awaits="$")),
    script(
        "goodbye in a COPY",
        say("COPY kept FROM STDIN", awaits="G"),
        say(TERMINATE, awaits="$"),
        **dict.fromkeys(ALL, "goodbye"),
    ),
    script("goodbye at once", say("SELECT 1", TERMINATE, awaits="$"), **dict.fromkeys(ALL, "goodbye")),
    script("goodbye behind a copy", say("COPY kept TO STDOUT"), say(TERMINATE, "SELECT 1", awaits="$")),
)

GROUPS = {
    "simple": SIMPLE,
    "extended": EXTENDED,
    "named": NAMED,
    "transactions": TRANSACTIONS,
    "settings": SETTINGS,
    "copies": COPIES,
    "breaking": BREAKING,
}
SCRIPTS = {f"{group}: {one.name}": one for group, found in GROUPS.items() for one in found}

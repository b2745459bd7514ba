"""What a text may leave on a session: every spelling is seen, and what everybody sends is passed by."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.postgres import effects as bits
from proxy.postgres.effects import effects, is_plain
from proxy.postgres.own import concerns
from proxy.postgres.setting_names import names_in

CASES: list[tuple[str, int]] = [
    ("SELECT abalance FROM pgbench_accounts WHERE aid = 1", 0),
    ("SELECT count(*) FROM pg_stat_activity", 0),
    ("INSERT INTO templates (temp_id, temperature) VALUES (1, 2)", 0),
    ("SELECT temperature, attempts FROM templates", 0),
    ("UPDATE t SET a = 1; DELETE FROM t;", 0),
    ("", 0),
    (";", 0),
    ("x", 0),
    ("BEGIN", 0),
    ("COMMIT;", 0),
    ("START TRANSACTION READ ONLY", 0),
    ("SHOW search_path", 0),
    ("LOCK TABLE t", 0),
    ("DO $$ BEGIN PERFORM 1; END $$", 0),
    ("CREATE TABLE t (a int)", 0),
    # Temporary tables.
    ("CREATE TEMP TABLE t (a int)", bits.TEMPORARY),
    ("create\ttemporary\ntable t (a int)", bits.TEMPORARY),
    ("CREATE LOCAL TEMP VIEW v AS SELECT 1", bits.TEMPORARY),
    ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", bits.TEMPORARY),
    ("CREATE TABLE pg_temp.t (a int)", bits.TEMPORARY),
    ('CREATE TABLE "pg_temp".t (a int)', bits.TEMPORARY),
    ("SELECT 1 INTO TEMP t", bits.TEMPORARY),
    ("SELECT attempt, 1 INTO TEMPORARY TABLE t", bits.TEMPORARY),
    ("EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1", bits.TEMPORARY),
    ("DO $$ BEGIN CREATE TEMP TABLE t (a int); END $$", bits.TEMPORARY),
    ("BEGIN; CREATE TEMP TABLE t (a int)", bits.TEMPORARY),
    ("CREATE TEMP TABLE t (a int) ON COMMIT DROP", 0),
    # Advisory locks.
    ("SELECT pg_advisory_lock(1)", bits.ADVISORY),
    ("SELECT PG_TRY_ADVISORY_LOCK_SHARED(1, 2)", bits.ADVISORY),
    ("INSERT INTO t SELECT pg_catalog.pg_try_advisory_lock(1)", bits.ADVISORY),
    ("SELECT pg_advisory_unlock(1)", bits.ENDS),
    ("SELECT pg_advisory_unlock_all()", bits.ENDS),
    ("SELECT pg_advisory_xact_lock(1)", 0),
    ("SELECT pg_try_advisory_xact_lock_shared(1)", 0),
    # Settings.
    ("SET search_path = x", bits.SETTINGS | bits.ENDS),
    ("set\tsearch_path to x", bits.SETTINGS | bits.ENDS),
    ("SET SESSION search_path = x", bits.SETTINGS | bits.ENDS),
    ("SET x = DEFAULT", bits.SETTINGS | bits.RESETS | bits.ENDS),
    ("SET x TO default ;", bits.SETTINGS | bits.RESETS | bits.ENDS),
    ("SET TIME ZONE LOCAL", bits.SETTINGS | bits.RESETS | bits.ENDS),
    ("SET ROLE x", bits.SETTINGS | bits.ENDS),
    ("SET LOCAL search_path = x", 0),
    ("SET TRANSACTION READ ONLY", 0),
    ("SET CONSTRAINTS ALL DEFERRED", 0),
    ("RESET ALL", bits.SETTINGS | bits.RESETS | bits.ENDS),
    ("SELECT set_config('x', 'y', false)", bits.SETTINGS | bits.ENDS),
    ("SELECT set_config('x', $1, TRUE)", 0),
    ("SELECT set_config('x', 'it''s (so)', true), set_config('y', 'z', true)", 0),
    ("SELECT set_config('x', $1, true), set_config('y', $2, $3)", bits.SETTINGS | bits.ENDS),
    # The rest.
    ("DECLARE c CURSOR FOR SELECT 1", 0),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", bits.HOLD),
    ("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", 0),
    ("LOAD 'x'", bits.LOADS),
    ("LISTEN x", bits.LISTENED),
    ("UNLISTEN *", bits.UNLISTENS | bits.ENDS),
    ("PREPARE x AS SELECT 1", bits.PREPARED),
    ("PREPARE TRANSACTION 'x'", 0),
    ("DEALLOCATE x", bits.ENDS),
    ("CLOSE x", bits.ENDS),
    ("DROP TABLE x", bits.ENDS),
    ("DISCARD TEMP", bits.ENDS),
    ("DISCARD ALL", bits.ENDS | bits.SETTINGS | bits.RESETS | bits.UNLISTENS),
    # Wherever they stand.
    ("SELECT 1; LISTEN x", bits.LISTENED),
    ("SELECT ';', 1; /* so */ -- and so\n LISTEN x; SELECT 2", bits.LISTENED),
    ("SELECT '; listen x'", 0),
    ("\n\t LISTEN x", bits.LISTENED),
    ("/* a /* b */ c */ -- d\n LISTEN x", bits.LISTENED),
    ("-- a\nSELECT 1", 0),
    ("/* a */ SELECT 1", 0),
    ("/* a", 0),
    ("-- a", 0),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[text for text, _ in CASES])
def test_what_a_text_may_leave(text: str, expected: int) -> None:
    data = b"Q\0\0\0\0" + text.encode() + b"\0"
    assert effects(data, 5, len(data)) == expected
    parse = b"P\0\0\0\0\0" + text.encode() + b"\0\0\x01\0\0\0\x17"
    assert effects(parse, 6, len(parse)) == expected
    assert effects(b"xx" + data + b"Q\0\0\0\x10LISTEN other\0", 7, len(data) + 2) == expected


def test_only_the_beginning_of_a_long_text_is_looked_at() -> None:
    data = b"SELECT '" + b"x" * 100_000 + b"'; LISTEN x\0"
    assert effects(data, 0, len(data)) == 0
    data = b"SELECT 1; LISTEN x; SELECT '" + b"x" * 100_000 + b"'\0"
    assert effects(data, 0, len(data)) == bits.LISTENED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("set search_path = x", ["search_path"]),
        ('set session "search_path" to x', ["search_path"]),
        ("set app.tenant = 5", ["app.tenant"]),
        ("set time zone 'utc'", ["timezone"]),
        ("set schema 'x'", ["search_path"]),
        ("set names 'utf8'", ["client_encoding"]),
        ("set names_of.all = 1", ["names_of.all"]),
        ("set role none", ["role"]),
        ("set session authorization x", ["session_authorization"]),
        (
            "set session characteristics as transaction read only",
            [
                "default_transaction_isolation",
                "default_transaction_read_only",
                "default_transaction_deferrable",
            ],
        ),
        ("reset all", None),
        ("reset role", ["role"]),
        ("reset session authorization", ["session_authorization"]),
        ("discard all", None),
        ("select set_config('a.b', $1, false), set_config('c', 'd', false)", ["a.b", "c"]),
        ("select set_config($1, $2, false)", None),
        ("select 1", []),
    ],
)
def test_which_settings_a_statement_names(text: str, expected: list[str] | None) -> None:
    assert names_in([text.encode()]) == expected
    assert names_in([b"select 1", text.encode()]) == expected


WORDS = """select |SELECT |insert into |update t set a = 1|delete from t|with x as |1|a_b|(|)|;| ; | temp |
 TEMP| Temporary t|into|employees|set_config('a', 'b', false)|--\n|/* */|pg_advisory_lock|penstock.getmode|
 set |show |deallocate all|\n|'x'|begin|COMMIT|end|rollback|begin;"""
PIECES = st.sampled_from(WORDS.split("|"))


@given(st.lists(PIECES, max_size=7).map("".join))
@settings(max_examples=400)
def test_what_is_plain_needs_no_other_look(text: str) -> None:
    data = text.encode() + b"\0"
    if is_plain(data, 0, len(data)):
        assert effects(data, 0, len(data)) == 0
        assert not concerns(data, 0, len(data))


@pytest.mark.parametrize("text", [text for text, expected in CASES if expected])
def test_what_has_effects_is_never_plain(text: str) -> None:
    assert not is_plain(text.encode() + b"\0", 0, len(text.encode()) + 1)

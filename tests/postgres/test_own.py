"""Which queries are about Penstock, and how they are read."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.postgres.own import concerns, read, split


def looked_at(text: str) -> bool:
    data = b"....." + text.encode() + b"\0"
    return concerns(data, 5, len(data))


@pytest.mark.parametrize(
    "text",
    [
        "SET penstock.getmode = 'nowait'",
        "set\tPENSTOCK.getmode to nowait",
        "show penstock.getmode",
        "RESET penstock.getmode",
        "  SET penstock.getmode = 1",
        "\n/* x */ SET penstock.getmode = 1",
        "-- x\nSHOW penstock.getmode",
        "SELECT 1; SET penstock.getmode = 1",
    ],
)
def test_what_may_be_about_us_is_looked_at(text: str) -> None:
    assert looked_at(text)
    assert read(text.encode()) is not None


@pytest.mark.parametrize(
    "text", ["SELECT 1", "SET x = 1", "SHOW ALL", "SELECT penstock", "RESET ALL", "", "S", "SELECT penstock;"]
)
def test_what_cannot_be_about_us_is_not(text: str) -> None:
    assert not looked_at(text)


@pytest.mark.parametrize(
    "text",
    [
        "/* SET penstock.getmode = 1 */ SELECT 1",
        "/* a /* SET penstock.getmode = 1; */ SET penstock.getmode = 1 */ SELECT 1",
        "SELECT '; SET penstock.getmode = 1'",
        "SELECT E'\\'; SET penstock.getmode = 1; --'",
        "SELECT $x$; SET penstock.getmode = 1;$x$",
        'SELECT "; SET penstock.getmode = 1"',
        "SELECT 1 -- ; SET penstock.getmode = 1",
        "SET my.penstock = 1",
    ],
)
def test_what_only_mentions_us_is_the_server_s(text: str) -> None:
    assert read(text.encode()) is None


@pytest.mark.parametrize(
    ("text", "verb", "name", "value"),
    [
        ("SET penstock.getmode = 'nowait'", "SET", "penstock.getmode", "nowait"),
        ("SET SESSION penstock.getmode TO nowait ;", "SET", "penstock.getmode", "nowait"),
        ("set \"penstock\".\"getmode\"='it''s'", "SET", "penstock.getmode", "it's"),
        ("SET/**/penstock.wait_timeout/* = */=/**/'1s'--", "SET", "penstock.wait_timeout", "1s"),
        ("SET penstock.getmode = DEFAULT", "SET", "penstock.getmode", None),
        ("SHOW PENSTOCK.WAIT_TIMEOUT", "SHOW", "penstock.wait_timeout", None),
    ],
)
def test_ours_are_read(text: str, verb: str, name: str, value: str | None) -> None:
    statement = read(text.encode())
    assert statement is not None
    assert (statement.verb, statement.name, statement.value, statement.error) == (verb, name, value, "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SET penstock.x = 1", "no setting penstock.x"),
        ("SET LOCAL penstock.getmode = 1", "SET LOCAL"),
        ("RESET penstock.getmode", "SET penstock.getmode = DEFAULT"),
        ("SET penstock.getmode", "how"),
        ("SHOW penstock.getmode = 1", "how"),
        ("SET penstock.getmode = a, b", "how"),
        ("BEGIN; SET penstock.getmode = 1", "only statement"),
    ],
)
def test_what_is_wrong_with_ours_is_said(text: str, says: str) -> None:
    statement = read(text.encode())
    assert statement is not None
    assert says in statement.error
    assert "SHOW" in statement.hint


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"", []),
        (b" ;; -- x", []),
        (b"a; b ;c", [b"a", b"b", b"c"]),
        (b"a 'x;''y;' b; c", [b"a 'x;''y;' b", b"c"]),
        (b"a$b$c;$b$", [b"a$b$c", b"$b$"]),
        (b"'never ended; x", [b"'never ended; x"]),
        (b"a /* never ended; x", [b"a"]),
        (b"namE'x;'", [b"namE'x;'"]),
    ],
)
def test_a_query_is_split_into_its_statements(text: bytes, parts: list[bytes]) -> None:
    assert split(text) == parts


@given(st.text(alphabet="';\"$ae/*-\\\n ", max_size=60))
def test_any_text_is_split_without_an_error(text: str) -> None:
    read(b"penstock" + text.encode())


@pytest.mark.parametrize("unit", [b"/*", b"/**/a", b"'", b"e'", b"$a", b"$a$b", b"--", b"\\", b" ", b"set "])
def test_no_text_takes_long_to_read(unit: bytes) -> None:
    began = time.perf_counter()
    read(b";penstock" + unit * (256_000 // len(unit)))
    read(b"SET penstock.getmode" + unit * (256_000 // len(unit)) + b"x")
    assert time.perf_counter() - began < 2.0

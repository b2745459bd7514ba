"""What is recognised as the beginning or the end of a transaction, and what is not."""

import pytest

from postgres.playbook import bind, close, describe, execute, flush, parse, sync, unnamed
from proxy.postgres.begin import (
    NO_UNIT,
    NOT_YET,
    goes_to_savepoint,
    may_begin,
    may_end,
    read_begin,
    read_end,
    read_failed_end,
    whole_unit,
)
from proxy.postgres.messages import message


@pytest.mark.parametrize(
    ("text", "tag", "plain"),
    [
        ("BEGIN", "BEGIN", True),
        (" begin\n;\t", "BEGIN", True),
        ("Begin Work", "BEGIN", True),
        ("BEGIN TRANSACTION;", "BEGIN", True),
        ("START  TRANSACTION", "START TRANSACTION", True),
        ("BEGIN READ ONLY", "BEGIN", False),
        ("BEGIN NOT DEFERRABLE", "BEGIN", False),
        ("begin isolation level repeatable read , read write deferrable;", "BEGIN", False),
        ("START TRANSACTION ISOLATION LEVEL READ UNCOMMITTED,READ ONLY", "START TRANSACTION", False),
        ("BEGIN ISOLATION\r\nLEVEL SERIALIZABLE", "BEGIN", False),
    ],
)
def test_a_begin_is_recognised_in_every_spelling(text: str, tag: str, plain: bool) -> None:
    begin = read_begin(text.encode())
    assert begin is not None
    assert (begin.text.decode(), begin.tag.decode(), begin.plain) == (text, tag, plain)
    assert may_begin(text.encode(), 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "START",
        "BEGINWORK",
        "BEGIN; SELECT 1",
        "BEGIN;;",
        "BEGIN, READ ONLY",
        "BEGIN READ ONLY,",
        "BEGIN READ ONLY,,READ WRITE",
        "BEGIN ISOLATION LEVEL SNAPSHOT",
        "BEGIN -- now",
        "/* app */ BEGIN",
        "BEGIN READ\0ONLY",
        "BEGIN\u00a0WORK",
        "BEGIN" + " READ ONLY" * 40,
        "SELECT 1",
    ],
)
def test_nothing_else_is_taken_for_a_begin(text: str) -> None:
    assert read_begin(text.encode()) is None


@pytest.mark.parametrize(
    ("text", "tag", "chain"),
    [
        ("COMMIT", "COMMIT", False),
        ("end ;", "COMMIT", False),
        ("ROLLBACK WORK", "ROLLBACK", False),
        ("abort transaction", "ROLLBACK", False),
        ("COMMIT AND CHAIN", "COMMIT", True),
        ("ROLLBACK WORK AND NO CHAIN", "ROLLBACK", False),
    ],
)
def test_an_end_is_recognised(text: str, tag: str, chain: bool) -> None:
    end = read_end(text.encode())
    assert end is not None
    assert (end.tag.decode(), end.chain) == (tag, chain)
    assert may_end(text.encode(), 0)
    failed = read_failed_end(text.encode())
    assert failed is not None
    assert (failed.tag, failed.chain) == (b"ROLLBACK", chain)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "COMMIT PREPARED 'x'",
        "ROLLBACK TO x",
        "COMMIT; SELECT 1",
        "END -- x",
        "ENDING",
        "COMMIT" + " " * 300,
    ],
)
def test_nothing_else_is_taken_for_an_end(text: str) -> None:
    assert read_end(text.encode()) is None
    assert read_failed_end(text.encode()) is None


def test_prepare_transaction_ends_only_what_has_failed() -> None:
    assert read_end(b"PREPARE TRANSACTION 'x'") is None
    end = read_failed_end(b"prepare transaction 'x';")
    assert end is not None
    assert end.tag == b"ROLLBACK"


def test_a_way_back_to_a_savepoint_is_recognised() -> None:
    assert goes_to_savepoint(b"ROLLBACK TO SAVEPOINT _pg3_1")
    assert goes_to_savepoint(b'rollback work to "a";')
    assert not goes_to_savepoint(b"ROLLBACK")


@pytest.mark.parametrize("described", [b"", describe()])
@pytest.mark.parametrize("portal", [b"", describe(kind="P")])
def test_a_unit_is_whole_or_not_yet(described: bytes, portal: bytes) -> None:
    unit = parse("BEGIN") + described + bind() + portal + execute() + sync()
    end, count, replies = whole_unit(b"xyz" + unit + b"more", 3)
    assert (end, count) == (3 + len(unit), 4 + bool(described) + bool(portal))
    assert [chr(kind) for kind in replies if chr(kind) in "1tn2"] == [
        *"1",
        *("tn" if described else ""),
        *"2",
        *("n" if portal else ""),
    ]
    for cut in range(len(unit)):
        assert whole_unit(unit[:cut], 0)[0] == NOT_YET


@pytest.mark.parametrize(
    "unit",
    [
        parse("BEGIN", "named") + bind("named") + execute() + sync(),
        parse("BEGIN") + bind() + execute() + flush(),
        parse("BEGIN") + bind() + execute() + unnamed("SELECT 1"),
        parse("BEGIN") + bind("other") + execute() + sync(),
        parse("BEGIN") + bind("", "portal") + execute("portal") + sync(),
        parse("BEGIN") + bind() + execute("portal") + sync(),
        parse("BEGIN") + describe("other") + bind() + execute() + sync(),
        parse("BEGIN") + describe() * 2 + bind() + execute() + sync(),
        parse("BEGIN") + close() + bind() + execute() + sync(),
        parse("BEGIN") + message(b"B", b"\0\0\0\0\0\1\0\0\0\1x\0\0") + execute() + sync(),
        message(b"P", b"\0BEGIN\0\0\1\0\0\0\x17") + bind() + execute() + sync(),
        parse("BEGIN") + b"B\0\0\0\1",
        parse("BEGIN") + b"Q",
    ],
)
def test_what_is_not_just_that_is_no_unit(unit: bytes) -> None:
    assert whole_unit(unit, 0)[0] == NO_UNIT

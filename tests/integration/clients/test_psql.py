"""psql of PostgreSQL 18: scripts, its extended protocol and pipelines, and \\copy of 100 MB both ways."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.clients.crowd import Rows, in_threads, said, zone
from integration.looking import run
from servers import Penstock

pytestmark = pytest.mark.integration


def answers(psql: Path, penstock: Penstock, script: str, *, timeout: float = 60) -> list[str]:
    """The lines that psql prints for this script, which must succeed to its end."""
    words = ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", penstock.dsn()]
    done = run(psql, *words, text=script, timeout=timeout)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.fixture
def psql(programs: Path) -> Path:
    return programs / "psql"


def test_scripts(psql: Path, penstock: Penstock, rows: Rows) -> None:
    def work(number: int) -> None:
        found = answers(
            psql,
            penstock,
            f"""
            SET TimeZone = '{zone(number)}';
            BEGIN;
            INSERT INTO rows_of_workers VALUES ({number}, 0, '{said(number, 0)}');
            COMMIT;
            COPY rows_of_workers FROM STDIN;
{number}\t1\t{said(number, 1)}
{number}\t2\t{said(number, 2)}
\\.
            SHOW TimeZone;
            SELECT max(turn) AS most FROM rows_of_workers WHERE worker = {number} \\gset
            \\echo most :most
            COPY (SELECT said FROM rows_of_workers WHERE worker = {number} ORDER BY turn) TO STDOUT;
            BEGIN; DELETE FROM rows_of_workers; ROLLBACK;
            \\set ON_ERROR_ROLLBACK on
            \\set FETCH_COUNT 10
            SELECT {number} * 1000 + n FROM generate_series(1, 25) n;
            """,
        )
        assert found == [
            zone(number),
            "most 2",
            *(said(number, turn) for turn in range(3)),
            *(str(number * 1000 + n) for n in range(1, 26)),
        ]

    in_threads(work)
    rows.assert_complete(3)


def test_named_statements_and_pipelines(psql: Path, penstock: Penstock, rows: Rows) -> None:
    def work(number: int) -> None:
        found = answers(
            psql,
            penstock,
            f"""
            SELECT {number} + $1::int \\parse mine
            INSERT INTO rows_of_workers VALUES ($1, $2, $3) \\parse insertion
            \\bind_named mine 1 \\g
            \\bind_named insertion {number} 0 '{said(number, 0)}' \\g
            SELECT $1::int \\bind 2 \\g
            SELECT $1 || '-{number}' \\bind 'unnamed' \\g
            \\startpipeline
            \\bind_named insertion {number} 1 '{said(number, 1)}' \\sendpipeline
            \\bind_named mine 3 \\sendpipeline
            \\syncpipeline
            SELECT $1::int * {number} \\parse other
            \\bind_named other 2 \\sendpipeline
            \\bind_named mine 4 \\sendpipeline
            \\endpipeline
            \\close_prepared mine
            SELECT $1::int - {number} \\parse mine
            \\bind_named mine 100 \\g
            """,
        )
        sums = [number + 1, 2, f"unnamed-{number}", number + 3, 2 * number, number + 4, 100 - number]
        assert found == [str(value) for value in sums]

    in_threads(work)
    rows.assert_complete(2)


def test_statements_of_sql(psql: Path, penstock: Penstock) -> None:
    found = answers(
        psql,
        penstock,
        """
        PREPARE of_sql (int) AS SELECT $1 * 2;
        EXECUTE of_sql (21);
        BEGIN; EXECUTE of_sql (4); COMMIT;
        SELECT 'something else';
        EXECUTE of_sql (5);
        DEALLOCATE of_sql;
        DISCARD ALL;
        SELECT count(*) FROM pg_prepared_statements WHERE name = 'of_sql';
        """,
    )
    assert found == ["42", "8", "something else", "10", "0"]


@pytest.fixture(scope="module")
def hundred_megabytes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """100,000 rows in the text format of COPY, each about a kilobyte wide and no two alike."""
    file = tmp_path_factory.mktemp("copy") / "in.txt"
    wide = "".join(f"{n:04d}-äöü€-\\t-\\\\-" for n in range(55))
    with file.open("w", encoding="utf-8") as out:
        for number in range(100_000):
            out.write(f"{number}\t{wide}{number}\n")
    assert file.stat().st_size >= 100_000_000
    yield file
    file.unlink()


def test_copy_of_100_megabytes_both_ways(
    psql: Path, penstock: Penstock, server: Any, hundred_megabytes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.txt"
    # Neither the write-ahead log nor a sort is what is tried here.
    server.execute("CREATE UNLOGGED TABLE wide_rows (number int, wide text STORAGE PLAIN)")
    try:
        answers(psql, penstock, f"\\copy wide_rows FROM {hundred_megabytes}\n", timeout=300)
        assert server.execute("SELECT count(*), sum(number) FROM wide_rows").fetchone() == (
            100_000,
            sum(range(100_000)),
        )
        answers(psql, penstock, f"\\copy wide_rows TO {out}\n", timeout=300)
    finally:
        server.execute("DROP TABLE wide_rows")
    assert checksum(out) == checksum(hundred_megabytes)
    out.unlink()


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""pgbench: its own transactions in every query mode and in pipelines, and money that adds up in the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.clients.crowd import WORKERS
from integration.looking import directly, finished_transactions, run
from proxy.embedded import EmbeddedPostgres
from servers import Penstock

pytestmark = pytest.mark.integration

TURNS = 20
TRANSFER = """
\\set aid random(1, 100000)
\\set tid random(1, 10)
\\set delta random(-5000, 5000)
"""
UPDATES = """
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = 1;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, 1, :aid, :delta, now());
END;
"""
IN_ONE_PIPELINE = f"{TRANSFER}\\startpipeline{UPDATES}\\endpipeline\n"
IN_SEVERAL = f"""{TRANSFER}\\startpipeline{UPDATES}\\syncpipeline
SELECT 1;
\\syncpipeline
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
SELECT count(*) FROM pgbench_branches;
\\endpipeline
"""


@pytest.fixture(scope="module")
def tables(programs: Path, postgres: EmbeddedPostgres) -> Iterator[None]:
    """The tables of pgbench."""
    made = run(programs / "pgbench", "-i", "-q", postgres.dsn())
    assert made.returncode == 0, made.stderr
    yield
    with directly(postgres) as server:
        for name in ("accounts", "branches", "history", "tellers"):
            server.execute(f"DROP TABLE pgbench_{name}")


@pytest.fixture
def empty_history(tables: None, server: Any) -> None:
    server.execute("TRUNCATE pgbench_history")
    for table in ("accounts", "branches", "tellers"):
        balance = f"{table[0]}balance"
        server.execute(f"UPDATE pgbench_{table} SET {balance} = 0 WHERE {balance} <> 0")


def bench(programs: Path, penstock: Penstock, *how: str) -> None:
    """Twenty clients of pgbench, each with its own number of transactions; all of them must succeed.

    Each has a thread of its own: while pgbench prepares a statement, nothing else goes on in that thread.
    Another client there that is in the middle of a transaction would keep its session meanwhile.
    """
    clients = str(WORKERS)
    words = ["-n", "-c", clients, "-j", clients, "-t", str(TURNS), "--max-tries", "1", *how]
    done = run(programs / "pgbench", *words, penstock.dsn())
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
    assert finished_transactions(done.stdout) == WORKERS * TURNS


def assert_it_adds_up(server: Any) -> None:
    """Each transfer is there once: in its account, its teller, its branch and the history."""
    sums = server.execute(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),"
        " (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history),"
        " (SELECT count(*) FROM pgbench_history)"
    ).fetchone()
    assert len({int(total) for total in sums[:4]}) == 1, sums
    assert sums[4] == WORKERS * TURNS


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_transactions(
    programs: Path, penstock: Penstock, empty_history: None, server: Any, mode: str
) -> None:
    bench(programs, penstock, "-M", mode)
    assert_it_adds_up(server)


@pytest.mark.parametrize("mode", ["extended", "prepared"])
@pytest.mark.parametrize("script", [IN_ONE_PIPELINE, IN_SEVERAL], ids=["one", "several"])
def test_pipelines(
    programs: Path,
    penstock: Penstock,
    empty_history: None,
    server: Any,
    tmp_path: Path,
    mode: str,
    script: str,
) -> None:
    file = tmp_path / "script.sql"
    file.write_text(script)
    bench(programs, penstock, "-M", mode, "-f", str(file))
    assert_it_adds_up(server)


def test_a_connection_for_each_transaction(programs: Path, penstock: Penstock, tables: None) -> None:
    bench(programs, penstock, "-S", "-C", "-M", "prepared")


def test_tables_are_filled_through_the_proxy(
    programs: Path, penstock: Penstock, tables: None, server: Any
) -> None:
    made = run(programs / "pgbench", "-i", "-q", penstock.dsn())
    assert made.returncode == 0, made.stderr
    assert server.execute("SELECT count(*) FROM pgbench_accounts").fetchone() == (100_000,)

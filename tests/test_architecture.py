"""What holds for the tree as a whole. The direction of imports is checked by `make check`."""

import ast
import importlib
import os
import runpy
import sys
from pathlib import Path

import pytest

import proxy

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "proxy").rglob("*.py"))
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "base", "manager", "misc"}
LONGEST = 350
EXPECT_COMPILED = os.environ.get("PENSTOCK_EXPECT_COMPILED") == "1"


def hot_rooms() -> list[str]:
    """The list in setup.py, read without running it."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "HOT_ROOMS":
            return ast.literal_eval(node.value)
    raise AssertionError("setup.py has no HOT_ROOMS")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_begins_with_its_contract(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST
    assert not {path.stem, path.parent.name} & FORBIDDEN_NAMES
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "no docstring says what this room is for"


def test_only_tasks_makes_tasks() -> None:
    makers = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future")
    ]
    assert set(makers) == {"proxy/tasks.py"}


@pytest.mark.parametrize("name", hot_rooms())
def test_a_hot_room_exists_and_is_compiled_where_that_is_expected(name: str) -> None:
    """A stale or missing compiled file would test something else than what was written."""
    assert (ROOT / name).is_file()
    module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    assert str(module.__file__).endswith(".so") == EXPECT_COMPILED


def test_no_compiled_file_lies_beside_its_source() -> None:
    assert list((ROOT / "proxy").rglob("*.so")) == []


def test_the_compiled_run_imports_what_is_installed() -> None:
    if EXPECT_COMPILED:
        assert ROOT not in Path(proxy.__file__).parents or Path(sys.prefix) in Path(proxy.__file__).parents
    else:
        assert Path(proxy.__file__).parent == ROOT / "proxy"


def test_the_version_is_one() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{proxy.__version__}"' in project


def test_the_command_and_the_module_are_the_same(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["penstock", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("proxy", run_name="__main__")
    assert end.value.code == 0
    assert proxy.__version__ in capsys.readouterr().out

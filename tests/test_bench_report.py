"""The page of benchmarks, written from numbers that were made up."""

import json
from pathlib import Path
from typing import Any

import plots
import pytest
import report


def peer(value: float, cpu: tuple[float, float], late: float = 0.0) -> dict[str, Any]:
    user, system = cpu
    known = {"value": value, "low": value * 0.9, "high": value * 1.1, "cpu_user": user, "cpu_system": system}
    return known | {"p50": late, "p95": late, "p99": late, "rounds": []}


def row(name: str, **given: Any) -> dict[str, Any]:
    peers = {"penstock": peer(31234.5, (3.25, 14.1), 1.5), "pgbouncer": peer(30000.0, (1.5, 14.0), 1.75)}
    peers |= {"direct": peer(45000.0, (0.0, 0.0), 0.0)}
    usual = {"note": "", "against": "pgbouncer", "unit": "tps", "peers": peers, "met": True}
    usual |= {"target_tps": 1.0, "target_cpu": 1.1, "ratio_tps": 1.04, "ratio_cpu": 1.12}
    usual |= {"target_p99": None, "ratio_p99": 0.98}
    return usual | {"name": name} | given


def made_up() -> dict[str, Any]:
    rows = [
        row("simple, 64 clients"),
        row("simple, 1 client", ratio_tps=0.85, target_tps=0.92, met=False, note="latency | alone"),
        row("TLS", target_tps=None, target_cpu=None, ratio_cpu=None, met=None),
    ]
    logins = {"name": "logins of 1 s", "columns": ["peer", "seconds"], "lines": [["penstock", 1.234]]}
    idle = {"name": "idle clients", "columns": ["peer", "KiB"], "lines": [["penstock", 6.789]]}
    curve = {"x": "clients", "y": "tps", "lines": {"penstock": [[10, 5.0], [500, 4.0]], "pgbouncer": []}}
    return {
        "machine": {"cores": 2},
        "versions": {"Penstock": "0.1.0 (compiled)"},
        "pool": 8,
        "missing": {"haproxy": "no haproxy here"},
        "rounds": 7,
        "seconds": 4.0,
        "configurations": {"penstock": "[http]\naddress = 'off'\n"},
        "rows": rows,
        "scenarios": [
            logins | {"target": "all within 2.5 s", "met": True, "note": "Six of them."},
            idle | {"target": "at most 4 KiB each", "met": False, "note": ""},
        ],
        "curves": {"Throughput over clients": curve},
    }


def test_the_page_tells_everything_that_was_measured(tmp_path: Path) -> None:
    text = report.write(made_up(), tmp_path).read_text()
    assert "Here: 7 rounds of 4 s for each" in text
    assert "| cores | 2 |" in text
    assert "| Penstock | 0.1.0 (compiled) |" in text
    assert "| simple, 64 clients | pgbouncer | 1.04 (≥ 1.00) | 1.12 (≤ 1.10) | 0.98 | met |" in text
    assert (
        "| simple, 64 clients | penstock | 31,234 tps (28,111 to 34,358) | 3.25 + 14.1 | 1.50 / 1.50 / 1.50 |"
    ) in text
    assert "|  | direct | 45,000 tps (40,500 to 49,500) | - | - |" in text
    assert "| penstock | 1.23 |" in text
    assert "Target: all within 2.5 s: met." in text
    assert "## Not measured\n\n- haproxy: no haproxy here" in text
    assert "### penstock\n\n```\n[http]\naddress = 'off'\n```" in text


def test_a_ratio_without_a_target_stands_alone(tmp_path: Path) -> None:
    assert "| TLS | pgbouncer | 1.04 | - | 0.98 |  |" in report.page(made_up(), tmp_path)


def test_work_compared_with_two_is_told_once() -> None:
    twice = [row("2 MB results"), row("2 MB results", against="pgbouncer (pkt_buf=65536)")]
    text = report.medians(made_up() | {"rows": twice})
    assert text.count("| 2 MB results |") == text.count("| direct |") == 1
    assert "|  | pgbouncer (pkt_buf=65536) | 30,000 tps" in text


def test_what_was_lost_is_named_under_its_own_heading(tmp_path: Path) -> None:
    text = report.page(made_up(), tmp_path)
    part = text.partition("## Lost\n")[2].partition("\n## ")[0]
    assert "**simple, 1 client**, against pgbouncer: throughput 0.85 (≥ 0.92), CPU 1.12 (≤ 1.10)\n" in part
    assert "**idle clients**: the target is at most 4 KiB each" in part
    assert "simple, 64 clients" not in part
    assert "(performance.md)" in part


def test_a_run_without_losses_says_so(tmp_path: Path) -> None:
    data = made_up()
    for one in (*data["rows"], *data["scenarios"]):
        one["met"] = True
    assert "Nothing: every target was met" in report.page(data, tmp_path)


def test_what_would_end_a_cell_is_escaped() -> None:
    assert report.table(["a"], [["x|y\nz"]]) == "| a |\n|---|\n| x\\|y z |"


def test_the_page_does_without_what_was_not_measured(tmp_path: Path) -> None:
    text = report.page(made_up() | {"rows": [], "scenarios": [], "curves": {}}, tmp_path)
    for heading in ("Against the targets", "Every peer", "Other measurements", "Curves"):
        assert f"## {heading}" not in text


def test_without_matplotlib_the_page_says_that_nothing_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    assert report.NO_PLOTS in report.page(made_up(), tmp_path)
    assert not (tmp_path / "benchmarks").exists()


def test_a_drawing_is_the_same_for_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    drawn = []
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "benchmarks").mkdir(parents=True)
        (folder / "benchmarks" / "of-another-run.svg").touch()
        text = report.page(made_up(), folder)
        assert "![Throughput over clients](benchmarks/throughput-over-clients.svg)" in text
        assert [path.name for path in (folder / "benchmarks").iterdir()] == ["throughput-over-clients.svg"]
        drawn.append((folder / "benchmarks" / "throughput-over-clients.svg").read_bytes())
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) < 50_000
    assert b"clients</text>" in drawn[0]


def test_the_page_can_be_written_again_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "tree" / "build" / "bench.json"
    (tmp_path / "tree" / "docs").mkdir(parents=True)
    source.parent.mkdir()
    source.write_text(json.dumps(made_up()))
    monkeypatch.setattr(report, "__file__", str(tmp_path / "tree" / "tests" / "bench" / "report.py"))
    monkeypatch.setattr("sys.argv", ["report.py"])
    report.main()
    page = tmp_path / "tree" / "docs" / "benchmarks.md"
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_text().startswith("# Benchmarks\n")

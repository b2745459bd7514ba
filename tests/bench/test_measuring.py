"""What the benchmark makes of pgbench's words and of its own numbers. Nothing is timed here."""

from pathlib import Path

import pytest
from measuring import Run, percentile, ratio, read_latencies, read_summary, summary
from rows import is_met
from running import Used

SAID = """\
pgbench (18.6)
transaction type: <builtin: select only>
number of transactions actually processed: 1234
number of failed transactions: 0 (0.000%)
latency average = 0.262 ms
initial connection time = 9.126 ms
tps = 30433.560000 (without initial connection time)
"""
RECONNECTING = SAID.replace(
    "tps = 30433.560000 (without initial connection time)",
    "average connection time = 2.5 ms\ntps = 411.500000 (including reconnection times)",
)


def one(tps: float, cpu: float = 10.0, p99: float = 1.0) -> Run:
    return Run(tps, cpu / 2, cpu / 2, 0.3, 0.2, 0.5, p99)


def test_what_pgbench_prints_is_read() -> None:
    assert read_summary(SAID) == (1234, 30433.56, 0.262)
    assert read_summary(RECONNECTING) == (1234, 411.5, 0.262)


def test_what_pgbench_does_not_print_ends_the_run() -> None:
    with pytest.raises(SystemExit, match="unexpected"):
        read_summary("pgbench: error: connection to server failed")


def test_latencies_are_read_from_every_thread_and_what_was_skipped_is_none(tmp_path: Path) -> None:
    (tmp_path / "log.7").write_text("0 1 3000 0 1700000000 5\n1 1 skipped 0 1700000000 9\n")
    (tmp_path / "log.7.1").write_text("2 1 1500 0 1700000000 5 12\n")
    assert read_latencies(tmp_path) == [1.5, 3.0]


def test_a_percentile_of_few_is_one_of_them() -> None:
    assert percentile([], 99) == 0.0
    assert percentile([4.0], 50) == 4.0
    assert percentile([float(number) for number in range(100)], 95) == 95.0


def test_cpu_is_exact_in_the_whole_and_divided_as_ticks_are() -> None:
    used = Used(3.25, 1.0, 2.0).since(Used(1.25, 0.5, 0.5))
    assert used == (0.5, 1.5)
    assert Used(0.004, 0.0, 0.0).since(Used()) == (0.0, 0.004)


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # The machine was three times as fast in the last round, for both.
    ours, theirs = [one(90), one(100), one(330)], [one(100), one(100), one(300)]
    assert ratio(ours, theirs, "tps") == 1.0
    assert ratio(ours, [one(1, cpu=0.0)] * 3, "cpu") is None
    assert ratio([], [], "tps") is None


def test_a_summary_has_the_median_and_the_spread() -> None:
    found = summary([one(90), one(300), one(100)])
    assert (found["low"], found["value"], found["high"]) == (90, 100, 300)
    assert len(found["rounds"]) == 3


@pytest.mark.parametrize(
    ("told", "wanted", "met"),
    [
        ({"tps": 1.01, "cpu": 1.1}, {"tps": 1.0, "cpu": 1.1}, True),
        ({"tps": 0.996, "cpu": 0.5}, {"tps": 1.0, "cpu": None}, True),
        ({"tps": 0.99, "cpu": 0.5}, {"tps": 1.0, "cpu": None}, False),
        ({"tps": 1.5, "cpu": 1.2}, {"tps": 1.0, "cpu": 1.1}, False),
        ({"tps": 1.5, "p99": 1.2}, {"tps": 1.0, "p99": 1.0}, False),
        ({"tps": 1.5, "cpu": None}, {"tps": 1.0, "cpu": 1.1}, False),
        ({"tps": 1.5, "cpu": 2.0}, {"tps": None, "cpu": None}, None),
    ],
)
def test_a_row_is_met_when_every_target_is(
    told: dict[str, float | None], wanted: dict[str, float | None], met: bool | None
) -> None:
    assert is_met(told, wanted) is met

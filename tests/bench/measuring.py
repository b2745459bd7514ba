"""One run of pgbench, and what is made of many: rounds that alternate, medians, spread, ratios.

The client is always the same pgbench with the same words; what differs is the port. Proxy CPU is what the
peer's processes used while pgbench ran, divided by the transactions it counted. Nothing here knows
what a row wants to show.
"""

import os
import re
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from running import Peer, Place

# By title: the words of both axes ("x", "y"), and under "lines" the points of each peer.
Curves = dict[str, dict[str, Any]]


class PgbenchFailed(SystemExit):
    """pgbench ended with an error, or measured nothing; where nobody catches it, the benchmark ends so."""


@dataclass(frozen=True)
class Load:
    """What pgbench is asked to do.

    ``words`` go to pgbench as they are, ``sampling`` is the share of transactions whose latency is written
    down (all have the same chance), ``tls`` takes a pgbench that knows TLS, and ``rate`` offers so many
    transactions per second in place of as many as go.
    """

    clients: int
    words: tuple[str, ...]
    sampling: float = 0.1
    tls: bool = False
    rate: float = 0.0


@dataclass(frozen=True)
class Run:
    """One run: transactions per second, µs of proxy CPU for each, and latencies in ms."""

    tps: float
    cpu_user: float
    cpu_system: float
    average: float
    p50: float
    p95: float
    p99: float

    @property
    def cpu(self) -> float:
        """µs of proxy CPU for each transaction."""
        return self.cpu_user + self.cpu_system


@dataclass(frozen=True)
class Scenario:
    """A table of its own for what pgbench's numbers do not show.

    ``met`` is None where there is no target, or where it could not be measured (``note`` says why).
    """

    name: str
    columns: list[str]
    lines: list[list[str]]
    target: str
    met: bool | None
    note: str = ""


@dataclass
class Bench:
    """What a whole run shares: where peers live, how often and how long is measured, what was seen."""

    place: Place
    pgbench: Path
    tls_pgbench: Path | None
    rounds: int
    seconds: float
    only: str = ""
    configurations: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def wants(self, name: str) -> bool:
        """Whether BENCH_ONLY lets this row, scenario or curve through."""
        return self.only.lower() in name.lower()

    def note(self, peer: Peer) -> Peer:
        """Remember its version and configuration for the page."""
        if peer.version:
            known = self.versions.get(peer.name, "")
            if peer.version not in known:
                self.versions[peer.name] = f"{known}, {peer.version}" if known else peer.version
            self.configurations.setdefault(peer.label, peer.configuration)
        return peer


def measure(bench: Bench, peer: Peer, load: Load, seconds: float | None = None) -> Run:
    """Run pgbench once. PgbenchFailed with its words where it fails."""
    server = bench.place.server
    program = bench.tls_pgbench if load.tls else bench.pgbench
    # pgbench's time includes its connecting, and what it tells does not: hundreds of logins take a while.
    duration = max(1, round(bench.seconds if seconds is None else seconds)) + load.clients // 200
    with tempfile.TemporaryDirectory(prefix="latency-", dir=bench.place.folder) as folder:
        words = [str(program), "-n", *load.words, "-c", str(load.clients), "-j", str(min(2, load.clients))]
        words += [
            "-T",
            str(duration),
            "--log",
            f"--log-prefix={folder}/log",
            f"--sampling-rate={load.sampling}",
        ]
        words += ["--rate", f"{load.rate:.0f}"] if load.rate else []
        words += ["-h", "127.0.0.1", "-p", str(peer.port), "-U", server.user, server.database]
        tls = "require" if load.tls else "disable"
        before = peer.cpu()
        done = subprocess.run(
            words,
            env=os.environ | {"PGPASSWORD": server.password, "PGSSLMODE": tls},
            capture_output=True,
            text=True,
            cwd=bench.place.folder,
            timeout=duration + 120,
            check=False,
        )
        used = peer.cpu().since(before)
        if done.returncode != 0:
            said = f"{done.stdout}\n{done.stderr}"
            raise PgbenchFailed(f"pgbench failed through {peer.label}, with {done.returncode}:\n{said}")
        latencies = read_latencies(Path(folder))
    count, tps, average = read_summary(done.stdout)
    user, system = (1e6 * part / max(1, count) for part in used)
    return Run(tps, user, system, average, *(percentile(latencies, share) for share in (50, 95, 99)))


def read_summary(text: str) -> tuple[int, float, float]:
    """Transactions, transactions per second, and average latency in ms, from what pgbench prints."""
    count = re.search(r"actually processed: (\d+)", text)
    tps = re.search(r"^tps = ([\d.]+) \((?:without|including)", text, re.MULTILINE)
    average = re.search(r"latency average = ([\d.]+) ms", text)
    if count is None or tps is None or average is None:
        raise PgbenchFailed(f"pgbench said something unexpected:\n{text}")
    return int(count[1]), float(tps[1]), float(average[1])


def read_latencies(folder: Path) -> list[float]:
    """The sampled latencies in ms, sorted: the third field of each line of pgbench's log is in µs."""
    found: list[float] = []
    for path in folder.iterdir():
        with open(path) as log:
            # Transactions that were skipped or failed have a word there.
            found += [float(word) / 1000 for line in log if (word := line.split()[2]).isdigit()]
    return sorted(found)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that so many of a hundred do not exceed; 0 where there is none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] if ordered else 0.0


def alternate(bench: Bench, main: list[Peer], beside: list[Peer], load: Load) -> dict[str, list[Run]]:
    """Rounds over all peers, forwards and backwards in turn; ``beside`` only takes part in every third.

    The keys are labels. Each peer is warmed up by a run that does not count. One of ``beside`` through which
    pgbench fails is left out, and noted as missing.
    """
    runs: dict[str, list[Run]] = {peer.label: [] for peer in (*main, *beside)}
    for peer in main:
        measure(bench, peer, load, seconds=1)
    beside = [peer for peer in beside if _warms_up(bench, peer, load)]
    for number in range(bench.rounds):
        order = main + beside if number % 3 == 0 else list(main)
        if number % 2 == 1:
            order.reverse()
        for peer in order:
            runs[peer.label].append(measure(bench, peer, load))
    return runs


def _warms_up(bench: Bench, peer: Peer, load: Load) -> bool:
    try:
        measure(bench, peer, load, seconds=1)
    except PgbenchFailed as failed:
        bench.missing[f"{peer.name}, {' '.join(load.words)}, {load.clients} clients"] = str(failed)
        return False
    return True


def summary(runs: list[Run]) -> dict[str, Any]:
    """Medians over the rounds, and the least and the most transactions per second."""

    def middle(name: str) -> float:
        return float(statistics.median(getattr(run, name) for run in runs))

    names = ("cpu_user", "cpu_system", "average", "p50", "p95", "p99")
    rates = [run.tps for run in runs]
    return {
        "value": statistics.median(rates),
        "low": min(rates),
        "high": max(rates),
        **{name: middle(name) for name in names},
        "rounds": [asdict(run) for run in runs],
    }


def ratio(ours: list[Run], theirs: list[Run], name: str) -> float | None:
    """The median over the rounds of ours divided by theirs; None where theirs is nothing."""
    pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(ours, theirs, strict=True)]
    if not pairs or any(b == 0 for _, b in pairs):
        return None
    return float(statistics.median(a / b for a, b in pairs))

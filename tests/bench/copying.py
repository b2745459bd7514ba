"""COPY of 100 MB, out of the server and into it, by psql: megabytes per second, and proxy CPU for each COPY.

psql keeps the time itself (`\\timing`), so that its start and its login do not count. The server makes the
rows from nothing and throws away what it is given, and the format is binary: or its tables, and the reading
of text in psql and the server, would be what is measured.
"""

import os
import re
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import peers
from measuring import Bench, Curves, Scenario
from rows import TUNED, is_met
from running import Peer

ROWS, WIDTH = 100_000, 1000
SIZE = ROWS * WIDTH
TIMES = 10  # in one run, because CPU is told in steps of 10 ms
MEGABYTE = 1e6
CLOCK = re.compile(r"^Time: ([\d.]+) ms", re.MULTILINE)
OUT = f"\\copy (SELECT repeat('x', {WIDTH}) FROM generate_series(1, {ROWS})) TO '{{file}}' (FORMAT binary)"
IN = "\\copy landing FROM '{file}' (FORMAT binary) WHERE false"
# Against PgBouncer as it comes, and against one that was tuned for this.
TARGETS = {"": (1.25, 0.50), TUNED: (1.05, 0.85)}
NAMES = ("COPY out of 100 MB", "COPY in of 100 MB")
NOTE = (
    f"{ROWS} rows of {WIDTH} bytes in binary format, {TIMES} times in each round, by psql's `\\copy`; "
    "the server keeps none of those it is given. Ratios of Penstock to that peer, and in brackets the target."
)
COLUMNS = ["peer", "MB/s (slowest to fastest)", "ratio", "CPU ms for each, user + system", "ratio", ""]


@dataclass(frozen=True)
class Copied:
    """One run: megabytes per second, and ms of proxy CPU for each COPY."""

    rate: float
    user: float
    system: float


def run(bench: Bench) -> Iterator[tuple[Scenario, Curves]]:
    """Both directions, each through Penstock and every PgBouncer, plain and tuned."""
    if not any(map(bench.wants, NAMES)):
        return
    source = bench.place.folder / "copied"
    server = bench.place.server.port
    psql(bench, server, "CREATE UNLOGGED TABLE IF NOT EXISTS landing (line text)", OUT.format(file=source))
    for name, words in zip(NAMES, (OUT.format(file="/dev/null"), IN.format(file=source)), strict=True):
        if bench.wants(name):
            yield _compared(bench, name, words), {}
    source.unlink()


def psql(bench: Bench, port: int, *commands: str) -> str:
    """What psql says to these commands, one after the other; SystemExit where one fails."""
    server = bench.place.server
    program = Path(bench.pgbench).parent / "psql"
    login = ["-h", "127.0.0.1", "-p", str(port), "-U", server.user, server.database]
    words = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(
        [str(program), "-X", "-q", "-v", "ON_ERROR_STOP=1", *login, *words],
        env=os.environ | {"PGPASSWORD": server.password},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"psql failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def copied(bench: Bench, peer: Peer, words: str, times: int = TIMES) -> Copied:
    """Copy so many times through a peer."""
    before = peer.cpu()
    told = CLOCK.findall(psql(bench, peer.port, "\\timing on", *[words] * times))
    used = peer.cpu().since(before)
    if len(told) != times:
        raise SystemExit(f"psql told {len(told)} times, not {times}")
    user, system = (1000 * part / times for part in used)
    return Copied(times * SIZE / MEGABYTE / (sum(map(float, told)) / 1000), user, system)


def _compared(bench: Bench, name: str, words: str) -> Scenario:
    with ExitStack() as running:
        makers = [
            (partial(peers.pgbouncer, program=path, more=more, label=more.replace(" ", "").strip()), targets)
            for path in peers.pgbouncers()
            for more, targets in TARGETS.items()
        ]
        ours = running.enter_context(bench.note(peers.penstock(bench.place)))
        theirs = [(running.enter_context(bench.note(make(bench.place))), each) for make, each in makers]
        everybody = [ours, *(peer for peer, _ in theirs), peers.direct(bench.place)]
        runs: dict[str, list[Copied]] = {peer.label: [] for peer in everybody}
        for peer in everybody:
            copied(bench, peer, words, times=1)
        for number in range(bench.rounds):
            for peer in everybody if number % 2 == 0 else reversed(everybody):
                runs[peer.label].append(copied(bench, peer, words))
    lines = [_line(ours.label, runs[ours.label])]
    verdicts = []
    for peer, targets in theirs:
        line, verdict = _against(peer.label, runs[ours.label], runs[peer.label], targets)
        lines.append(line)
        verdicts.append(verdict)
    lines.append(_line("direct", runs["direct"]))
    target = "; ".join(
        f"{'against ' + more.replace(' ', '').strip() if more else 'against the default'}: "
        f"at least {rate:.2f} of the throughput, at most {cpu:.2f} of the CPU"
        for more, (rate, cpu) in TARGETS.items()
    )
    return Scenario(name, COLUMNS, lines, target, all(verdicts), NOTE)


def _line(label: str, runs: list[Copied]) -> list[str]:
    rates = [run.rate for run in runs]
    user, system = (statistics.median(getattr(run, part) for run in runs) for part in ("user", "system"))
    cost = f"{user:.0f} + {system:.0f}" if user + system else "-"
    return [label, f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})", "", cost, "", ""]


def _against(
    label: str, ours: list[Copied], theirs: list[Copied], targets: tuple[float, float]
) -> tuple[list[str], bool]:
    """A peer's line with the ratios to it, and whether they are as they should be."""
    pairs = list(zip(ours, theirs, strict=True))
    rate = statistics.median(a.rate / b.rate for a, b in pairs)
    cpu = statistics.median((a.user + a.system) / max(0.001, b.user + b.system) for a, b in pairs)
    met = bool(is_met({"tps": rate, "cpu": cpu}, {"tps": targets[0], "cpu": targets[1]}))
    line = _line(label, theirs)
    line[2], line[4] = f"{rate:.2f} (≥ {targets[0]:.2f})", f"{cpu:.2f} (≤ {targets[1]:.2f})"
    line[5] = "met" if met else "**lost**"
    return line, met

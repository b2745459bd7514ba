"""Few are active and many are only connected: whether those who say nothing slow down those who work.

`pgbench -S` with 64 clients, while others have logged in and are idle. The number of the others rises from
round to round and falls in the next, so that a machine that changes meanwhile does not favour one end.
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import peers
from measuring import Bench, Curves, Load, Run, Scenario, measure
from running import Peer, Place
from wire import Crowd, raise_open_files

ACTIVE = 64
LEVELS = (10, ACTIVE, 500, 1000, 2000, 5000)
WORDS = ("-S", "-M", "simple")
SECONDS = 2.0  # at most
FALL = 0.10
SPARE = 600
NAME = f"10 to {LEVELS[-1]} connected clients, {ACTIVE} of them active"
CURVE = "throughput over connected clients"
NOTE = (
    f"Transactions per second of `pgbench -S -M simple` with {ACTIVE} clients (of 10 all are active). "
    f"In brackets the share of what it was with those {ACTIVE} alone, in the same round. "
    f"Runs of at most {SECONDS:g} s."
)

Runs = dict[int, list[Run]]


def run(bench: Bench) -> Iterator[tuple[Scenario, Curves]]:
    """Penstock and every PgBouncer, in turn."""
    if not (bench.wants(NAME) or bench.wants(CURVE)):
        return
    makers: list[Callable[[Place], Peer]] = [peers.penstock]
    makers += [partial(peers.pgbouncer, program=path) for path in peers.pgbouncers()]
    most = raise_open_files(LEVELS[-1] * len(makers) + SPARE)
    levels = [level for level in LEVELS if level * len(makers) + SPARE <= most]
    with ExitStack() as running:
        found = [running.enter_context(bench.note(make(bench.place))) for make in makers]
        runs = _rounds(bench, found, levels)
    shares = {label: _shares(of) for label, of in runs.items()}
    lines = []
    for level in levels:
        cells = [
            f"{_middle(of[level]):.0f}" + (f" ({shares[label][level]:.2f})" if level > ACTIVE else "")
            for label, of in runs.items()
        ]
        lines.append([str(level), *cells])
    worst = min((share for level, share in shares[found[0].label].items() if level > ACTIVE), default=1.0)
    met = round(worst, 2) >= 1 - FALL if levels[-1] == LEVELS[-1] else None
    note = NOTE if met is not None else f"{NOTE} More were not possible: open files are limited to {most}."
    target = f"throughput falls by at most {FALL:.0%}"
    points = {label: [[level, _middle(of[level])] for level in levels] for label, of in runs.items()}
    curve = {
        "x": f"connected clients, {ACTIVE} of them active",
        "y": "transactions per second",
        "lines": points,
    }
    yield Scenario(NAME, ["connected", *runs], lines, target, met, note), {CURVE: curve}


def _rounds(bench: Bench, found: list[Peer], levels: list[int]) -> dict[str, Runs]:
    runs: dict[str, Runs] = {peer.label: {level: [] for level in levels} for peer in found}
    server = bench.place.server
    with ExitStack() as running:
        crowds = [running.enter_context(Crowd(peer.port, server.user, server.database)) for peer in found]
        for peer in found:
            measure(bench, peer, Load(ACTIVE, WORDS), seconds=1)
        for number in range(bench.rounds):
            order = list(zip(found, crowds, strict=True))
            for level in levels if number % 2 == 0 else reversed(levels):
                active = min(level, ACTIVE)
                for peer, crowd in order if number % 2 == 0 else reversed(order):
                    crowd.grow(level - active)
                    seen = measure(bench, peer, Load(active, WORDS), seconds=min(SECONDS, bench.seconds))
                    runs[peer.label][level].append(seen)
        for crowd in crowds:
            crowd.ask("SELECT 1")  # they have really been there
    return runs


def _middle(runs: list[Run]) -> float:
    return statistics.median(run.tps for run in runs)


def _shares(runs: Runs) -> dict[int, float]:
    """By level: what is left of the throughput of the active ones alone, the median over the rounds."""
    alone = [run.tps for run in runs[ACTIVE]]
    return {
        level: statistics.median(run.tps / first for run, first in zip(of, alone, strict=True))
        for level, of in runs.items()
    }

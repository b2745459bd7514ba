"""Curves of the benchmark: throughput over the number of clients, and latency over the load that is offered.

The same peers, server and client as in the rows; each point is a median over fewer rounds than a row has.
"""

import statistics
from contextlib import ExitStack
from typing import Any

import peers
from measuring import Bench, Curves, Load, Run, measure
from running import Peer

CLIENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 500)
FRACTIONS = (0.2, 0.4, 0.6, 0.8, 0.9)
BUSY = 64
SECONDS = 2.0
THROUGHPUT = "throughput over clients"
LATENCY = "latency percentiles over offered load"
WORDS = ("-S", "-M", "simple")


def run(bench: Bench) -> Curves:
    """Both curves, or those that BENCH_ONLY wants."""
    if not (bench.wants(THROUGHPUT) or bench.wants(LATENCY)):
        return {}
    curves: Curves = {}
    with ExitStack() as running:
        makers = (peers.penstock, peers.pgbouncer, peers.direct)
        found = [running.enter_context(bench.note(make(bench.place))) for make in makers]
        if bench.wants(THROUGHPUT):
            curves[THROUGHPUT] = _throughput(bench, found)
        if bench.wants(LATENCY):
            curves[LATENCY] = _latency(bench, found[:2])
    return curves


def _rounds(bench: Bench, found: list[Peer], load: Load) -> dict[str, list[Run]]:
    """A third of the rows' rounds, forwards and backwards in turn."""
    runs: dict[str, list[Run]] = {peer.name: [] for peer in found}
    for number in range(max(1, bench.rounds // 3)):
        for peer in found if number % 2 == 0 else reversed(found):
            runs[peer.name].append(measure(bench, peer, load, seconds=min(SECONDS, bench.seconds)))
    return runs


def _throughput(bench: Bench, found: list[Peer]) -> dict[str, Any]:
    lines: dict[str, list[list[float]]] = {peer.name: [] for peer in found}
    for clients in CLIENTS:
        for name, runs in _rounds(bench, found, Load(clients, WORDS)).items():
            lines[name].append([clients, statistics.median(run.tps for run in runs)])
    return {"x": "clients", "y": "transactions per second", "lines": lines}


def _latency(bench: Bench, found: list[Peer]) -> dict[str, Any]:
    """Offered is a share of what the slower one does at most, so that both are offered the same."""
    most = [
        statistics.median(run.tps for run in runs)
        for runs in _rounds(bench, found, Load(BUSY, WORDS)).values()
    ]
    lines: dict[str, list[list[float]]] = {}
    for fraction in FRACTIONS:
        rate = round(min(most) * fraction)
        for name, runs in _rounds(bench, found, Load(BUSY, WORDS, rate=rate)).items():
            for share in ("p50", "p95", "p99"):
                point = [rate, statistics.median(getattr(run, share) for run in runs)]
                lines.setdefault(f"{name} {share}", []).append(point)
    y = f"latency in ms, from the moment it was due ({BUSY} clients)"
    return {"x": "offered transactions per second", "y": y, "lines": lines}

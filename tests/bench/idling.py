"""Clients that are connected and say nothing: what each of them costs of the proxy's resident memory.

They are sockets made by hand that log in, thousands of them, in steps. Memory is read from /proc
once it has come to rest: it is the proxy's whole process, with whatever its allocator keeps. What a client
costs is the growth from none to all of them, divided by their number.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

import peers
from measuring import Bench, Curves, Scenario
from running import Peer, Place
from wire import Client, Crowd, raise_open_files

STEPS = (0, 1000, 2000, 3000, 4000, 5000)
EACH, BASE = 4.0, 60.0
KIB, MIB = 1024, 1024**2
REST = 0.5
SPARE = 600  # files for everything else
NAME = f"{STEPS[-1]} idle clients"
CURVE = "memory over clients"
COLUMNS = [
    "peer",
    "base",
    "with all",
    "KiB for each client",
    "KiB for each, after one query of each",
    "when they have left",
]
NOTE = (
    "Resident memory of the proxy's process. The base is what it has after its first query, with no client. "
    "The clients come over TCP without TLS."
)


def run(bench: Bench) -> Iterator[tuple[Scenario, Curves]]:
    """Penstock, and every PgBouncer, one after the other."""
    if not (bench.wants(NAME) or bench.wants(CURVE)):
        return
    most = raise_open_files(STEPS[-1] + SPARE) - SPARE
    steps = [step for step in STEPS if step <= most]
    makers: list[Callable[[Place], Peer]] = [peers.penstock]
    makers += [partial(peers.pgbouncer, program=path) for path in peers.pgbouncers()]
    lines: list[list[str]] = []
    drawn: dict[str, list[list[float]]] = {}
    good = False
    for make in makers:
        with bench.note(make(bench.place)) as peer:
            sizes, asked, left = _crowded(bench, peer, steps)
        base, full = sizes[0], sizes[-1]
        each, later = ((size - base) / steps[-1] / KIB for size in (full, asked))
        cells = [f"{size / MIB:.1f} MiB" for size in (base, full, left)]
        lines.append([peer.label, *cells[:2], f"{each:.2f}", f"{later:.2f}", cells[2]])
        drawn[peer.label] = [[step, size / MIB] for step, size in zip(steps, sizes, strict=True)]
        if make is makers[0]:
            good = each <= EACH and base <= BASE * MIB
    whole = steps[-1] == STEPS[-1]
    note = NOTE if whole else f"{NOTE} Only {steps[-1]} of them: open files are limited to {most + SPARE}."
    target = f"at most {EACH:g} KiB for each, and a base of at most {BASE:g} MiB"
    curve = {"x": "idle clients", "y": "resident memory in MiB", "lines": drawn}
    yield Scenario(NAME, COLUMNS, lines, target, good if whole else None, note), {CURVE: curve}


def _crowded(bench: Bench, peer: Peer, steps: list[int]) -> tuple[list[int], int, int]:
    """Bytes of memory at every step, when each client has asked once, and when all have left."""
    where = peer.port, bench.place.server.user, bench.place.server.database
    with Client(*where) as first:
        first.ask("SELECT 1")
    sizes = []
    with Crowd(*where) as crowd:
        for step in steps:
            crowd.grow(step)
            sizes.append(at_rest(peer))
        crowd.ask("SELECT 1")
        asked = at_rest(peer)
    return sizes, asked, at_rest(peer)


def at_rest(peer: Peer) -> int:
    """Bytes of memory, once two looks in a row have found the same; the last ones after a while."""
    seen = -1
    for _ in range(20):
        time.sleep(REST)
        now = peer.resident()
        if now == seen:
            break
        seen = now
    return seen

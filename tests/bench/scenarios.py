"""What one run of pgbench does not show: bulk copies, logins that take long, clients that are many and idle.

Each lives in a room of its own and gives back its table, and perhaps a curve. Nothing here measures.
"""

import connected
import copying
import idling
import slow_logins
from measuring import Bench, Curves, Scenario


def run(bench: Bench) -> tuple[list[Scenario], Curves]:
    """All of them, or those that BENCH_ONLY wants, and their curves."""
    found: list[Scenario] = []
    drawn: Curves = {}
    for room in (copying, slow_logins, idling, connected):
        for scenario, curves in room.run(bench):
            found.append(scenario)
            drawn |= curves
            print(
                f"{scenario.name}: {scenario.target}",
                *map(" | ".join, scenario.lines),
                sep="\n  ",
                flush=True,
            )
    return found, drawn

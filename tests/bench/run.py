"""`make bench`: Penstock beside PgBouncer and others, on the same PostgreSQL with the same pgbench.

Every proxy has 8 sessions where it can have fewer than clients, and lets clients in without proof unless the
row says otherwise. It writes build/bench.json, and from it docs/benchmarks.md: build/benchmarks.md
where the run was not a whole one, so that the page in docs always came out of one.

Of Debian's packages it needs pgbouncer and openssl, and takes postgresql (for a pgbench that knows TLS),
pgpool2 and haproxy where they are. None of them needs to run as a service.

BENCH_ROUNDS (7), BENCH_SECONDS (3), BENCH_JSON (a file), BENCH_ONLY (a word from the name of a row, a
scenario or a curve) and BENCH_PGBOUNCER, BENCH_PGPOOL, BENCH_HAPROXY (other programs than the machine's)
change the run.
"""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # its neighbours, wherever this is started from

import curves
import report
import rows
import scenarios
from measuring import Bench
from peers import POOL, pgbouncers
from running import Missing, Place
from wire import raise_open_files

from proxy.build import banner, compiled
from proxy.embedded import EmbeddedPostgres, binaries

ROOT = Path(__file__).parents[2]
WHOLE = 7  # rounds
OPEN_FILES = 20_000
# So that 500 clients can go there directly, and as many by each peer that opens a session for each.
SERVER = {"max_connections": "1600"}


def machine() -> dict[str, str]:
    """What it runs on."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    guest = "hypervisor" in Path("/proc/cpuinfo").read_text()
    return {
        "CPU": (cpu[1] if cpu else platform.machine()) + (", a virtual machine" if guest else ""),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / 1024**2:.1f} GiB" if memory else "",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    }


def first_line(program: Path) -> str:
    """What a program of PostgreSQL says to --version."""
    return subprocess.run(
        [str(program), "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()


def tls_pgbench() -> Path | None:
    """Debian's pgbench: the wheel's knows no TLS."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), key=lambda path: float(path.parts[4]))
    return found[-1] if found else None


def prepare(place: Place, pgbench: Path) -> None:
    """Fill pgbench's tables, and write down its scripts."""
    server = place.server
    rows.write_scripts(place.folder)
    login = ["-h", "127.0.0.1", "-p", str(server.port), "-U", server.user, server.database]
    subprocess.run(
        [str(pgbench), "-i", "-q", "-s", str(rows.SCALE), *login],
        env=os.environ | {"PGPASSWORD": server.password},
        check=True,
        capture_output=True,
    )


def told(entry: dict[str, Any]) -> str:
    """One line of progress."""
    ours, theirs = (entry["peers"][name] for name in ("penstock", "pgbouncer"))
    costs = [f"{one['cpu_user']:.1f}+{one['cpu_system']:.1f}" for one in (ours, theirs)]
    ratios = " ".join(
        f"{name} {entry[f'ratio_{name}']:.2f} ({entry[f'target_{name}'] or '-'})"
        for name in ("tps", "cpu", "p99")
    )
    rates = f"{ours['value']:8.0f} {theirs['value']:8.0f} tps"
    word = {True: "met", False: "LOST", None: ""}[entry["met"]]
    return f"{entry['name']:34}{rates} {costs[0]:>11} {costs[1]:>11} µs  {ratios}  {word} {entry['against']}"


def measure(bench: Bench, data: dict[str, Any], save: Path) -> None:
    """Everything, one after the other; what has been measured so far is in the file ``save``."""
    print(f"{'':32} {'penstock':>8} {'peer':>8}      {'penstock':>12} {'peer':>12}     ratios (targets)")
    for row in rows.rows(bench):
        if bench.wants(row.name):
            entries = rows.measure_row(bench, row)
            data["rows"] += entries
            print("\n".join(map(told, entries)), flush=True)
            save.write_text(json.dumps(data, indent=1) + "\n")
    data["curves"] |= curves.run(bench)
    found, drawn = scenarios.run(bench)
    data["scenarios"] += [vars(one) for one in found]
    data["curves"] |= drawn
    save.write_text(json.dumps(data, indent=1) + "\n")


def empty(bench: Bench) -> dict[str, Any]:
    """The numbers before there are any."""
    bench.versions |= {
        "penstock": banner(),
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "postgresql": first_line(bench.pgbench.parent / "postgres"),
        "pgbench": first_line(bench.pgbench),
    }
    if bench.tls_pgbench is not None:
        bench.versions["pgbench with TLS"] = first_line(bench.tls_pgbench)
    return {
        "machine": machine(),
        "versions": bench.versions,
        "pool": POOL,
        "rounds": bench.rounds,
        "seconds": bench.seconds,
        "rows": [],
        "scenarios": [],
        "curves": {},
        "configurations": bench.configurations,
        "missing": bench.missing,
    }


def main() -> None:
    """Start the server, measure everything through everybody, and write the page."""
    began, only = time.monotonic(), os.environ.get("BENCH_ONLY", "")
    rounds, seconds = int(os.environ.get("BENCH_ROUNDS", WHOLE)), float(os.environ.get("BENCH_SECONDS", "3"))
    save = Path(os.environ.get("BENCH_JSON", ROOT / "build" / "bench.json"))
    save.parent.mkdir(parents=True, exist_ok=True)
    try:
        pgbouncers()
    except Missing as missing:
        raise SystemExit(str(missing)) from None
    raise_open_files(OPEN_FILES)
    print(f"{banner()}; {POOL} sessions, {rounds} rounds of {seconds:g} s", flush=True)
    pgbench = binaries.find_programs() / "pgbench"
    with (
        EmbeddedPostgres(options=SERVER) as server,
        tempfile.TemporaryDirectory(prefix="penstock-bench-", dir="/tmp") as temp,
    ):
        Path(temp).chmod(0o755)
        bench = Bench(Place(server, Path(temp)), pgbench, tls_pgbench(), rounds, seconds, only)
        data = empty(bench)
        prepare(bench.place, pgbench)
        measure(bench, data, save)
    for sentence in bench.missing.values():
        print(sentence)
    whole = compiled() and rounds >= WHOLE and not only
    page = report.write(data, ROOT / ("docs" if whole else "build"))
    print(f"{page}, from {save}, after {(time.monotonic() - began) / 60:.0f} minutes")


if __name__ == "__main__":
    main()

"""How many instructions a running daemon spends on one transaction, and where: counted by callgrind.

Run it with a compiled wheel's interpreter, and with what pgbench is to do:

    .venv-compiled/bin/python tests/bench/counting.py -S -M prepared

COUNT_CLIENTS (8), COUNT_TRANSACTIONS (1500 for each) and COUNT_POOL (more TOML for the pool) change it. The
kernel's part is not counted. What the clients' logins cost is in it, too: little, among so many.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # its neighbours, wherever this is started from

import peers
from running import Place

from proxy.build import banner
from proxy.embedded import EmbeddedPostgres, binaries

CLIENTS = int(os.environ.get("COUNT_CLIENTS", "8"))
TRANSACTIONS = int(os.environ.get("COUNT_TRANSACTIONS", "1500"))
MORE = os.environ.get("COUNT_POOL", "")
SHOWN = 40


def pgbench(server: EmbeddedPostgres, port: int, *words: str) -> None:
    """Run it; SystemExit with its words where it fails."""
    program = str(binaries.find_programs() / "pgbench")
    login = ["-h", "127.0.0.1", "-p", str(port), "-U", server.user, server.database]
    env = os.environ | {"PGPASSWORD": server.password}
    done = subprocess.run(
        [program, *words, *login], env=env, capture_output=True, text=True, cwd=server.directory, check=False
    )
    if done.returncode:
        raise SystemExit(f"pgbench {' '.join(words)}: {done.stderr}")


def count(words: list[str], folder: Path) -> Path:
    """Run the daemon under callgrind, and pgbench against it; returns what was counted."""
    counted = folder / "counted"
    with EmbeddedPostgres() as server:
        (server.directory / "orm.sql").write_text(
            "\\set aid random(1, 100000)\nBEGIN;\n"
            "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\nCOMMIT;\n"
        )
        pgbench(server, server.port, "-i", "-q")
        ours = peers.penstock(Place(server, folder), pool=MORE + "\n")
        tool = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={counted}")
        with replace(ours, command=(*tool, *ours.command)) as daemon:
            load = ["-n", *words, "-c", str(CLIENTS), "-j", str(min(2, CLIENTS))]
            pgbench(server, daemon.port, *load, "-t", "10")
            (pid,) = (str(pid) for pid in daemon.pids())
            subprocess.run(["callgrind_control", "-i", "on", pid], check=True, capture_output=True)
            pgbench(server, daemon.port, *load, "-t", str(TRANSACTIONS))
            subprocess.run(["callgrind_control", "-i", "off", pid], check=True, capture_output=True)
    return counted


def tell(counted: Path) -> None:
    """Print the instructions for each transaction, in all and by function."""
    told = subprocess.run(
        ["callgrind_annotate", "--threshold=100", str(counted)], capture_output=True, text=True, check=True
    ).stdout
    sums: dict[str, int] = {}
    for number, name in re.findall(r"^\s*([\d,]+) \(\s*[\d.]+%\)\s+(\S.*)$", told, re.MULTILINE):
        function = name.split("[")[0].strip().rpartition("/")[2]
        sums[function] = sums.get(function, 0) + int(number.replace(",", ""))
    total = sums.pop("PROGRAM TOTALS")
    each = CLIENTS * TRANSACTIONS
    print(f"{banner()}: {total / each:.0f} instructions for each transaction")
    for function, number in sorted(sums.items(), key=lambda item: -item[1])[:SHOWN]:
        print(f"{number / each:8.0f}  {function}")


def main() -> None:
    """Count and tell."""
    if shutil.which("valgrind") is None:
        raise SystemExit("there is no valgrind (apt-get install valgrind)")
    with tempfile.TemporaryDirectory(prefix="penstock-count-", dir="/tmp") as folder:
        tell(count(sys.argv[1:] or ["-S", "-M", "simple"], Path(folder)))


if __name__ == "__main__":
    main()

"""`make bench`: Penstock and PgBouncer, one after the other, on the same PostgreSQL with the same pgbench.

Both pool 8 sessions in transaction mode and let clients in without proof: what is measured is the
relaying of queries, not the arithmetic of logins. Rounds alternate between them, because the machine is never
quite the same from one minute to the next; what is printed are medians. Proxy CPU is what the proxy's
process used, user and system apart, divided by the transactions that pgbench counted.

BENCH_ROUNDS (5), BENCH_SECONDS (4), BENCH_JSON (a file) and BENCH_ONLY (a word from a workload's name)
change the run.
"""

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from proxy.build import banner
from proxy.embedded import EmbeddedPostgres, binaries

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "4"))
ONLY = os.environ.get("BENCH_ONLY", "")
POOL = 8
TICK = os.sysconf("SC_CLK_TCK")
BIG = "SELECT repeat('x', 2000000);\n"


@dataclass(frozen=True)
class Workload:
    """One way to call pgbench."""

    name: str
    clients: int
    words: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """One run: transactions per second, and µs of proxy CPU for each."""

    tps: float
    user: float
    system: float


WORKLOADS = (
    Workload("simple, 8 clients", 8, ("-S", "-M", "simple")),
    Workload("simple, 64 clients", 64, ("-S", "-M", "simple")),
    Workload("extended, 8 clients", 8, ("-S", "-M", "extended")),
    Workload("extended, 64 clients", 64, ("-S", "-M", "extended")),
    Workload("2 MB result, 2 clients", 2, ("-M", "simple", "-f", "big.sql")),
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when somebody listens on that port."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}: {process.args}")


def start_penstock(folder: Path, server: EmbeddedPostgres, port: int) -> subprocess.Popen[bytes]:
    config = folder / "penstock.toml"
    config.write_text(
        f'[listeners.main]\naddress = "127.0.0.1:{port}"\nauth = "trust"\n'
        f'[pools.app]\nbackend = "{server.dsn()}"\nmax = {POOL}\n'
        '[http]\naddress = "off"\n[log]\nlevel = "warning"\n'
    )
    config.chmod(0o600)
    process = subprocess.Popen([sys.executable, "-m", "proxy", "serve", "--config", str(config)], cwd=folder)
    wait_for(port, process)
    return process


def start_pgbouncer(folder: Path, server: EmbeddedPostgres, port: int) -> subprocess.Popen[bytes]:
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise SystemExit("PgBouncer is not installed: apt-get install --no-install-recommends pgbouncer")
    (folder / "users.txt").write_text(f'"{server.user}" "{server.password}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\napp = host=127.0.0.1 port={server.port} dbname=app\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {folder}/users.txt\nlogfile = {folder}/pgbouncer.log\n"
        f"pool_mode = transaction\ndefault_pool_size = {POOL}\nmax_client_conn = 200\n"
        "log_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n"
    )
    user = binaries.other_user()  # it refuses to run as root
    if user is not None:
        for path in (folder, *folder.iterdir()):
            os.chown(path, *user)
    uid, gid = user or (None, None)
    process = subprocess.Popen(
        [program, "-q", str(folder / "pgbouncer.ini")],
        user=uid,
        group=gid,
        extra_groups=[] if user else None,
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    wait_for(port, process)
    return process


def cpu(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Seconds of CPU that the process has used, in user mode and in the kernel."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICK, int(fields[12]) / TICK


def measure(
    pgbench: Path, workload: Workload, process: subprocess.Popen[bytes], port: int, server: EmbeddedPostgres
) -> Measured:
    """One run of pgbench through one proxy."""
    login = ["-h", "127.0.0.1", "-p", str(port), "-U", server.user, server.database]
    threads, seconds = str(min(2, workload.clients)), str(max(1, round(SECONDS)))
    before = cpu(process)
    done = subprocess.run(
        [
            str(pgbench),
            "-n",
            *workload.words,
            "-c",
            str(workload.clients),
            "-j",
            threads,
            "-T",
            seconds,
            *login,
        ],
        env=os.environ | {"PGPASSWORD": server.password},
        capture_output=True,
        text=True,
        cwd=server.directory,
        check=False,
    )
    after = cpu(process)
    count = re.search(r"actually processed: (\d+)", done.stdout)
    tps = re.search(r"tps = ([\d.]+) \(without", done.stdout)
    if done.returncode != 0 or count is None or tps is None:
        raise SystemExit(f"pgbench failed:\n{done.stdout}\n{done.stderr}")
    transactions = max(1, int(count[1]))
    user, system = (1e6 * (b - a) / transactions for a, b in zip(before, after, strict=True))
    return Measured(float(tps[1]), user, system)


def median(runs: list[Measured]) -> Measured:
    columns = zip(*((run.tps, run.user, run.system) for run in runs), strict=True)
    return Measured(*(statistics.median(column) for column in columns))


def load(pgbench: Path, server: EmbeddedPostgres) -> None:
    """Fill pgbench's tables, and write down the script of the big result."""
    (server.directory / "big.sql").write_text(BIG)
    login = ["-h", "127.0.0.1", "-p", str(server.port), "-U", server.user, server.database]
    password = os.environ | {"PGPASSWORD": server.password}
    subprocess.run(
        [str(pgbench), "-i", "-q", "-s", "5", *login], env=password, check=True, capture_output=True
    )


def compare(
    pgbench: Path, server: EmbeddedPostgres, proxies: dict[str, tuple[subprocess.Popen[bytes], int]]
) -> list[dict[str, object]]:
    """Run every workload through every proxy, round by round, and print a line for each."""
    results: list[dict[str, object]] = []
    print(f"{'':24} {'tps':>21} {'':6} {'µs CPU per transaction, user + system':>40}")
    print(f"{'':24} {'penstock':>10} {'pgbouncer':>10} {'ratio':>6} {'penstock':>20} {'pgbouncer':>20}")
    for workload in WORKLOADS:
        if ONLY not in workload.name:
            continue
        runs: dict[str, list[Measured]] = {name: [] for name in proxies}
        for number in range(ROUNDS):
            order = list(proxies) if number % 2 == 0 else list(reversed(proxies))
            for name in order:
                process, port = proxies[name]
                runs[name].append(measure(pgbench, workload, process, port, server))
        ours, theirs = median(runs["penstock"]), median(runs["pgbouncer"])
        ratio = statistics.median(
            a.tps / b.tps for a, b in zip(runs["penstock"], runs["pgbouncer"], strict=True)
        )
        costs = (f"{one.user:.1f} + {one.system:.1f}" for one in (ours, theirs))
        print(
            f"{workload.name:24} {ours.tps:10.0f} {theirs.tps:10.0f} {ratio:6.2f} "
            + " ".join(f"{cost:>20}" for cost in costs),
            flush=True,
        )
        rounds = {name: [asdict(run) for run in each] for name, each in runs.items()}
        results.append({"workload": workload.name, "ratio": ratio, "rounds": rounds})
    return results


def main() -> None:
    """Start everything, compare, and end everything."""
    pgbench = binaries.find_programs() / "pgbench"
    print(
        f"{banner()}; {POOL} sessions, {ROUNDS} rounds of {SECONDS:g} s, {os.cpu_count()} cores", flush=True
    )
    running: list[subprocess.Popen[bytes]] = []
    with (
        EmbeddedPostgres() as server,
        tempfile.TemporaryDirectory(prefix="penstock-bench-", dir="/tmp") as temp,
    ):
        proxies = {}
        try:
            for name, start in (("pgbouncer", start_pgbouncer), ("penstock", start_penstock)):
                folder = Path(temp, name)
                folder.mkdir(mode=0o755)
                Path(temp).chmod(0o755)
                port = free_port()
                process = start(folder, server, port)
                running.append(process)
                proxies[name] = (process, port)
            load(pgbench, server)
            results = compare(pgbench, server, proxies)
        finally:
            for process in running:
                process.terminate()
                process.wait(30)
    written = {"penstock": banner(), "rounds": ROUNDS, "seconds": SECONDS, "results": results}
    target = Path(os.environ.get("BENCH_JSON", "build/bench.json"))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(written, indent=1) + "\n")
    print(f"every round: {target}")


if __name__ == "__main__":
    main()

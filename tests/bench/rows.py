"""The rows of the table: what pgbench is asked to do, through whom, and what the ratios should be.

Each row runs Penstock, one PgBouncer or two, and beside them, in fewer rounds, what else the machine has.
The targets stand here and nowhere else. Nothing here knows how a run is measured.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import peers
from measuring import Bench, Load, Run, alternate, ratio, summary
from running import Missing, Peer, Place, version_of

Maker = Callable[[Place], Peer]

SCALE = 5
BIG = "SELECT repeat('x', 2000000);\n"
ORM = (
    f"\\set aid random(1, {100_000 * SCALE})\nBEGIN;\n"
    "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\nCOMMIT;\n"
)
SCRIPTS = {"big.sql": BIG, "orm.sql": ORM}
SCRAM = "scram-sha-256"
TUNED = "pkt_buf = 65536\n"
# The first PgBouncer that keeps track of prepared statements in transaction mode.
TRACKS_STATEMENTS = (1, 21)


@dataclass(frozen=True)
class Opponent:
    """A PgBouncer, and what our ratios to it should be: tps at least, CPU and p99 at most, None any."""

    make: Maker
    tps: float | None
    cpu: float | None
    p99: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One way to call pgbench, through Penstock and each opponent, with ``beside`` through others, too."""

    name: str
    load: Load
    opponents: tuple[Opponent, ...]
    ours: Maker = peers.penstock
    auth: str = "trust"
    beside: bool = True
    note: str = ""


def rows(bench: Bench) -> Iterator[Row]:
    """Every row of the table, in its order."""
    for clients, tps, cpu in ((1, 0.92, 1.20), (8, 0.92, 1.20), (64, 1.00, 1.10)):
        name = f"-S simple, {clients} client" + ("s" if clients > 1 else "")
        yield Row(name, _select("simple", clients), _opponents(tps, cpu))
    yield Row("-S extended, 8 clients", _select("extended", 8), _opponents(None, None), beside=False)
    yield Row("-S extended, 64 clients", _select("extended", 64), _opponents(1.05, 1.10))
    for clients, tps in ((8, 1.05), (64, 1.20)):
        opponents = tuple(_preparing(path, clients, tps, 1.05) for path in peers.pgbouncers())
        yield Row(f"-S prepared, {clients} clients", _select("prepared", clients), opponents)
    yield Row("-S simple, 500 clients", _select("simple", 500), _opponents(1.00, 1.15, p99=1.00))
    yield Row(
        "2 MB results, 2 clients",
        Load(2, ("-M", "simple", "-f", "big.sql"), sampling=1.0),
        _opponents(1.25, 0.50) + _opponents(1.05, 0.85, more=TUNED, label="pkt_buf=65536"),
    )
    yield Row(
        "BEGIN; SELECT; COMMIT, 64 clients",
        Load(64, ("-M", "simple", "-f", "orm.sql")),
        _opponents(1.10, 0.95),
        ours=partial(peers.penstock, pool='begin = "deferred"\n', label='penstock (begin = "deferred")'),
        note="three messages, each sent after the answer to the last",
    )
    yield Row(
        "-C -S simple, SCRAM, 8 clients",
        Load(8, ("-C", "-S", "-M", "simple"), sampling=1.0),
        _opponents(1.00, None, auth=SCRAM, verifiers=True, label="SCRAM, verifiers in its file")
        + _opponents(1.00, None, auth=SCRAM, label="SCRAM, passwords in its file"),
        ours=partial(peers.penstock, auth=SCRAM, label="penstock (SCRAM)"),
        auth=SCRAM,
        note="a new connection and a login for each transaction; most of its CPU is pgbench's own PBKDF2",
    )
    yield from _tls(bench)


def _select(protocol: str, clients: int) -> Load:
    return Load(clients, ("-S", "-M", protocol))


def _opponents(
    tps: float | None, cpu: float | None, p99: float | None = None, **how: Any
) -> tuple[Opponent, ...]:
    """Each PgBouncer of the machine, configured the same."""
    return tuple(
        Opponent(partial(peers.pgbouncer, program=path, **how), tps, cpu, p99) for path in peers.pgbouncers()
    )


def _preparing(path: str, clients: int, tps: float, cpu: float) -> Opponent:
    """A PgBouncer through which clients can prepare: in transaction mode where it can do that."""
    make = partial(peers.pgbouncer, program=path)
    if tracks_statements(path):
        more = "max_prepared_statements = 100\n"
        return Opponent(partial(make, more=more, label="max_prepared_statements=100"), tps, cpu)
    note = (
        "this PgBouncer cannot track prepared statements, so it runs in session mode and has as many "
        f"sessions as there are clients ({clients}); Penstock has {peers.POOL}"
    )
    make = partial(make, mode="session", pool=clients, label=f"session mode, {clients} sessions")
    if any(tracks_statements(other) for other in peers.pgbouncers()):
        return Opponent(make, None, None, note=f"{note}. The target is against the one that can")
    return Opponent(make, tps, cpu, note=note)


def tracks_statements(path: str) -> bool:
    """Clients of this PgBouncer can prepare in transaction mode."""
    return version_of([path, "--version"]) >= TRACKS_STATEMENTS


def _tls(bench: Bench) -> Iterator[Row]:
    if bench.tls_pgbench is None:
        bench.missing["TLS"] = "no pgbench with TLS here: apt-get install --no-install-recommends postgresql"
        return
    cert, key = peers.certificate(bench.place.folder)
    ours = f'tls_mode = "require"\ntls_cert_file = "{cert}"\ntls_key_file = "{key}"\n'
    theirs = f"client_tls_sslmode = require\nclient_tls_cert_file = {cert}\nclient_tls_key_file = {key}\n"
    yield Row(
        "-S simple over TLS, 64 clients",
        Load(64, ("-S", "-M", "simple"), tls=True),
        _opponents(0.60, 1.60, more=theirs, label="TLS to clients"),
        ours=partial(peers.penstock, listener=ours, label="penstock (TLS to clients)"),
        beside=False,
        note="the goal is a throughput of 0.80; pgbench is Debian's, for the other one knows no TLS, and "
        "neither does the server, so nothing else is compared",
    )


def measure_row(bench: Bench, row: Row) -> list[dict[str, Any]]:
    """Run a row; one entry for each opponent, all with the same runs of the others."""
    with ExitStack() as running:
        ours = running.enter_context(bench.note(row.ours(bench.place)))
        theirs = [running.enter_context(bench.note(one.make(bench.place))) for one in row.opponents]
        beside = _beside(bench, row, running)
        runs = alternate(bench, [ours, *theirs], beside, row.load)
    shared = {"penstock": summary(runs[ours.label])}
    others = {peer.name: summary(runs[peer.label]) for peer in beside if runs[peer.label]}
    return [
        _entry(row, opponent, peer.label, runs[ours.label], runs[peer.label])
        | {"peers": shared | {"pgbouncer": summary(runs[peer.label])} | others}
        for opponent, peer in zip(row.opponents, theirs, strict=True)
    ]


def _beside(bench: Bench, row: Row, running: ExitStack) -> list[Peer]:
    """What else is on the machine, started; what is not is noted."""
    everything: tuple[tuple[str, Maker], ...] = (
        ("direct", peers.direct),
        ("pgpool", partial(peers.pgpool, clients=row.load.clients, auth=row.auth)),
        ("haproxy", peers.haproxy),
    )
    found = []
    for name, make in everything if row.beside else ():
        try:
            found.append(running.enter_context(bench.note(make(bench.place))))
        except Missing as missing:
            bench.missing[name] = str(missing)
    return found


def _entry(row: Row, opponent: Opponent, label: str, ours: list[Run], theirs: list[Run]) -> dict[str, Any]:
    """The ratios, what they should be, and whether they are."""
    wanted = {"tps": opponent.tps, "cpu": opponent.cpu, "p99": opponent.p99}
    told = {name: ratio(ours, theirs, name) for name in wanted}
    note = "; ".join(part for part in (row.note, opponent.note) if part)
    facts = {"name": row.name, "note": note, "against": label, "unit": "tps", "met": is_met(told, wanted)}
    targets = {f"target_{name}": target for name, target in wanted.items()}
    return facts | targets | {f"ratio_{name}": value for name, value in told.items()}


def is_met(told: dict[str, float | None], wanted: dict[str, float | None]) -> bool | None:
    """Whether every ratio reaches its target, with the two digits that are shown; None without any target."""
    verdicts = []
    for name, target in wanted.items():
        value = told[name]
        if target is None:
            continue
        if value is None:
            verdicts.append(False)
        else:
            verdicts.append(round(value, 2) >= target if name == "tps" else round(value, 2) <= target)
    return all(verdicts) if verdicts else None


def write_scripts(folder: Path) -> None:
    """Put down the scripts that rows name, where pgbench runs."""
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)

"""docs/benchmarks.md, written from the numbers that `make bench` left behind, and from nothing else.

It measures nothing, judges nothing and rounds only for the eye: what was met and what was lost stands in
the numbers. `python tests/bench/report.py build/bench.json` writes the page again, without measuring again.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from plots import draw

AGAINST = "pgbouncer"  # under this name a row has the one that it compares with
WORDS = {True: "met", False: "**lost**", None: ""}
PLOTS = "benchmarks"
Data = dict[str, Any]

HEAD = """\
# Benchmarks

<!-- Written by `make bench`; edit tests/bench/ instead. -->

Penstock beside PgBouncer and others: on the same machine, in front of the same PostgreSQL server, with the
same number of sessions and the same client.

## How this was measured

`make bench` does all of it on a machine with Debian's packages and writes this page, which nobody edits.

- Peers take turns: each round runs all of them, every other round in reverse order, for a machine is never
  quite the same from one minute to the next. A first run of 1 s does not count. The direct connection,
  Pgpool-II and HAProxy take part in every third round. Here: {rounds} rounds of {seconds:g} s for each.
- A number is the median over the rounds; behind it are the slowest and the fastest one. A ratio is the median
  of the rounds' own ratios. A difference of less than 5 % means nothing on a machine that others use, too.
- CPU is what the proxy's processes used (user + system, from `/proc`), divided by what the client counted.
  Client, server and proxy share the machine's cores: what a proxy uses, the server does not get.
- Proxies have {pool} sessions unless a row says otherwise, Pgpool-II and HAProxy one for each client.
  Everything runs over TCP on loopback, and clients log in without proof unless the row says otherwise.
"""

NO_PLOTS = "There was no matplotlib when this page was written, so nothing is drawn."


def number(value: float | None, unit: str = "") -> str:
    """A measured value for the eye: three digits that matter, and thousands set apart."""
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{' ' if unit else ''}{unit}"


def ratio(value: float | None) -> str:
    """A ratio, with the two digits that targets have."""
    return "-" if value is None else f"{value:.2f}"


def table(columns: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    """A table of Markdown; what would end a cell is escaped."""
    rows = [
        [str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells] for cells in (columns, *lines)
    ]
    written = ["| " + " | ".join(row) + " |" for row in rows]
    written.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(written)


def wanted(row: Data, key: str, sign: str) -> str:
    """A ratio and what it should be: ``1.04 (≥ 1.00)``."""
    told, target = ratio(row.get(f"ratio_{key}")), row.get(f"target_{key}")
    return told if target is None else f"{told} ({sign} {target:.2f})"


def machine(data: Data) -> str:
    """What it ran on, and the version of everything."""
    parts = [
        f"| {name} | {value} |" for kind in ("machine", "versions") for name, value in data[kind].items()
    ]
    return "\n".join(["## The machine and the versions", "", "| | |", "|---|---|", *parts])


def targets(data: Data) -> str:
    """One line for each row: the ratios, what they should be, and whether they are."""
    rows = data["rows"]
    if not rows:
        return ""
    columns = ("work", "against", "throughput", "proxy CPU per transaction", "p99 of latency", "")
    lines = [
        (
            row["name"],
            row["against"],
            wanted(row, "tps", "≥"),
            wanted(row, "cpu", "≤"),
            wanted(row, "p99", "≤"),
            WORDS[row["met"]],
        )
        for row in rows
    ]
    notes = dict.fromkeys(f"- {row['name']}: {row['note']}" for row in rows if row["note"])
    text = "Ratios of Penstock to the peer, and in brackets the target."
    return "\n\n".join(["## Against the targets", text, table(columns, lines), "\n".join(notes)]).rstrip()


def values(row: Data) -> dict[str, list[str]]:
    """What there is to tell of each peer of a row, by the name that it has there."""
    lines = {}
    for name, peer in row["peers"].items():
        spread = f"{number(peer['value'], row['unit'])} ({number(peer['low'])} to {number(peer['high'])})"
        user, system = peer["cpu_user"], peer["cpu_system"]
        cost = f"{number(user)} + {number(system)}" if user or system else "-"
        late = [peer[key] for key in ("p50", "p95", "p99")]
        told = " / ".join(map(number, late)) if any(late) else "-"
        lines[row["against"] if name == AGAINST else name] = [spread, cost, told]
    return lines


def medians(data: Data) -> str:
    """Every row in full: each peer's median and spread, its CPU and its latencies."""
    columns = (
        "work",
        "peer",
        "median (slowest to fastest)",
        "CPU µs per transaction, user + system",
        "latency ms, p50 / p95 / p99",
    )
    # Work that is compared with two PgBouncers is two rows, which share the runs of all the others.
    by_name: dict[str, dict[str, list[str]]] = {}
    for row in data["rows"]:
        by_name.setdefault(row["name"], {}).update(values(row))
    lines = [
        ["" if place else name, peer, *cells]
        for name, everybody in by_name.items()
        for place, (peer, cells) in enumerate(everybody.items())
    ]
    return "\n\n".join(["## Every peer", table(columns, lines)]) if lines else ""


def lost(data: Data) -> str:
    """What did not reach its target, by name."""
    lines = []
    for row in data["rows"]:
        if row["met"] is False:
            measures = (("throughput", "tps", "≥"), ("CPU", "cpu", "≤"), ("p99", "p99", "≤"))
            told = [
                f"{word} {wanted(row, key, sign)}"
                for word, key, sign in measures
                if row.get(f"target_{key}") is not None
            ]
            lines.append(f"- **{row['name']}**, against {row['against']}: {', '.join(told)}")
    missed = [one for one in data["scenarios"] if one["met"] is False]
    lines += [f"- **{one['name']}**: the target is {one['target']}" for one in missed]
    if not lines:
        return "## Lost\n\nNothing: every target was met in this run."
    where = "[performance.md](performance.md) says where the time goes, and what was tried."
    return "\n\n".join(["## Lost", "\n".join(lines), where])


def scenarios(data: Data) -> str:
    """What is no throughput: a table for each."""
    parts = ["## Other measurements"] if data["scenarios"] else []
    for one in data["scenarios"]:
        parts.append(f"### {one['name']}")
        if one["note"]:
            parts.append(one["note"])
        lines = [[cell if isinstance(cell, str) else number(cell) for cell in line] for line in one["lines"]]
        parts.append(table(one["columns"], lines))
        verdict = {True: ": met.", False: ": **lost**.", None: "."}[one["met"]]
        if one["target"]:
            parts.append(f"Target: {one['target']}{verdict}")
    return "\n\n".join(parts)


def unmeasured(data: Data) -> str:
    """What the machine lacked."""
    sentences = [f"- {name}: {why}" for name, why in data["missing"].items()]
    return "\n\n".join(["## Not measured", "\n".join(sentences)]) if sentences else ""


def pictures(data: Data, folder: Path) -> str:
    """The curves, drawn beside the page, or a sentence that says why they are not."""
    if not data["curves"]:
        return ""
    drawn = draw(data["curves"], folder / PLOTS)
    shown = [f"![{title}]({PLOTS}/{name})" for title, name in drawn.items()]
    return "\n\n".join(["## Curves", *(shown or [NO_PLOTS])])


def configurations(data: Data) -> str:
    """What each peer was told, to the letter."""
    parts = [
        "## Configurations",
        "As they were written for this run; ports and folders are those of the run.",
    ]
    for name, text in data["configurations"].items():
        parts += [f"### {name}", f"```\n{text.strip()}\n```"]
    return "\n\n".join(parts)


def page(data: Data, folder: Path) -> str:
    """The whole page. Curves are drawn on the way, into ``folder/benchmarks``."""
    parts = [HEAD.format(**data).rstrip(), machine(data), targets(data), lost(data), medians(data)]
    parts += [scenarios(data), pictures(data, folder), unmeasured(data), configurations(data)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(data: Data, folder: Path) -> Path:
    """Write ``benchmarks.md`` and its drawings into the folder; return where the page is."""
    target = folder / "benchmarks.md"
    target.write_text(page(data, folder))
    return target


def main() -> None:
    """Write the page from a file of numbers."""
    root = Path(__file__).parents[2]
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "build" / "bench.json"
    print(write(json.loads(source.read_text()), root / "docs"))


if __name__ == "__main__":
    main()

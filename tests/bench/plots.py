"""Curves as SVG: one file for each, the same bytes for the same numbers, and small.

It draws what it is given and knows no measurement. It needs matplotlib, which only `make bench` installs:
without it nothing is drawn, and `draw` says so by naming no file.
"""

import re
from pathlib import Path
from typing import Any

# A colour for each peer, which is the first word of a line's name, told apart by those who see fewer colours,
# too; and a way to draw for each of the peer's lines.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#666666")
WAYS = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."))
STYLE = {
    "svg.fonttype": "none",  # text stays text: small, and selectable
    "svg.hashsalt": "penstock",  # without it every run names the same shapes differently
    "font.size": 9.0,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# Above this the first points of an axis would lie on one another: it is drawn with a logarithmic scale.
WIDE = 20.0


def available() -> bool:
    """Whether there is a matplotlib to draw with."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def file_name(title: str) -> str:
    """What the drawing of a curve is called: its title, as a word for a path."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + ".svg"


def draw(curves: dict[str, Any], folder: Path) -> dict[str, str]:
    """Draw every curve into the folder; its file's name by the curve's title, nothing without matplotlib.

    Drawings of an earlier run that this one has no curve for are removed.
    """
    if not available():
        return {}
    drawn = {title: file_name(title) for title, curve in curves.items() if any(curve["lines"].values())}
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.name not in drawn.values():
            old.unlink()
    for title, name in drawn.items():
        _draw(title, curves[title], folder / name)
    return drawn


def _draw(title: str, curve: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    lines = {name: sorted(points) for name, points in curve["lines"].items() if points}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for name, points in lines.items():
            across, up = zip(*points, strict=True)
            axes.plot(across, up, label=name, markersize=4, linewidth=1.5, **_look(name, list(lines)))
        _scale(axes, lines)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(curve["x"])
        axes.set_ylabel(curve["y"])
        axes.legend(frameon=False, fontsize=8)
        # No date and no version of the library: only what was measured may change the file.
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(path, format="svg", metadata=nothing)


def _look(name: str, names: list[str]) -> dict[str, str]:
    """The colour of the peer, and the mark and stroke of this one of its lines."""
    peers = list(dict.fromkeys(other.split()[0] for other in names))
    of_peer = [other for other in names if other.split()[0] == name.split()[0]]
    mark, stroke = WAYS[of_peer.index(name) % len(WAYS)]
    colour = COLOURS[peers.index(name.split()[0]) % len(COLOURS)]
    return {"color": colour, "marker": mark, "linestyle": stroke}


def _scale(axes: Any, lines: dict[str, Any]) -> None:
    # An axis begins at 0, so that a height is not made of a small difference; unless it is too wide for that.
    across = sorted({point[0] for points in lines.values() for point in points})
    up = sorted({point[1] for points in lines.values() for point in points})
    if across[0] > 0 and across[-1] / across[0] > WIDE:
        axes.set_xscale("log")
        axes.set_xticks(across, [f"{value:g}" for value in across])
        axes.minorticks_off()
    if up[0] > 0 and up[-1] / up[0] > WIDE * 2:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(0, up[-1] * 1.08 or 1)

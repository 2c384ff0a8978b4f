"""The plot of the transfer study: error rate against utterances, one line per method, every run a point.

No numbers are made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.artifacts import new_file

_LOOKS = {"scratch": ("#8a8a8a", "o"), "head": ("#c77700", "s"), "full": ("#1f5fa8", "^")}
LABELS = {"scratch": "from scratch", "head": "transfer, head only", "full": "transfer, all layers"}


def plot(points: Mapping[str, Mapping[int, Sequence[float]]], title: str, path: Path) -> None:
    """Writes an SVG of `points[method][utterances]` = CER of each seed (fractions); lines join the means."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    with matplotlib.rc_context({"svg.hashsalt": "malgil", "svg.fonttype": "path", "font.size": 10}):
        figure, axes = pyplot.subplots(figsize=(7.2, 4.6), layout="constrained")
        sizes = sorted({size for curve in points.values() for size in curve})
        for method, curve in points.items():
            colour, marker = _LOOKS[method]
            own = [size for size in sizes if curve.get(size)]
            means = [100 * sum(curve[size]) / len(curve[size]) for size in own]
            axes.plot(own, means, color=colour, linewidth=1.8, label=LABELS[method])
            for size in own:
                rates = [100 * rate for rate in curve[size]]
                axes.scatter([size] * len(rates), rates, color=colour, marker=marker, s=26, alpha=0.75)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        axes.set_xlabel("Korean training utterances (synthetic speech)")
        axes.set_ylabel("CER without spaces, greedy")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
        with new_file(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        pyplot.close(figure)

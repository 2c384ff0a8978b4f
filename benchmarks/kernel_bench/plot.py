"""The picture of kernel benchmarks: each op's time beside its peers', in units of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plot(results: dict[str, Any], path: Path) -> None:
    """One bar per implementation and row: its median over ours, so that more than 1 is slower than ours.

    Raises:
        SystemExit: no row has a time for ours.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = [
        row
        for family in results["families"].values()
        for row in family["rows"]
        if row["ratios"] and not family["quick"]
    ]
    if not rows:
        raise SystemExit("no measured row to draw. Next: run benchmarks/triton_kernels.py on a GPU")
    names = sorted({name for row in rows for name in row["ratios"]})
    figure, axes = pyplot.subplots(figsize=(9, 0.4 * len(rows) * max(len(names), 2) / 2 + 1))
    height = 0.8 / len(names)
    for place, name in enumerate(names):
        at = [
            (number + place * height, row["ratios"][name])
            for number, row in enumerate(rows)
            if name in row["ratios"]
        ]
        axes.barh([y for y, _ in at], [x for _, x in at], height, label=name)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks([number + 0.4 for number in range(len(rows))], [row["name"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("time over ours (1 = as fast)")
    gpus = sorted({str(family.get("gpu")) for family in results["families"].values()})
    axes.set_title(", ".join(gpus))
    axes.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)

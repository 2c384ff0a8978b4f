"""Every chart of a page, as a browser lays it out: named axes with units, and a name for whatever is drawn."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.data.charts import Interval, Point, Series, intervals, lines, scatter
from tasks.report import write_report
from tests.report.browser import measure

ROOT = Path(__file__).parents[2]
SCRATCH = "benchmarks/results/asr_from_scratch.json"
UNIT = re.compile(r"\S.* \((?:%|steps|nats|MB|s|dB|dBFS|characters/s|fraction|count|jamo|name)[^)]*\)$")
# What a reader of the chart sees: names of both axes, what is drawn, what names it.
SEEN = """[...d.querySelectorAll('svg.chart')].map(c => {
  const inside = c.getBoundingClientRect(), box = e => e.getBoundingClientRect();
  const shown = e => { const b = box(e); return b.width > 0 && b.height > 0 && b.left >= inside.left - 1
    && b.right <= inside.right + 1 && b.top >= inside.top - 1 && b.bottom <= inside.bottom + 1; };
  const texts = s => [...c.querySelectorAll(s)].filter(shown).map(e => e.textContent);
  const drawn = e => e.classList.contains('hollow') ? 'hollow' : [...e.classList].find(n => /^s[0-9]$/.test(n));
  const [x, y] = ['.label.x', '.label.y'].map(s => c.querySelector(s)).map(e => e && box(e));
  const below = c.nextElementSibling && c.nextElementSibling.matches('ul.legend') ? c.nextElementSibling : null;
  return {title: c.getAttribute('aria-label').split(':')[0], x: texts('.label.x'), y: texts('.label.y'),
    apart: !!(x && y && (y.right <= x.left || x.right <= y.left)), ticks: texts('.tick').length,
    names: texts('.name').length, series: [...new Set([...c.querySelectorAll('.line,.dot,.hollow')].map(drawn))],
    dots: c.querySelectorAll('.dot').length, heat: c.querySelectorAll('.heat').length,
    legend: below ? [...below.children].filter(e => box(e).height > 0 && e.querySelector('svg > *'))
      .map(e => e.textContent.trim()) : []};
})"""

browser = pytest.mark.skipif(
    not shutil.which("chromium"), reason="needs Debian's chromium, which .ci/run installs"
)


def faults(chart: dict[str, Any]) -> list[str]:
    """What a reader would miss."""
    found = []
    for axis in ("x", "y"):
        if len(chart[axis]) != 1 or not UNIT.search(chart[axis][0]):
            found.append(f"{axis} axis is named {chart[axis]}")
    if not chart["apart"]:
        found.append("the names of the axes lie on one another")
    if chart["ticks"] + chart["names"] < 2:
        found.append("no number on an axis")
    legend = chart["legend"]
    if len(set(legend)) != len(legend) or not all(legend):
        found.append(f"the legend says {legend}")
    named_beside = chart["names"] >= chart["dots"] > 0
    if len(chart["series"]) > 1 and len(legend) < len(chart["series"]) and not named_beside:
        found.append(f"{len(chart['series'])} series, but the legend says {legend}")
    if chart["heat"] and len(legend) < 2:
        found.append("no legend of the shades")
    return found


@browser
@pytest.mark.parametrize("width", [400, 1200])
def test_every_chart_of_the_report_names_its_axes_units_and_curves(
    build: Path, release: dict, stages: dict, tmp_path: Path, width: int
) -> None:
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    shutil.copyfile(ROOT / SCRATCH, tmp_path / SCRATCH)
    report = write_report(build, release, stages, tmp_path / "report.html", root=tmp_path)
    charts = measure(report, SEEN, tmp_path, width)
    assert len(charts) == 13  # two of each line, size, slices, six jamo maps, the experiment
    assert {chart["title"]: found for chart in charts if (found := faults(chart))} == {}
    (experiment,) = [c for c in charts if c["title"] == "Fine-tuning against training from scratch"]
    assert experiment["legend"] == ["from the pre-trained encoder", "from fresh weights"]
    (slices,) = [c for c in charts if c["title"] == "CER by slice with interval"]
    assert slices["legend"] == ["as served, with its interval", "greedy, without the n-gram model"]


@browser
def test_every_chart_of_the_validation_report_names_its_axes_and_units(build: Path, tmp_path: Path) -> None:
    charts = measure(build / "validated/report.html", SEEN, tmp_path)
    assert len(charts) >= 4
    assert {chart["title"]: found for chart in charts if (found := faults(chart))} == {}


CURVES = [Series("validation", [(1, 2.0)]), Series("validation", [(1, 3.0)])]
LACKING = {
    "the legend says ['validation', 'validation']": lines(
        CURVES, label="twice", x_label="training (steps)", y_label="loss (nats)"
    ),
    "x axis is named ['step']": lines(CURVES[:1], label="bare", x_label="step", y_label="loss (nats)"),
    "y axis is named ['↑ CER']": scatter([Point("a", 1, 2)], label="bare", x_label="size (MB)", y_label="CER"),
    "the names of the axes lie on one another": lines(
        CURVES[:1], label="long", x_label="training of the recogniser on commands (steps)",
        y_label="mean loss of the recogniser per jamo (nats)",
    ),
    "2 series, but the legend says ['one']": str(
        intervals(
            [Interval("a", 0.1, None, None, 0.2)], label="one", x_label="CER (%)", y_label="slice (name)",
            names=("one", "two"),
        )
    ).rpartition("<li>")[0],
}  # fmt: skip


@browser
@pytest.mark.parametrize("fault", LACKING)
def test_the_look_finds_what_a_chart_lacks(fault: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<html><head><title></title></head><body>{LACKING[fault]}</body></html>")
    (chart,) = measure(page, SEEN, tmp_path / "browser")
    assert faults(chart) == [fault]

"""Small charts as inline SVG: histogram, lines, scatter, intervals, heat map. Pure: numbers to markup.

They take their colours and fonts from the page's style sheet (`templates/page.css`), so that they follow
light and dark and the browser's own Korean fonts; series differ by dash and by mark as well as by colour.
Each carries a text label for readers who do not see it; the numbers themselves stand in tables or in the
page's data block.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 14.0, 42.0
_ROW = 22.0  # height of a row of `intervals`
_CELL = 26.0  # largest side of a square of `heat_map`
SERIES = 6  # classes s0 to s5 of the style sheet
_DASHES = ("", "6 4", "2 3", "9 3 2 3", "1 4", "12 4")


class Series(NamedTuple):
    """A named line through (x, y) points."""

    name: str
    points: Sequence[tuple[float, float]]


class Point(NamedTuple):
    """A named mark at (x, y)."""

    name: str
    x: float
    y: float


class Interval(NamedTuple):
    """A named value with the ends of its interval, and a second value to compare it with; None where none."""

    name: str
    value: float
    low: float | None
    high: float | None
    second: float | None = None


class Cell(NamedTuple):
    """A square of `heat_map`: where it is, how dark (0 to 1), what stands in it and what it means."""

    row: str
    column: str
    share: float
    shown: str
    told: str


class Axis(NamedTuple):
    """A scale from `low` to `high`, its ticks, and how a value is written."""

    low: float
    high: float
    ticks: tuple[float, ...]
    write: Callable[[float], str]

    def share(self, value: float) -> float:
        """Where on the axis a value lies, 0 to 1."""
        return (value - self.low) / (self.high - self.low)


def number(value: float) -> str:
    """A short decimal: 1200 → 1,200; 0.25 → 0.25."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(value: float) -> str:
    """A fraction as percent, with a decimal only where it says something."""
    return f"{value * 100:.3g}%"


def axis(values: Sequence[float], write: Callable[[float], str] = number, zero: bool = True) -> Axis:
    """A scale around the values with about five round ticks; from zero unless told otherwise."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-12:
        high = low + (abs(low) * 0.1 or 1.0)
    raw = (high - low) / 4.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if power * factor >= raw - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(index * step, 10) for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks, write)


def histogram(
    edges: Sequence[float], counts: Sequence[float], *, label: str, unit: str, limits: Sequence[float] = ()
) -> Markup:
    """Bars of counts between edges; `limits` are drawn as dashed verticals where they fall inside."""
    if not counts:
        return Markup('<p class="none">Nothing to show.</p>')
    x = axis(edges, zero=False)
    y = axis([0.0, *counts])
    bars = Markup("").join(
        Markup(
            '<rect class="bar" x="{}" y="{}" width="{}" height="{}"><title>{} to {} {}: {}</title></rect>'
        ).format(
            _n(_x(x, low) + 0.5),
            _n(_y(y, count)),
            _n(max(_x(x, high) - _x(x, low) - 1.0, 0.5)),
            _n(_y(y, 0) - _y(y, count)),
            number(low),
            number(high),
            unit,
            f"{count:g}",
        )
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )
    marks = Markup("").join(
        Markup(
            '<line class="limit" x1="{0}" x2="{0}" y1="{1}" y2="{2}"><title>limit {3} {4}</title></line>'
        ).format(_n(_x(x, limit)), _n(TOP), _n(HEIGHT - BOTTOM), number(limit), unit)
        for limit in limits
        if x.low <= limit <= x.high
    )
    most = max(range(len(counts)), key=lambda index: counts[index])
    text = (
        f"{label}: histogram of {sum(counts):g} values, {number(edges[0])} to {number(edges[-1])} {unit}, "
        f"most between {number(edges[most])} and {number(edges[most + 1])}"
    )
    return _figure(text, _axes(x, y, unit, "count") + bars + marks)


def lines(
    series: Sequence[Series],
    *,
    label: str,
    x_label: str,
    y_label: str,
    write: Callable[[float], str] = number,
) -> Markup:
    """One polyline per series, with a legend under the plot; single points get a dot."""
    series = [one for one in series if one.points]
    if not series:
        return Markup('<p class="none">Nothing to show.</p>')
    x = axis([point[0] for one in series for point in one.points])
    y = axis([point[1] for one in series for point in one.points], write)
    drawn = Markup("")
    for index, one in enumerate(series):
        spots = [(_x(x, px), _y(y, py)) for px, py in one.points]
        path = " ".join(f"{_n(px)},{_n(py)}" for px, py in spots)
        dash = _DASHES[index % len(_DASHES)]
        drawn += Markup('<polyline class="line s{}" points="{}" stroke-dasharray="{}"/>').format(
            index % SERIES, path, dash or "none"
        )
        if len(spots) <= 40:
            for (cx, cy), (px, py) in zip(spots, one.points, strict=True):
                drawn += Markup(
                    '<circle class="dot s{}" cx="{}" cy="{}" r="2.6"><title>{}: {} at {} {}</title></circle>'
                ).format(index % SERIES, _n(cx), _n(cy), one.name, write(py), number(px), x_label)
    ends = "; ".join(f"{one.name} {write(one.points[0][1])} to {write(one.points[-1][1])}" for one in series)
    return _figure(
        f"{label}: {ends}", _axes(x, y, x_label, y_label) + drawn, _legend([one.name for one in series])
    )


def scatter(
    points: Sequence[Point], *, label: str, x_label: str, y_label: str, write: Callable[[float], str] = number
) -> Markup:
    """A mark with its name beside it for every point; the y axis need not start at zero."""
    if not points:
        return Markup('<p class="none">Nothing to show.</p>')
    x = axis([point.x for point in points])
    spread = [point.y for point in points]
    y = axis([min(spread) - 0.002, max(spread) + 0.002], write, zero=False)
    drawn = Markup("")
    for index, (point, (at_x, at_y, anchor)) in enumerate(
        zip(points, _places(points, x, y, write), strict=True)
    ):
        drawn += Markup(
            '<circle class="dot s{}" cx="{}" cy="{}" r="6"><title>{}: {} at {} {}</title></circle>'
            '<text class="name" x="{}" y="{}" text-anchor="{}">{}</text>'
        ).format(
            index % SERIES,
            _n(_x(x, point.x)),
            _n(_y(y, point.y)),
            point.name,
            write(point.y),
            number(point.x),
            x_label,
            _n(at_x),
            _n(at_y),
            anchor,
            f"{point.name} {write(point.y)}",
        )
    told = "; ".join(f"{point.name} {write(point.y)} at {number(point.x)}" for point in points)
    return _figure(f"{label}: {told}", _axes(x, y, x_label, y_label) + drawn)


def intervals(
    rows: Sequence[Interval], *, label: str, x_label: str, write: Callable[[float], str] = number
) -> Markup:
    """A dot with its error bar per row, names on the left; the axis starts at zero.

    A row without an interval has its dot alone. `second` is a hollow mark beside the dot.
    """
    if not rows:
        return Markup('<p class="none">Nothing to show.</p>')
    names = 172.0
    height = TOP + _ROW * len(rows) + BOTTOM
    x = axis(
        [end for row in rows for end in (row.value, row.low, row.high, row.second) if end is not None], write
    )

    def across(value: float) -> str:
        return _n(names + x.share(value) * (WIDTH - names - 2 * RIGHT))

    drawn = Markup("")
    for tick in x.ticks:
        drawn += Markup(
            '<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>'
            '<text class="tick" x="{0}" y="{3}" text-anchor="middle">{4}</text>'
        ).format(across(tick), _n(TOP), _n(height - BOTTOM), _n(height - BOTTOM + 16), write(tick))
    for place, row in enumerate(rows):
        y = _n(TOP + _ROW * (place + 0.5))
        drawn += Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
            _n(names - 8), _n(float(y) + 4), row.name
        )
        if row.low is not None and row.high is not None:
            drawn += Markup('<line class="line s0" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                across(row.low), across(row.high), y, y
            )
        if row.second is not None:
            drawn += Markup('<circle class="hollow" cx="{}" cy="{}" r="4"><title>{}</title></circle>').format(
                across(row.second), y, f"{row.name}: {write(row.second)}"
            )
        drawn += Markup('<circle class="dot s0" cx="{}" cy="{}" r="4"><title>{}</title></circle>').format(
            across(row.value), y, _told(row, write)
        )
    drawn += Markup('<text class="label" x="{}" y="{}" text-anchor="end">{}</text>').format(
        _n(WIDTH - RIGHT), _n(height - 6), x_label
    )
    return _figure(f"{label}: {'; '.join(_told(row, write) for row in rows)}", drawn, height=height)


def heat_map(
    cells: Sequence[Cell], columns: Sequence[str], *, label: str, x_label: str, y_label: str
) -> Markup:
    """Squares, the darker the larger their share; rows are those of the cells, in their order.

    Args:
        columns: names over the columns; those of the cells are among them.
    """
    rows = list(dict.fromkeys(cell.row for cell in cells))
    if not rows:
        return Markup('<p class="none">Nothing to show.</p>')
    side = min(_CELL, (WIDTH - LEFT - RIGHT) / len(columns))
    top = TOP + _ROW
    drawn = Markup("")
    for number_of, name in enumerate(columns):
        drawn += Markup('<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            _n(LEFT + (number_of + 0.5) * side), _n(top - 6), name
        )
    for number_of, name in enumerate(rows):
        drawn += Markup('<text class="name" x="{}" y="{}" text-anchor="end">{}</text>').format(
            _n(LEFT - 8), _n(top + (number_of + 0.5) * side + 5), name
        )
    for cell in cells:
        x, y = LEFT + columns.index(cell.column) * side, top + rows.index(cell.row) * side
        drawn += Markup(
            '<rect class="heat" x="{0}" y="{1}" width="{2}" height="{2}" fill-opacity="{3}">'
            '<title>{4}</title></rect><text class="count" x="{5}" y="{6}" text-anchor="middle">{7}</text>'
        ).format(
            _n(x + 0.5),
            _n(y + 0.5),
            _n(side - 1),
            _n(0.1 + 0.65 * min(cell.share, 1.0)),
            cell.told,
            _n(x + side / 2),
            _n(y + side / 2 + 4),
            cell.shown,
        )
    height = top + len(rows) * side + _ROW
    drawn += Markup('<text class="label" x="{}" y="{}">{}</text>').format(
        _n(4), _n(height - 6), f"↓ {y_label}, → {x_label}"
    )
    worst = sorted(cells, key=lambda cell: -cell.share)[:5]
    return _figure(f"{label}: {'; '.join(cell.told for cell in worst)}", drawn, height=height)


def _told(row: Interval, write: Callable[[float], str]) -> str:
    between = (
        f", interval {write(row.low)} to {write(row.high)}"
        if row.low is not None and row.high is not None
        else ""
    )
    return f"{row.name} {write(row.value)}{between}"


def _places(
    points: Sequence[Point], x: Axis, y: Axis, write: Callable[[float], str]
) -> list[tuple[float, float, str]]:
    """Where each name stands (x, y, anchor): the first place around its mark that covers nothing yet."""
    marks = [(_x(x, point.x), _y(y, point.y)) for point in points]
    taken = [(cx - 7, cy - 7, cx + 7, cy + 7) for cx, cy in marks]
    places = []
    for (cx, cy), point in zip(marks, points, strict=True):
        width = 8.0 * len(f"{point.name} {write(point.y)}")
        around = [
            (cx + side * across, cy + 5 + drop, "start" if side > 0 else "end")
            for drop, across in ((0, 11), (18, 0), (-17, 0), (35, 0), (-34, 0), (52, 0), (-51, 0))
            for side in (1, -1)
        ]
        boxes = [
            (px - (width if anchor == "end" else 0), py - 11, px + (0 if anchor == "end" else width), py + 4)
            for px, py, anchor in around
        ]
        free = [
            index
            for index, box in enumerate(boxes)
            if box[0] >= LEFT
            and box[2] <= WIDTH
            and box[1] >= TOP
            and box[3] <= HEIGHT - BOTTOM
            and not any(_overlap(box, other) for other in taken)
        ]
        chosen = free[0] if free else 0
        taken.append(boxes[chosen])
        places.append(around[chosen])
    return places


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _axes(x: Axis, y: Axis, x_label: str, y_label: str) -> Markup:
    parts = Markup("")
    for tick in y.ticks:
        parts += Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
            '<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>'
        ).format(
            _n(LEFT),
            _n(WIDTH - RIGHT),
            *[_n(_y(y, tick))] * 2,
            _n(LEFT - 6),
            _n(_y(y, tick) + 4),
            y.write(tick),
        )
    for tick in x.ticks:
        at = _x(x, tick)
        last = at > WIDTH - 2 * RIGHT  # centred under its place it would be cut at the edge
        parts += Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
            _n(WIDTH if last else at), _n(HEIGHT - BOTTOM + 16), "end" if last else "middle", x.write(tick)
        )
    parts += Markup('<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(
        _n(LEFT), _n(WIDTH - RIGHT), _n(HEIGHT - BOTTOM)
    )
    parts += Markup('<text class="label" x="{}" y="{}" text-anchor="end">{}</text>').format(
        _n(WIDTH - RIGHT), _n(HEIGHT - 8), x_label
    )
    return parts + Markup('<text class="label" x="{}" y="{}">{}</text>').format(
        _n(4), _n(HEIGHT - 8), f"↑ {y_label}"
    )


def _legend(names: Sequence[str]) -> Markup:
    items = Markup("").join(
        Markup(
            '<li><svg viewBox="0 0 30 10" aria-hidden="true">'
            '<line class="line s{}" x1="1" x2="29" y1="5" y2="5" '
            'stroke-dasharray="{}"/></svg>{}</li>'
        ).format(index % SERIES, _DASHES[index % len(_DASHES)] or "none", name)
        for index, name in enumerate(names)
    )
    return Markup('<ul class="legend">{}</ul>').format(items)


def _figure(text: str, inside: Markup, below: Markup = Markup(""), height: float = HEIGHT) -> Markup:  # noqa: B008  (immutable)
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>{}').format(
        f"{WIDTH:g}", f"{height:g}", escape(text), inside, below
    )


def _x(scale: Axis, value: float) -> float:
    return LEFT + scale.share(value) * (WIDTH - LEFT - RIGHT)


def _y(scale: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - scale.share(value) * (HEIGHT - TOP - BOTTOM)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")

"""Small charts as inline SVG: histogram, lines, scatter, intervals, heat map. Pure: numbers to markup.

They take their colours and fonts from the page's style sheet (`templates/page.css`), so that they follow
light and dark and the browser's own Korean fonts; series differ by dash and by mark as well as by colour.
Every axis is named with its unit, and what is drawn more than once has a legend or its name beside it. Each
chart carries a text label for readers who do not see it; the numbers themselves stand in tables or in the
page's data block.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from tasks.data.chart_parts import (
    BOTTOM,
    DASHES,
    HEIGHT,
    LEFT,
    RIGHT,
    SERIES,
    TOP,
    WIDTH,
    Axis,
    axes,
    axis,
    axis_names,
    dot_mark,
    figure,
    hollow_mark,
    legend,
    limit_mark,
    line_mark,
    number,
    opacity,
    percent,
    shade_mark,
    short,
    x_place,
    y_place,
)

_ROW = 22.0  # height of a row of `intervals`
_CELL = 26.0  # largest side of a square of `heat_map`


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


def histogram(
    edges: Sequence[float],
    counts: Sequence[float],
    *,
    label: str,
    x_name: str,
    unit: str,
    limits: Sequence[float] = (),
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
            short(x_place(x, low) + 0.5),
            short(y_place(y, count)),
            short(max(x_place(x, high) - x_place(x, low) - 1.0, 0.5)),
            short(y_place(y, 0) - y_place(y, count)),
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
        ).format(short(x_place(x, limit)), short(TOP), short(HEIGHT - BOTTOM), number(limit), unit)
        for limit in limits
        if x.low <= limit <= x.high
    )
    most = max(range(len(counts)), key=lambda index: counts[index])
    text = (
        f"{label}: histogram of {sum(counts):g} values, {number(edges[0])} to {number(edges[-1])} {unit}, "
        f"most between {number(edges[most])} and {number(edges[most + 1])}"
    )
    below = legend([(limit_mark(), "limit of the check")]) if marks else Markup("")
    return figure(text, axes(x, y, f"{x_name} ({unit})", "rows (count)") + bars + marks, below)


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
        spots = [(x_place(x, px), y_place(y, py)) for px, py in one.points]
        path = " ".join(f"{short(px)},{short(py)}" for px, py in spots)
        dash = DASHES[index % len(DASHES)]
        drawn += Markup('<polyline class="line s{}" points="{}" stroke-dasharray="{}"/>').format(
            index % SERIES, path, dash or "none"
        )
        if len(spots) <= 40:
            for (cx, cy), (px, py) in zip(spots, one.points, strict=True):
                drawn += Markup(
                    '<circle class="dot s{}" cx="{}" cy="{}" r="2.6"><title>{}: {} at {} {}</title></circle>'
                ).format(index % SERIES, short(cx), short(cy), one.name, write(py), number(px), x_label)
    ends = "; ".join(f"{one.name} {write(one.points[0][1])} to {write(one.points[-1][1])}" for one in series)
    below = legend([(line_mark(index), one.name) for index, one in enumerate(series)])
    return figure(f"{label}: {ends}", axes(x, y, x_label, y_label) + drawn, below)


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
            short(x_place(x, point.x)),
            short(y_place(y, point.y)),
            point.name,
            write(point.y),
            number(point.x),
            x_label,
            short(at_x),
            short(at_y),
            anchor,
            f"{point.name} {write(point.y)}",
        )
    told = "; ".join(f"{point.name} {write(point.y)} at {number(point.x)}" for point in points)
    return figure(f"{label}: {told}", axes(x, y, x_label, y_label) + drawn)


def intervals(
    rows: Sequence[Interval],
    *,
    label: str,
    x_label: str,
    y_label: str,
    names: tuple[str, str],
    write: Callable[[float], str] = number,
) -> Markup:
    """A dot with its error bar per row, names on the left; the axis starts at zero.

    A row without an interval has its dot alone. `second` is a hollow mark beside the dot.

    Args:
        names: what the dot with its bar and the hollow mark stand for.
    """
    if not rows:
        return Markup('<p class="none">Nothing to show.</p>')
    left = 172.0
    height = TOP + _ROW * len(rows) + BOTTOM
    x = axis(
        [end for row in rows for end in (row.value, row.low, row.high, row.second) if end is not None], write
    )

    def across(value: float) -> str:
        return short(left + x.share(value) * (WIDTH - left - 2 * RIGHT))

    drawn = Markup("")
    for tick in x.ticks:
        drawn += Markup(
            '<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>'
            '<text class="tick" x="{0}" y="{3}" text-anchor="middle">{4}</text>'
        ).format(across(tick), short(TOP), short(height - BOTTOM), short(height - BOTTOM + 16), write(tick))
    for place, row in enumerate(rows):
        y = short(TOP + _ROW * (place + 0.5))
        drawn += Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
            short(left - 8), short(float(y) + 4), row.name
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
    drawn += axis_names(x_label, y_label, height)
    drawn_marks = [dot_mark(), hollow_mark()] if any(row.second is not None for row in rows) else [dot_mark()]
    below = legend(list(zip(drawn_marks, names, strict=False)))
    return figure(f"{label}: {'; '.join(_told(row, write) for row in rows)}", drawn, below, height=height)


def heat_map(
    cells: Sequence[Cell], columns: Sequence[str], *, label: str, x_label: str, y_label: str, share: str
) -> Markup:
    """Squares, the darker the larger their share; rows are those of the cells, in their order.

    Args:
        columns: names over the columns; those of the cells are among them.
        share: what the share is of, for the legend.
    """
    rows = list(dict.fromkeys(cell.row for cell in cells))
    if not rows:
        return Markup('<p class="none">Nothing to show.</p>')
    side = min(_CELL, (WIDTH - LEFT - RIGHT) / len(columns))
    top = TOP + _ROW
    drawn = Markup("")
    for number_of, name in enumerate(columns):
        drawn += Markup('<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            short(LEFT + (number_of + 0.5) * side), short(top - 6), name
        )
    for number_of, name in enumerate(rows):
        drawn += Markup('<text class="name" x="{}" y="{}" text-anchor="end">{}</text>').format(
            short(LEFT - 8), short(top + (number_of + 0.5) * side + 5), name
        )
    for cell in cells:
        x, y = LEFT + columns.index(cell.column) * side, top + rows.index(cell.row) * side
        drawn += Markup(
            '<rect class="heat" x="{0}" y="{1}" width="{2}" height="{2}" fill-opacity="{3}">'
            '<title>{4}</title></rect><text class="count" x="{5}" y="{6}" text-anchor="middle">{7}</text>'
        ).format(
            short(x + 0.5),
            short(y + 0.5),
            short(side - 1),
            short(opacity(cell.share)),
            cell.told,
            short(x + side / 2),
            short(y + side / 2 + 4),
            cell.shown,
        )
    height = top + len(rows) * side + _ROW
    drawn += axis_names(f"→ {x_label}", y_label, height, arrow="↓")
    worst = sorted(cells, key=lambda cell: -cell.share)[:5]
    shades = [
        (shade_mark(part), f"{percent(part)} {share}" if part == 1 else percent(part))
        for part in (0.1, 0.5, 1)
    ]
    told = f"{label}: {'; '.join(cell.told for cell in worst)}"
    return figure(told, drawn, legend(shades), height=height)


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
    marks = [(x_place(x, point.x), y_place(y, point.y)) for point in points]
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

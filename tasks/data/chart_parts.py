"""What charts are made of: scales, axes with their names, legends, the frame. Pure: numbers to markup.

The charts themselves are `tasks.data.charts`.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 14.0, 42.0
SERIES = 6  # classes s0 to s5 of the style sheet
DASHES = ("", "6 4", "2 3", "9 3 2 3", "1 4", "12 4")


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


def axes(x: Axis, y: Axis, x_label: str, y_label: str) -> Markup:
    parts = Markup("")
    for tick in y.ticks:
        parts += Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
            '<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>'
        ).format(
            short(LEFT),
            short(WIDTH - RIGHT),
            *[short(y_place(y, tick))] * 2,
            short(LEFT - 6),
            short(y_place(y, tick) + 4),
            y.write(tick),
        )
    for tick in x.ticks:
        at = x_place(x, tick)
        last = at > WIDTH - 2 * RIGHT  # centred under its place it would be cut at the edge
        parts += Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
            short(WIDTH if last else at),
            short(HEIGHT - BOTTOM + 16),
            "end" if last else "middle",
            x.write(tick),
        )
    parts += Markup('<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(
        short(LEFT), short(WIDTH - RIGHT), short(HEIGHT - BOTTOM)
    )
    return parts + axis_names(x_label, y_label, HEIGHT)


def axis_names(x_label: str, y_label: str, height: float, arrow: str = "↑") -> Markup:
    """Both names under the plot: of the y axis at the left, of the x axis at the right."""
    return Markup(
        '<text class="label x" x="{}" y="{}" text-anchor="end">{}</text>'
        '<text class="label y" x="{}" y="{}">{}</text>'
    ).format(
        short(WIDTH - RIGHT), short(height - 8), x_label, short(4), short(height - 8), f"{arrow} {y_label}"
    )


def legend(entries: Sequence[tuple[Markup, str]]) -> Markup:
    """Marks and what they stand for, under the plot."""
    items = Markup("").join(
        Markup('<li><svg viewBox="0 0 30 10" aria-hidden="true">{}</svg>{}</li>').format(mark, name)
        for mark, name in entries
    )
    return Markup('<ul class="legend">{}</ul>').format(items)


def line_mark(index: int) -> Markup:
    return Markup('<line class="line s{}" x1="1" x2="29" y1="5" y2="5" stroke-dasharray="{}"/>').format(
        index % SERIES, DASHES[index % len(DASHES)] or "none"
    )


def dot_mark() -> Markup:
    return Markup(
        '<line class="line s0" x1="1" x2="29" y1="5" y2="5"/><circle class="dot s0" cx="15" cy="5" r="4"/>'
    )


def hollow_mark() -> Markup:
    return Markup('<circle class="hollow" cx="15" cy="5" r="4"/>')


def limit_mark() -> Markup:
    return Markup('<line class="limit" x1="15" x2="15" y1="0" y2="10"/>')


def shade_mark(share: float) -> Markup:
    return Markup('<rect class="shade" x="10" y="0" width="10" height="10" fill-opacity="{}"/>').format(
        short(opacity(share))
    )


def figure(text: str, inside: Markup, below: Markup = Markup(""), height: float = HEIGHT) -> Markup:  # noqa: B008  (immutable)
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>{}').format(
        f"{WIDTH:g}", f"{height:g}", escape(text), inside, below
    )


def x_place(scale: Axis, value: float) -> float:
    return LEFT + scale.share(value) * (WIDTH - LEFT - RIGHT)


def y_place(scale: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - scale.share(value) * (HEIGHT - TOP - BOTTOM)


def short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def opacity(share: float) -> float:
    return 0.1 + 0.65 * min(share, 1.0)

"""The frame of Malgil's HTML pages: one Jinja environment, one style sheet, everything inside the file.

A page made here loads nothing: styles are inline, charts are inline SVG, fonts are the reader's own (any
system with Korean fonts will do), and its Content-Security-Policy says so to the browser. Rooms bring their
own template folder.
"""

import json
import math
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.data.chart_parts import number, percent

TEMPLATES = Path(__file__).parent / "templates"


def environment(*folders: Path) -> Environment:
    """A Jinja environment over the given template folders and the shared one; values are escaped."""
    made = Environment(
        loader=ChoiceLoader([FileSystemLoader(folder) for folder in (*folders, TEMPLATES)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=number, percent=percent, rate=rate, count=count, megabytes=megabytes)
    made.globals.update(
        css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")), data_block=data_block
    )
    return made


def rate(value: float | None) -> str:
    """A fraction as percent with two decimals, "–" without one: error rates are compared to the hundredth."""
    return "–" if value is None else f"{value * 100:.2f}%"


def count(value: float | None) -> str:
    """A whole number with thousands separators, "–" without one."""
    return "–" if value is None else f"{value:,.0f}"


def megabytes(value: float | None) -> str:
    """Bytes as MB (10^6), "–" without a value."""
    return "–" if value is None else f"{value / 1e6:,.1f} MB"


def data_block(value: Any) -> Markup:
    """The page's numbers as JSON for programs, in an element `malgil-data` that is never run."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # "</script>" or "<!--" inside a string would end or change the element.
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup('<script type="application/json" id="malgil-data">{}</script>').format(Markup(safe))


def without_nan(value: Any) -> Any:
    """The value with NaN and infinities replaced by None: JSON has neither."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

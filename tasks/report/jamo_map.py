"""Heat maps of the jamo that are taken for one another: said against heard, a picture per place. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tasks.data.chart_parts import percent
from tasks.data.charts import Cell, heat_map

PLACES = {"initial": "Initial consonants", "medial": "Vowels", "final": "Final consonants"}
PARTS = {"in_domain": "in domain", "out_of_domain": "out of domain"}
LEFT_OUT = "–"


def jamo_maps(counts: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[tuple[str, Markup]]:
    """(caption, picture) of every place in which something was confused.

    Args:
        counts: `jamo_counts` of metrics.json: part to rows of `tasks.asr.quality.jamo.counts`.
    """
    return [
        (f"{title}, {said}", _map(own, f"{title} said and heard, {said}"))
        for part, said in PARTS.items()
        for place, title in PLACES.items()
        if (own := [row for row in counts.get(part, ()) if row["place"] == place])
    ]


def _map(rows: Sequence[Mapping[str, Any]], label: str) -> Markup:
    columns = sorted({row["heard"] for row in rows if row["heard"]})
    if any(not row["heard"] for row in rows):
        columns.append(LEFT_OUT)
    cells = [
        Cell(
            row["said"],
            row["heard"] or LEFT_OUT,
            row["n"] / row["of"],
            str(row["n"]),
            f"{row['said']} {'heard as ' + row['heard'] if row['heard'] else 'left out'}: "
            f"{row['n']} of {row['of']} ({percent(row['n'] / row['of'])})",
        )
        for row in rows
    ]
    return heat_map(
        cells, columns, label=label, x_label="heard (jamo)", y_label="said (jamo)", share="of those said"
    )

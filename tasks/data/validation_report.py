"""The validation stage's offline page: what was expected, what was found, what is in quarantine.

Pure: result.json and the quarantine in, HTML out. See `tasks.data.page` for what a page may contain.
"""

from typing import Any

import pandas as pd

from tasks.data.charts import histogram
from tasks.data.page import environment
from tasks.data.quarantine import where_written

SHOWN = 200  # quarantined rows on the page; all are in the Parquet file
SCHEMA = ("missing_column", "wrong_type")  # shown last when met: they are many and alike
TITLES = {  # column: (title, name of the axis, unit)
    "measured_duration_s": ("Duration", "duration", "s"),
    "characters_per_s": ("Speech rate", "speech rate", "characters/s"),
    "snr_db": ("Signal-to-noise ratio of the noisy utterances", "signal-to-noise ratio", "dB"),
    "silent_share": ("Silent share of the file", "silent share", "fraction"),
    "level_dbfs": ("Level", "level", "dBFS"),
}


def render(result: dict[str, Any], quarantine: pd.DataFrame) -> str:
    """The page.

    Args:
        result: content of result.json, without NaN.
        quarantine: the bad rows as `tasks.data.quarantine.quarantined` gives them, worst first.
    """
    charts = [
        (title, histogram(shape["edges"], shape["counts"], label=title, x_name=x_name, unit=unit))
        for name, (title, x_name, unit) in TITLES.items()
        if (shape := result["distributions"].get(name)) and shape["counts"]
    ]
    return (
        environment()
        .get_template("validation.html.j2")
        .render(
            result=result,
            answers=sorted(result["expectations"], key=lambda one: (one["passed"], one["name"] in SCHEMA)),
            passed=sum(answer["passed"] for answer in result["expectations"]),
            charts=charts,
            most=max(result["speakers"].values(), default=1),
            bad=[_row(row) for row in quarantine.head(SHOWN).to_dict("records")],
        )
    )


def _row(row: dict[Any, Any]) -> dict[str, Any]:
    details = [part.partition(": ")[::2] for part in str(row.get("details", "")).split("; ") if part]
    shown = {name: row.get(name) or "" for name in ("utterance_id", "path", "split", "speaker", "transcript")}
    written = row.get("origin_path")
    return {
        **shown,
        "details": details,
        "where": where_written(row),
        "written": written if isinstance(written, str) else "",
    }

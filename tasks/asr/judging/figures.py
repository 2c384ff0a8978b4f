"""The rates of one recogniser on any data set, with intervals, whole and by slice. Pure; no command.

Rates are pooled, (S + D + I) / N. Intervals are percentile intervals of a bootstrap that draws blocks:
speakers, or utterances where no speaker is known (`tasks.asr.quality.intervals`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from tasks.asr.judging.items import OWN
from tasks.asr.quality.intervals import rate_intervals
from tasks.asr.quality.slices import bands, worst_utterances

CONFIDENCE, RESAMPLES, SEED = 0.95, 2000, 0
LENGTH_BOUNDS_S = (2.0, 5.0, 10.0, 20.0)
SNR_BOUNDS_DB = (5.0, 15.0, 25.0)
RATES = {
    "cer": ("edits", "characters"),
    "cer_with_spaces": ("spaced_edits", "spaced_characters"),
    "wer": ("word_edits", "words"),
    "wer_space_normalised": ("respaced_word_edits", "words"),
    "cer_greedy": ("greedy_edits", "characters"),
}
"""Rate to the columns of its errors and of what they are counted against."""


def figures(table: pd.DataFrame) -> dict[str, Any]:
    """Counts, rates and intervals of a table of utterances (`tasks.asr.judging.recognise`).

    Returns:
        {"utterances", "speakers", "hours", "characters", "words", and for every rate of `RATES` the rate, a
        fraction, and "<rate>_interval": [low, high], or null where there is one block alone}. `speakers`
        counts those that are known.
    """
    intervals = rate_intervals(
        table[[errors for errors, _ in RATES.values()]].to_numpy(float),
        table[[units for _, units in RATES.values()]].to_numpy(float),
        table["block"].tolist(),
        confidence=CONFIDENCE,
        resamples=RESAMPLES,
        seed=SEED,
    )
    found: dict[str, Any] = {
        "utterances": len(table),
        "speakers": int(table.loc[table["speaker"] != "", "speaker"].nunique()),
        "hours": float(table["duration_s"].sum()) / 3600,
        "characters": int(table["characters"].sum()),
        "words": int(table["words"].sum()),
    }
    for number, (name, (errors, units)) in enumerate(RATES.items()):
        found[name] = float(table[errors].sum() / table[units].sum())
        found[f"{name}_interval"] = list(intervals[number]) if intervals else None
    return found


def slices(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The same for every subgroup: by split, length, noise, each column of the user's own, and speaker.

    Returns:
        Rows {"group", "slice", "worst": ids of the worst utterances, and what `figures` has}. A group of one
        slice says nothing new and is left out; so is a slice without utterances.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for group, name, chosen in _chosen(table):
        if chosen.any():
            own = table[chosen]
            row = {"group": group, "slice": name, **figures(own), "worst": worst_utterances(own)}
            groups.setdefault(group, []).append(row)
    return [row for rows in groups.values() if len(rows) > 1 for row in rows]


def _chosen(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series]]:
    """(group, slice, rows) in the order in which they are shown."""
    yield from _by_value("split", table["split"])
    for name, inside in bands(table["duration_s"], LENGTH_BOUNDS_S, "s"):
        yield "length", name, inside
    if table["snr_db"].notna().any():
        yield "noise", "no snr_db", table["snr_db"].isna()
        for name, inside in bands(table["snr_db"], SNR_BOUNDS_DB, "dB"):
            yield "noise", name, inside
    for column in table:
        if str(column).startswith(OWN):
            yield from _by_value(str(column).removeprefix(OWN), table[column])
    yield from _by_value("speaker", table["speaker"])


def _by_value(group: str, values: pd.Series) -> Iterator[tuple[str, str, pd.Series]]:
    for value in sorted(set(values)):
        yield group, value or "(none)", values == value

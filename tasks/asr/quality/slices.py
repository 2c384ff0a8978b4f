"""Error rates by slice, with intervals: noise, length, voice, condition, out of domain, speaker. Pure.

A slice is a subgroup of the test utterances of one system. Rates are pooled over its utterances,
(S + D + I) / N; intervals are percentile intervals of the CER by a bootstrap that draws speakers, not
utterances (`tasks.asr.quality.intervals`). A slice without utterances is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from tasks.asr.quality.intervals import rate_interval
from tasks.asr.quality.metrics import edit_counts, heard_words
from tasks.data.manifest import OUT_OF_DOMAIN
from tasks.settings import EvaluateAsr

WORST = 2  # utterances named per slice
KNOWN, UNSEEN = "test_sentences", "test_voices"


def slices(table: pd.DataFrame, params: EvaluateAsr) -> list[dict[str, Any]]:
    """Every slice of one system's table (`tasks.asr.evaluate.run_system`).

    Returns:
        Rows {"group", "slice", "utterances", "speakers", "characters", "seconds", "cer", "cer_interval",
        "cer_greedy", "cer_greedy_interval", "cer_with_spaces", "wer", "wer_space_normalised", "worst"}. Rates
        are fractions; an interval is [low, high], or null where one speaker alone said everything; `worst`
        are ids of the utterances with the highest CER, worst first, those without an error left out.
    """
    counted = count_edits(table)
    return [
        _row(group, name, counted[chosen], params)
        for group, name, chosen in _chosen(counted, params)
        if chosen.any()
    ]


def count_edits(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the edits and lengths that the rates are pooled from, one number per utterance."""
    rows = [
        _counts(reference, hypothesis, greedy)
        for reference, hypothesis, greedy in zip(
            table["reference"], table["hypothesis"], table["greedy"], strict=True
        )
    ]
    counts = pd.DataFrame(rows, index=table.index)
    return table.drop(columns=[name for name in counts.columns if name in table]).join(counts)


def _counts(reference: str, hypothesis: str, greedy: str) -> dict[str, int]:
    said, words = "".join(reference.split()), reference.split()
    heard = [word for word in heard_words(reference, hypothesis) if word] if words else hypothesis.split()
    return {
        "characters": len(said),
        "edits": edit_counts(said, "".join(hypothesis.split())).edits,
        "greedy_edits": edit_counts(said, "".join(greedy.split())).edits,
        "spaced_characters": len(reference),
        "spaced_edits": edit_counts(reference, hypothesis).edits,
        "words": len(words),
        "word_edits": edit_counts(words, hypothesis.split()).edits,
        "respaced_word_edits": edit_counts(words, heard).edits,
    }


def _chosen(table: pd.DataFrame, params: EvaluateAsr) -> Iterator[tuple[str, str, pd.Series]]:
    """(group, slice, rows) of every slice, in the order in which they are shown."""
    plain = table["condition"] == "plain"
    outside = table["split"] == OUT_OF_DOMAIN
    within = plain & ~outside
    yield "domain", "known voices", within & (table["split"] == KNOWN)
    yield "domain", "unseen voices", within & (table["split"] == UNSEEN)
    yield "domain", "out of domain", plain & outside
    yield "noise", "clean", within & table["snr_db"].isna()
    for name, inside in bands(table["snr_db"], params.snr_bounds_db, "dB"):
        yield "noise", f"noise, {name}", within & inside
    for name, inside in bands(table["duration_s"], params.length_bounds_s, "s"):
        yield "length", name, within & inside
    for condition in ("silence", "joined"):
        yield "condition", condition, (table["condition"] == condition) & ~outside
    for kind in dict.fromkeys(table.loc[plain & outside, "ood_kind"]):
        if kind:
            yield "out of domain", str(kind), plain & outside & (table["ood_kind"] == kind)
    unseen = table["speaker"].isin(set(table.loc[table["split"] == UNSEEN, "speaker"]))
    yield "out of domain", "by known voices", plain & outside & ~unseen
    yield "out of domain", "by unseen voices", plain & outside & unseen
    for speaker in sorted(set(table.loc[within, "speaker"])):
        yield "speaker", str(speaker), within & (table["speaker"] == speaker)


def bands(values: pd.Series, bounds: Sequence[float], unit: str) -> Iterator[tuple[str, pd.Series]]:
    """The values parted at the bounds; a value on a bound belongs to the band above it."""
    edges = sorted(bounds)
    yield f"under {edges[0]:g} {unit}", values < edges[0]
    for low, high in pairwise(edges):
        yield f"{low:g} to {high:g} {unit}", (values >= low) & (values < high)
    yield f"{edges[-1]:g} {unit} and more", values >= edges[-1]


def _row(group: str, name: str, own: pd.DataFrame, params: EvaluateAsr) -> dict[str, Any]:
    total = own.select_dtypes("number").sum()

    def interval(errors: str) -> list[float] | None:
        found = rate_interval(
            own[errors].tolist(),
            own["characters"].tolist(),
            own["speaker"].tolist(),
            confidence=params.confidence,
            resamples=params.resamples,
        )
        return None if found is None else list(found)

    return {
        "group": group,
        "slice": name,
        "utterances": len(own),
        "speakers": int(own["speaker"].nunique()),
        "characters": int(total["characters"]),
        "seconds": round(float(total["duration_s"]), 1),
        "cer": float(total["edits"] / total["characters"]),
        "cer_interval": interval("edits"),
        "cer_greedy": float(total["greedy_edits"] / total["characters"]),
        "cer_greedy_interval": interval("greedy_edits"),
        "cer_with_spaces": float(total["spaced_edits"] / total["spaced_characters"]),
        "wer": float(total["word_edits"] / total["words"]),
        "wer_space_normalised": float(total["respaced_word_edits"] / total["words"]),
        "worst": worst_utterances(own),
    }


def worst_utterances(own: pd.DataFrame) -> list[str]:
    """Ids of the utterances with the highest CER, worst first, those without an error left out."""
    wrong = own[own["edits"] > 0]
    order = wrong.assign(cer=wrong["edits"] / wrong["characters"]).sort_values(
        ["cer", "edits", "utterance_id"], ascending=[False, False, True]
    )
    return [str(name) for name in order["utterance_id"].head(WORST)]

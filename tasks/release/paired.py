"""Two recognisers on the same utterances: is one better? By the test that the gate decides with. Pure; no
command.

A verdict is of the second against the first. It needs speakers: utterances of one speaker are not
independent, and with few speakers no difference can ever be shown, however large it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from tasks.release.significance import EXACT_BLOCKS, Difference, paired_difference

Word = Literal["better", "no difference shown", "worse"]


def compare_recognisers(
    first: pd.DataFrame, second: pd.DataFrame, *, block: str, confidence: float, resamples: int, seed: int = 0
) -> dict[str, Any]:
    """The difference of the CER of two tables of the same items (`tasks.asr.judging.recognise`).

    Args:
        block: what the tables' column `block` holds, "speaker" or "utterance".

    Returns:
        {"metric", "first", "second": rates, "difference": second minus first, "interval": [low, high], each
        null where nothing bounds it, "p", "verdict", "blocks", "block", "method", "confidence", "resamples",
        "seed", "second_better", "second_worse", "equal": utterances, "notes"}.

    Raises:
        ValueError: the tables hold different items.
    """
    if first["row"].tolist() != second["row"].tolist() or (first["reference"] != second["reference"]).any():
        raise ValueError("a paired comparison needs the same items in the same order")
    units, blocks = first["characters"].tolist(), first["block"].tolist()
    one, other = first["edits"].tolist(), second["edits"].tolist()
    difference = paired_difference(
        other, one, units, blocks, confidence=confidence, resamples=resamples, seed=seed
    )
    changes = [b - a for a, b in zip(one, other, strict=True)]
    return {
        "metric": "cer",
        "first": sum(one) / sum(units),
        "second": sum(other) / sum(units),
        "difference": difference.value,
        "interval": [_finite(difference.low), _finite(difference.high)],
        "p": difference.p,
        "verdict": word(difference),
        "blocks": difference.blocks,
        "block": block,
        "method": difference.method,
        "confidence": confidence,
        "resamples": resamples,
        "seed": seed,
        "second_better": sum(change < 0 for change in changes),
        "second_worse": sum(change > 0 for change in changes),
        "equal": sum(change == 0 for change in changes),
        "notes": list(_notes(difference, block)),
    }


def word(difference: Difference) -> Word:
    """What the interval of a difference of error rates says: on which side of 0 all of it lies."""
    if difference.high < 0:
        return "better"
    return "worse" if difference.low > 0 else "no difference shown"


def blocks_needed(confidence: float) -> int:
    """The fewest blocks with which the exact test can show a difference at this confidence: 6 at 95%."""
    count = 1
    while math.floor(2**count * (1 - confidence) / 2 + 1e-9) < 1:
        count += 1
    return count


def _notes(difference: Difference, block: str) -> Sequence[str]:
    notes = []
    count, needed = difference.blocks, blocks_needed(difference.confidence)
    if count < min(needed, EXACT_BLOCKS):
        who = block if count == 1 else f"{block}s"
        notes.append(
            f"{count} {who} can never show a difference at {difference.confidence:.0%}, however large it is: "
            f"p cannot be under {2 / 2**count:.3g}. At least {needed} are needed"
        )
    if block == "utterance":
        notes.append(
            "no speakers are known: utterances are taken for independent, which they are not where one "
            "person says several. The interval is too narrow then; name the column of speakers "
            "(--speaker-column)"
        )
    return notes


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

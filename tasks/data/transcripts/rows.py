"""The marks of a table of transcripts: read once, counted, and what is set aside named by row. No command.

`with_marks` stands where a user's recordings become the corpus, before `corpus.readings`. The rows that it
sets aside keep their transcript and say why in the column `marks_unknown`, by which the validation stage
quarantines them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import pandas as pd

from tasks.data.text import composed
from tasks.data.transcripts.conventions import REASONS, UNKNOWN
from tasks.data.transcripts.marks import Marked, read_marks
from tasks.data.transcripts.reader import Fillers, Side

WRITTEN = "transcript_written"
"""Column of the transcripts as they came, before marks and readings; there where something was changed."""
SET_ASIDE = "marks_unknown"
"""Column of JSON, reason to marks: `{"anonymised_name": ["&name1&"]}`; "" for rows that can be used."""
_SHOWN = 8  # kinds of marks that the note names


def with_marks(
    frame: pd.DataFrame, *, version: str, side: Side, fillers: Fillers
) -> tuple[pd.DataFrame, list[str]]:
    """The frame with the marks of its transcripts read, and notes of what was done: nothing without marks.

    Args:
        frame: with a column `transcript`; values that are no text are left.
        version: id of the table of marks, or "none".
        side: of a dual transcription, the one that is taken.
        fillers: whether marked fillers stay as words.

    Raises:
        DataError: there is no table of this id.
    """
    frame = frame.drop(columns=[SET_ASIDE], errors="ignore") if version != "none" else frame
    if version == "none":
        return frame, []
    before = frame["transcript"]
    read: list[Marked | None] = [
        read_marks(composed(text), version=version, side=side, fillers=fillers)
        if isinstance(text, str)
        else None
        for text in before
    ]
    removed = Counter(name for one in read if one is not None for name in one.removed)
    aside = [_as_json(one) for one in read]
    notes = []
    if removed:
        said = [one.text if one and one.removed else old for one, old in zip(read, before, strict=True)]
        after = pd.Series(said, index=frame.index, dtype=object)
        written = frame.get(WRITTEN, before)
        frame = frame.assign(**{"transcript": after, WRITTEN: written})
        notes.append(_tell_removed(removed, sum(bool(one and one.removed) for one in read), version))
    if any(aside):
        frame = frame.assign(**{SET_ASIDE: aside})
        notes.append(_tell_aside(read))
    return frame, notes


def set_aside(frame: pd.DataFrame) -> dict[str, list[str | None]]:
    """For every reason the marks for which each row is set aside ("&name1&, &name2&"), or None."""
    values = frame[SET_ASIDE].tolist() if SET_ASIDE in frame else [""] * len(frame)
    rows = [_from_json(value) for value in values]
    return {reason: [row.get(reason) for row in rows] for reason in REASONS}


def _as_json(read: Marked | None) -> str:
    if read is None or not read.unknown:
        return ""
    found: dict[str, list[str]] = {}
    for reason, mark in read.unknown:
        found.setdefault(reason, []).append(mark)
    return json.dumps(found, ensure_ascii=False)


def _from_json(value: object) -> Mapping[str, str]:
    if not isinstance(value, str) or not value:
        return {}
    other = {UNKNOWN: value}  # written by another hand: not passed over
    try:
        found = json.loads(value)
        told = {reason: [str(mark) for mark in found[reason]] for reason in REASONS if found.get(reason)}
    except (ValueError, TypeError, AttributeError):
        return other
    return {reason: ", ".join(dict.fromkeys(marks)) for reason, marks in told.items()} or other


def _tell_removed(removed: Counter[str], rows: int, version: str) -> str:
    return (
        f"{removed.total():,} marks of {len(removed)} kinds were taken out of {rows:,} transcripts "
        f"({version}): {_counts(removed)}"
    )


def _tell_aside(read: list[Marked | None]) -> str:
    rows = sum(bool(one and one.unknown) for one in read)
    by_reason: dict[str, Counter[str]] = {}
    for one in read:
        for reason, mark in dict.fromkeys(one.unknown if one else ()):
            by_reason.setdefault(reason, Counter())[mark] += 1
    told = "; ".join(f"{reason} ({_counts(marks)})" for reason, marks in by_reason.items())
    verb = "row is" if rows == 1 else "rows are"
    return f"{rows:,} {verb} set aside for marks that are not read as words: {told}"


def _counts(counted: Counter[str]) -> str:
    shown = ", ".join(f"{name} {count:,}" for name, count in counted.most_common(_SHOWN))
    more = len(counted) - _SHOWN
    return f"{shown} and {more} kinds more" if more > 0 else shown

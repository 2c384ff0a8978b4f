"""Rows of a data set to the items of an evaluation; what cannot be one is set aside by name. Pure but for
looking whether files are there. No command.

The law: rows read = items + rows set aside, each with its reason.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from tasks.artifacts import digest_json
from tasks.asr.judging.rows import Rows
from tasks.data.normalisers import normalise
from tasks.data.own.intake import find_recordings
from tasks.data.own.paths import told
from tasks.data.own.reconciliation import BAD, place
from tasks.data.tables import ALIASES
from tasks.data.text import foreign_characters
from tasks.data.transcripts.conventions import REASONS as MARKS
from tasks.data.transcripts.rows import set_aside
from tasks.errors import DataError

REASONS = {
    "other_split": "of a split that was not asked for",
    "beyond_limit": "behind the first rows that --limit asks for",
    "no_path": "names no recording",
    "missing_file": "its recording is not there",
    "empty_transcript": "nothing is left of the transcript after normalisation",
    "not_hangul": "the normalised transcript holds characters that the normaliser could not read",
    "unreadable_file": "its recording cannot be read to its end",
    "not_recognised": "a recogniser gave no text for it",
    "unreadable_line": "its line cannot be read",
    "unclosed_quote": "a quote opens in its line and is not closed",
    "unreadable_name": "its name cannot be written",
    "transcript_without_audio": "a transcript whose recording is not there",
    "audio_without_transcript": "a recording without a transcript",
    "unknown_mark": "a mark of transcribers that is not known",
    "anonymised_name": "a mark stands for a name that is heard",
    "unclear_speech": "marked as not understood",
    "uncertain_transcription": "a word is marked as a guess",
}
assert REASONS.keys() >= BAD | MARKS.keys()
"""Why a row is no item: the words of the validation stage where it has the same rule."""
CHOSEN = ("other_split", "beyond_limit")  # no fault of the row
UNKNOWN_SPEAKER = "(unknown)"
_KEPT = (
    *("row", "where", "utterance_id", "path", "file", "split", "speaker", "block"),
    *("snr_db", "reference", "synthetic"),
)
OWN = "data."  # before the name of a column of the user's own: ours may be called the same


class SetAside(NamedTuple):
    """A row that is no item: its number from 1 (0: it never was a row), its path as written, the reason, what
    exactly, and where it is written ("line 21 of train.csv").
    """

    row: int
    path: str
    reason: str
    detail: str
    where: str = ""


class Items(NamedTuple):
    """What is evaluated.

    Attributes:
        frame: columns row, where, utterance_id, path, file, split, speaker, block, snr_db, reference,
            synthetic, and those that slices are made by, as text, their names behind `OWN`; one row per item.
        block: what is drawn in a bootstrap: "speaker", or "utterance" where no row says who speaks.
        notes: in which other forms than the written one recordings were found.
    """

    frame: pd.DataFrame
    block: str
    notes: tuple[str, ...] = ()


def choose_items(
    rows: Rows, normaliser: str, splits: Sequence[str], slice_by: Sequence[str], limit: int | None
) -> tuple[Items, list[SetAside]]:
    """The items among the rows, in their order, and the rest.

    Args:
        splits: values of the split column; none: all rows.
        slice_by: columns of the data set.
        limit: the first so many rows of these splits.

    Raises:
        DataError: a split or a column that the data set does not have.
    """
    frame = _completed(rows.frame)
    _check_splits(frame["split"], splits, rows.name)
    columns = [_column(name, frame, rows.name) for name in slice_by]
    columns = [name for name in dict.fromkeys(columns) if name not in ("split", "speaker")]
    frame["reference"] = [normalise(text, normaliser) for text in frame["transcript"]]
    found = find_recordings(frame, rows.origin, is_hub=rows.door == "hub")
    files = ["" if one.path is None else str(one.path) for one in found]
    frame["file"] = pd.Series(files, dtype=object)  # a name of other bytes than UTF-8 is no str to pandas
    frame["looked_for"] = [_printable(one.how) for one in found]
    frame["path"] = [_printable(path) for path in frame["origin_path"]]
    frame["where"] = [place(*own) for own in zip(frame["origin_file"], frame["origin_line"], strict=True)]
    frame["marks"] = pd.Series(_marks(frame), dtype=object)
    left = [
        SetAside(0, _printable(one.text), one.reason, _printable(one.why), place(one.file, one.line))
        for one in rows.aside
    ]
    kept: list[int] = []
    taken = 0
    for index, row in enumerate(frame.itertuples(index=False)):
        reason, detail = _obstacle(row, splits)
        if reason != "other_split":
            taken += 1
            if limit is not None and taken > limit:
                reason, detail = "beyond_limit", ""
        if reason:
            left.append(SetAside(index + 1, str(row.path), reason, detail, str(row.where)))
        else:
            kept.append(index)
    chosen = frame.iloc[kept].reset_index(drop=True)
    known = (chosen["speaker"] != "").any()
    speakers = chosen["speaker"].where(chosen["speaker"] != "", UNKNOWN_SPEAKER)
    chosen["block"] = speakers if known else chosen["row"].astype(str)
    own = {f"{OWN}{name}": [_printable(cell_text(value)) for value in chosen[name]] for name in columns}
    block = "speaker" if known else "utterance"
    return Items(chosen[list(_KEPT)].assign(**own), block, tuple(told(found))), left


def count_reasons(left: Iterable[SetAside]) -> dict[str, int]:
    """How many rows were set aside for each reason, in the order of `REASONS`."""
    counts = Counter(one.reason for one in left)
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def items_digest(frame: pd.DataFrame) -> str:
    """Tells this set of utterances and references from every other."""
    return digest_json(frame[["utterance_id", "path", "reference"]].to_numpy().tolist())


def _completed(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.reset_index(drop=True).copy()
    for name in ("path", "transcript", "speaker", "split", "utterance_id"):
        texts = [cell_text(value) for value in frame[name]] if name in frame else [""] * len(frame)
        cleaned = texts if name == "path" else [_printable(text.strip()) for text in texts]
        frame[name] = pd.Series(cleaned, dtype=object)
    frame["row"] = range(1, len(frame) + 1)
    ids = zip(frame["utterance_id"], frame["row"], strict=True)
    frame["utterance_id"] = [own or f"u{row - 1:06d}" for own, row in ids]
    noise = frame["snr_db"] if "snr_db" in frame else [None] * len(frame)
    frame["snr_db"] = pd.to_numeric(pd.Series(noise, index=frame.index), errors="coerce").astype(float)
    said = frame["synthetic"] if "synthetic" in frame else [""] * len(frame)
    frame["synthetic"] = [cell_text(value).strip().lower() in ("true", "1", "1.0", "yes") for value in said]
    return frame


def cell_text(value: Any) -> str:
    """A cell as text; what is no value (None, NaN) as ""."""
    is_missing = value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
    return "" if is_missing else str(value)


def _obstacle(row: Any, splits: Sequence[str]) -> tuple[str, str]:
    """Why a row is no item, and what exactly; "" where it is one."""
    if splits and row.split not in splits:
        return "other_split", row.split
    if not row.path.strip():
        return "no_path", ""
    if not row.file:
        return "missing_file", row.looked_for
    if row.marks:
        reason, marks = row.marks
        return reason, marks
    if not row.reference:
        return "empty_transcript", row.transcript
    if strange := foreign_characters(row.reference):
        return "not_hangul", " ".join(strange)
    return "", ""


def _printable(text: str) -> str:
    """The text as it can be written: what is no UTF-8 (halves of surrogate pairs) as question marks."""
    return text.encode("utf-8", "replace").decode()


def _marks(frame: pd.DataFrame) -> list[tuple[str, str] | None]:
    """The first reason, with its marks, for which a row's transcript is not what is heard; else None."""
    by_reason = set_aside(frame)
    found: list[tuple[str, str] | None] = [None] * len(frame)
    for reason, marks in reversed(by_reason.items()):
        found = [(reason, _printable(own)) if own else old for own, old in zip(marks, found, strict=True)]
    return found


def _check_splits(found: pd.Series, splits: Sequence[str], name: str) -> None:
    missing = sorted(set(splits) - set(found))
    if missing:
        there = ", ".join(sorted(set(found) - {""})) or "none: no row names one"
        raise DataError(
            f"{name} has no split {', '.join(missing)}",
            f"its splits are {there}",
            "correct --split, or leave it out to evaluate every row",
        )


def _column(name: str, frame: pd.DataFrame, where: str) -> str:
    """The column of the frame that the data set calls `name`."""
    if name in frame:
        return name
    known = next((own for own, aliases in ALIASES.items() if name in aliases and own in frame), None)
    if known is None:
        columns = [str(column) for column in frame if column not in ("row", "synthetic")]
        raise DataError(
            f"{where} has no column {name}", f"its columns are {', '.join(columns)}", "correct --slice-by"
        )
    return known

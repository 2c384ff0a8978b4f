"""The columns that the validation rules look at: a manifest joined with what was measured from its files.

Pure: no files, no Great Expectations. What concerns several rows at once (repeats, leakage) is worked out
here, so that every rule of `tasks.data.checks` looks at one column of one row.

Leakage takes the row away from the split that learns, never from the one that tests: a test set that changed
with the training data could not be compared from run to run. The order is test, then validation, then train.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from tasks.data.checks import OPTIONAL, REQUIRED, UNSEEN_VOICES
from tasks.data.ctc import LabelCount
from tasks.data.manifest import OUT_OF_DOMAIN
from tasks.data.measure import Measured
from tasks.data.normalisers import normalise
from tasks.data.text import NORMALISER_ID, unspaced
from tasks.data.transcripts.rows import set_aside

_COMPATIBILITY = re.compile("[\uf900-\ufaff]")
_RANK = {"train": 0, "validation": 1, "test_sentences": 2, "test_voices": 2, OUT_OF_DOMAIN: 2}


def enrich(
    manifest: pd.DataFrame,
    measured: Sequence[Measured],
    texts_by_id: dict[str, str],
    normaliser: str = NORMALISER_ID,
    copies: Sequence[tuple[int, int]] = (),
    count: LabelCount | None = None,
) -> pd.DataFrame:
    """The manifest with optional columns filled in and one column per question that a rule asks.

    Args:
        manifest: all REQUIRED columns, `n` rows.
        measured: `n` measurements, in the same order.
        texts_by_id: sentence id to text, for the parts of joined utterances; may be empty.
        normaliser: id of the chain that transcripts pass before they are looked at.
        copies: pairs of rows that hold one recording, by `tasks.asr.duplicates`.
        count: of the labels and frames of training; None: not asked.

    Returns:
        A frame of `n` rows with a fresh index; the manifest's own columns are unchanged.
    """
    frame = manifest.reset_index(drop=True).copy()
    for name, default in OPTIONAL.items():
        frame[name] = frame[name].where(frame[name].notna(), default) if name in frame else default
    found = pd.DataFrame(list(measured), columns=list(Measured._fields), index=frame.index)
    frame["file_state"], frame["file_detail"] = found["state"], found["detail"]
    for name in Measured._fields[2:]:
        frame[name] = found[name]
    filled = {name: frame[name].map(_is_filled) for name in REQUIRED}
    filled["sha256"] |= frame["file_state"].isin(("missing", "outside"))  # no file, so no hash of it either
    frame["empty_fields"] = _text(
        ", ".join(name for name in REQUIRED if not filled[name].iat[row]) or None for row in range(len(frame))
    )
    frame["sha256_matches"] = _where(
        frame["file_sha256"].notna(), frame["sha256"].astype(str).str.lower() == frame["file_sha256"]
    )
    readable = frame["file_state"] == "ok"
    frame["rate_matches"] = _where(readable, frame["sample_rate_hz"] == frame["measured_rate_hz"])
    frame["duration_error_s"] = frame["duration_s"] - frame["measured_duration_s"]
    transcripts = frame["transcript"].map(lambda value: value if isinstance(value, str) else "")
    frame["transcript_is_nfc"] = transcripts.map(is_nfc)
    frame["text"] = _text(normalise(transcript, normaliser) for transcript in transcripts)
    frame["characters"] = frame["text"].map(lambda text: len(unspaced(text)))
    frame["characters_per_s"] = frame["characters"] / frame["measured_duration_s"]
    for reason, marks in set_aside(frame).items():
        frame[reason] = _text(marks)
    frame["too_many_labels"] = _text(
        count.too_many(text, duration_s) if count else None
        for text, duration_s in zip(frame["text"], frame["measured_duration_s"], strict=True)
    )
    frame["tool_call_is_json"] = frame["tool_call"].map(is_tool_call)
    keep_first = _testing_first(frame)
    frame["same_id_as"] = _first_with_same(frame, ["utterance_id"], keep_first, show="path")
    frame["same_audio_as"] = _first_with_same(frame, ["audio_hash"], keep_first)
    frame["same_recording_as"] = copied_recordings(frame, copies, keep_first)
    frame["repeats"] = _first_with_same(frame, ["split", "speaker", "text"], keep_first)
    frame["leaks_sentence_of"] = leaked_sentences(
        frame, {name: normalise(text, normaliser) for name, text in texts_by_id.items()}
    )
    frame["leaks_speaker_of"] = leaked_speakers(frame)
    return frame


def is_nfc(text: str) -> bool:
    """Whether the text is composed Unicode already, compatibility Hanja (kept for their reading) aside."""
    return unicodedata.is_normalized("NFC", _COMPATIBILITY.sub("", text))


def is_tool_call(text: object) -> bool:
    """Whether the field is empty or a JSON object {"name": text, "arguments": object}."""
    if text == "":
        return True
    try:
        call = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return False
    return (
        isinstance(call, dict)
        and isinstance(call.get("name"), str)
        and isinstance(call.get("arguments"), dict)
    )


def leaked_sentences(frame: pd.DataFrame, texts_by_id: dict[str, str]) -> pd.Series:
    """For every row, the row of a later split whose sentence it holds ("test_voices u0042"), or None.

    A sentence is known by its id and by its normalised text without spaces. The parts of a joined utterance
    are known by their ids, and through `texts_by_id` (normalised as the rows are) and the single utterances
    of the manifest by their texts.
    """
    keys: list[set[str]] = []
    text_of = {name: f"text {unspaced(text)}" for name, text in texts_by_id.items()}
    single = frame[frame["joined"] == 1]
    text_of.update(
        (name, f"text {unspaced(text)}")
        for name, text in zip(single["sentence_ids"], single["text"], strict=True)
        if name
    )
    for ids, text in zip(frame["sentence_ids"], frame["text"], strict=True):
        parts = [part for part in str(ids).split("+") if part]
        own = {f"id {part}" for part in parts} | {text_of[part] for part in parts if part in text_of}
        keys.append(own | ({f"text {unspaced(text)}"} if text else set()))
    ranks = [_RANK.get(split, -1) for split in frame["split"]]
    latest: dict[str, tuple[int, int]] = {}
    for row, (own, rank) in enumerate(zip(keys, ranks, strict=True)):
        for key in own:
            if rank > latest.get(key, (-1, 0))[0]:
                latest[key] = (rank, row)
    return _text(
        _partner(frame, max((latest[key] for key in own if key in latest), default=(-1, 0)), rank)
        for own, rank in zip(keys, ranks, strict=True)
    )


def leaked_speakers(frame: pd.DataFrame) -> pd.Series:
    """For every row of train and validation by an unseen voice, a row of that voice; else None."""
    unseen = frame[frame["split"] == UNSEEN_VOICES]
    first = dict(zip(unseen["speaker"][::-1], unseen["utterance_id"][::-1], strict=True))
    return _text(
        f"{UNSEEN_VOICES} {first[speaker]}" if split in ("train", "validation") and speaker in first else None
        for split, speaker in zip(frame["split"], frame["speaker"], strict=True)
    )


def copied_recordings(frame: pd.DataFrame, copies: Sequence[tuple[int, int]], order: list[int]) -> pd.Series:
    """For every row the utterance (with its split) whose recording it holds again; None for the first in
    `order` of those that are copies of each other, and where the samples are the same (`same_audio_as`).
    """
    group = list(range(len(frame)))

    def root(row: int) -> int:
        while group[row] != row:
            row = group[row] = group[group[row]]
        return row

    for one, other in copies:
        group[root(one)] = root(other)
    kept: dict[int, int] = {}
    partners: list[str | None] = [None] * len(frame)
    for row in order:
        first = kept.setdefault(root(row), row)
        if first != row and frame["same_audio_as"].iat[row] is None:
            partners[row] = f"{frame['split'].iat[first]} {frame['utterance_id'].iat[first]}"
    return _text(partners)


def _partner(frame: pd.DataFrame, latest: tuple[int, int], rank: int) -> str | None:
    if latest[0] <= rank or rank < 0:
        return None
    return f"{frame['split'].iat[latest[1]]} {frame['utterance_id'].iat[latest[1]]}"


def _testing_first(frame: pd.DataFrame) -> list[int]:
    """Row numbers, the rows of test splits first, otherwise in the manifest's order."""
    ranks = [_RANK.get(split, -1) for split in frame["split"]]
    return sorted(range(len(frame)), key=lambda row: -ranks[row])


def _first_with_same(
    frame: pd.DataFrame, columns: list[str], order: list[int], show: str = "utterance_id"
) -> pd.Series:
    """For every row the `show` value of the first row (in `order`) with the same values; None for that row.

    Rows without a value in one of the columns are never compared.
    """
    first: dict[tuple[Any, ...], int] = {}
    partners: list[str | None] = [None] * len(frame)
    values = list(zip(*(frame[name] for name in columns), strict=True))
    for row in order:
        if all(_is_filled(value) for value in values[row]):
            kept = first.setdefault(values[row], row)
            if kept != row:
                partners[row] = str(frame[show].iat[kept])
    return _text(partners)


def _is_filled(value: object) -> bool:
    return value is not None and value == value and value != ""  # NaN differs from itself


def _where(condition: pd.Series, values: pd.Series) -> pd.Series:
    """`values` where the condition holds, else None: a question that cannot be asked is not failed."""
    return pd.Series(
        [bool(value) if known else None for known, value in zip(condition, values, strict=True)],
        index=values.index,
        dtype=object,
    )


def _text(values: Iterable[str | None]) -> pd.Series:
    return pd.Series(list(values), dtype=object)

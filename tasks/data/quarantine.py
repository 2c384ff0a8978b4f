"""Quarantine: the bad rows of a manifest, with the reasons for each and what was found. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from tasks.data.expectations import Outcome
from tasks.data.own.reconciliation import place
from tasks.data.transcripts.conventions import REASONS as SET_ASIDE_FOR

MEASURES = (
    "file_state",
    "measured_duration_s",
    "measured_rate_hz",
    "channels",
    "silent_share",
    "clipped_share",
)
FOUND = {  # column: how a bad value of it is told
    "empty_fields": "no {}",
    "same_id_as": "also of {}",
    "measured_rate_hz": "{:.0f} Hz",
    "channels": "{:.0f} channels",
    "measured_duration_s": "{:.2f} s",
    "duration_error_s": "the manifest says {:+.2f} s",
    "silent_share": "{:.0%} silent",
    "clipped_share": "{:.1%} at full scale",
    "text": "“{:.120}”",
    "characters_per_s": "{:.1f} characters/s",
    "same_audio_as": "the samples of {}",
    "same_recording_as": "the recording of {}",
    "repeats": "as {}",
    "leaks_sentence_of": "sentence of {}",
    "leaks_speaker_of": "voice of {}",
    **dict.fromkeys((*SET_ASIDE_FOR, "too_many_labels"), "{:.120}"),
}

WORDS = 10  # unread words that a message names
_HANGUL = re.compile("[가-힣]+")


def reasons_by_row(outcomes: Sequence[Outcome], rows: int) -> list[list[str]]:
    """For every row the reasons of the rules that it breaks, in the order of the rules."""
    reasons: list[list[str]] = [[] for _ in range(rows)]
    for outcome in outcomes:
        for row in outcome.failing_rows:
            reasons[row].append(outcome.rule.reason)
    return reasons


def quarantined(
    frame: pd.DataFrame, outcomes: Sequence[Outcome], reasons: Sequence[Sequence[str]], columns: Sequence[str]
) -> pd.DataFrame:
    """The bad rows, worst first: manifest columns, measures, `reasons` ("silent, not_mono") and `details`."""
    details: dict[int, list[str]] = {}
    for outcome in outcomes:
        for row in outcome.failing_rows:
            details.setdefault(row, []).append(f"{outcome.rule.reason}: {describe(frame, outcome, row)}")
    rows = sorted(details, key=lambda row: (-len(details[row]), row))
    bad = frame.loc[rows, [*columns, *(name for name in MEASURES if name not in columns)]].copy()
    bad["reasons"] = [", ".join(reasons[row]) for row in rows]
    bad["details"] = ["; ".join(details[row]) for row in rows]
    return bad.reset_index(drop=True)


def with_lines(quarantine: pd.DataFrame, lines: pd.DataFrame) -> pd.DataFrame:
    """The quarantine with the lines that the door set aside as bad behind its rows: they became no row.

    Args:
        lines: rows of set_aside.parquet; their text stands as the transcript.
    """
    if lines.empty:
        return quarantine
    extra = pd.DataFrame(
        {
            "utterance_id": "",
            "path": "",
            "split": "",
            "speaker": "",
            "transcript": lines["text"].astype(object),
            "origin_file": lines["file"].astype(object),
            "origin_line": lines["line"],
            "reasons": lines["reason"].astype(object),
            "details": [
                f"{reason}: {str(why).replace('; ', ', ')}"
                for reason, why in zip(lines["reason"], lines["why"], strict=True)
            ],
        }
    )
    return pd.concat([quarantine, extra], ignore_index=True)


def where_written(row: Mapping[Any, Any]) -> str:
    """Where a row of a manifest or the quarantine was written: "line 21 of train.csv"; "" if nobody knows."""
    file, line = row.get("origin_file"), row.get("origin_line")
    if not isinstance(file, str) or not file:
        return ""
    return place(file, int(line) if isinstance(line, int | float) and line == line else 0)


def describe(frame: pd.DataFrame, outcome: Outcome, row: int) -> str:
    """What was found in a row that breaks a rule, for readers."""
    column = outcome.rule.column
    if column == "file_state":
        return _describe_file(frame, row)
    if column == "sha256_matches":
        found, wanted = str(frame["file_sha256"].iat[row]), str(frame["sha256"].iat[row])
        return f"the file has {found[:12]}…, not {wanted[:12]}…"
    if column == "rate_matches":
        return f"{frame['measured_rate_hz'].iat[row]:.0f} Hz, not {frame['sample_rate_hz'].iat[row]} Hz"
    if column == "transcript_is_nfc":
        return f"{frame['transcript'].iat[row]!r} is decomposed"
    if column == "tool_call_is_json":
        return repr(frame["tool_call"].iat[row])[:80]
    return FOUND.get(column, "{!s:.120}").format(frame[column].iat[row])


def _describe_file(frame: pd.DataFrame, row: int) -> str:
    """What is wrong with a file, under the path that its user wrote."""
    said = str(frame["file_detail"].iat[row])
    written = frame["origin_path"].iat[row] if "origin_path" in frame else None
    if not isinstance(written, str) or not written:
        return said
    detail = frame["origin_detail"].iat[row] if "origin_detail" in frame else None
    more = f", {detail}" if isinstance(detail, str) and detail else ""
    joint = "" if said.startswith(("is ", "has ", "holds ", "cannot ", "was ")) else ":"
    return f"{written!r}{joint} {said}{more}".replace("; ", ", ")


def unread_words(texts: Iterable[str]) -> dict[str, int]:
    """Words of normalised texts that are not written in Hangul, and how often each occurs; most first."""
    counts = Counter(word for text in texts for word in text.split() if not _HANGUL.fullmatch(word))
    return dict(counts.most_common())


def tell_unread(words: Mapping[str, int], normaliser: str) -> str:
    """Names the commonest of `unread_words`, and what to do about them."""
    shown = ", ".join(f"{word} ({count})" for word, count in list(words.items())[:WORDS])
    more = f" and {len(words) - WORDS} more" if len(words) > WORDS else ""
    return (
        f"{len(words)} words are read out by no step of {normaliser}: {shown}{more}. "
        "Say how they are spoken in a table (corpus.readings), or write the transcripts as spoken"
    )

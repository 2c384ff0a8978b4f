"""Transcriptions as text, JSON, SubRip, WebVTT and Praat TextGrid. Pure functions, no command.

Formats: SubRip as players read it; WebVTT (W3C); TextGrid, long text format (Praat manual, "TextGrid file
formats"). Times are rounded to the millisecond, TextGrid's to the microsecond.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tasks.asr.recordings.clipping import clipping_warnings

PAUSE_S = 0.6  # a longer one begins a new cue
CUE_S = 7.0  # a cue is not longer, unless it is one word
_READABLE_S = 1.0  # a cue stays so long where the next one leaves room


class Interval(NamedTuple):
    """A word or character, from `start_s` to `end_s` (seconds), with a `confidence` from 0 to 1."""

    text: str
    start_s: float
    end_s: float
    confidence: float


class Cue(NamedTuple):
    """A subtitle."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Transcription:
    """What a recording says and when.

    Attributes:
        path: as it was given or found; "-" for standard input.
        duration_s: of the recording, in seconds.
        text: final; its words are `words`.
        greedy: what the recogniser alone says, without n-gram model.
        confidence: mean over the characters, None without any.
        model_sha256: of the model file.
        clipped_share: samples of the recording at full scale.
        notes: sentences about what was put right while it was read.
    """

    path: str
    duration_s: float
    text: str
    greedy: str
    words: tuple[Interval, ...]
    characters: tuple[Interval, ...]
    confidence: float | None
    model_sha256: str
    clipped_share: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> Sequence[str]:
        """What is wrong with a recording that was transcribed all the same, and what was put right."""
        return (*clipping_warnings(self.path, self.clipped_share), *self.notes)


def as_line(transcription: Transcription, several: bool) -> str:
    """The bare text, after path and tab where there are `several`; one line."""
    return f"{transcription.path}\t{transcription.text}\n" if several else f"{transcription.text}\n"


def as_json(transcriptions: Sequence[Transcription], model: str = "") -> str:
    """A JSON list (docs/how-to/transcribe.md has the keys); `model` is what the recogniser is called."""
    rows = [
        {
            "path": t.path,
            "duration_s": round(t.duration_s, 3),
            "text": t.text,
            "greedy": t.greedy,
            "confidence": None if t.confidence is None else round(t.confidence, 4),
            "words": [_row(interval) for interval in t.words],
            "characters": [_row(interval) for interval in t.characters],
            "model": model,
            "model_sha256": t.model_sha256,
            "clipped_share": round(t.clipped_share, 4),
            "warnings": list(t.warnings),
        }
        for t in transcriptions
    ]
    return json.dumps(rows, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _row(interval: Interval) -> dict[str, Any]:
    return {
        "text": interval.text,
        "start_s": round(interval.start_s, 3),
        "end_s": round(interval.end_s, 3),
        "confidence": round(interval.confidence, 4),
    }


def cues(words: Sequence[Interval]) -> list[Cue]:
    """Subtitles: words up to a pause, or up to 7 s."""
    groups: list[list[Interval]] = []
    for word in words:
        own = groups[-1] if groups else []
        if own and word.start_s - own[-1].end_s < PAUSE_S and word.end_s - own[0].start_s <= CUE_S:
            own.append(word)
        else:
            groups.append([word])
    found = []
    for index, group in enumerate(groups):
        start_s, end_s = group[0].start_s, group[-1].end_s
        next_s = groups[index + 1][0].start_s if index + 1 < len(groups) else end_s + _READABLE_S
        end_s = max(end_s, min(start_s + _READABLE_S, next_s))
        found.append(Cue(" ".join(word.text for word in group), start_s, end_s))
    return found


def as_srt(transcription: Transcription) -> str:
    """SubRip; nothing at all where nothing is said."""
    return "\n".join(
        f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{cue.text}\n"
        for number, cue in enumerate(cues(transcription.words), 1)
    )


def as_vtt(transcription: Transcription) -> str:
    """WebVTT; a header alone where nothing is said."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcription.words):
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{text}\n")
    return "\n".join(blocks)


def _clock(seconds: float, point: str) -> str:
    whole, ms = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{point}{ms:03d}"


def as_textgrid(transcription: Transcription) -> str:
    """Praat's long text format: interval tiers `words` and `characters`, without gaps from 0 to the end."""
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {_praat(transcription.duration_s)}",
        "tiers? <exists>",
        "size = 2",
        "item []:",
    ]
    tiers = (("words", transcription.words), ("characters", transcription.characters))
    for number, (name, intervals) in enumerate(tiers, 1):
        filled = _filled(intervals, transcription.duration_s)
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f'        name = "{name}"',
            "        xmin = 0",
            f"        xmax = {_praat(transcription.duration_s)}",
            f"        intervals: size = {len(filled)}",
        ]
        for index, (start_s, end_s, text) in enumerate(filled, 1):
            quoted = text.replace('"', '""')
            lines += [
                f"        intervals [{index}]:",
                f"            xmin = {_praat(start_s)}",
                f"            xmax = {_praat(end_s)}",
                f'            text = "{quoted}"',
            ]
    return "\n".join(lines) + "\n"


def _filled(intervals: Sequence[Interval], duration_s: float) -> list[tuple[float, float, str]]:
    """The intervals with empty ones between; Praat knows none without length, so such are left out."""
    found, at = [], 0.0
    for interval in intervals:
        start_s, end_s = max(at, interval.start_s), min(interval.end_s, duration_s)
        if round(end_s - start_s, 6) <= 0:
            continue
        if round(start_s - at, 6) > 0:
            found.append((at, start_s, ""))
        else:
            start_s = at
        found.append((start_s, end_s, interval.text))
        at = end_s
    if round(duration_s - at, 6) > 0 or not found:
        found.append((at, duration_s, ""))
    return found


def _praat(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")

"""What is written is read back, as a player, a browser, Praat or a program would."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from tasks.asr.recordings.formats import (
    Interval,
    Transcription,
    as_json,
    as_line,
    as_srt,
    as_textgrid,
    as_vtt,
    cues,
)


def said(*words: tuple[str, float, float], duration_s: float = 10.0) -> Transcription:
    intervals = tuple(Interval(text, start_s, end_s, 0.5) for text, start_s, end_s in words)
    characters = tuple(
        Interval(c, w.start_s + (w.end_s - w.start_s) * i / len(w.text), w.end_s, 0.5)
        for w in intervals
        for i, c in enumerate(w.text[-1])
    )
    text = " ".join(word for word, *_ in words)
    return Transcription(
        "a.wav", duration_s, text, text, intervals, characters, 0.5 if words else None, "f" * 64
    )


NOTHING = said()


def clock(text: str) -> float:
    hours, minutes, seconds = text.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def read_srt(text: str) -> list[tuple[int, float, float, str]]:
    pattern = r"(\d+)\n(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})\n(.+)\n(?:\n|\Z)"
    assert re.sub(pattern, "", text) == ""
    return [(int(n), clock(a), clock(b), said) for n, a, b, said in re.findall(pattern, text)]


def read_textgrid(text: str) -> dict[str, list[tuple[float, float, str]]]:
    tiers = {}
    for part in re.split(r"\n    item \[\d\]:", text)[1:]:
        (name,) = re.findall(r'name = "(.*)"', part)
        pattern = r'xmin = (\S+)\n            xmax = (\S+)\n            text = "(.*)"(?:\n|\Z)'
        tiers[name] = [(float(a), float(b), t.replace('""', '"')) for a, b, t in re.findall(pattern, part)]
        assert f"intervals: size = {len(tiers[name])}\n" in part
    return tiers


def test_subtitles_break_at_pauses() -> None:
    found = read_srt(as_srt(said(("불", 1.0, 1.5), ("켜", 1.6, 2.0), ("줘", 3661.25, 3662.5))))
    assert found == [(1, 1.0, 2.0, "불 켜"), (2, 3661.25, 3662.5, "줘")]


def test_subtitles_last_seven_seconds_at_most() -> None:
    words = [(f"말{i}", i * 0.5, i * 0.5 + 0.45) for i in range(100)]
    found = read_srt(as_srt(said(*words)))
    assert all(end - start <= 7.0 for _, start, end, _ in found)
    assert " ".join(text for *_, text in found) == " ".join(word for word, *_ in words)
    assert len(found) == 8


def test_a_short_subtitle_stays_until_the_next() -> None:
    found = cues(said(("네", 1.0, 1.1), ("아니", 1.8, 1.9), ("네", 9.0, 9.1)).words)
    assert [(cue.start_s, cue.end_s) for cue in found] == [(1.0, 1.8), (1.8, 2.8), (9.0, 10.0)]


def test_vtt_escapes_what_it_would_read_as_markup() -> None:
    text = as_vtt(said(("<b>&", 1.0, 2.5)))
    assert text == "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\n&lt;b&gt;&amp;\n"


@pytest.mark.parametrize(
    ("transcription", "shown"),
    [
        (NOTHING, []),
        (said(("가", 0.0, 1.0), ("나", 1.0, 10.0)), ["가", "나"]),
        (said(("가", 0.5, 1.0), ('"나"', 1.25, 2.0)), ["가", '"나"']),
        (said(("가", 0.5, 12.0), ("나", 12.5, 13.0)), ["가"]),  # beyond the end: shorter than a frame
        (said(("가", 0.5, 2.0), ("나", 1.5, 3.0)), ["가", "나"]),
        (said(("가", 0.5, 3.0), ("나", 1.5, 2.0)), ["가"]),
    ],
)
def test_praat_finds_no_gap_and_no_overlap(transcription: Transcription, shown: list[str]) -> None:
    tiers = read_textgrid(as_textgrid(transcription))
    assert list(tiers) == ["words", "characters"]
    for intervals in tiers.values():
        assert intervals[0][0] == 0.0 and intervals[-1][1] == 10.0
        assert all(a[1] == b[0] for a, b in pairwise(intervals))
        assert all(start < end for start, end, _ in intervals)
    assert [text for _, _, text in tiers["words"] if text] == shown


def test_json_is_read_back_with_null_for_no_confidence() -> None:
    rows = json.loads(as_json([said(("가나", 0.1234, 0.5678)), NOTHING]))
    assert rows[0]["words"] == [{"text": "가나", "start_s": 0.123, "end_s": 0.568, "confidence": 0.5}]
    assert rows[1]["words"] == [] and rows[1]["confidence"] is None and rows[1]["text"] == ""
    assert set(rows[0]) == {
        "path", "duration_s", "text", "greedy", "confidence", "words", "characters", "model",
        "model_sha256", "clipped_share", "warnings",
    }  # fmt: skip


def test_one_recording_is_bare_text_and_several_have_their_path() -> None:
    one = replace(NOTHING, text="불 켜 줘")
    assert as_line(one, several=False) == "불 켜 줘\n"
    assert as_line(one, several=True) == "a.wav\t불 켜 줘\n"


def test_nothing_said_is_a_file_that_opens() -> None:
    assert as_srt(NOTHING) == "" and as_vtt(NOTHING) == "WEBVTT\n"

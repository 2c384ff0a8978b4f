"""What a recogniser writes is whole syllables or letters that stand alone, wherever it becomes text."""

import json
import os
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.asr.checkpoints.vocabulary import JAMO, SPACE, SPECIAL, Vocabulary
from tasks.asr.decoding.align import Span, best_path, spell
from tasks.asr.decoding.decode import BeamSearch, greedy
from tasks.asr.quality.jamo import confusions
from tasks.asr.quality.metrics import cer
from tasks.asr.recordings.formats import (
    Interval,
    Transcription,
    as_json,
    as_line,
    as_srt,
    as_textgrid,
    as_vtt,
)
from tasks.asr.streaming.text import GrowingText
from tasks.data.transcripts.jamo import visible

EXAMPLES = int(os.environ.get("MALGIL_FUZZ_EXAMPLES", "200"))
VOCABULARY = Vocabulary.of_jamo()
BARE = "ᅡ이머"  # what telephone audio gave
LABELS = st.lists(st.integers(1, len(VOCABULARY.symbols) - 1), max_size=30)


def labels_of(text: str) -> list[int]:
    return [VOCABULARY.ids[SPACE if c == " " else c] for c in unicodedata.normalize("NFD", text)]


def logits_of(labels: list[int]) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Frames that surely say the labels, a blank between."""
    logits = np.zeros((2 * len(labels) + 1, len(VOCABULARY.symbols)), np.float32)
    logits[0::2, VOCABULARY.blank_id] = 20.0
    for frame, label in enumerate(labels):
        logits[2 * frame + 1, label] = 20.0
    return logits


def conjoining(text: str) -> list[str]:
    blocks = ((0x1100, 0x11FF), (0xA960, 0xA97F), (0xD7B0, 0xD7FF))
    return [c for c in text if any(first <= ord(c) <= last for first, last in blocks)]


def spelled(labels: list[int]) -> list[str]:
    """Words as `transcribe` makes them of labels."""
    symbols = [VOCABULARY.symbols[label] for label in labels]
    texts = [" " if s == SPACE else "" if s in SPECIAL else s for s in symbols]
    words = spell(texts, [Span(i, i + 1, 0.5) for i in range(len(labels))])
    return ["".join(character.text for character in word) for word in words]


@pytest.mark.parametrize(
    ("heard", "read"),
    [
        (BARE, "ㅏ이머"),
        ("가ᅡ", "가ㅏ"),
        ("ᄀ", "ㄱ"),
        ("각ᆨ", "각ㄱ"),
        ("ᆪᆬᆭᆰᆱᆲᆳᆴᆵᆶᆹ", "ㄳㄵㄶㄺㄻㄼㄽㄾㄿㅀㅄ"),
        ("각", "각"),
        ("켜 줘", "켜 줘"),
        ("ᄛᆞ", "ㄹㆍ"),  # a light consonant is its plain letter
        ("ᄀ\u1160", "ㄱ"),
        ("a é 京", "a é 京"),
    ],
)
def test_a_jamo_without_a_syllable_is_read_as_its_letter(heard: str, read: str) -> None:
    assert visible(heard) == read
    assert visible(read) == read


def test_every_jamo_of_the_vocabulary_is_one_letter() -> None:
    assert all(len(visible(jamo)) == 1 and not conjoining(visible(jamo)) for jamo in JAMO)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.text(st.characters(min_codepoint=0x1100, max_codepoint=0x11FF) | st.sampled_from("가각 a")))
def test_no_text_keeps_a_conjoining_jamo(text: str) -> None:
    assert conjoining(visible(text)) == []
    assert visible(visible(text)) == visible(text)


def test_all_decoders_write_letters() -> None:
    labels = labels_of(BARE)
    logits = logits_of(labels)
    growing = GrowingText(VOCABULARY)
    for frame, label in enumerate(logits.argmax(-1).tolist()):
        growing.add(label, frame)
        assert conjoining("".join(growing.split())) == []
    assert {
        VOCABULARY.decode(labels),
        greedy(logits, VOCABULARY),
        BeamSearch(None, VOCABULARY).text(logits),
        "".join(growing.split()),
        *spelled(best_path(logits)[0]),
    } == {"ㅏ이머"}


def test_subtitles_json_and_text_grids_hold_no_conjoining_jamo() -> None:
    labels = labels_of(f"{BARE} 켜 줘")
    texts = [" " if (s := VOCABULARY.symbols[label]) == SPACE else s for label in labels]
    words = spell(texts, [Span(i, i + 1, 0.5) for i in range(len(labels))])
    intervals = [[Interval(c.text, c.start / 50, c.end / 50, c.confidence) for c in word] for word in words]
    said = [Interval("".join(c.text for c in own), own[0].start_s, own[-1].end_s, 0.5) for own in intervals]
    characters = tuple(c for own in intervals for c in own)
    text = " ".join(word.text for word in said)
    made = Transcription("a.wav", 1.0, text, VOCABULARY.decode(labels), tuple(said), characters, 0.5, "")
    for form in (as_line(made, False), as_json([made]), as_srt(made), as_vtt(made), as_textgrid(made)):
        assert "ㅏ이머" in form
        assert conjoining(form) == []
    (row,) = json.loads(as_json([made]))
    assert [c["text"] for c in row["characters"]] == list(row["text"].replace(" ", ""))


@settings(max_examples=EXAMPLES, deadline=None)
@given(LABELS)
def test_characters_with_times_are_those_of_the_text(labels: list[int]) -> None:
    assert " ".join(spelled(labels)) == VOCABULARY.decode(labels)


@settings(max_examples=EXAMPLES, deadline=None)
@given(LABELS)
def test_what_a_stream_has_committed_stays(labels: list[int]) -> None:
    growing, committed = GrowingText(VOCABULARY), ""
    for frame, label in enumerate(label for one in labels for label in (one, VOCABULARY.blank_id)):
        growing.add(label, frame)
        stays, may_change = growing.split()
        assert stays.startswith(committed)
        assert conjoining(stays + may_change) == []
        committed = stays


def test_error_rates_stay_and_a_letter_is_not_confused_with_itself() -> None:
    reference, before = "타이머 꺼 줘", f"{BARE} 꺼 줘"
    assert cer([reference], [visible(before)]) == cer([reference], [unicodedata.normalize("NFC", before)])
    rows = confusions([reference], [visible(before)])
    assert [(row["kind"], row["said"], row["heard"]) for row in rows] == [("deletion", "ㅌ", "")]

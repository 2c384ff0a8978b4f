"""Partial and final texts: what is committed stays, whatever the sizes of the feeds; silence ends a segment."""

import io
import json
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from flows.cli import app
from tasks.asr.checkpoints.checkpoint import Vocabulary
from tasks.asr.decoding.decode import BeamSearch
from tasks.asr.decoding.language_model import estimate
from tasks.asr.recordings.windows import Grid
from tasks.asr.streaming.recogniser import Final, Partial, StreamingRecognizer
from tasks.asr.streaming.source import from_bytes
from tasks.asr.streaming.text import GrowingText
from tasks.errors import DataError, MissingDependencyError

Array = np.ndarray[Any, Any]
JAMO = Vocabulary.of_jamo()


class Heard:
    """A frame is 320 samples; its label is written in the first of them, in thousandths. Chunks of 7 frames."""

    mode = "test"
    grid = Grid(320, 320)
    latency_s = 0.14

    def __init__(self) -> None:
        self.waiting = np.zeros(0, np.float32)

    def accept(self, audio: Array) -> list[Array]:
        self.waiting = np.concatenate([self.waiting, audio])
        return [self._take(7) for _ in range(len(self.waiting) // (7 * 320))]

    def finish(self) -> list[Array]:
        frames = len(self.waiting) // 320
        return [self._take(frames)] if frames else []

    def _take(self, frames: int) -> Array:
        labels = np.round(self.waiting[: frames * 320 : 320] * 1000).astype(int)
        self.waiting = self.waiting[frames * 320 :]
        return np.eye(len(JAMO.symbols), dtype=np.float32)[labels] * 9


def spoken(text: str) -> Array:
    """Two frames per symbol and a blank one; "." is half a second of blank."""
    labels: list[int] = []
    for piece in text:
        symbols = JAMO.encode(piece) if piece != "." else []
        labels += [label for symbol in symbols for label in (symbol, symbol, 0)] or [0] * 25
    audio = np.zeros(len(labels) * 320, np.float32)
    audio[::320] = np.array(labels) / 1000
    return audio


def run(
    audio: Array, seed: int | None, search: BeamSearch | None = None, **how: Any
) -> tuple[list[Partial], Final]:
    rng = np.random.default_rng(seed)
    recogniser = StreamingRecognizer(Heard(), JAMO, search, **how)
    partials, at = [], 0
    while at < len(audio):
        size = len(audio) if seed is None else int(rng.choice([1, 50, 320, 3_333, 20_000]))
        partials += recogniser.feed(audio[at : at + size])
        at += size
    final = recogniser.finish()
    return [*partials, *final.partials], final


def search() -> BeamSearch:
    said = [[JAMO.symbols[label] for label in JAMO.encode("불을 꺼 줘")]]
    return BeamSearch(estimate(said * 3, JAMO.symbols), JAMO)


SPEECH = "불을 꺼 줘...거실 값 닭이 앉아 있다...음악"


@pytest.mark.parametrize("searched", [False, True])
def test_committed_text_never_changes(searched: bool) -> None:
    audio = spoken(SPEECH * 2)
    how: dict[str, Any] = {"search": search() if searched else None, "longest_s": 1.6}
    reference = run(audio, None, **how)[1]
    assert len(reference.segments) > 5  # five by their pauses, and some are too long
    for seed in range(6):
        partials, final = run(audio, seed, **how)
        assert final.segments == reference.segments
        committed: dict[int, str] = {}
        closed: set[int] = set()
        for partial in partials:
            assert partial.segment not in closed, "nothing comes after a final text"
            assert partial.committed.startswith(committed.get(partial.segment, ""))
            committed[partial.segment] = partial.committed
            if partial.final:
                closed.add(partial.segment)
                assert not partial.tentative
        assert [committed[number] for number in range(len(final.segments))] == [
            s.text for s in final.segments
        ]


def test_greedy_text_is_that_of_the_whole_and_grows_before_the_end() -> None:
    partials, final = run(spoken(SPEECH), 0)
    assert [segment.text for segment in final.segments] == ["불을 꺼 줘", "거실 값 닭이 앉아 있다", "음악"]
    assert final.text == "불을 꺼 줘 거실 값 닭이 앉아 있다 음악"
    assert any(p.committed and not p.final for p in partials)
    long, _ = run(spoken("가나다라마바사아자차카타파하" * 3), 0, longest_s=2.0)
    assert "".join(p.committed for p in long if p.final) == "가나다라마바사아자차카타파하" * 3


def test_a_syllable_is_open_until_nothing_can_join_it() -> None:
    text = GrowingText(JAMO)
    shown = []
    for frame, label in enumerate(JAMO.encode("각아 나")):
        text.add(label, frame)
        shown.append(text.split())
    assert shown[:3] == [("", "ㄱ"), ("", "가"), ("", "각")]
    assert shown[3] == ("각", "ㅇ")
    assert shown[5] == ("각아", "")


def test_silence_ends_a_segment_and_says_when() -> None:
    audio = spoken("..불..켜.줘....")
    partials, final = run(audio, 1, silence_s=0.8)
    assert [s.text for s in final.segments] == ["불", "켜줘"]
    first, second = final.segments
    assert first.start_s == pytest.approx(1.0, abs=0.03)
    assert first.end_s == pytest.approx(1.0 + 8 * 0.02, abs=0.05)
    assert second.start_s == pytest.approx(2.0 + 9 * 0.02, abs=0.05)
    ends = [p.heard_s - p.end_s for p in partials if p.final]
    assert 0.8 <= ends[0] < 0.8 + 20_000 / 16_000 + 0.2
    assert [s.text for s in run(audio, 1, silence_s=0.4)[1].segments] == ["불", "켜", "줘"]
    assert run(spoken("....."), 1)[1].segments == ()


def test_the_search_hears_a_segment_at_its_end() -> None:
    partials, final = run(spoken("불을 거 줘....불을 꺼 줘"), 2, search=search())
    assert final.segments[0].greedy == "불을 거 줘"
    assert all(not p.committed for p in partials if not p.final)
    assert final.segments[1].text == "불을 꺼 줘"


def test_bad_samples_are_named_and_leave_the_stream_as_it_was() -> None:
    audio = spoken("불을 꺼 줘")
    recogniser = StreamingRecognizer(Heard(), JAMO)
    assert recogniser.feed(np.zeros(0, np.float32)) == []
    for bad, message in (
        (np.array([0.0, np.nan], np.float32), "NaN"),
        (np.zeros(5, np.int16), "int16"),
        (np.zeros((2, 5), np.float32), r"\(2, 5\)"),
        ([0.0, 1.0], "list"),
    ):
        with pytest.raises(DataError, match=message):
            recogniser.feed(bad)  # type: ignore[arg-type]
    recogniser.feed(audio)
    assert recogniser.finish().text == "불을 꺼 줘"
    with pytest.raises(DataError, match="ended"):
        recogniser.feed(audio)
    with pytest.raises(DataError, match="ended"):
        recogniser.finish()
    assert StreamingRecognizer(Heard(), JAMO).finish().text == ""
    with pytest.raises(DataError, match="silence_s"):
        StreamingRecognizer(Heard(), JAMO, silence_s=0.0)


def wav_bytes(samples: Array, rate_hz: int, channels: int) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.repeat(samples, channels).astype("<i2").tobytes())
    return content.getvalue()


def test_standard_input_is_raw_samples_or_a_wav_file() -> None:
    samples = (np.sin(np.arange(20_001) / 30) * 8_000).astype("<i2")
    expected = samples / np.float32(32_768)
    for content in (samples.tobytes(), wav_bytes(samples, 16_000, 1), wav_bytes(samples, 16_000, 2)):
        assert np.array_equal(np.concatenate(list(from_bytes(io.BytesIO(content)))), expected)
    doubled = np.concatenate(list(from_bytes(io.BytesIO(wav_bytes(np.repeat(samples, 2), 32_000, 2)))))
    assert len(doubled) == pytest.approx(20_001, abs=2)
    assert np.abs(doubled[100:19_900] - expected[100:19_900]).max() < 0.01
    for content, message in (
        (b"fLaC" + bytes(100), "FLAC"),
        (samples.tobytes() + b"\x01", "1 bytes"),
        (wav_bytes(samples, 16_000, 1)[:36], "without a data chunk"),
    ):
        with pytest.raises(DataError, match=message):
            list(from_bytes(io.BytesIO(content)))


def test_the_command_prints_partials_and_delays(encoder: Path, tmp_path: Path) -> None:
    audio = (np.random.default_rng(0).standard_normal(40_000) * 0.1).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", audio, 16_000)
    command = ["asr", "stream", "--model", str(encoder)]
    said = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "a.wav")], catch_exceptions=False)
    assert said.exit_code == 0
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert lines[-1]["mode"] == "windowed" and lines[-1]["audio_s"] == 2.5
    assert [line["segment"] for line in lines[:-1]] == sorted(line["segment"] for line in lines[:-1])
    finals = [line["committed"] for line in lines[:-1] if line["final"]]
    assert lines[-1]["text"] == " ".join(text for text in finals if text)
    raw = (audio * 32_767).astype("<i2").tobytes()
    piped = CliRunner().invoke(app, [*command, "-"], input=raw, catch_exceptions=False)
    assert piped.exit_code == 0 and "real time" in piped.stderr
    assert lines[-1]["warnings"] == [] and "warning" not in piped.stderr
    loud = CliRunner().invoke(
        app, [*command, "-", "--json"], input=b"\xff\x7f" * 16_000, catch_exceptions=False
    )
    ended = json.loads(loud.stdout.splitlines()[-1])
    assert ended["clipped_share"] == 1.0
    assert "standard input is clipped: 100.0% of its samples" in ended["warnings"][0]
    assert ended["warnings"][0] in loud.stderr
    with pytest.raises(DataError, match="needs one of"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def test_a_microphone_needs_its_package(monkeypatch: pytest.MonkeyPatch, encoder: Path) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    command = ["asr", "stream", "--microphone", "--model", str(encoder)]
    with pytest.raises(MissingDependencyError, match="pip install sounddevice"):
        CliRunner().invoke(app, command, catch_exceptions=False)

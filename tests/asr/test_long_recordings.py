"""Recordings longer than a window: the text, times and level of the whole, in memory that does not grow."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tasks.asr import transcribe
from tasks.asr.decoding.align import Span
from tasks.asr.engines.torch_acoustic import TorchAcoustic
from tasks.asr.recordings.recording import BLOCK_FRAMES
from tasks.asr.training.augment import normalised
from tasks.data.audio import read_audio
from tests.asr.audible_symbols import GRID, Heard, babble, run, spoken

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("window_s", [1.3, 4.0, 20.0, 400.0])
def test_windows_change_neither_a_word_nor_a_time(tmp_path: Path, window_s: float) -> None:
    words = spoken(babble(200), tmp_path / "long.wav")
    (found,) = run([tmp_path / "long.wav"], Heard(), window_s, overlap_s=window_s / 5)
    assert found.duration_s > 60
    assert [(word.text, word.start_s) for word in found.words] == words
    assert found.text == found.greedy == " ".join(word for word, _ in words)
    assert "".join(character.text for character in found.characters) == found.text.replace(" ", "")
    assert found.words[0].end_s - found.words[0].start_s == pytest.approx(
        0.02 * (5 * len(found.words[0].text) - 2)
    )
    assert found.confidence > 0.99


def test_every_window_has_the_level_of_the_whole(tmp_path: Path) -> None:
    """A quiet stretch of a long recording stays quiet; alone it would be made as loud as the speech."""
    heard: list[Array] = []

    class Levels(Heard):
        normalise = True

        def logits(self, audio: Sequence[Array]) -> list[Array]:
            heard.extend(audio)
            return [np.zeros((GRID.frames(len(clip)), 5), np.float32) for clip in audio]

    rng = np.random.default_rng(0)
    loudness = np.linspace(0.01, 0.9, 10 * 16_000)
    soundfile.write(tmp_path / "a.wav", rng.uniform(-1, 1, len(loudness)) * loudness + 0.05, 16_000)
    run([tmp_path / "a.wav"], Levels(), window_s=4.0, overlap_s=1.0)
    whole = normalised(read_audio(tmp_path / "a.wav"))
    assert len(heard) > 1
    assert np.allclose(heard[0], whole[: len(heard[0])], atol=1e-4)


def test_joined_logits_are_those_of_one_pass_but_for_context(
    checkpoint: Path, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seconds from a cut, a window's logits are those of the whole to 5% of what they vary by."""
    decoded: list[Array] = []

    def listen(logits: Array, blank_id: int) -> tuple[list[int], list[Span]]:
        decoded.append(logits)
        return [], []

    monkeypatch.setattr(transcribe, "best_path", listen)
    acoustic = TorchAcoustic(checkpoint, 60.0, use_search=False)
    run([noises[-1]], acoustic, window_s=5.0)
    joined, cut = np.concatenate(decoded), len(decoded)
    with torch.inference_mode():
        inputs = torch.from_numpy(normalised(read_audio(noises[-1])))[None]
        whole = acoustic.model(inputs).logits[0].numpy()
    assert cut > 1 and joined.shape == whole.shape
    assert np.abs(joined - whole).max() < 0.05 * whole.std()
    shifted = np.abs(joined[:-1] - whole[1:]).max()
    assert shifted > whole.std(), "a test that cannot tell a frame from the next shows nothing"


def test_memory_does_not_grow_with_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken(babble(1_500), tmp_path / "long.wav")
    asked: list[int] = []
    decoded: list[int] = []
    read, labels = soundfile.SoundFile.read, transcribe.best_path

    def watched(file: Any, frames: int = -1, **how: Any) -> Any:
        asked.append(frames)
        return read(file, frames, **how)

    def counted(logits: Array, blank_id: int) -> tuple[list[int], list[Span]]:
        decoded.append(len(logits))
        return labels(logits, blank_id)

    monkeypatch.setattr(soundfile.SoundFile, "read", watched)
    monkeypatch.setattr(transcribe, "best_path", counted)
    acoustic = Heard()
    (found,) = run([tmp_path / "long.wav"], acoustic)
    assert found.duration_s > 400
    assert min(asked) > 0 and max(asked) <= BLOCK_FRAMES
    assert acoustic.longest <= 20 * 16_000
    assert max(decoded) <= 1_000


def test_windows_do_not_pile_up_while_they_wait(tmp_path: Path) -> None:
    """What eight more minutes of audio add to the peak is their text, not their samples and logits."""
    peaks = []
    for minutes in (1, 9):
        path = tmp_path / f"{minutes}.wav"
        spoken(babble(240 * minutes), path)
        acoustic = Heard()
        acoustic.pool_seconds = 40.0  # as with several workers: windows are collected before they are run
        tracemalloc.start()
        try:
            (found,) = run([path], acoustic)
            peaks.append((found.duration_s, tracemalloc.get_traced_memory()[1]))
        finally:
            tracemalloc.stop()
    (short_s, low), (long_s, high) = peaks
    assert long_s - short_s > 400
    assert high - low < (long_s - short_s) * 16_000 * 4 / 4, "a quarter of the audio as float32"


def test_three_hours_are_heard_to_their_end_in_little_memory(tmp_path: Path) -> None:
    """Speech at the beginning, in the middle and at the end; what lies between takes no room on the disk."""
    path, said = tmp_path / "three_hours.wav", tmp_path / "said.wav"
    words = spoken("가나 다", said)
    speech = soundfile.read(said, dtype="int16")[0]
    samples = 3 * 3600 * 16_000
    starts = [0, samples // 2 // 320 * 320, (samples - len(speech)) // 320 * 320]
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as file:
        for start in starts:
            file.seek(start)
            file.write(speech)
    assert path.stat().st_blocks * 512 < 2**20, "the file is not sparse"
    acoustic = Heard()
    tracemalloc.start()
    try:
        (found,) = run([path], acoustic)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.duration_s == pytest.approx(10_800, abs=1)
    expected = [(word, start_s + start / 16_000) for start in starts for word, start_s in words]
    assert [(word.text, pytest.approx(word.start_s)) for word in found.words] == expected
    assert acoustic.longest <= 20 * 16_000
    assert peak < 40 * 2**20, "three hours are 660 MB as float32"

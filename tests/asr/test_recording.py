"""Recordings read block by block are the recordings read whole."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tasks.asr.recordings.recording import blocks, stretches, survey
from tasks.data.audio import read_audio


@pytest.mark.parametrize(
    ("rate_hz", "channels", "suffix"), [(44_100, 2, "flac"), (8_000, 1, "wav"), (16_000, 3, "wav")]
)
def test_blocks_are_the_samples_of_the_whole(
    tmp_path: Path, rate_hz: int, channels: int, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.9, 0.9, (5 * rate_hz + 17, channels)), rate_hz)
    whole = read_audio(path)
    assert np.array_equal(np.concatenate(list(blocks(path, "a"))), whole)
    known = survey(path, "a", keep=100)
    assert known.audio is None and known.samples == len(whole)
    assert known.mean == pytest.approx(whole.mean(), abs=1e-6)
    assert known.variance == pytest.approx(whole.var(), rel=1e-4)
    ranges = [(0, 100), (50, 70_000), (60_000, 79_000)]
    for (start, stop), audio in zip(ranges, stretches(known, ranges), strict=True):
        assert np.array_equal(audio, whole[start:stop])

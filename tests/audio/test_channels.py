"""From several channels to one: the mean where it says something, the loudest channel where it cancels."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tasks.asr.recordings.recording import stretches, survey
from tasks.audio.channels import Balance
from tasks.audio.reader import inspect
from tasks.data.audio import read_audio
from tasks.data.conversion import take
from tasks.data.measure import measure

CASE = Path(__file__).parent / "cases/c28_antiphase.wav"
RATE_HZ = 16_000


def speech(seconds: float = 3.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return 0.2 * np.sin(2 * np.pi * 3 * time) * rng.standard_normal(len(time))


def choice(*channels: np.ndarray, block: int = 1_000) -> int | None:
    samples = np.stack(channels, axis=1).astype(np.float32)
    balance = Balance(samples.shape[1], RATE_HZ)
    for start in range(0, len(samples), block):
        balance.add(samples[start : start + block])
    return balance.choice


def test_channels_of_opposite_sign_are_heard_by_every_reader(tmp_path: Path) -> None:
    found = inspect(CASE)
    assert found.choice == 0 and "opposite sign" in found.notes[0]
    left = soundfile.read(CASE, dtype="float32")[0][:, 0]
    assert np.array_equal(read_audio(CASE), left)
    assert np.array_equal(survey(CASE, "a", 10**9).audio, left)
    assert "opposite sign" in survey(CASE, "a", 10**9).notes[0]
    measured = measure(CASE)
    assert measured.silent_share < 0.9 and "opposite sign" in measured.detail
    taken = take(CASE, tmp_path, "a")
    assert "opposite sign" in taken.notes[0]
    assert np.abs(read_audio(tmp_path / taken.name) - left).max() < 2e-4


@pytest.mark.parametrize("gain", [-1.0, -0.95, -0.9, -0.8, -1.2])
def test_what_nearly_cancels_counts_as_well(gain: float) -> None:
    assert choice(speech(), gain * speech()) == (0 if abs(gain) <= 1 else 1)


def test_what_does_not_cancel_stays_a_mean() -> None:
    one, other, silence = speech(), speech(seed=1), np.zeros(3 * RATE_HZ)
    for channels in ((one, one), (one, other), (one, silence), (silence, silence), (one, -0.3 * one)):
        assert choice(*channels) is None
    assert choice(*[speech(seed=seed) for seed in range(8)]) is None
    assert choice(one, *[silence] * 7) is None
    assert choice(np.full(3 * RATE_HZ, 0.5), np.full(3 * RATE_HZ, -0.5)) is None, "a constant says nothing"


def test_a_constant_hides_no_cancellation() -> None:
    assert choice(speech() + 0.1, 0.1 - speech()) is not None


def test_a_part_that_cancels_decides_for_the_whole() -> None:
    one = speech(10.0)
    other = one.copy()
    other[4 * RATE_HZ : 8 * RATE_HZ] *= -1
    assert choice(one, other) is not None
    other = one.copy()
    other[: RATE_HZ // 4] *= -1  # of no weight
    assert choice(one, other) is None


def test_the_blocks_it_comes_in_change_nothing() -> None:
    one = speech(4.3)
    found = {choice(one, -0.9 * one, block=block) for block in (1, 977, 16_000, 10**6) if block > 1}
    assert found == {0}


def test_opposite_channels_of_a_long_recording_are_heard_window_by_window(tmp_path: Path) -> None:
    one = speech(30.0)
    path = tmp_path / "long.flac"
    soundfile.write(path, np.stack([0.7 * one, -one], axis=1), 44_100)
    known = survey(path, "long", keep=10)
    whole = read_audio(path)
    assert np.abs(whole).max() > 0.2
    (found,) = stretches(known, [(1_000, 170_000)])
    assert np.array_equal(found, whole[1_000:170_000])
    assert known.notes == (known.notes[0],) and "channel 2" in known.notes[0]

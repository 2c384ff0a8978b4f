from pathlib import Path

import numpy as np
import pytest
import soundfile

from tasks.data.audio import clipped_share, flac_bytes, probe, read_audio, silent_share, to_int16
from tasks.data.noise import KINDS, NoiseBeds, mix
from tasks.errors import DataError


def tone(rate_hz: int, seconds: float = 1.0, hz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate_hz * seconds)) / rate_hz)


def test_stereo_at_44_1_khz_becomes_mono_at_16_khz(tmp_path: Path) -> None:
    left = tone(44_100)
    soundfile.write(tmp_path / "a.wav", np.stack([left, 0.5 * left], axis=1), 44_100)
    assert probe(tmp_path / "a.wav") == (1.0, 44_100, 2)
    audio = read_audio(tmp_path / "a.wav")
    assert audio.dtype == np.float32
    assert abs(len(audio) - 16_000) <= 1
    middle = slice(1000, 15_000)
    assert np.max(np.abs(audio[middle] - 0.75 * tone(16_000)[: len(audio)][middle])) < 0.01


def test_flac_comes_back_to_the_sample(tmp_path: Path) -> None:
    audio = tone(16_000).astype(np.float32)
    (tmp_path / "a.flac").write_bytes(flac_bytes(audio))
    # libsndfile reads 16-bit samples as value / 32768, to_int16 writes value * 32767
    assert np.max(np.abs(read_audio(tmp_path / "a.flac") - to_int16(audio) / 32768.0)) == 0.0


def whole(path: Path) -> bytes:
    soundfile.write(path, tone(16_000), 16_000)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("a.wav", lambda data: data[: len(data) // 2], "truncated"),
        ("a.flac", lambda data: data[: len(data) // 2], "truncated"),
        ("a.wav", lambda data: b"", "0 bytes"),
        ("a.wav", lambda data: b"not audio at all" * 9, "cannot be decoded"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path: Path, name: str, spoil, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(spoil(whole(path)))
    with pytest.raises(DataError, match=says) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)


def test_missing_and_zero_length_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        read_audio(tmp_path / "none.wav")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    with pytest.raises(DataError, match="zero length"):
        probe(tmp_path / "empty.wav")


def test_silence_and_clipping_are_measured() -> None:
    half = np.concatenate([np.zeros(16_000), tone(16_000)]).astype(np.float32)
    assert silent_share(half) == pytest.approx(0.5)
    assert silent_share(np.zeros(100, dtype=np.float32)) == 1.0
    assert clipped_share(np.array([0.0, 1.0, -1.0, 0.5], dtype=np.float32)) == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_mixed_at_the_ratio_asked_for(kind: str) -> None:
    speech = tone(16_000, 2.0).astype(np.float32)
    noise = NoiseBeds(1).cut(np.random.default_rng(0), kind, len(speech))
    added = mix(speech, noise, 10.0) - speech
    loud = np.abs(speech) > 0.01 * np.max(np.abs(speech))
    ratio_db = 10 * np.log10(np.mean(speech[loud] ** 2) / np.mean(added**2))
    assert ratio_db == pytest.approx(10.0, abs=0.01)


def test_noise_beds_repeat_with_their_seed_and_differ_in_colour() -> None:
    def low_share(kind: str) -> float:
        power = np.abs(np.fft.rfft(NoiseBeds(1).cut(np.random.default_rng(0), kind, 32_000))) ** 2
        return float(power[: len(power) // 8].sum() / power.sum())

    again = [NoiseBeds(4).cut(np.random.default_rng(0), "babble", 100) for _ in range(2)]
    assert np.array_equal(*again)
    assert low_share("white") < 0.2 < 0.5 < low_share("pink")

"""Recordings of any kind that libsndfile reads, taken into the corpus and measured."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tasks.data.audio import probe, read_audio
from tasks.data.conversion import take
from tasks.data.measure import measure

SECONDS = 1.5


def tone(rate_hz: int, channels: int = 1, hz: float = 440.0) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * hz * np.arange(int(SECONDS * rate_hz)) / rate_hz)
    return np.tile(wave[:, None], (1, channels))


@pytest.mark.parametrize(
    ("suffix", "rate_hz", "channels", "subtype"),
    [
        ("wav", 8_000, 1, "ULAW"),
        ("wav", 44_100, 2, "PCM_24"),
        ("wav", 48_000, 1, "FLOAT"),
        ("flac", 22_050, 1, "PCM_16"),
        ("ogg", 44_100, 1, "VORBIS"),
        ("opus", 48_000, 1, "OPUS"),
        ("mp3", 44_100, 1, "MPEG_LAYER_III"),
        ("aiff", 16_000, 2, "PCM_16"),
    ],
)
def test_every_format_becomes_16_khz_mono_and_sounds_the_same(
    tmp_path: Path, suffix: str, rate_hz: int, channels: int, subtype: str
) -> None:
    source = tmp_path / f"a.{suffix}"
    kind = {"opus": "OGG"}.get(suffix, suffix.upper())
    soundfile.write(source, tone(rate_hz, channels), rate_hz, format=kind, subtype=subtype)
    taken = take(source, tmp_path, "out")
    assert taken.is_converted
    assert taken.origin_rate_hz == rate_hz
    header = probe(tmp_path / taken.name)
    assert (header.sample_rate_hz, header.channels) == (16_000, 1)
    assert header.duration_s == pytest.approx(probe(source).duration_s, abs=0.01)
    audio = read_audio(tmp_path / taken.name)[2_000:-2_000]
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    assert np.argmax(spectrum) * 16_000 / len(audio) == pytest.approx(440.0, abs=2.0)
    assert audio.max() == pytest.approx(0.3, abs=0.02)
    assert measure(tmp_path / taken.name).state == "ok"


def test_block_by_block_is_the_same_as_all_at_once(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(1).standard_normal((44_100 * 25, 2))  # over several blocks
    soundfile.write(tmp_path / "a.wav", noise, 44_100, subtype="FLOAT")
    taken = take(tmp_path / "a.wav", tmp_path, "out")
    whole = read_audio(tmp_path / "a.wav")
    blocks = read_audio(tmp_path / taken.name)
    assert len(whole) == len(blocks)
    assert np.abs(whole - blocks).max() < 2e-4  # 16 bit


def test_what_is_16_khz_mono_already_keeps_its_bytes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16_000), 16_000)
    taken = take(tmp_path / "a.wav", tmp_path, "out")
    assert not taken.is_converted
    assert (tmp_path / taken.name).read_bytes() == (tmp_path / "a.wav").read_bytes()


def with_nan() -> np.ndarray:
    wave = tone(44_100)
    wave[100] = np.nan
    return wave


@pytest.mark.parametrize(
    ("wave", "state"),
    [(with_nan(), "unreadable"), (np.full((1, 1), 0.5), "ok"), (np.zeros((0, 1)), "empty")],
    ids=["NaN", "one sample", "no sample"],
)
def test_bad_samples_are_left_to_the_validation(tmp_path: Path, wave: np.ndarray, state: str) -> None:
    soundfile.write(tmp_path / "a.wav", wave, 44_100, subtype="FLOAT")
    taken = take(tmp_path / "a.wav", tmp_path, "out")
    found = measure(tmp_path / taken.name)
    assert found.state == state
    if state == "ok":
        assert found.measured_duration_s < 0.001


def test_clipping_is_still_found_after_conversion(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.clip(20 * tone(44_100), -1, 1), 44_100)
    taken = take(tmp_path / "a.wav", tmp_path, "out")
    assert taken.is_converted
    assert measure(tmp_path / taken.name).clipped_share > 0.3


def test_a_wrong_extension_is_read_and_text_is_no_audio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.mp3", tone(44_100), 44_100, format="WAV", subtype="PCM_16")
    (tmp_path / "b.wav").write_text("안녕하세요")
    assert take(tmp_path / "a.mp3", tmp_path, "one").is_converted
    taken = take(tmp_path / "b.wav", tmp_path, "two")
    assert (taken.name, taken.header) == ("two.wav", None)
    assert measure(tmp_path / taken.name).state == "unreadable"


def test_another_hash_or_rate_than_stated_is_not_converted_away(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(44_100), 44_100)
    assert not take(tmp_path / "a.wav", tmp_path, "one", stated_sha256="f" * 64).is_converted
    assert not take(tmp_path / "a.wav", tmp_path, "two", stated_rate_hz=48_000).is_converted
    assert take(tmp_path / "a.wav", tmp_path, "three", stated_rate_hz=44_100).is_converted


def test_three_hours_are_taken_and_measured_in_little_memory(tmp_path: Path) -> None:
    source = tmp_path / "long.wav"
    seconds = 3 * 3600
    soundfile.write(source, np.zeros((1, 1)), 1_000, subtype="PCM_U8")
    data = bytearray(source.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = (seconds * 1_000).to_bytes(4, "little")
    with source.open("wb") as stream:  # the rest of the file is a hole, full of zeros: full-scale negative
        stream.write(data[: at + 4])
        stream.truncate(at + 4 + seconds * 1_000)
    tracemalloc.start()
    taken = take(source, tmp_path, "out")
    found = measure(tmp_path / taken.name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.measured_duration_s == seconds
    assert found.clipped_share == 1.0
    assert peak < 5e6  # as one array it would be 43 MB

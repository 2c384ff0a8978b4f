"""Standard input of a stream: raw samples, WAV as it comes, any other container; told apart by first bytes."""

import io
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tasks.asr.recordings.recording import Heard
from tasks.asr.streaming.source import from_bytes, from_file
from tasks.errors import DataError

RATE_HZ = 16_000
WAVE = (0.3 * np.sin(np.arange(40_000) / 9) + 0.01 * np.random.default_rng(0).standard_normal(40_000)).astype(
    np.float32
)


def encoded(form: str, wave: np.ndarray = WAVE, rate_hz: int = RATE_HZ, **how: str) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, wave, rate_hz, format=form, **how)
    return stream.getvalue()


def heard(content: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    notes = Heard()
    return np.concatenate([np.zeros(0), *from_bytes(io.BytesIO(content), None, notes)]), notes.notes


@pytest.mark.parametrize("form", ["FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64", "RF64"])
def test_every_container_on_standard_input_is_decoded(form: str, tmp_path: Path) -> None:
    content = encoded(form)
    (tmp_path / "a").write_bytes(content)
    found, notes = heard(content)
    assert np.array_equal(found, np.concatenate(list(from_file(tmp_path / "a"))))
    assert len(found) == len(WAVE) and notes == ()


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"]
)
@pytest.mark.parametrize("how", [{}, {"endian": "BIG"}])
def test_a_piped_wav_of_any_coding_is_that_of_the_file(subtype: str, how: dict[str, str]) -> None:
    content = encoded("WAV", subtype=subtype, **how)
    assert np.array_equal(heard(content)[0], soundfile.read(io.BytesIO(content), dtype="float32")[0])


def test_a_wav_whose_coding_needs_a_decoder_is_read_all_the_same() -> None:
    found, _ = heard(encoded("WAV", subtype="IMA_ADPCM"))
    assert len(found) >= len(WAVE)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_an_unfinished_wav_is_heard_to_its_end_and_said_once(size: int) -> None:
    content = encoded("WAV")
    at = content.index(b"data") + 4
    found, notes = heard(content[:at] + struct.pack("<I", size) + content[at + 4 :])
    assert len(found) == len(WAVE)
    assert len(notes) == 1 and "to its end" in notes[0]


def test_what_lies_behind_the_samples_of_a_piped_wav_is_not_heard_as_sound() -> None:
    content = encoded("WAV")
    listed = b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf58.29.100\0"
    assert len(heard(content + listed)[0]) == len(WAVE)
    found, notes = heard(content + content)
    assert len(found) == 2 * len(WAVE) and "one behind the other" in notes[0]
    assert len(heard(content + listed + content)[0]) == 2 * len(WAVE)
    for behind in (encoded("WAV", rate_hz=8_000), listed + b"?" + content, encoded("FLAC")):
        with pytest.raises(DataError, match="one behind the other"):
            heard(content + behind)


def test_samples_in_a_second_chunk_of_a_piped_wav_are_heard_and_said() -> None:
    content = encoded("WAV")
    at = content.index(b"data")
    samples = content[at + 8 :]
    odd = b"LIST\5\0\0\0INFOa\0"
    for between in (b"", odd):
        parts = [b"data" + struct.pack("<I", len(part)) + part for part in (samples[:3_000], samples[3_000:])]
        found, notes = heard(content[:at] + parts[0] + between + parts[1])
        assert np.array_equal(found, heard(content)[0])
        assert len(notes) == 1 and "more than one chunk" in notes[0]


def test_a_stream_without_a_sample_is_no_silence() -> None:
    content = encoded("WAV", np.zeros(0))
    for nothing in (b"", content, content[: content.index(b"data") + 8]):
        with pytest.raises(DataError, match=r"empty|zero length"):
            heard(nothing)


def test_a_piped_mp3_that_begins_within_a_frame_is_not_taken_for_raw_samples() -> None:
    content = encoded("MP3")
    found, notes = heard(content[content.index(content[:2], 2) + 50 :])
    assert len(found) == pytest.approx(len(WAVE), abs=3_000) and "no audio" in notes[0]


def test_a_wav_that_breaks_off_is_said_to_after_what_was_heard() -> None:
    content = encoded("WAV")
    pieces = []
    with pytest.raises(DataError, match=r"is truncated: \d+ of 80000 bytes of samples"):
        for block in from_bytes(io.BytesIO(content[:50_000])):
            pieces.append(block)
    assert sum(map(len, pieces)) == pytest.approx(25_000, abs=1_600)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>404 not found</body></html>", "web page"),
        (b"PK\x03\x04" + bytes(100), "zip"),
        (b"\x1f\x8b\x08\0" + bytes(100), "gunzip"),
        ("글자\n".encode() * 9, "text"),
        (encoded("FLAC")[:20_000], "truncated"),
    ],
)
def test_what_is_neither_audio_nor_raw_samples_is_named(content: bytes, says: str) -> None:
    with pytest.raises(DataError, match="standard input") as caught:
        heard(content)
    assert says in str(caught.value)


def test_raw_samples_are_raw_whatever_they_begin_with() -> None:
    for first in (b"\xff\xfb\x90\x00", b"\xff\xf1\x50\x80", b"\x0bw", b"\0\0", b"[ "):
        raw = first + (WAVE * 32_767).astype("<i2").tobytes()
        assert np.array_equal(heard(raw)[0], np.frombuffer(raw, "<i2") / np.float32(32_768))


def test_opposite_channels_of_a_live_stream_are_weighed_over_its_first_second() -> None:
    quiet = np.zeros((RATE_HZ * 2, 2))
    spoken = np.stack([0.6 * WAVE, -WAVE], axis=1)
    found, notes = heard(encoded("WAV", np.concatenate([quiet, spoken])))
    assert len(found) == len(quiet) + len(WAVE)
    assert np.abs(found[len(quiet) :] + WAVE).max() < 1e-3
    assert "channel 2" in notes[0]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_the_advice_for_other_formats_works(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded("WAV"))
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", tmp_path / "a.m4a"], check=True)
    found, notes = heard((tmp_path / "a.m4a").read_bytes())
    assert len(found) == pytest.approx(len(WAVE), abs=2_400) and "ffmpeg" in notes[0]

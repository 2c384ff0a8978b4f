"""Files as people have them, which end or begin oddly and are read all the same: whole, and said where not."""

import io
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tasks.audio.faults import AudioError
from tasks.audio.kinds import mpeg_frame
from tasks.audio.reader import inspect
from tasks.audio.streams import ogg_checksum
from tasks.data.audio import probe, read_audio

RATE_HZ = 16_000
SAMPLES = 40_000
WAVE = 0.3 * np.sin(np.arange(SAMPLES) / 7) + 0.02 * np.random.default_rng(0).standard_normal(SAMPLES)
WITH_FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def encoded(form: str, **how: str) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, WAVE, RATE_HZ, format=form, **how)
    return stream.getvalue()


def frames(content: bytes) -> list[bytes]:
    """The frames of an MP3 file; the first holds its index."""
    found, at = [], 0
    while frame := mpeg_frame(content[at : at + 4]):
        found.append(content[at : at + frame.size])
        at += frame.size
    return found


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def written(content: bytes) -> Path:
        (tmp_path / "a.dat").write_bytes(content)
        return tmp_path / "a.dat"

    return written


def refused(path: Path) -> AudioError:
    with pytest.raises(AudioError) as caught:
        inspect(path)
    return caught.value


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize("cut", [1, 2, 20])
def test_an_mp3_that_ends_within_its_last_frame_is_read_and_said(file, has_index: bool, cut: int) -> None:
    whole = frames(encoded("MP3"))
    whole = whole if has_index else whole[1:]
    path = file(b"".join(whole)[:-cut])
    found = inspect(path)
    assert len([note for note in found.notes if "ends within a frame" in note]) == 1
    assert 0 <= inspect(file(b"".join(whole))).samples - found.samples <= 576
    path = file(b"".join(whole)[:-cut])
    assert probe(path).duration_s == found.samples / RATE_HZ, "its index counts a frame more"
    if has_index:
        assert refused(file(b"".join(whole[:-3])[:-cut])).state == "truncated", "its index says how many"
    else:
        assert "not known" in found.notes[0]


@pytest.mark.parametrize("front", [b"", bytes(range(200))])
def test_an_mp3_that_begins_within_a_frame_is_read_and_said(file, front: bytes) -> None:
    whole = frames(encoded("MP3"))[1:]
    found = inspect(file(front + b"".join(whole)[10:]))
    assert found.container == "MP3" and found.samples == 576 * (len(whole) - 1)
    assert f"begins with {len(front) + len(whole[0]) - 10} bytes that are no audio" in found.notes[0]


def test_tags_behind_an_mp3_cost_no_recording_that_follows(file) -> None:
    whole, tag = encoded("MP3"), b"TAG" + b"a" * 125
    assert inspect(file(whole + tag + whole + tag)).samples == 2 * SAMPLES
    for behind in (
        tag[:50],
        tag + bytes(600),
        tag + b"ID3\3\0\0\0\0\0\n" + bytes(10),
        b"\r\n--boundary--\r\n",
    ):
        assert inspect(file(whole + behind)).samples == SAMPLES
    assert "21 bytes that are no audio" in inspect(file(whole + b"end of the connection")).notes[0]


def test_zeros_of_an_unfinished_download_are_no_whole_mp3(file) -> None:
    indexed = frames(encoded("MP3"))
    alone = indexed[1:]
    assert "hole" in refused(file(b"".join(alone[:20]) + bytes(900) + b"".join(alone[25:]))).detail
    assert "zeros" in refused(file(b"".join(alone[:30]) + bytes(90_000))).detail
    assert inspect(file(b"".join(indexed) + bytes(90_000))).samples == SAMPLES, (
        "its index says that it is whole"
    )
    assert "zeros" in inspect(file(b"".join(alone) + bytes(2_000))).notes[0]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_stream_without_an_end_mark_is_read_and_said(file, subtype: str) -> None:
    whole = encoded("OGG", subtype=subtype)
    last = whole.rindex(b"OggS")
    page = bytearray(whole[last:])
    page[5] &= ~4
    page[22:26] = bytes(4)
    page[22:26] = struct.pack("<I", ogg_checksum(bytes(page)))
    endless = whole[:last] + bytes(page)
    found = inspect(file(endless))
    assert found.samples == SAMPLES and len(found.notes) == 1 and "no end mark" in found.notes[0]
    assert np.array_equal(read_audio(file(endless)), read_audio(file(whole)))
    assert refused(file(endless[:-9])).state == "truncated"
    assert refused(file(endless + bytes(500))).state == "truncated", "of an unfinished download"
    assert inspect(file(endless + whole)).samples == 2 * SAMPLES


def wav(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def chunk(tag: bytes, content: bytes, size: int | None = None, pad: bytes = b"\0") -> bytes:
    size = len(content) if size is None else size
    return tag + struct.pack("<I", size) + content + (pad if len(content) % 2 else b"")


PCM = (WAVE * 32_767).astype("<i2").tobytes()
FORMAT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16))
LIST = chunk(b"LIST", b"INFOISFT\x0e\0\0\0Lavf58.29.100\0")


@pytest.mark.parametrize("between", [b"", LIST])
def test_samples_in_two_chunks_of_a_wav_are_all_read_and_said(file, between: bytes) -> None:
    content = wav(FORMAT, chunk(b"data", PCM[:30_000]), between, chunk(b"data", PCM[30_000:]), LIST)
    assert "in 2 chunks" in inspect(file(content)).notes[0]
    assert np.array_equal(read_audio(file(content)), read_audio(file(wav(FORMAT, chunk(b"data", PCM)))))
    cut = wav(FORMAT, chunk(b"data", PCM[:30_000]), between, chunk(b"data", PCM[30_000:]))[:-500]
    assert "data chunk 2" in refused(file(cut)).detail


def test_a_wav_that_counts_its_header_among_the_samples_is_whole(file) -> None:
    for more in (36, 44):
        path = file(wav(FORMAT, chunk(b"data", PCM, len(PCM) + more)))
        assert inspect(path).samples == SAMPLES and "counts its header" in inspect(path).notes[0]
    cut = wav(FORMAT, chunk(b"data", PCM))[:-36]
    assert refused(file(cut)).state == "truncated", "the length of the whole says so"


def test_an_odd_chunk_without_its_last_byte_hides_no_samples(file) -> None:
    odd = chunk(b"LIST", b"INFOISFT\x0d\0\0\0Lavf58.29.100", pad=b"")
    assert inspect(file(wav(FORMAT, odd, chunk(b"data", PCM)))).samples == SAMPLES


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ((b"G" + bytes(187)) * 9, "MPEG-TS"),
        (b"\0\0\1\xba" + bytes(200), "MPEG-PS"),
        (b"TTA1\1\0" + bytes(200), "True Audio"),
        (b"DSD " + bytes(200), "DSD"),
        (b".RMF" + bytes(200), "RealMedia"),
    ],
)
def test_streams_that_nothing_holds_to_a_length_are_refused_by_name(file, content: bytes, name: str) -> None:
    """The advice for raw samples would make noise of them."""
    fault = refused(file(content))
    assert name in fault.detail and "s16le" not in fault.next_step


@WITH_FFMPEG
@pytest.mark.parametrize(
    ("how", "form"),
    [
        (["-c:a", "libmp3lame", "-f", "wav"], "WAV"),
        (["-c:a", "adpcm_yamaha", "-f", "wav"], "WAV"),
        (["-c:a", "aac", "-f", "mov"], "MP4 or M4A"),
        (["-c:a", "flac", "-f", "ogg"], "Ogg"),
    ],
)
def test_what_ffmpeg_writes_has_the_samples_that_ffmpeg_reads(
    file, tmp_path: Path, how: list[str], form: str
) -> None:
    source, made = file(wav(FORMAT, chunk(b"data", PCM))), tmp_path / "made"
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, *how, made], check=True)
    content = made.read_bytes()
    command = ["ffmpeg", "-v", "error", "-i", made, "-f", "f32le", "-"]
    expected = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, "<f4")
    for behind in (b"", b"TAG" + b"a" * 125, b"\r\n--boundary--\r\n"):
        made.write_bytes(content + behind)
        found = read_audio(made)
        assert inspect(made).container == form and len(found) == len(expected)
        assert np.corrcoef(found, expected)[0, 1] > 0.999
        assert not behind.startswith(b"\r") or any("16 bytes" in note for note in inspect(made).notes)

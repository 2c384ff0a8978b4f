"""Containers that lie, were never finished, cut off or joined: read whole, or refused by name, never halved."""

import io
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tasks.audio.faults import AudioError
from tasks.audio.reader import inspect, open_audio
from tasks.data.audio import probe, read_audio
from tasks.data.conversion import take
from tasks.data.measure import measure

CASES = Path(__file__).parent / "cases"
RATE_HZ = 16_000
SAMPLES = 24_000
FORMATS = ("WAV", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3")
WITH_FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def sound(samples: int = SAMPLES, channels: int = 1) -> np.ndarray:
    wave = 0.3 * np.sin(np.arange(samples) / 7) + 0.02 * np.random.default_rng(0).standard_normal(samples)
    return np.tile(wave[:, None], (1, channels))


def encoded(form: str, wave: np.ndarray | None = None, rate_hz: int = RATE_HZ, **how: object) -> bytes:
    stream = io.BytesIO()
    wave = sound() if wave is None else wave
    soundfile.write(stream, wave, rate_hz, format=form, subtype=how.pop("subtype", None), **how)
    return stream.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def written(content: bytes, name: str = "a.dat") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return written


def refusal(path: Path) -> AudioError:
    with pytest.raises(AudioError) as caught:
        inspect(path)
    assert str(path) in str(caught.value) and "Next: " in str(caught.value)
    assert measure(path).state == caught.value.state
    return caught.value


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["a.raw", "a.pcm", "a.mp3", "a.flac", "a", "a.txt"])
def test_the_content_says_what_a_file_is_and_not_its_name(file, form: str, name: str) -> None:
    found = inspect(file(encoded(form), name))
    assert (found.samples, found.rate_hz, found.channels, found.notes) == (SAMPLES, RATE_HZ, 1, ())


def with_size(content: bytes, tag: bytes, size: int, order: str = "<I") -> bytes:
    at = content.index(tag) + 4
    width = struct.calcsize(order)
    return content[:at] + struct.pack(order, size) + content[at + width :]


UNFINISHED = {
    **{
        f"wav {size:#x}": lambda size=size: with_size(encoded("WAV"), b"data", size)
        for size in (0, 0x7FFFF000, 0x7FFFFFFF, 0x7FFFFFDB, 0x80000000, 0xFFFFFFFF, 0xFFFFFFDB)
    },
    "wav, all sizes 0": lambda: with_size(with_size(encoded("WAV"), b"RIFF", 0), b"data", 0),
    "wav of 24 bits": lambda: with_size(encoded("WAV", subtype="PCM_24"), b"data", 0xFFFFFFFF),
    "wav of mu-law": lambda: with_size(encoded("WAV", subtype="ULAW"), b"data", 0),
    "big-endian wav": lambda: with_size(encoded("WAV", endian="BIG"), b"data", 0xFFFFFFFF, ">I"),
    "au": lambda: encoded("AU")[:8] + b"\xff" * 4 + encoded("AU")[12:],
    "aiff": lambda: with_size(encoded("AIFF"), b"SSND", 0, ">I"),
    "aiff, minus one": lambda: with_size(encoded("AIFF"), b"SSND", 0xFFFFFFFF, ">I"),
    "caf": lambda: with_size(encoded("CAF"), b"data", (1 << 64) - 1, ">Q"),
    "rf64": lambda: encoded("RF64").replace(
        struct.pack("<Q", 2 * SAMPLES), struct.pack("<Q", (1 << 64) - 1), 1
    ),
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_piped_or_unfinished_file_is_read_to_its_end_and_said_once(file, name: str) -> None:
    path = file(UNFINISHED[name]())
    found = inspect(path)
    assert found.samples == SAMPLES
    assert len(found.notes) == 1 and "to its end" in found.notes[0]
    assert probe(path).duration_s == SAMPLES / RATE_HZ
    assert measure(path).state == "ok"
    plain = "PCM_24" if "24" in name else "ULAW" if "mu-law" in name else "PCM_16"
    whole = soundfile.read(io.BytesIO(encoded("WAV", subtype=plain)), dtype="float32")[0]
    assert np.array_equal(read_audio(path), whole)


@pytest.mark.parametrize("case", ["c24_arecord_pipe.wav", "c24_sox_pipe.wav"])
def test_the_pipes_of_arecord_and_sox(case: str, tmp_path: Path) -> None:
    taken = take(CASES / case, tmp_path, "a")
    assert taken.header == (1.0, RATE_HZ, 1)
    assert len(taken.notes) == 1
    assert soundfile.info(tmp_path / taken.name).frames == RATE_HZ  # for whoever reads it with other tools
    assert measure(tmp_path / taken.name).detail == ""


def flac_stating(total: int) -> bytes:
    content = bytearray(encoded("FLAC"))
    content[21] = content[21] & 0xF0 | total >> 32
    content[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(content)


LIES = {
    "wav, too few bytes": lambda: with_size(encoded("WAV"), b"data", 1_000),
    "wav, every size": lambda: with_size(with_size(encoded("WAV"), b"RIFF", 1_036), b"data", 1_000),
    "au": lambda: encoded("AU")[:8] + struct.pack(">I", 1_000) + encoded("AU")[12:],
    "aiff": lambda: with_size(encoded("AIFF"), b"SSND", 1_008, ">I"),
    "caf": lambda: with_size(encoded("CAF"), b"data", 1_004, ">Q"),
    "flac": lambda: flac_stating(256),
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_states_too_little_costs_no_sample(file, name: str) -> None:
    found = inspect(file(LIES[name]()))
    assert found.samples == SAMPLES
    assert "all were read" in found.notes[0]


def test_a_flac_stream_of_unknown_length_is_read_whole(file) -> None:
    path = file(flac_stating(0))
    assert inspect(path)[1:] == (SAMPLES, RATE_HZ, 1, None, ())
    assert probe(path).duration_s == SAMPLES / RATE_HZ
    assert refusal(file(flac_stating(0)[:-2_000])).state == "truncated"
    assert refusal(file(flac_stating(SAMPLES + 1_000))).state == "truncated"


def test_an_mp3_without_an_index_is_read_whole(file) -> None:
    assert inspect(CASES / "c26_vbr_without_xing.mp3").samples == 191 * 1_152
    indexed = encoded("MP3", sound(44_100 * 2), 44_100)
    bare = indexed[indexed.index(indexed[:2], 2) :]
    found = inspect(file(bare))
    assert found.notes == () and 0 <= found.samples - 44_100 * 2 < 4 * 1_152
    # an index that states fewer frames than there are, as behind a file that was added to
    at = indexed.index(b"Xing") + 8
    found = inspect(file(indexed[:at] + struct.pack(">I", 20) + indexed[at + 4 :]))
    assert found.samples >= 44_100 * 2 and "all were read" in found.notes[0]
    fault = refusal(file(indexed[:at] + struct.pack(">I", 900) + indexed[at + 4 :]))
    assert fault.state == "truncated" and "of 900 frames" in fault.detail


def test_a_loud_beginning_does_not_shorten_an_mp3_without_an_index(file) -> None:
    """Guessed from the size of its first frames, its length would be a fraction of what it is."""
    rng = np.random.default_rng(0)
    high, low = (
        encoded(
            "MP3", 0.2 * rng.standard_normal(44_100), 44_100, bitrate_mode="CONSTANT", compression_level=level
        )
        for level in (0.0, 0.9)
    )
    frames = [content[content.index(content[:2], 2) :] for content in (high, low)]
    alone = [inspect(file(content)).samples for content in frames]
    assert inspect(file(frames[0] + frames[1] * 5)).samples == alone[0] + 5 * alone[1]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_file_that_was_cut_off_is_said_to_be(file, form: str, share: float) -> None:
    whole = encoded(form)
    path = file(whole[: int(len(whole) * share)])
    assert refusal(path).state == "truncated"
    path.write_bytes(whole)
    assert inspect(path).samples == SAMPLES, "the advice: copy it again"


@WITH_FFMPEG
def test_what_is_left_of_a_cut_file_can_be_kept_and_the_advice_works(file, tmp_path: Path) -> None:
    whole = encoded("WAV")
    path = file(whole[: len(whole) // 2], "a.wav")
    assert "`ffmpeg -i FILE OTHER.wav`" in refusal(path).next_step
    subprocess.run(["ffmpeg", "-v", "error", "-i", path, tmp_path / "other.wav"], check=True)
    assert inspect(tmp_path / "other.wav").samples == pytest.approx(SAMPLES / 2, abs=100)


def test_an_ogg_file_that_lacks_a_page_or_has_a_damaged_one_is_refused(file) -> None:
    whole = encoded("OGG", sound(80_000))
    pages = [at for at in range(len(whole)) if whole[at : at + 4] == b"OggS"]
    assert len(pages) > 4
    assert "no end mark" in inspect(file(whole[: pages[-1]])).notes[0], "as of a stream"
    assert "lacks pages" in refusal(file(whole[: pages[2]] + whole[pages[3] :])).detail
    damaged = bytearray(whole)
    damaged[pages[2] + 100] ^= 1
    assert "damaged" in refusal(file(bytes(damaged))).detail


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("other", FORMATS)
def test_files_joined_one_behind_the_other_are_all_read(file, form: str, other: str) -> None:
    found = inspect(file(encoded(form) + encoded(other)))
    assert found.samples == 2 * SAMPLES
    assert any("2 recordings one behind the other" in note for note in found.notes)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
def test_joined_files_that_do_not_fit_are_refused_and_the_advice_works(
    file, form: str, tmp_path: Path
) -> None:
    path = file(encoded(form) + encoded("FLAC", sound(8_000), 8_000))
    fault = refusal(path)
    assert fault.state == "joined" and "8000 Hz" in fault.detail
    first, _, rest = fault.next_step.partition(" and ")
    for command, target in ((first, "first"), (rest, "rest")):
        made = command.split("`")[1].replace("FILE", str(path)).replace("FIRST", "REST")
        subprocess.run(made.replace("REST", str(tmp_path / target)), shell=True, check=True)
    assert inspect(tmp_path / "first").samples == SAMPLES
    assert inspect(tmp_path / "rest").samples == 8_000


@pytest.mark.parametrize("form", FORMATS)
def test_a_half_with_a_whole_file_behind_it_is_no_whole_recording(file, form: str) -> None:
    whole = encoded(form)
    refusal(file(whole[: len(whole) // 2] + whole))
    for cut in (8, 12, 16, 20, 24, 36, 40, 64):  # where the samples of the one end is a chunk of the other
        refusal(file(whole[:-cut] + whole))


def test_unfinished_files_joined_are_told_apart(file) -> None:
    piped = with_size(encoded("WAV"), b"data", 0xFFFFFFFF)
    assert inspect(file(piped + piped + encoded("WAV"))).samples == 3 * SAMPLES


BEHIND = {
    "LIST": b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf58.29.100\0",
    "ID3v1": b"TAG" + b"a" * 125,
    "zeros": bytes(4_000),
    "APEv1": b"\4\0\0\0\0\0\0\0Genre\0Talk" + b"APETAGEX" + struct.pack("<4I8x", 1_000, 50, 1, 0),
    "text": b"connection reset by peer\n" * 9,
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["ID3v1", "zeros", "APEv1"])
def test_tags_and_padding_behind_the_samples_are_no_second_file(file, form: str, name: str) -> None:
    found = inspect(file(encoded(form) + BEHIND[name]))
    assert (found.samples, found.notes) == (SAMPLES, ())


@pytest.mark.parametrize("name", ["LIST", "text"])
def test_chunks_and_text_behind_a_wav_file_are_no_samples(file, name: str) -> None:
    found = inspect(file(encoded("WAV") + BEHIND[name]))
    assert found.samples == SAMPLES
    assert len(found.notes) == (name == "text")


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_tag_in_front_hides_no_container(file, form: str) -> None:
    tag = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)
    assert inspect(file(tag + encoded(form))).samples == SAMPLES


OTHERS = {
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "web page": b"<!DOCTYPE html>\n<html><body>404</body></html>",
    "JSON": b'{"error": "not found"}',
    "text": "안녕하세요\n".encode(),
    "convert it to WAV": bytes(1_000),
    "VOC": b"Creative Voice File\x1a" + bytes(30),
}


@pytest.mark.parametrize("says", OTHERS)
def test_what_is_no_audio_is_named_as_what_it_is(file, says: str) -> None:
    fault = refusal(file(OTHERS[says], "a.wav"))
    assert fault.state == "unreadable" and says in str(fault)


def test_a_gzipped_recording_is_named_and_the_advice_works(file, tmp_path: Path) -> None:
    path = file(encoded("WAV"), "a.wav")
    subprocess.run(["gzip", path], check=True)
    path.with_suffix(".wav.gz").rename(path)
    assert "`gunzip -c FILE > OTHER`" in refusal(path).next_step
    subprocess.run(f"gunzip -c {path} > {tmp_path}/other", shell=True, check=True)
    assert inspect(tmp_path / "other").samples == SAMPLES


@pytest.mark.parametrize("rate_hz", [0, 1, 999, 4_000_000_000])
def test_rates_that_nobody_records_at_are_refused(file, rate_hz: int) -> None:
    content = encoded("WAV")
    assert refusal(file(content[:24] + struct.pack("<I", rate_hz) + content[28:])).state == "unreadable"


def test_odd_samples_have_clear_results(file) -> None:
    wave = sound()
    wave[100] = np.nan
    assert "NaN" in refusal(file(encoded("WAV", wave, subtype="FLOAT"))).detail
    wave[100] = np.inf
    assert "NaN or infinite" in refusal(file(encoded("AIFF", wave, subtype="DOUBLE"))).detail
    assert refusal(file(encoded("WAV", sound(0)))).state == "empty"
    assert refusal(file(b"")).state == "empty"
    assert np.abs(read_audio(file(encoded("WAV", 40 * sound(), subtype="FLOAT")))).max() == 1.0
    constant = measure(file(encoded("WAV", np.full((SAMPLES, 2), 0.25))))
    assert constant.state == "ok" and constant.level_dbfs == pytest.approx(-12.04, abs=0.01)
    assert inspect(file(encoded("WAV", sound(1_600, 1_000)))).channels == 1_000
    content = encoded("WAV")
    assert refusal(file(content[:22] + b"\0\0" + content[24:])).state == "unreadable"


@WITH_FFMPEG
@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        ("m4a", []),
        ("aac", []),
        ("wma", []),
        ("webm", []),
        ("mp4", ["-movflags", "+faststart"]),
        ("mka", ["-c:a", "libvorbis"]),
        ("caf", ["-c:a", "alac"]),
    ],
)
def test_what_libsndfile_does_not_know_ffmpeg_reads(
    file, tmp_path: Path, suffix: str, how: list[str]
) -> None:
    source, made = file(encoded("WAV"), "source.wav"), tmp_path / f"made.{suffix}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, *how, made], check=True)
    path = made.rename(tmp_path / "made.wav")  # whatever it is called
    found = inspect(path)
    seconds = SAMPLES / RATE_HZ
    assert found.samples / found.rate_hz == pytest.approx(seconds, abs=0.15)
    assert "decoded by ffmpeg" in found.notes[0]
    taken = take(path, tmp_path, "taken")
    assert taken.is_converted and taken.name == "taken.flac"
    assert soundfile.info(tmp_path / taken.name).frames == pytest.approx(SAMPLES, abs=2_400)
    content = path.read_bytes()
    fault = refusal(file(content[: len(content) // 2]))
    assert fault.state == "truncated"


@WITH_FFMPEG
def test_the_second_of_two_films_is_not_lost(file, tmp_path: Path) -> None:
    command = ["ffmpeg", "-v", "error", "-i", file(encoded("WAV"), "source.wav"), tmp_path / "a.m4a"]
    subprocess.run(command, check=True)
    content = (tmp_path / "a.m4a").read_bytes()
    assert refusal(file(content + content)).state == "joined"


def test_a_folder_and_a_pipe_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe" in refusal(tmp_path / "pipe").detail
    assert "a folder" in refusal(tmp_path).detail
    assert refusal(tmp_path / "none").state == "missing"
    assert refusal(tmp_path / "pipe" / "none").state == "missing"


def test_without_ffmpeg_it_is_named(file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    fault = refusal(file(b"\0\0\0\x14ftypM4A \0\0\0\0M4A " + bytes(20)))
    assert fault.state == "unreadable"
    assert "MP4 or M4A" in fault.detail and "install ffmpeg" in fault.next_step


def test_an_ffmpeg_that_fails_or_complains_is_believed(
    file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(b"\x1aE\xdf\xa3" + bytes(60))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program = tmp_path / "ffmpeg"
    whole = encoded("WAV", subtype="FLOAT")
    (tmp_path / "out.wav").write_bytes(whole)
    for script, state in (
        (f"cat {tmp_path}/out.wav", "ok"),
        ("exit 1", "unreadable"),
        (f"cat {tmp_path}/out.wav; echo '[matroska] File ended prematurely' >&2", "truncated"),
        (f"cat {tmp_path}/out.wav; echo 'Error while decoding stream' >&2", "unreadable"),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert measure(path).state == state, script


def test_memory_stays_small_for_long_files(tmp_path: Path) -> None:
    """Two hours of an unfinished WAV file, most of it a hole on the disk."""
    content = with_size(encoded("WAV"), b"data", 0xFFFFFFFF)
    path = tmp_path / "long.wav"
    with path.open("wb") as stream:
        stream.write(content)
        stream.truncate(44 + 2 * 7_200 * RATE_HZ)
    largest = 0
    with open_audio(path) as opened:
        samples = 0
        for block in opened.blocks():
            samples += len(block)
            largest = max(largest, block.nbytes)
    assert samples == 7_200 * RATE_HZ
    assert largest < 1 << 20

"""From what a user names to recordings, and from recordings to the files of their results."""

import io
from pathlib import Path

import pytest

from tasks.asr.recordings.sources import Failure, Source, find_sources, output_files
from tasks.errors import DataError


def test_files_folders_globs_and_standard_input_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.wav", "b/1.FLAC", "b/c/3.mp3", "a.wav", "d[1].wav", "d1.wav", "speech.bin"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    (tmp_path / "scratch").mkdir()
    wanted = ["d[1].wav", "-", "b", "?.wav", "a.wav", "b/**/*.mp3", "speech.bin", "x*.wav", "-"]
    found = find_sources(wanted, io.BytesIO(b"bytes"), tmp_path / "scratch")
    names = ["d[1].wav", "-", "b/1.FLAC", "b/2.wav", "b/c/3.mp3", "a.wav", "speech.bin", "x*.wav"]
    assert [s.name for s in found] == names
    assert isinstance(found[-1], Failure) and "matches no file" in str(found[-1].error)
    assert isinstance(found[1], Source) and found[1].path.read_bytes() == b"bytes"
    files = output_files(found, Path("out"), ".srt")
    assert files["b/c/3.mp3"] == Path("out/c/3.srt") and files["-"] == Path("out/stdin.srt")


def test_results_overwrite_neither_each_other_nor_a_recording(tmp_path: Path) -> None:
    one, other = named(tmp_path / "a/x.wav"), named(tmp_path / "b/x.wav")
    with pytest.raises(DataError, match="both be written"):
        output_files([one, other], tmp_path / "out", ".json")
    with pytest.raises(DataError, match="is a recording"):
        output_files([named(tmp_path / "x.txt")], tmp_path, ".txt")


def named(path: Path) -> Source:
    return Source(str(path), path, Path(path.stem))

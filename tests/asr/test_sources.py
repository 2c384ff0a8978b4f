"""From what a user names to recordings, and from recordings to the files of their results."""

import io
from pathlib import Path

import pytest

from tasks.asr.recordings.sources import Failure, Source, find_sources, output_files


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


def test_recordings_of_one_name_are_written_under_names_that_differ(tmp_path: Path) -> None:
    folder = tmp_path / "calls"
    for name in ("a.mp3", "a.wav", "b.wav", "deep/a.wav", "deep/a.flac"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    files = output_files(find_sources([str(folder)], io.BytesIO(), tmp_path), Path("out"), ".srt")
    written = {Path(name).relative_to(folder).as_posix(): path.as_posix() for name, path in files.items()}
    assert written == {
        "a.mp3": "out/a.mp3.srt",
        "a.wav": "out/a.wav.srt",
        "b.wav": "out/b.srt",
        "deep/a.wav": "out/deep/a.wav.srt",
        "deep/a.flac": "out/deep/a.flac.srt",
    }


def test_names_stay_apart_whatever_they_are_made_of(tmp_path: Path) -> None:
    """The longer name of one may be the shorter of another; folders keep apart what is named one by one."""
    sources = [
        named(tmp_path / name) for name in ("x/a.mp3", "x/a.wav", "x/a.mp3.wav", "y/a.wav", "x/y/a.wav")
    ]
    files = output_files(sources, tmp_path / "out", ".json")
    assert len(set(files.values())) == len(sources) == len(files)
    assert files[str(tmp_path / "x/a.mp3.wav")].name == "a.mp3.wav.json"


def test_results_overwrite_no_recording(tmp_path: Path) -> None:
    recording = named(tmp_path / "x.txt")
    assert output_files([recording], tmp_path, ".txt") == {recording.name: tmp_path / "x.txt.txt"}


def named(path: Path) -> Source:
    return Source(str(path), path, Path(path.stem))

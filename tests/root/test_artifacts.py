"""Files are written whole or not at all."""

import errno
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

from tasks import artifacts
from tasks.errors import ArtifactError, CapacityError


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    target = tmp_path / "a.json"
    artifacts.write_json(target, {"version": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        artifacts.write_json(target, {"version": float("nan")})
    with pytest.raises(RuntimeError), artifacts.new_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert artifacts.read_json(target) == {"version": 1}
    assert leftovers(tmp_path) == []


def test_a_failed_folder_keeps_the_old_folder(tmp_path):
    target = tmp_path / "out"
    with artifacts.new_folder(target) as folder:
        (folder / "kept").write_text("old")
    with pytest.raises(RuntimeError), artifacts.new_folder(target) as folder:
        (folder / "kept").write_text("new")
        raise RuntimeError
    assert (target / "kept").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_new_folder_replaces_the_old_one_whole(tmp_path):
    target = tmp_path / "out"
    for name in ("first", "second"):
        with artifacts.new_folder(target) as folder:
            (folder / name).write_text(name)
    assert [p.name for p in target.iterdir()] == ["second"]


def test_a_killed_writer_leaves_the_old_folder_and_the_next_one_cleans_up(tmp_path):
    target = tmp_path / "out"
    with artifacts.new_folder(target) as folder:
        (folder / "kept").write_text("old")
    program = (
        "import signal, sys; from pathlib import Path; from tasks.artifacts import new_folder\n"
        "with new_folder(Path(sys.argv[1])) as f:\n"
        " (f / 'kept').write_text('half'); print('writing', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (target / "kept").read_text() == "old"
    assert leftovers(tmp_path)
    with artifacts.new_folder(target) as folder:
        (folder / "kept").write_text("new")
    assert (target / "kept").read_text() == "new"
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path):
    program = (
        "import resource, signal, sys; from pathlib import Path; from tasks.artifacts import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_text(Path(sys.argv[1]), 'x' * 5000)"
    )
    target = tmp_path / "a.txt"
    target.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", program, str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "a.txt" in done.stderr
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_the_system_s_refusals_say_what_to_do(tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), str(tmp_path / "a.txt"))

    monkeypatch.setattr(artifacts.tempfile, "mkstemp", refuse)
    with pytest.raises(CapacityError, match=r"a\.txt.*Next: "):
        artifacts.write_text(tmp_path / "a.txt", "text")


def test_writing_below_a_file_is_refused_with_the_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="file"):
        artifacts.write_text(tmp_path / "file" / "a.txt", "text")


def test_a_folder_s_digest_is_of_names_and_bytes_and_nothing_else(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    for folder, order in ((first, ("a", "b/c")), (second, ("b/c", "a"))):
        for name in order:
            artifacts.write_text(folder / name, name)
    os.utime(second / "a", (1, 1))
    assert artifacts.digest_folder(first) == artifacts.digest_folder(second)
    (second / "a").rename(second / "d")
    assert artifacts.digest_folder(first) != artifacts.digest_folder(second)


def test_parquet_keeps_korean_text(tmp_path):
    frame = pd.DataFrame({"text": ["거실 불 켜 줘", None], "n": [1, 2]})
    artifacts.write_parquet(tmp_path / "a.parquet", frame)
    assert pd.read_parquet(tmp_path / "a.parquet")["text"].iloc[0] == "거실 불 켜 줘"


def test_json_that_was_cut_off_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(ArtifactError, match=r"a\.json is not JSON"):
        artifacts.read_json(tmp_path / "a.json")


def test_written_files_can_be_read_by_others(tmp_path):
    (tmp_path / "before").touch()
    artifacts.write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "a.txt").stat().st_mtime >= (tmp_path / "before").stat().st_mtime

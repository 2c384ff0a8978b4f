"""A DVC stage as a step: fresh, made, restored, failed, side by side, and after a killed DVC."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows import steps
from flows.environment import set_environment

WORK = """
import pathlib, sys, time
name, seconds = sys.argv[1], float(sys.argv[2])
began = time.time()
time.sleep(seconds)
print("12:00:00 malgil.progress", name, "has worked", file=sys.stderr)
text = pathlib.Path("src").read_text()
if text == "broken":
    print("tasks.x.y: DataError: src = 'broken': must be whole. Next: write it again", file=sys.stderr)
    raise SystemExit(4)
pathlib.Path("build", name).write_text(f"{text} {began} {time.time()}")
"""
GRAPH = """
stages:
  one: {cmd: python work.py one 1, deps: [src, work.py], outs: [build/one]}
  two: {cmd: python work.py two 1, deps: [src, work.py], outs: [build/two]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two independent stages, which is the current folder."""
    files = {".dvc/config": "", "dvc.yaml": GRAPH, "params.yaml": "a: 1\n", "work.py": WORK, "src": "v1"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "build").mkdir()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "store"))
    set_environment(tmp_path)
    return tmp_path


def test_made_then_fresh_then_made_again_then_restored(project: Path) -> None:
    made = steps.make("one")
    assert not made.cached and made.seconds >= 1 and 10 < made.peak_rss_mb < 2000
    assert "one has worked" in Path("build/logs/one.log").read_text()
    fresh = steps.make("one")
    assert fresh.cached and fresh.fresh and fresh.seconds < made.seconds
    Path("src").write_text("v2")
    assert not steps.make("one").cached
    Path("src").write_text("v1")
    restored = steps.make("one")  # DVC's run cache has this one
    assert restored.cached and not restored.fresh
    assert Path("build/one").read_text().startswith("v1 ")
    Path("build/one").write_text("touched by hand")
    steps.make("one")
    assert Path("build/one").read_text().startswith("v1 ")


def test_two_stages_run_at_the_same_time(project: Path) -> None:
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(steps.make, ("one", "two")))
    assert not any(run.cached for run in runs)
    (_, began_1, ended_1), (_, began_2, ended_2) = (
        Path(f"build/{n}").read_text().split() for n in ("one", "two")
    )
    assert float(began_1) < float(ended_2) and float(began_2) < float(ended_1), "they ran one after the other"
    assert steps.is_fresh("one") and steps.is_fresh("two"), "dvc.lock lost one of them"


def test_a_failed_stage_says_why_and_leaves_others_alone(project: Path) -> None:
    steps.make("two")
    before = Path("build/two").read_bytes()
    Path("src").write_text("broken")
    with pytest.raises(steps.StageFailed) as caught:
        steps.make("one")
    assert "src = 'broken': must be whole" in str(caught.value)
    assert "build/logs/one.log" in str(caught.value) and caught.value.exit_code == 4
    assert Path("build/two").read_bytes() == before
    Path("src").write_text("v1")
    assert not steps.make("one").cached


@pytest.mark.parametrize("left", ["truncated", "a pid that is another program's now"])
def test_a_lock_table_left_by_a_killed_dvc_is_cleared(project: Path, left: str) -> None:
    """The other program lives as long as it must, in whatever folder: an editor in malgil/.dvc, say."""
    editor = [sys.executable, "-c", "import time; time.sleep(600)", "/home/me/malgil/.dvc/config"]
    stranger = subprocess.Popen(editor)
    try:
        entry = {"pid": stranger.pid, "cmd": "dvc repro one"}
        table = {"write": {str(project / "build/one"): entry}, "read": {}}
        steps.RWLOCK.parent.mkdir(parents=True)
        steps.RWLOCK.write_text('{"write": {"/a' if left == "truncated" else json.dumps(table))
        steps.clear_stale_locks()
        assert not steps.RWLOCK.exists()
        assert not steps.make("one").cached
    finally:
        stranger.kill()
        stranger.wait()


def test_half_written_files_are_removed_once_nobody_writes_them(project: Path) -> None:
    left, young, whole = (Path("build") / name for name in (".a.npy.x1.part", ".b.npy.x2.part", "c.part"))
    for path in (left, young, whole):
        path.write_text("half")
    for path in (left, whole):
        os.utime(path, (0, time.time() - 7200))
    steps.clear_left_files()
    assert [path.exists() for path in (left, young, whole)] == [False, True, True]


def test_a_lock_of_a_living_dvc_is_waited_for(project: Path) -> None:
    command = [sys.executable, "-m", "dvc", "repro", "-s", "one"]
    other = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not steps.RWLOCK.is_file() or "build/one" not in steps.RWLOCK.read_text():
        time.sleep(0.05)
        assert other.poll() is None
    steps.clear_stale_locks()
    assert steps.make("one").cached, "the other one has made it meanwhile"
    assert other.wait(30) == 0


@pytest.mark.parametrize(("lines", "expected"), [(1, max(1, len(os.sched_getaffinity(0)))), (1000, 1)])
def test_lines_at_work_share_the_cores(lines: int, expected: int) -> None:
    assert steps.threads(lines) == {"OMP_NUM_THREADS": str(expected)}

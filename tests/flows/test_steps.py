"""A DVC stage as a step: fresh, made, restored, failed, side by side, and after a killed DVC."""

import json
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from flows import steps
from flows.environment import set_environment

WORK = """
import os, pathlib, sys, time
name, seconds = sys.argv[1], float(sys.argv[2])
pathlib.Path("started-" + name).touch()
awaited = os.environ.get("AWAITED_BY_" + name)  # a file before which it does not end
for _ in range(30_000):
    if not awaited or pathlib.Path(awaited).exists():
        break
    time.sleep(0.02)
else:
    raise SystemExit(awaited + " was awaited in vain")
time.sleep(seconds)
print("12:00:00 malgil.progress", name, "has worked", file=sys.stderr)
text = pathlib.Path("src").read_text()
if text == "broken":
    print("tasks.x.y: DataError: src = 'broken': must be whole. Next: write it again", file=sys.stderr)
    raise SystemExit(4)
pathlib.Path("build", name).write_text(f"{text} {time.time()}")
"""
GRAPH = """
stages:
  one: {cmd: python work.py one 1, deps: [src, work.py], outs: [build/one]}
  two: {cmd: python work.py two 0, deps: [src, work.py], outs: [build/two]}
  three: {cmd: python work.py three 0, deps: [src, work.py, build/two], outs: [build/three]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two independent stages and one that reads the second; it is the current folder."""
    files = {".dvc/config": "", "dvc.yaml": GRAPH, "params.yaml": "a: 1\n", "work.py": WORK, "src": "v1"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "build").mkdir()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(steps, "SHARED", ())
    monkeypatch.setattr(steps, "LINES", {"all": ("one", "two", "three")})
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "store"))
    set_environment(tmp_path)
    return tmp_path


def test_made_then_fresh_then_made_again_then_restored(project: Path) -> None:
    made = steps.make("one")
    assert not made.cached and made.seconds >= 1 and 10 < made.peak_rss_mb < 2000
    assert "one has worked" in Path("build/logs/one.log").read_text()
    Path("started-one").unlink()
    fresh = steps.make("one")
    assert fresh.cached and fresh.fresh and fresh.peak_rss_mb == 0, "a look at it needs no process of its own"
    assert not Path("started-one").exists()
    Path("src").write_text("v2")
    assert not steps.make("one").cached
    Path("src").write_text("v1")
    restored = steps.make("one")  # DVC's run cache has this one
    assert restored.cached and not restored.fresh
    assert Path("build/one").read_text().startswith("v1 ")
    Path("build/one").write_text("touched by hand")
    steps.make("one")
    assert Path("build/one").read_text().startswith("v1 ")


def test_one_look_finds_what_is_fresh_with_all_that_it_was_made_from(project: Path) -> None:
    planned = steps.plan(("all",), road=False)
    assert planned == {"one": [], "two": [], "three": ["two"]}
    for name in planned:
        steps.make(name)
    assert steps.find_fresh(planned) == {"one", "two", "three"}
    assert steps.make("one", known_fresh=True).fresh
    Path("build/two").unlink()
    assert steps.find_fresh(planned) == {"one"}, "three may have to be made again"


def test_two_stages_run_at_the_same_time(project: Path) -> None:
    # neither ends before the other has started: one after the other they would wait for ever
    waits = {"AWAITED_BY_one": "started-two", "AWAITED_BY_two": "started-one"}
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda stage: steps.make(stage, waits), ("one", "two"), timeout=600))
    assert not any(run.cached for run in runs)
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


def test_a_lock_of_a_living_dvc_is_waited_for(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = [sys.executable, "-m", "dvc", "repro", "-s", "one"]
    environment = {**os.environ, "AWAITED_BY_one": "go"}
    other = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not Path("started-one").exists():
        time.sleep(0.05)
        assert other.poll() is None
    steps.clear_stale_locks()
    assert "build/one" in steps.RWLOCK.read_text()
    with caplog.at_level(logging.INFO, "malgil"), ThreadPoolExecutor() as pool:
        made = pool.submit(steps.make, "one")
        while "locked by another DVC process" not in caplog.text:
            time.sleep(0.05)
            assert not made.done(), made.result()
        Path("go").touch()
        assert made.result(600).cached, "the other one has made it meanwhile"
    assert other.wait(600) == 0


@pytest.mark.parametrize(("lines", "expected"), [(1, max(1, len(os.sched_getaffinity(0)))), (1000, 1)])
def test_lines_at_work_share_the_cores(lines: int, expected: int) -> None:
    assert steps.threads(lines) == {"OMP_NUM_THREADS": str(expected)}


def test_the_road_needs_commands_in_both_test_splits(tmp_path: Path) -> None:
    def speech(*rows: tuple[str, str | None]) -> bool:
        splits, calls = zip(*rows, strict=True)
        pd.DataFrame({"split": splits, "tool_call": calls}).to_parquet(tmp_path / "utterances.parquet")
        return steps.has_commands(tmp_path)

    assert speech(("test_sentences", "{}"), ("test_voices", "{}"), ("test_voices", ""))
    assert not speech(("test_sentences", "{}"), ("test_voices", ""), ("train", "{}"))
    assert not speech(("test_sentences", ""), ("test_voices", None))
    (tmp_path / "utterances.parquet").write_text("no table")
    assert steps.has_commands(tmp_path), "the stage says what is wrong with it"

"""The flow's policy on a small DVC project with a real Prefect server: order, failure, books."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow, get_client
from prefect.states import Running
from prefect.testing.utilities import prefect_test_harness

from flows import retrain, steps
from flows.environment import set_environment

GRAPH = """
stages:
  shared: {cmd: python work.py shared, deps: [work.py], outs: [build/shared]}
  own: {cmd: python work.py own, deps: [work.py], outs: [build/own]}
  left: {cmd: python work.py left, deps: [work.py, build/shared], outs: [build/left]}
  right: {cmd: python work.py right, deps: [work.py, build/shared, build/own, src], outs: [build/right]}
  weighed: {cmd: python work.py weighed, deps: [work.py, build/right], outs: [build/weighed]}
  measured: {cmd: python work.py measured, deps: [work.py, build/right], outs: [build/measured]}
  last: {cmd: python work.py last, deps: [work.py, build/left, build/right], outs: [build/last]}
"""
WORK = """
import os, pathlib, sys, time
name = sys.argv[1]
if name == "right" and pathlib.Path("src").read_text() == "broken":
    print("tasks.x.y: DataError: src = 'broken': must be whole. Next: mend src", file=sys.stderr)
    raise SystemExit(2)
other = {"shared": "own", "own": "shared", "weighed": "measured", "measured": "weighed"}.get(name)
pathlib.Path("build", "started-" + name).touch()
for _ in range(600):  # each waits for the other: one after the other they would not end
    if not os.environ.get("TOGETHER") or not other or pathlib.Path("build", "started-" + other).exists():
        break
    time.sleep(0.1)
else:
    raise SystemExit(name + " was alone")
pathlib.Path("build", name).write_text(os.environ["OMP_NUM_THREADS"])
"""


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=3600):  # until it answers; a busy machine takes its time
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: None) -> Path:
    files = {".dvc/config": "", "dvc.yaml": GRAPH, "params.yaml": "a: 1\n", "work.py": WORK, "src": "broken"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "build/asr/shipped").mkdir(parents=True)
    (tmp_path / "build/llm/gguf").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setattr(steps, "SHARED", ("shared",))
    monkeypatch.setattr(steps, "LINES", {"asr": ("left",), "llm": ("right",)})
    monkeypatch.setattr(steps, "EARLY", {"llm": ("own",)})
    monkeypatch.setattr(steps, "CHECKS", {"llm": ("weighed", "measured")})
    monkeypatch.setattr(steps, "ROAD", "last")
    set_environment(tmp_path)
    return tmp_path


@flow
def make_all(*lines: str) -> dict[str, steps.StageRun]:
    """The part of `retrain` that makes stages."""
    return retrain._make_all(lines)  # type: ignore[arg-type]


def test_a_failed_line_stops_what_needs_it_and_lets_the_other_finish(project: Path) -> None:
    with pytest.raises(steps.StageFailed, match="src = 'broken': must be whole"):
        make_all("asr", "llm")
    assert (project / "build/left").is_file(), "the other line was to finish"
    assert not (project / "build/last").exists()
    (project / "src").write_text("whole")
    made = make_all("asr", "llm")
    assert {name for name, run in made.items() if run.cached} == {"shared", "own", "left"}
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert (project / "build/right").read_text() == str(share), "two lines share the cores"
    again = make_all("asr", "llm")
    assert list(again) == ["shared", "left", "own", "right", "weighed", "measured", "last"] and all(
        run.fresh for run in again.values()
    )


def test_one_line_alone_goes_end_to_end_only_beside_what_the_other_has_shipped(project: Path) -> None:
    (project / "src").write_text("whole")
    (project / "build/llm/gguf").rmdir()
    assert list(make_all("asr")) == ["shared", "left"]
    (project / "build/llm/gguf").mkdir()
    make_all("llm")
    assert list(make_all("asr")) == ["shared", "left", "last"]


def test_what_can_be_made_side_by_side_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "src").write_text("whole")
    monkeypatch.setenv("TOGETHER", "1")
    assert list(make_all("asr", "llm")) == ["shared", "left", "own", "right", "weighed", "measured", "last"]


def test_a_killed_run_is_closed_in_the_books(server: None) -> None:
    with get_client(sync_client=True) as client:
        left = client.create_flow_run(make_all, parameters={"lines": ()}, state=Running())
        crash_in_flow(left.id)
        state = client.read_flow_run(left.id).state
        assert state is not None and state.is_crashed() and "killed" in str(state.message)
        crash_in_flow(UUID(int=7))  # of another server: nothing to close
        assert client.read_flow_run(left.id).state == state


@flow
def crash_in_flow(run: UUID) -> None:
    """What `retrain` does first."""
    retrain.crash(run)

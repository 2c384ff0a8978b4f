"""Which flow runs are dead: the table of all evidence, and the processes that it rests on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.reaping import processes
from flows.reaping.judge import LOST_S, SETTLE_S, SILENT_S, Run, Worker, judge, leaked
from flows.reaping.processes import FLOW_RUN, Machine, Place, Process, look_around, this_process

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HERE = Place("here-1a2b3c", "boot", "1")
LIVES, GONE = Process(HERE, 10, 5000), Process(HERE, 11, 4000)
REUSED = Process(HERE, 10, 4999)  # the pid of one that lives, begun at another time
BEFORE = Process(HERE._replace(boot="the boot before"), 10, 5000)
ELSEWHERE = Process(HERE._replace(host="elsewhere-000000"), 10, 5000)
CONTAINER = Process(HERE._replace(namespace="2"), 10, 5000)
MACHINE = Machine(HERE, {10: 5000, 20: 7000}, {})
OURS, LEFT = Worker(LIVES, NOW), Worker(GONE, NOW)
BY_HAND, SILENT = Worker(None, NOW), Worker(None, NOW - timedelta(seconds=SILENT_S))


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def run(state: str = "RUNNING", age_s: float = 3600, **known: Any) -> Run:
    return Run("a", "retrain-all", state, ago(age_s), **known)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["RUNNING", "CANCELLING"])
@pytest.mark.parametrize(
    ("known", "fate"),
    [
        ({"process": LIVES}, "alive"),
        ({"process": GONE}, "dead"),
        ({"process": REUSED}, "dead"),
        ({"process": BEFORE}, "dead"),
        ({"process": LIVES, "heard": ago(1e6)}, "alive"),  # silence says nothing against a pid
        ({"process": GONE, "heard": ago(0)}, "dead"),
        ({"process": ELSEWHERE}, "dead"),  # for an hour nothing was heard
        ({"process": ELSEWHERE, "heard": ago(SILENT_S - 1)}, "unknown"),
        ({"process": CONTAINER, "heard": ago(30)}, "unknown"),
        ({"process": CONTAINER}, "dead"),
        (
            {"process": GONE, "worker": ELSEWHERE, "heard": ago(30)},
            "unknown",
        ),  # tried again on another machine
        ({"process": GONE, "worker": LIVES}, "dead"),
        ({"worker": GONE}, "dead"),  # killed before it noted its process
        ({"worker": LIVES}, "dead"),
        ({"worker": ELSEWHERE, "heard": ago(30)}, "unknown"),
        ({"stranger": True, "heard": ago(30)}, "unknown"),
        ({"deployed": False}, "dead"),
        ({"deployed": False, "heard": ago(30)}, "unknown"),
    ],
)
def test_a_begun_run_is_dead_when_its_process_is_gone(state: str, known: dict[str, Any], fate: str) -> None:
    assert judge(run(state, **known), MACHINE, [OURS], NOW).fate == fate


@pytest.mark.parametrize(
    ("age_s", "known", "workers", "fate"),
    [
        (0, {}, [], "dead"),  # no worker lives that could have it
        (0, {}, [LEFT, SILENT], "dead"),
        (0, {"worker": GONE}, [LEFT], "dead"),
        (0, {"worker": GONE}, [LEFT, OURS], "unknown"),  # tried again: the living one may just have taken it
        (SETTLE_S, {"worker": GONE}, [LEFT, OURS], "dead"),
        (0, {"worker": LIVES}, [OURS], "unknown"),
        (LOST_S - 1, {"worker": LIVES}, [OURS], "unknown"),
        (LOST_S, {"worker": LIVES}, [OURS], "dead"),
        (LOST_S - 1, {}, [LEFT, OURS], "unknown"),
        (LOST_S - 1, {}, [BY_HAND], "unknown"),
        (LOST_S, {}, [OURS], "dead"),
        (LOST_S, {"stranger": True, "heard": ago(5)}, [BY_HAND], "unknown"),
        (SILENT_S, {"stranger": True}, [SILENT], "dead"),
        (LOST_S, {"worker": ELSEWHERE, "heard": ago(30)}, [Worker(ELSEWHERE, ago(30))], "unknown"),
        (SILENT_S, {"worker": ELSEWHERE}, [], "dead"),
        (0, {"process": GONE, "worker": LIVES}, [OURS], "unknown"),  # the note is of an earlier attempt
        (5, {"deployed": False}, [], "unknown"),
        (-3600, {"worker": LIVES}, [OURS], "unknown"),  # the clock was put back
    ],
)
def test_a_pending_run_is_dead_when_nobody_is_about_to_start_it(
    age_s: float, known: dict[str, Any], workers: Sequence[Worker], fate: str
) -> None:
    assert judge(run("PENDING", age_s, **known), MACHINE, workers, NOW).fate == fate


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCELLING"])
@pytest.mark.parametrize("known", [{}, {"worker": GONE}, {"process": GONE}, {"stranger": True}])
def test_a_run_that_a_process_here_has_is_alive_whatever_else_is_known(
    state: str, known: dict[str, Any]
) -> None:
    """However slow its start: a day in Pending, its worker dead, its note that of an earlier attempt."""
    machine = Machine(HERE, {20: 7000}, {"a": 20})
    assert judge(run(state, 86_400, **known), machine, [], NOW).fate == "alive"


def test_processes_that_hide_whose_they_are_may_be_anybodys() -> None:
    machine = Machine(HERE, {20: 7000}, {}, frozenset({20}))
    assert judge(run("PENDING"), machine, [], NOW).fate == "unknown"
    assert judge(run("RUNNING", process=GONE), machine, [], NOW).fate == "dead", "its note is enough"


@pytest.mark.parametrize(
    ("resource", "held", "created_s", "overdue_s", "expected"),
    [
        ("ours", False, 60, -100, ["x"]),
        ("ours", True, 86_400, 86_000, []),  # a living run may outsleep its lease
        ("ours", False, SETTLE_S, -100, []),  # its run is on its way to Pending
        ("theirs", False, 3600, -1, []),  # renewed by somebody
        ("theirs", False, 3600, 60, ["x"]),
    ],
)
def test_a_lease_without_a_holder_is_leaked(
    resource: str, held: bool, created_s: float, overdue_s: float, expected: list[str]
) -> None:
    said = {
        "resource_ids": [resource],
        "created_at": ago(created_s).isoformat(),
        "expiration": ago(overdue_s).isoformat(),
    }
    assert leaked({"x": said, "damaged": {}}, ["ours"], ["x"] if held else [], NOW) == expected


def test_a_process_is_known_by_pid_and_start_however_it_is_written() -> None:
    me = this_process()
    assert Process.parse(str(me)) == me and look_around().fate(me) == "alive"
    assert look_around().fate(me._replace(started=me.started - 1)) == "dead", "another had this pid"
    assert {Process.parse(text) for text in ("", None, "ProcessWorker 1-2-3", "a:b:c:d:e")} == {None}


def test_exec_does_not_change_who_a_process_is() -> None:
    code = "import os, sys; from flows.reaping.processes import this_process as me; print(me(), flush=True); "
    again = code.rpartition("flush")[0].rstrip(", ") + ")"
    code += f"os.execv(sys.executable, [sys.executable, '-c', {again!r}])"
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout.split()
    assert len(said) == 2 and said[0] == said[1]


def test_killed_stopped_and_unburied_processes() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    started = processes._started(child.pid)
    assert started is not None
    process = this_process()._replace(pid=child.pid, started=started)
    assert look_around().fate(process) == "alive"
    child.send_signal(signal.SIGSTOP)
    assert look_around().fate(process) == "alive", "a stopped process lives"
    child.kill()
    deadline = time.monotonic() + 30
    while look_around().fate(process) == "alive":  # not waited for: a zombie is dead
        assert time.monotonic() < deadline
    child.wait()
    assert look_around().fate(process) == "dead"


def test_the_process_of_a_flow_run_is_found_and_its_stages_are_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect/__init__.py").touch()
    (tmp_path / "prefect/engine.py").write_text("import time; time.sleep(600)")
    environment = {**os.environ, FLOW_RUN: "a-run", "PYTHONPATH": str(tmp_path)}
    engine = subprocess.Popen([sys.executable, "-m", "prefect.engine"], cwd=tmp_path, env=environment)
    stage = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)
    try:
        assert look_around().engines.get("a-run") == engine.pid
        engine.kill()
        engine.wait()
        assert "a-run" not in look_around().engines
    finally:
        for child in (engine, stage):
            child.kill()
            child.wait()

"""SIGKILL of a run, its worker, the server or all of `malgil up`: the killed run is Crashed, the next one begins.

Everything is real: `malgil up` in a project copy, its Prefect server and worker, the flow `retrain` from the
deployment `quick`, DVC. Only the first stages are others: they wait for a file and then fail, so that a run is
at work for as long as a test needs it. The cases share one project and, where the case leaves one
alive, one `malgil up`: each starts on what the last one's recovery left.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import psutil
import pytest

from flows.reaping.judge import SETTLE_S
from flows.reaping.processes import look_around
from flows.reaping.reaper import EVERY_S
from flows.server import answers, free_port, is_healthy
from tests.flows.prefect_api import call

# From the kill where `malgil up` lives on, else from the line that says it is ready: waiting until the process
# of the next run is there, and the CPU time of that process until it is Running, which is what a busy machine
# can measure of its imports. On an idle machine the sum is the time that a user waits.
BEGINS_S = 60.0
STARTS_S = 400.0
STAGES = """
stages:
  settings: {cmd: python hold.py, always_changed: true, outs: [build/settings]}
  corpus: {cmd: python hold.py, always_changed: true, outs: [build/corpus]}
"""
HOLD = """
import os, pathlib, time
here = pathlib.Path(os.environ["MALGIL_PROJECT"], "holding")
here.mkdir(exist_ok=True)
(here / os.environ["PREFECT__FLOW_RUN_ID"]).touch()
while not (here / "let-go").exists():
    time.sleep(0.05)
raise SystemExit(1)
"""
# Read by every Python below `malgil up`: holds a run's process before it has imported anything.
SLOW_START = """
import os, pathlib, sys, time
held = pathlib.Path(os.environ.get("MALGIL_PROJECT", ""), "slow-start")
while "prefect.runner._workspace_supervisor" in sys.orig_argv and held.exists():
    time.sleep(0.05)
"""


class Up:
    """`malgil up` in a project copy, started as often as it takes."""

    def __init__(self, project: Path, environment: dict[str, str]) -> None:
        self.project, self.environment = project, environment
        self.ports = free_port(), free_port()
        self.api = f"http://127.0.0.1:{self.ports[0]}/api"
        self.child: subprocess.Popen[bytes] | None = None
        self.log: TextIO | None = None
        (project / "dvc.yaml").write_text(STAGES)
        (project / "hold.py").write_text(HOLD)
        (project / "sitecustomize.py").write_text(SLOW_START)

    def ensure(self) -> None:
        """Starts it if it does not run."""
        if self.child is None or self.child.poll() is not None:
            self.start()
            self.wait_until_ready()

    def start(self) -> None:
        self.log = (self.project / "up.log").open("w")
        ports = ["--prefect-port", f"{self.ports[0]}", "--mlflow-port", f"{self.ports[1]}"]
        self.child = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "up", *ports],
            cwd=self.project,
            env=self.environment,
            stdout=self.log,
            stderr=self.log,
        )

    def said(self) -> str:
        return (self.project / "up.log").read_text()

    def wait_until_ready(self) -> None:
        assert self.child is not None
        deadline = time.monotonic() + STARTS_S
        while "Ctrl-C" not in self.said():
            assert self.child.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def family(self) -> list[psutil.Process]:
        """Itself and everything below it."""
        assert self.child is not None
        itself = psutil.Process(self.child.pid)
        return [itself, *itself.children(recursive=True)]

    def below(self, *words: str) -> list[psutil.Process]:
        """Processes with these words in their command line, watchdogs left out."""
        return [p for p in self.family() if set(words) <= set(command(p)) and not is_watchdog(p)]

    def server(self) -> list[psutil.Process]:
        (watchdog,) = (
            p for p in self.family() if is_watchdog(p) and {"prefect", "server"} <= set(command(p))
        )
        return watchdog.children(recursive=True)

    def end(self) -> None:
        if self.child is not None:
            self.child.kill()  # its watchdogs end the rest
            self.child.wait()

    # --- what a user does in the UI

    def begin(self) -> str:
        """Starts a run of the deployment `quick`; its id."""
        (quick,) = (d for d in call(f"{self.api}/deployments/filter", {}) if d["name"] == "quick")
        run = call(f"{self.api}/deployments/{quick['id']}/create_flow_run", {})
        return str(run["id"])

    def state(self, run: str) -> dict[str, Any]:
        return dict(call(f"{self.api}/flow_runs/{run}")["state"])

    def slots(self) -> int:
        (quick,) = (d for d in call(f"{self.api}/deployments/filter", {}) if d["name"] == "quick")
        return int(quick["global_concurrency_limit"]["active_slots"])

    # --- where a run is

    def is_pending(self, run: str) -> bool:
        return self.state(run)["type"] == "PENDING" and run in look_around().engines

    def is_at_work(self, run: str) -> bool:
        """In its first stage: it has the run lock and DVC's."""
        return (self.project / "holding" / run).exists() and self.state(run)["type"] == "RUNNING"

    def let_go(self, run: str) -> None:
        """Lets the stage of a run end, and the run with it."""
        (self.project / "holding/let-go").touch()
        wait_until(lambda: self.state(run)["type"] == "FAILED", STARTS_S, lambda: self.state(run))
        (self.project / "holding/let-go").unlink()


@pytest.fixture(scope="module")
def up(
    tmp_path_factory: pytest.TempPathFactory,
    copy_project: Callable[..., Path],
    project_environment: dict[str, str],
) -> Iterator[Up]:
    up = Up(copy_project(tmp_path_factory.mktemp("kills") / "project", wheels=False), project_environment)
    try:
        yield up
    finally:
        up.end()


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


def is_watchdog(process: psutil.Process) -> bool:
    return any(part.endswith("watchdog.py") for part in command(process))


def wait_until(condition: Callable[[], bool], seconds: float, said: Callable[[], object]) -> float:
    """Seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"waited {seconds:.0f} s in vain: {said()}"
        time.sleep(0.2)
    return time.monotonic() - began


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


VICTIMS: dict[str, Callable[[Up, str], list[psutil.Process]]] = {
    "run": lambda up, run: [psutil.Process(look_around().engines[run])],
    "worker": lambda up, run: up.below("worker", "start"),
    "server": lambda up, run: up.server(),
    "all": lambda up, run: up.family(),
}
MOMENTS = ("pending", "running", "server down")
IN_EVERY_TIER = {("run", "running"), ("all", "running")}
CASES = [
    pytest.param(
        victim,
        moment,
        id=f"{victim}, {moment}",
        marks=[] if (victim, moment) in IN_EVERY_TIER else pytest.mark.slow,
    )
    for moment in MOMENTS
    for victim in VICTIMS
]


@pytest.mark.parametrize(("victim", "moment"), CASES)
def test_after_a_kill_the_next_run_begins(
    up: Up, victim: str, moment: str, record_property: Callable[[str, object], None]
) -> None:
    up.ensure()
    slow_start = up.project / "slow-start"
    if moment == "pending":
        slow_start.touch()
    killed = up.begin()
    at = up.is_pending if moment == "pending" else up.is_at_work
    wait_until(lambda: at(killed), STARTS_S, lambda: up.state(killed))
    waiting = up.begin()
    family = up.family()
    victims = VICTIMS[victim](up, killed)
    assert victims
    if moment == "server down":
        kill(up.server())
    kill(victims)
    slow_start.unlink(missing_ok=True)
    since = time.monotonic()
    if not (victim == "run" and moment != "server down"):
        assert up.child is not None
        up.child.wait(90)  # by itself, with the end of the server or worker that was killed
        _, alive = psutil.wait_procs(family, timeout=30)
        assert alive == [], "left behind"
        if (victim, moment) == ("server", "server down"):
            kill_at_its_start(up)
        since = time.monotonic()
        up.start()
        up.wait_until_ready()
        record_property("ready", round(time.monotonic() - since, 1))
        since = time.monotonic()

    def said() -> object:
        return up.state(waiting), up.said()

    waited = wait_until(lambda: waiting in look_around().engines, BEGINS_S, said)
    engine = psutil.Process(look_around().engines[waiting])
    wait_until(lambda: up.state(waiting)["type"] == "RUNNING", STARTS_S, said)
    took_s = sum(engine.cpu_times()[:2])
    record_property("waited", round(waited, 1))
    record_property("cpu", round(took_s, 1))
    record_property("began", round(time.monotonic() - since, 1))
    assert waited + took_s < BEGINS_S
    wait_until(lambda: up.is_at_work(waiting), STARTS_S, said)
    state = up.state(killed)
    assert state["type"] == "CRASHED", state
    if (victim, moment) == ("all", "running"):
        assert "Closed by the reaper: process" in state["message"], "by what the run noted when it began"
    assert up.slots() == 1, "the run at work holds the slot, and nobody else"
    up.let_go(waiting)


@pytest.mark.slow
def test_malgil_up_killed_and_started_at_once_waits_for_the_ends_of_its_servers(up: Up) -> None:
    up.ensure()
    run = up.begin()
    wait_until(lambda: up.is_at_work(run), STARTS_S, lambda: up.state(run))
    assert up.child is not None
    family = up.family()
    up.child.kill()
    up.start()
    up.wait_until_ready()
    assert not set(family) & set(up.family())
    wait_until(lambda: up.state(run)["type"] == "CRASHED", BEGINS_S, lambda: up.state(run))
    assert up.slots() == 0


def kill_at_its_start(up: Up) -> None:
    """Starts `malgil up` and kills its server before it answers."""
    up.start()
    wait_until(lambda: bool(up.below("prefect", "server", "start")), 60, up.said)
    assert not is_healthy(up.api)
    kill(up.server())
    assert up.child is not None
    assert up.child.wait(90) != 0 and "prefect has ended by itself" in up.said()


@pytest.mark.slow
def test_a_run_that_is_slow_to_start_or_stopped_is_left_alone(up: Up) -> None:
    up.ensure()
    (up.project / "slow-start").touch()
    run = up.begin()
    wait_until(lambda: up.is_pending(run), STARTS_S, lambda: up.state(run))
    time.sleep(SETTLE_S + 2 * EVERY_S)  # the reaper has looked several times
    assert up.is_pending(run), up.state(run)
    (up.project / "slow-start").unlink()
    wait_until(lambda: up.is_at_work(run), STARTS_S, lambda: up.state(run))
    process = psutil.Process(look_around().engines[run])
    process.send_signal(signal.SIGSTOP)  # as a laptop asleep, or a long garbage collection
    let_lease_expire(up, run)
    time.sleep(SETTLE_S + 2 * EVERY_S)
    found = reap(up)
    process.send_signal(signal.SIGCONT)
    assert [(each["id"], each["fate"], each["closed"]) for each in found["runs"]] == [(run, "alive", False)]
    assert up.is_at_work(run) and up.slots() == 1
    up.let_go(run)
    assert reap(up)["runs"] == []


def let_lease_expire(up: Up, run: str) -> None:
    """Sets the lease of the run's slot back to yesterday, as eight hours of sleep would."""
    home = up.project / "store/prefect/concurrency_leases"
    lease = up.state(run)["state_details"]["deployment_concurrency_lease_id"]
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    said = json.loads((home / f"{lease}.json").read_text())
    (home / f"{lease}.json").write_text(json.dumps({**said, "expiration": yesterday}))
    index = json.loads((home / "expirations.json").read_text())
    (home / "expirations.json").write_text(json.dumps({**index, lease: yesterday}))


def reap(up: Up) -> dict[str, Any]:
    """`malgil reap --json`."""
    command = [sys.executable, "-m", "flows.cli", "reap", "--json"]
    ended = subprocess.run(
        command, cwd=up.project, env=up.environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def test_the_end_of_malgil_up_ends_its_run_and_says_so(up: Up) -> None:
    """Ctrl-C and SIGTERM: the worker goes first, so the books are right at once."""
    up.ensure()
    run = up.begin()
    wait_until(lambda: up.is_at_work(run), STARTS_S, lambda: up.state(run))
    family = up.family()
    assert up.child is not None
    up.child.terminate()
    assert up.child.wait(90) == 143
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == [] and not answers(f"{up.api}/health")
    up.ensure()
    assert up.state(run)["type"] == "CRASHED" and up.slots() == 0

"""`malgil up`, really: servers answer, deployments are there, a run goes through the worker, all of it stops."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.server import answers, free_port
from tests.flows.prefect_api import call

pytestmark = pytest.mark.slow
STARTS_S = 400.0


@pytest.fixture(scope="module")
def up(
    tmp_path_factory: pytest.TempPathFactory,
    copy_project: Callable[..., Path],
    project_environment: dict[str, str],
) -> Iterator[dict[str, Any]]:
    """A project copy in which `malgil up` runs; what it wrote to store/up.json, and more."""
    project = copy_project(tmp_path_factory.mktemp("up") / "project")
    ports = free_port(), free_port()
    options = ["--prefect-port", f"{ports[0]}", "--mlflow-port", f"{ports[1]}"]
    command = [sys.executable, "-m", "flows.cli", "up", *options]
    log = (project / "up.log").open("w")
    child = subprocess.Popen(command, cwd=project, env=project_environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + STARTS_S
        while "Ctrl-C" not in (project / "up.log").read_text():
            assert child.poll() is None, (project / "up.log").read_text()
            assert time.monotonic() < deadline, (project / "up.log").read_text()
            time.sleep(0.3)
        yield {**json.loads((project / "store/up.json").read_text()), "project": project, "child": child}
    finally:
        child.kill()  # its watchdogs end the rest
        child.wait()
        log.close()


def test_the_servers_answer_and_the_deployments_are_there(up: dict[str, Any]) -> None:
    assert answers(f"{up['prefect_api']}/health") and answers(f"{up['mlflow']}/health")
    with urllib.request.urlopen(up["prefect_ui"], timeout=30) as page:
        assert b"<html" in page.read().lower()
    found = {each["name"]: each for each in call(f"{up['prefect_api']}/deployments/filter", {})}
    assert set(found) == {"weekly", "quick"}
    assert found["weekly"]["schedules"][0]["active"] is False
    form = found["quick"]["parameter_openapi_schema"]["properties"]
    assert form["line"]["enum"] == ["all", "asr", "llm"] and form["quick"]["type"] == "boolean"


def test_a_deployment_runs_in_the_project_and_its_mistake_is_shown(up: dict[str, Any]) -> None:
    """The cheapest real run: an override with a typo, refused by the flow itself in the worker's process."""
    api = up["prefect_api"]
    (quick,) = (each for each in call(f"{api}/deployments/filter", {}) if each["name"] == "quick")
    parameters = {"line": "all", "quick": True, "overrides": ["corpus.sed=1"]}
    run = call(f"{api}/deployments/{quick['id']}/create_flow_run", {"parameters": parameters})
    deadline = time.monotonic() + 120
    state = run["state"]
    while state["type"] not in ("COMPLETED", "FAILED", "CRASHED"):
        assert time.monotonic() < deadline, state
        time.sleep(0.5)
        state = call(f"{api}/flow_runs/{run['id']}")["state"]
    assert state["type"] == "FAILED" and "did you mean 'seed'?" in state["message"], state


def test_a_second_up_is_refused(up: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "flows.cli", "up"]
    ended = subprocess.run(command, cwd=up["project"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3 and "`malgil up` runs here already" in ended.stderr


def test_ctrl_c_stops_all_of_it(up: dict[str, Any]) -> None:
    family = psutil.Process(up["child"].pid).children(recursive=True)
    assert len(family) >= 6  # three servers and their watchdogs
    up["child"].send_signal(signal.SIGINT)
    assert up["child"].wait(60) == 0
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == [] and not answers(f"{up['prefect_api']}/health")
    assert not (up["project"] / "store/up.json").exists()

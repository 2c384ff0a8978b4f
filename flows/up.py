"""`malgil up`: Prefect with its UI, MLflow, a worker and the deployments, on this machine.

    malgil up [--prefect-port 4200] [--mlflow-port 5000]

Addresses are printed and kept in store/up.json, where `malgil run` finds them. Ctrl-C, SIGTERM or the
death of one server ends all of it; logs are in build/logs/up-*.log.
"""

import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from flows import process
from flows.environment import find_project, set_environment
from flows.reaping.processes import Process, look_around, this_process
from flows.server import HOST, POOL, UP, answers, is_free, require_port, running_up
from tasks.artifacts import write_json
from tasks.errors import ConflictError, MalgilError
from tasks.params import load
from tasks.release.moved import bring_home
from tasks.release.registry import explained

LOGS = Path("build/logs")
START_S = 300.0
BUSY_TRIES = 30
WORKING_DIRECTORY = "set_working_directory"  # the pull step of prefect.yaml
ENDS_S = 25.0  # twice the grace of flows/watchdog.py, and a little
log = logging.getLogger("malgil")


class Servers:
    """Named children; each has a log of its own."""

    def __init__(self) -> None:
        self.children: dict[str, process.Child] = {}

    def start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        """Starts `python -m command...` under `name`."""
        command = [sys.executable, "-m", *command]
        self.children[name] = process.start(command, log=log_of(name), environment=environment)

    def check(self) -> None:
        """Raises MalgilError with the end of its log if one has ended."""
        for name, child in self.children.items():
            if child.poll() is not None:
                lines = "\n".join(process.tail(log_of(name)))
                raise MalgilError(
                    f"{name} has ended by itself",
                    f"all of `malgil up` ends with it. The end of its log:\n{lines}\n",
                    f"read {log_of(name)}; `malgil doctor` checks ports and packages",
                )

    def wait_for(self, url: str) -> None:
        """Returns when `url` answers; raises if a server ends or five minutes pass."""
        deadline = time.monotonic() + START_S
        while not answers(url):
            self.check()
            if time.monotonic() > deadline:
                raise MalgilError(
                    f"{url} does not answer", f"waited {START_S:.0f} s", f"read the logs in {LOGS}"
                )
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends all: the worker first, so that its run can still say how it ended."""
        if "worker" in self.children:
            process.stop(self.children["worker"])
        for child in self.children.values():
            if child.stdin is not None and not child.stdin.closed:
                child.stdin.close()
        for child in reversed(self.children.values()):
            process.stop(child)


def serve(*, prefect_port: int, mlflow_port: int) -> None:
    """Runs until Ctrl-C.

    Raises:
        ConflictError: a port is in use, or `malgil up` runs here already.
        MalgilError: a server did not start, or ended.
    """
    project = find_project()
    set_environment(project)
    params = load()
    _wait_for_a_killed_one(prefect_port, mlflow_port)
    if url := running_up():
        raise ConflictError(
            f"`malgil up` runs here already ({url})", "one is enough", "use it, or stop it first"
        )
    if prefect_port == mlflow_port:
        raise ConflictError(
            f"port {prefect_port} is asked for twice", "each server needs one", "--mlflow-port PORT"
        )
    require_port(prefect_port, "Prefect", "malgil up --prefect-port")
    require_port(mlflow_port, "MLflow", "malgil up --mlflow-port")
    prefect, mlflow = f"http://{HOST}:{prefect_port}", f"http://{HOST}:{mlflow_port}"
    environment = {
        **os.environ,
        "PREFECT_API_URL": f"{prefect}/api",
        "PREFECT_UI_API_URL": f"{prefect}/api",
        "MALGIL_PROJECT": str(project),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(project), os.environ.get("PYTHONPATH", "")])),
    }
    with _all_or_none() as servers:
        servers.start(
            "prefect",
            ["prefect", "server", "start", "--host", HOST, "--port", f"{prefect_port}"],
            environment,
        )
        store, artifacts = _mlflow_store(params.registry.tracking_uri, params.registry.artifacts)
        options = ["--host", HOST, "--port", f"{mlflow_port}", "--workers", "1"]
        served = ["--backend-store-uri", store, "--default-artifact-root", artifacts]
        servers.start("mlflow", ["mlflow", "server", *served, *options], environment)
        log.info("starting Prefect and MLflow (half a minute) …")
        from flows.reaping.reaper import Watch  # Prefect's client: it loads while the servers do

        servers.wait_for(f"{prefect}/api/health")
        with Watch(f"{prefect}/api"):  # its first look comes before a worker takes anything
            bring_deployments_home(f"{prefect}/api", project)
            _take_runs(servers, prefect, mlflow, environment)


def _take_runs(servers: Servers, prefect: str, mlflow: str, environment: Mapping[str, str]) -> None:
    """Starts the worker, says so, and keeps an eye on all of them."""
    # One run at a time: two would ask for the project's run lock.
    command = ["flows.reaping.worker", "--pool", POOL, "--type", "process", "--limit", "1"]
    servers.start("worker", command, environment)
    servers.wait_for(f"{prefect}/api/work_pools/{POOL}")
    _deploy(environment)
    servers.wait_for(f"{mlflow}/health")
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    addresses = {"prefect_api": f"{prefect}/api", "prefect_ui": prefect, "mlflow": mlflow}
    write_json(UP, {**addresses, "pid": os.getpid(), "process": str(this_process()), "started": started})
    print(f"Prefect      {prefect}\nMLflow       {mlflow}", flush=True)
    print(f"deployments  {', '.join(deployments(prefect))}\nCtrl-C stops all of it.", flush=True)
    while True:
        servers.check()
        time.sleep(0.5)


def _wait_for_a_killed_one(*ports: int) -> None:
    """The servers of a killed `malgil up` end in seconds; until then they answer and hold its ports."""
    try:
        last = Process.parse(json.loads(UP.read_text("utf-8"))["process"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if last is None or look_around().fate(last) != "dead":
        return
    deadline = time.monotonic() + ENDS_S
    while not all(map(is_free, ports)) and time.monotonic() < deadline:
        time.sleep(0.2)
    UP.unlink(missing_ok=True)


@contextmanager
def _all_or_none() -> Iterator[Servers]:
    servers = Servers()
    try:
        yield servers
    except KeyboardInterrupt:
        log.info("stopping …")
    finally:
        UP.unlink(missing_ok=True)
        servers.stop()


def log_of(name: str) -> Path:
    """The log of a server."""
    return LOGS / f"up-{name}.log"


def deployments(prefect: str) -> list[str]:
    """Names of the deployments on the server at `prefect`, as flow/deployment."""
    found = _ask(f"{prefect}/api/deployments/filter", {})
    return sorted(f"retrain/{each['name']}" for each in found)


def _ask(url: str, question: Mapping[str, Any], method: str = "POST") -> Any:
    """The answer of Prefect's API, asked again while its database is busy."""
    body, kind = json.dumps(question).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, kind, method=method)
    for attempt in range(BUSY_TRIES):
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code != 503 or attempt == BUSY_TRIES - 1:  # 503: Prefect's database is busy
                raise
            time.sleep(1.0)
    raise AssertionError("the last attempt returns or raises")


def bring_deployments_home(api: str, project: Path) -> list[str]:
    """Turns deployments of a project that was moved or copied to `project`, and returns their names.

    They are made anew in a moment, but a worker takes a late run before that, and would take it where the
    project had stood.
    """
    turned = []
    for found in _ask(f"{api}/deployments/filter", {}):
        steps = [{**step} for step in found["pull_steps"] or ()]
        places = [about for step in steps for name, about in step.items() if name.endswith(WORKING_DIRECTORY)]
        if any(about["directory"] != str(project) for about in places):
            log.warning(
                "the deployment %s was made in %s: its runs now work here",
                found["name"],
                ", ".join(about["directory"] for about in places),
            )
            for about in places:
                about["directory"] = str(project)
            _ask(f"{api}/deployments/{found['id']}", {"pull_steps": steps}, "PATCH")
            turned.append(str(found["name"]))
    return sorted(turned)


def _deploy(environment: Mapping[str, str]) -> None:
    command = [
        sys.executable,
        "-m",
        "prefect",
        "--no-prompt",
        "deploy",
        "--all",
        "--prefect-file",
        "prefect.yaml",
    ]
    path = log_of("deploy")
    ended = process.run(command, log=path, environment=environment, on_line=lambda _: None)
    if ended.code != 0:
        lines = "\n".join(process.tail(path))
        raise MalgilError(
            f"prefect.yaml could not be deployed:\n{lines}\n", "every deployment must", f"read {path}"
        )


def _mlflow_store(uri: str, artifacts: str) -> tuple[str, str]:
    """What MLflow serves: MLFLOW_TRACKING_URI wins; a relative artifact folder is taken from here."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or uri
    if uri.startswith("http"):
        raise ConflictError(
            f"the tracking URI is {uri}: an MLflow server already",
            "`malgil up` serves a local store",
            "unset MLFLOW_TRACKING_URI or set registry.tracking_uri to sqlite:///…",
        )
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).absolute()
        database.parent.mkdir(parents=True, exist_ok=True)
        with explained(uri):
            bring_home(database, artifacts)  # who asks the server is told the places that stand in the store
    return uri, artifacts if "://" in artifacts else Path(artifacts).resolve().as_uri()

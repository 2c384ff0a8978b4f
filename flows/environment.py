"""The environment of everything that Malgil starts, set before a library reads it.

Values already in the environment win. Nothing is imported here that is slow: `malgil --help` passes by.
"""

import os
import sys
from pathlib import Path

from tasks.checkout import warn_of_checkout
from tasks.errors import ArtifactError, explain_os_error

# No library calls home, no server keeps processes that nobody asked for (docs/reference/environment.md).
QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # the flow's log lines go to the UI under these loggers
    "PREFECT_LOGGING_EXTRA_LOGGERS": "malgil,tasks",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # a stage's output is a file of the pipeline, so Prefect keeps no copy of a result
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    # A server that was killed knows who held a slot, in PREFECT_HOME/concurrency_leases. Leases are not taken
    # away by the clock (a laptop that slept six minutes would lose a living run) but by flows.reaping.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # s; by this a run on another machine is known to live
    # A run that waits for a slot asks for it again after so many seconds, and the worker looks so often.
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "10",
    "PREFECT_WORKER_QUERY_SECONDS": "5",
}
PROJECT_FILES = ("params.yaml", "dvc.yaml", ".dvc/config")


def find_project(folder: Path | None = None) -> Path:
    """The folder with the pipeline's files: `folder` (here by default).

    Raises:
        ArtifactError: it lacks one of them, or is not under git.
    """
    here = (folder or Path.cwd()).resolve()
    missing = [name for name in PROJECT_FILES if not (here / name).is_file()]
    if missing:
        raise ArtifactError(
            f"{here} has no {' and no '.join(missing)}",
            "malgil works in the root of its project",
            "change to that folder (the one with dvc.yaml), or restore the file from git",
        )
    if not any((folder / ".git").exists() for folder in (here, *here.parents)):
        raise ArtifactError(
            f"{here} is not in a git repository",
            "the lineage of a version needs one",
            "git init",
        )
    return here


def begin_in_project(folder: Path | None = None) -> Path:
    """`find_project` and `set_environment`, as a run begins: what git cannot tell is said now.

    Raises:
        ArtifactError, CapacityError: as those.
    """
    project = find_project(folder)
    set_environment(project)
    warn_of_checkout(project)
    return project


def set_environment(project: Path) -> None:
    """Sets what is not set yet: quiet libraries, Prefect's home in store/, this Python first on PATH.

    Raises:
        CapacityError: store/ cannot be written.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    home = Path(os.environ.setdefault("PREFECT_HOME", str(project / "store" / "prefect")))
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, home) from error
    binaries = str(Path(sys.executable).parent)
    if os.environ.get("PATH", "").split(os.pathsep)[0] != binaries:
        os.environ["PATH"] = os.pathsep.join(filter(None, [binaries, os.environ.get("PATH", "")]))
    if "HF_ENDPOINT" in os.environ:  # Xet is spoken by the public Hub alone
        os.environ.setdefault("HF_HUB_DISABLE_XET", "1")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def take_every_core() -> None:
    """For a command beside which nothing runs, unless the user says so; before torch is imported."""
    if not (os.environ.get("MALGIL_THREADS") or os.environ.get("OMP_NUM_THREADS")):
        os.environ["MALGIL_THREADS"] = str(cores())

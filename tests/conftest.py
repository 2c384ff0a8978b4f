"""The environment of every test, set before a library is imported: quiet, offline, homes of their own.

One thread per library: the cores are for the workers of pytest-xdist and for the children that tests start.
"""

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.environment import QUIET

HOMES = Path(tempfile.mkdtemp(prefix="malgil-tests-"))
atexit.register(shutil.rmtree, HOMES, ignore_errors=True)

os.environ.update(QUIET)
os.environ.update(
    {
        "PREFECT_HOME": str(HOMES / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
        "DVC_SITE_CACHE_DIR": str(HOMES / "dvc"),
        "DVC_GLOBAL_CONFIG_DIR": str(HOMES / "dvc-config"),
        "HF_HOME": str(HOMES / "hf"),
        "HF_HUB_DISABLE_XET": "1",  # read once, when huggingface_hub is first imported; our server has no Xet
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
)
for name in (
    "PREFECT_API_URL",
    "MLFLOW_TRACKING_URI",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "MALGIL_QUICK",
    "MALGIL_SET",
):
    os.environ.pop(name, None)
(HOMES / "prefect").mkdir()
if shutil.which("nvidia-smi") is None:
    os.environ["TRITON_INTERPRET"] = "1"  # without a GPU; Triton looks once, when it is first imported

ROOT = Path(__file__).parents[1]
MOST_WORKERS = 8  # each collects all tests (16 CPU-seconds) and makes shared fixtures of its own
WORKER_BYTES = 3 * 2**30  # a worker with the largest of its children


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """`-n auto`: a worker for each core that this process may use, as far as memory suffices."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # xdist reads it itself
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MOST_WORKERS, psutil.virtual_memory().total // WORKER_BYTES))


@pytest.fixture(scope="session")
def copy_project() -> Callable[..., Path]:
    """Copies the project's files (committed or not, nothing ignored) and its base model to a new folder."""

    def copy(target: Path, *, wheels: bool = True) -> Path:
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
            "\0"
        )
        for name in filter(None, names):
            if (ROOT / name).is_file():  # not what was deleted and is not committed yet
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target / name)
        (target / "store/wheels").mkdir(parents=True)
        for wheel in (ROOT / "store/wheels").glob("*.whl") if wheels else ():
            shutil.copy2(wheel, target / "store/wheels")
        subprocess.run(["git", "init", "-q", str(target)], check=True)
        return target

    return copy


@pytest.fixture(scope="session")
def project_environment() -> dict[str, str]:
    """The environment of a user in a project copy: Prefect's home is the project's own store/."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_HOME")}

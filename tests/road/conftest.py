"""One project copy with one finished quick run, shared by the tests of the road."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.children import communicate


@dataclass
class Ended:
    """A finished `malgil` command."""

    code: int
    out: str
    err: str
    wall_s: float
    cpu_s: float

    @property
    def made(self) -> set[str]:
        """Stages that were made or restored, by the log lines."""
        words = [line.split() for line in self.err.splitlines()]
        return {w[1] for w in words if len(w) > 3 and w[2] == "|" and w[3] in ("made", "restored")}


class Project:
    """A copy of the project and the commands a user gives in it."""

    def __init__(self, path: Path, environment: dict[str, str]) -> None:
        self.path, self.environment = path, environment

    def malgil(self, *arguments: str) -> Ended:
        """Runs `malgil <arguments>` to its end."""
        before, began = cpu_s(), time.monotonic()
        child = self.start(*arguments)
        out, err = communicate(child, cpu_s=3000)
        return Ended(child.returncode, out, err, time.monotonic() - began, cpu_s() - before)

    def start(
        self, *arguments: str, stderr: Any = subprocess.PIPE, environment: dict[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """Starts `malgil <arguments>`, in an environment of its own if it is given one."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=self.path,
            env=environment or self.environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def summary(self) -> dict[str, Any]:
        """build/summary.json."""
        return dict(json.loads((self.path / "build/summary.json").read_text("utf-8")))

    def listing(self, folder: str) -> dict[str, tuple[int, float]]:
        """Size and time of every file below a folder."""
        files = [path for path in (self.path / folder).rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_size, path.stat().st_mtime) for path in files}


def cpu_s() -> float:
    """CPU time of the children that have ended, s."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture(scope="session")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    copy_project: Callable[..., Path],
    project_environment: dict[str, str],
) -> Project:
    """A copy of the project in which nothing has been run."""
    path = copy_project(tmp_path_factory.mktemp("road") / "project")
    # A user's threads: the run shares the cores among its lines.
    environment = {
        k: v for k, v in project_environment.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    return Project(path, {**environment, "PYTHONPATH": str(path), "COLUMNS": "150"})


@pytest.fixture(scope="session")
def first(project: Project) -> Ended:
    """`malgil run --quick` in it, from nothing."""
    ended = project.malgil("run", "--quick")
    assert ended.code == 0, ended.err
    return ended

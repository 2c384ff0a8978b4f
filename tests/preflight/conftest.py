"""A project folder with everything that a check looks at, and the check in it, in this process."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.check import findings_of
from tasks.preflight.finding import Finding, faults

ROOT = Path(__file__).parents[2]
Checked = Callable[..., list[Finding]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: settings, graph, models and git, no code."""
    folder = tmp_path / "project"
    for name in ("params.yaml", "dvc.yaml", ".dvc/config", "infra/base-model.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "models").symlink_to(ROOT / "models")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    monkeypatch.chdir(folder)
    for name in ("HF_TOKEN", "HF_ENDPOINT", "MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def checked(project: Path) -> Checked:
    """`checked(*overrides, line="all")`: what is found."""

    def check(*overrides: str, line: str = "all", quick: bool = True) -> list[Finding]:
        return findings_of(line, quick, overrides)

    return check


@pytest.fixture
def refused(checked: Checked) -> Callable[..., str]:
    """The text of all faults of a check; "" where there is none."""

    def text(*overrides: str, line: str = "all") -> str:
        return "\n".join(f"{one.check}: {one}" for one in faults(checked(*overrides, line=line)))

    return text


@pytest.fixture
def malgil(project: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """The command itself, in the project."""
    import os

    from tests.children import run

    def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return run([sys.executable, "-m", "flows.cli", *arguments], cwd=project, env=environment, text=True)

    return command

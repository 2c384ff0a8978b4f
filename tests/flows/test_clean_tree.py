"""A run leaves `git status` as it was, and DVC still knows what is fresh."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import steps
from flows.environment import set_environment


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def clone(tmp_path: Path, copy_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone of the project: committed, nothing run in it."""
    path = copy_project(tmp_path / "clone", wheels=False)
    git(path, "add", ".")
    git(path, "commit", "-qm", "as it is")
    monkeypatch.chdir(path)
    monkeypatch.setenv("PYTHONPATH", str(path))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("PREFECT_HOME", str(path / "store/prefect"))
    set_environment(path)
    return path


def test_a_run_leaves_git_status_as_it_was(clone: Path) -> None:
    steps.settle(quick=True, overrides=[])
    assert not steps.make("commands").cached
    assert not steps.make("prepare_llm").cached
    assert "prepare_llm:" in (clone / "dvc.lock").read_text()
    assert git(clone, "status", "--porcelain") == ""
    planned = {"commands": [], "corpus": ["commands"], "prepare_llm": ["commands"]}
    assert steps.find_fresh(planned) == {"commands", "prepare_llm"}
    steps.settle(quick=True, overrides=["corpus.seed=7"])
    assert steps.find_fresh(planned) == set()
    assert git(clone, "status", "--porcelain") == ""


def test_no_file_that_a_run_writes_is_tracked() -> None:
    """What is tracked changes in `git status` though it is ignored."""
    root = Path(__file__).parents[2]
    assert git(root, "ls-files", "dvc.lock", "build", "store") == ""

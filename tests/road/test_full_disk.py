"""A disk that is full and one that cannot be written: a clear message, exit code 4, nothing half-made."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.children import run

pytestmark = pytest.mark.slow
SMALL_MB = 36  # the project is 22


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory, copy_project: Callable[..., Path]) -> Iterator[Path]:
    """A project copy on a disk with room for Prefect's database and some of the corpus."""
    disk = tmp_path_factory.mktemp("disk")
    mounted = os.geteuid() == 0 and mount(disk, f"size={SMALL_MB}m")
    if not mounted:
        pytest.skip("a disk of its own size needs root and mount")
    try:
        project = disk / "project"
        copy_project(project, wheels=False)
        yield project
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def mount(where: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
    return subprocess.run(command, capture_output=True).returncode == 0


def malgil(folder: Path, environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "flows.cli", *arguments]
    environment = {**environment, "PYTHONPATH": str(folder)}
    return run(command, cwd=folder, env=environment, text=True)


def test_a_full_disk_is_named_and_leaves_no_half_written_corpus(
    small_disk: Path, project_environment: dict[str, str]
) -> None:
    ended = malgil(small_disk, project_environment, "run", "--quick", "-S", "corpus.train_utterances=2000")
    assert ended.returncode == 4, ended.stderr
    assert "no space left" in ended.stderr and "free some space" in ended.stderr
    assert "Traceback" not in ended.stderr.split("malgil: ")[-1]
    assert not (small_disk / "build/corpus").exists()
    assert list((small_disk / "build").glob("*.part")) == []


def test_a_read_only_folder_is_named(small_disk: Path, project_environment: dict[str, str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk.parent)], check=True)
    try:
        ended = malgil(small_disk, project_environment, "run", "--quick")
        assert ended.returncode == 4, ended.stderr
        assert "cannot write" in ended.stderr and "change the permissions" in ended.stderr
        assert "Traceback" not in ended.stderr
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk.parent)], check=True)

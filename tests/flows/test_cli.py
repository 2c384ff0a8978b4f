"""The command line before anything starts: light, and clear about mistakes."""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.children import run

ROOT = Path(__file__).parents[2]
# The command line's own libraries: all that `--help` may wait for
LIGHT = {"annotated_doc", "click", "markdown_it", "mdurl", "pygments", "rich", "shellingham", "typer"}


def malgil(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return run(command, cwd=folder, env=environment, text=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The settings and the graph, without code: enough for what is checked first."""
    for name in ("params.yaml", "dvc.yaml", ".dvc/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def imports(*arguments: str) -> tuple[set[str], str]:
    """The top-level modules that a Python imports, and what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = run([sys.executable, "-X", "importtime", *arguments], cwd=ROOT, env=environment, text=True)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}, ended.stdout


def test_help_is_light() -> None:
    imported, said = imports("-m", "flows.cli", "--help")
    assert "doctor" in said and {"flows", "typer"} <= imported
    every_start, _ = imports("-c", "pass")  # what the environment itself loads: an install of setuptools does
    installed = set(metadata.packages_distributions()) - {"flows", "tasks", "malgil_kernels"}
    assert (imported - every_start) & installed <= LIGHT, (
        "a heavy import got into the help: it must come at once"
    )


def test_all_mistakes_in_the_settings_are_reported_at_once_before_anything_starts(project: Path) -> None:
    text = (project / "params.yaml").read_text().replace("  head_factor:", "  head_factr:")
    (project / "params.yaml").write_text(text)
    ended = malgil(
        "run", "-S", "corpus.seed=seven", "-S", "quantise_llm.typs=[Q8_0]", "-S", "x", folder=project
    )
    assert ended.returncode == 2
    for part in (
        "train_asr.head_factr: unknown key; did you mean 'head_factor'?",
        "corpus.seed",
        "quantise_llm.typs",
        "-S x",
    ):
        assert part in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (project / "build").exists()


def test_a_folder_that_is_no_project_is_said(tmp_path: Path) -> None:
    ended = malgil("run", folder=tmp_path)
    assert ended.returncode == 2
    assert "has no params.yaml and no dvc.yaml" in ended.stderr and "Traceback" not in ended.stderr


def test_a_project_without_git_is_said(project: Path) -> None:
    shutil.rmtree(project / ".git")
    ended = malgil("run", folder=project)
    assert ended.returncode == 2 and "Next: git init" in ended.stderr


def test_an_unknown_line_is_refused(project: Path) -> None:
    ended = malgil("run", "--line", "tts", folder=project)
    assert ended.returncode == 2 and "'asr', 'llm', 'all'" in ended.stderr


def test_an_api_that_does_not_answer_is_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    ended = malgil("run", folder=project)
    assert ended.returncode == 2
    assert "no Prefect server answers at http://127.0.0.1:9/api" in ended.stderr


def test_up_names_the_port_in_use_and_the_option(project: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = malgil("up", "--prefect-port", str(port), folder=project)
    assert ended.returncode == 3
    assert f"port {port} (Prefect) is in use" in ended.stderr and "--prefect-port" in ended.stderr


def test_doctor_says_what_is_missing_and_how_to_mend_it(project: Path) -> None:
    ended = malgil("doctor", folder=project)
    assert ended.returncode == 1
    assert "make setup" in ended.stdout and "base model" in ended.stdout
    assert "Missing:" in ended.stdout


def test_doctor_speaks_json(project: Path) -> None:
    import json

    from tasks.cpu import describe_cpu

    ended = malgil("doctor", "--json", folder=project)
    findings = {finding["check"]: finding for finding in json.loads(ended.stdout)}
    assert findings["Python 3.11"]["state"] == "ok"
    assert findings["espeak-ng"]["found"] == "speaks Korean"
    assert findings["8-bit instructions"]["found"] == describe_cpu()
    assert findings["packages"]["state"] == "missing"
    assert all(f["mend"] for f in findings.values() if f["state"] == "missing")

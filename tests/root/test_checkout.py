"""What git can tell of a checkout, what it cannot, and whether the remedies work: by git itself."""

import logging
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from flows import doctor, steps
from flows.environment import begin_in_project
from tasks import checkout
from tasks.checkout import read_checkout

IDENTITY = ["-c", "user.name=t", "-c", "user.email=t@t"]


def git(folder, *arguments):
    command = ["git", "-C", str(folder), *IDENTITY, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def do(advice, folder, monkeypatch):
    """What the advice says, in a shell, as the user would."""
    for name, value in zip(("GIT_AUTHOR", "GIT_COMMITTER"), ("t", "t"), strict=True):
        monkeypatch.setenv(f"{name}_NAME", value)
        monkeypatch.setenv(f"{name}_EMAIL", f"{value}@t")
    subprocess.run(advice, shell=True, check=True, cwd=folder, capture_output=True)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one commit with a space in its path; git's own settings lie beside it."""
    folder = tmp_path / "my project"
    files = {
        "params.yaml": "a: 1",
        "dvc.yaml": GRAPH,
        ".dvc/config": "[core]\n    no_scm = true\n",
        "src": "1",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    (tmp_path / "home").mkdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    git(folder, "add", "src", "dvc.yaml", "params.yaml")
    git(folder, "commit", "-qm", "one")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(checkout, "_said", set())
    return folder


GRAPH = """
stages:
  copy: {cmd: cp src made, deps: [src], outs: [made]}
"""


@pytest.fixture(params=["git's own test switch", "chown"])
def foreign(project, request, monkeypatch):
    """The project in the hands of another user."""
    if request.param == "chown":
        if os.geteuid() != 0:
            pytest.skip("only root gives files away")
        for path in (project, *project.rglob("*")):
            os.chown(path, 12345, 12345)
        monkeypatch.delenv("SUDO_UID", raising=False)
    else:
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    return project


def finding():
    return next(each for each in doctor.check_project() if each.check == "git repository")


def test_a_checkout_is_its_commit_and_whether_it_was_changed(project):
    commit = git(project, "rev-parse", "HEAD")
    assert read_checkout(project) == (commit, False, "", "")
    assert finding().state == "ok"
    (project / "untracked").write_text("1")
    assert read_checkout(project).dirty is False
    (project / "src").write_text("2")
    assert read_checkout(project) == (commit, True, "", "")


def test_a_checkout_that_another_user_owns_is_said_everywhere_and_the_advice_works(
    foreign, monkeypatch, caplog
):
    found = read_checkout(foreign)
    assert (found.commit, found.dirty) == ("unknown", None), "unknown is not clean"
    assert found.trouble == "git refuses a checkout that another user owns"
    assert (finding().state, finding().mend) == ("missing", found.mend)
    with caplog.at_level(logging.INFO):
        begin_in_project()
        begin_in_project()
    assert caplog.text.count(f"{found.trouble}. Next: {found.mend}") == 1
    do(found.mend, foreign, monkeypatch)
    assert len(read_checkout(foreign).commit) == 40 and finding().state == "ok"


def test_dvc_works_on_a_checkout_that_another_user_owns(foreign):
    assert not steps.is_fresh("copy")
    steps.make("copy")
    assert steps.is_fresh("copy")


def test_a_repository_without_a_commit_is_said_and_the_advice_works(project, monkeypatch):
    subprocess.run(["rm", "-rf", ".git"], check=True)
    assert read_checkout(project).trouble == "the project is not in a git repository"
    do(read_checkout(project).mend, project, monkeypatch)
    found = read_checkout(project)
    assert found.trouble == checkout.NO_COMMIT and finding().state == "absent"
    do(found.mend, project, monkeypatch)
    assert read_checkout(project)[1:] == (False, "", "")


def test_a_damaged_index_is_said_and_the_advice_works(project, monkeypatch):
    (project / ".git/index").write_bytes(b"no index")
    found = read_checkout(project)
    assert (len(found.commit), found.dirty, found.trouble) == (40, None, "git's index is damaged")
    do(found.mend, project, monkeypatch)
    assert read_checkout(project).dirty is False


@pytest.mark.parametrize("what", ["HEAD", "objects", "branch"])
def test_a_damaged_repository_is_said(project, what):
    if what == "HEAD":
        (project / ".git/HEAD").write_text("nonsense")
    elif what == "branch":
        (project / ".git" / git(project, "symbolic-ref", "HEAD")).write_text("0" * 39 + "1\n")
    else:
        for path in (project / ".git/objects").rglob("*"):
            if path.is_file():
                path.chmod(0o644)
                path.write_bytes(b"")
    found = read_checkout(project)
    assert (found.commit, found.dirty) == ("unknown", None)
    assert found.trouble == "the git repository is damaged" and "git fsck" in found.mend


def test_a_worktree_whose_repository_is_elsewhere_is_said(project, tmp_path):
    tree = tmp_path / "tree"
    git(project, "worktree", "add", "-q", str(tree))
    assert len(read_checkout(tree).commit) == 40
    project.rename(tmp_path / "gone")
    assert "worktree or submodule is not on this machine" in read_checkout(tree).trouble


def test_a_folder_on_a_disk_of_its_own_without_a_repository_is_just_that(monkeypatch):
    """Git speaks of the edge of the file system then, though nothing lies beyond it."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no second file system here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        assert read_checkout(Path(folder)).trouble == "the project is not in a git repository"


def test_git_that_is_not_installed_is_said(project, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = read_checkout(project)
    assert (found.commit, found.dirty, found.trouble) == ("unknown", None, "git is not installed")


def test_no_trouble_that_is_published_holds_a_path_of_this_machine(foreign):
    assert str(foreign) not in read_checkout(foreign).trouble

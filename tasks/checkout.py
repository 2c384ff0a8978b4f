"""What git says of the code that runs: its commit, whether it was changed, and why neither can be told.

Git refuses a checkout that another user owns (a folder mounted into a container), cannot follow a worktree
or submodule whose repository is elsewhere, or is not there at all. Each has a name and a remedy here, so that
no version is published as coming from a clean "unknown".
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

UNKNOWN = "unknown"
NO_COMMIT = "the git repository has no commit yet"
WAIT_S = 60
log = logging.getLogger("malgil")
_said: set[tuple[Path, str]] = set()


class Checkout(NamedTuple):
    """The state of a checkout.

    Attributes:
        commit: that is checked out; "unknown" where git cannot tell.
        dirty: whether tracked files differ from it; None where git cannot tell.
        trouble: why git cannot tell, without a path of this machine; "" where it can.
        mend: what to do about it.
    """

    commit: str
    dirty: bool | None
    trouble: str = ""
    mend: str = ""


def read_checkout(root: Path) -> Checkout:
    """What git says of the checkout that `root` lies in."""
    if shutil.which("git") is None:
        return _unknown("git is not installed", "install git with the system's package manager")
    code, commit, said = _git(root, "rev-parse", "--verify", "HEAD^{commit}")
    if code != 0:
        return _unknown(*_explained(root, said))
    code, changes, said = _git(root, "status", "--porcelain", "--untracked-files=no")
    if code != 0:
        return Checkout(commit, None, *_explained(root, said))
    return Checkout(commit, bool(changes))


def warn_of_checkout(root: Path) -> Checkout:
    """Says once in the log what git cannot tell of the checkout, and how to mend it; returns what it can."""
    found = read_checkout(root)
    if found.trouble and (root, found.trouble) not in _said:
        _said.add((root, found.trouble))
        log.warning(
            "where a version comes from cannot be told whole: %s. Next: %s", found.trouble, found.mend
        )
    return found


def _unknown(trouble: str, mend: str) -> Checkout:
    return Checkout(UNKNOWN, None, trouble, mend)


def _explained(root: Path, said: str) -> tuple[str, str]:
    """A name and a remedy for what git said."""
    if "dubious ownership" in said:
        named = re.search(r"safe\.directory (.+)$", said, re.MULTILINE)
        path = named[1].strip() if named else shlex.quote(str(root.resolve()))
        return (
            "git refuses a checkout that another user owns",
            f"git config --global --add safe.directory {path}",
        )
    if "not a git repository" in said:
        return _no_repository(root)
    if "Needed a single revision" in said and not _has_objects(root):
        return NO_COMMIT, "git add -A && git commit -m 'The project as it is'"
    if "index file" in said or "index uses" in said:
        return "git's index is damaged", 'rm "$(git rev-parse --git-path index)" && git reset'
    if "timed out" in said:
        return (
            f"git did not answer within {WAIT_S} s",
            "run `git status` in the project and see what it waits for",
        )
    if "Permission denied" in said:
        return (
            "this user may not read the git repository",
            "let the owner give the permission: chmod -R a+rX .git",
        )
    return (
        "the git repository is damaged",
        "run `git fsck`, then restore .git from a backup or from a new clone",
    )


def _no_repository(root: Path) -> tuple[str, str]:
    place = next((d / ".git" for d in (root, *root.resolve().parents) if os.path.lexists(d / ".git")), None)
    if place is None:
        return "the project is not in a git repository", "git init"
    if place.parent.stat().st_dev != root.stat().st_dev:
        return (
            "git does not look for the repository on another file system",
            "export GIT_DISCOVERY_ACROSS_FILESYSTEM=1",
        )
    if place.is_file():
        return (
            "the repository of this git worktree or submodule is not on this machine",
            "mount or restore the folder that the file .git names, or work in a clone",
        )
    return (
        "the git repository is damaged",
        "run `git fsck`, then restore .git from a backup or from a new clone",
    )


def _has_objects(root: Path) -> bool:
    """Whether a branch has a commit, so that a checkout without one is damaged."""
    code, refs, said = _git(root, "for-each-ref", "--count=1", "refs/heads")
    return code != 0 or bool(refs) or bool(said)


def _git(root: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and what was said, in English; nothing in the repository is written."""
    command = ["git", "-C", str(root), "--no-optional-locks", *arguments]
    environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=WAIT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, "", "timed out"
    except OSError as error:
        return 1, "", str(error)
    return done.returncode, done.stdout.strip(), done.stderr.strip()

"""Where a version comes from: code, data, settings and environment, each named by a digest.

The same facts go into the model version's tags, the published lineage.json and the model card. Facts that
cannot be had (no git, no dvc.lock) are said to be unknown, never guessed.
"""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.artifacts import read_json, sha256_file
from tasks.params import read_yaml
from tasks.release.evidence import Line

UNKNOWN = "unknown"
LOCK = Path("dvc.lock")  # below the project's root; not under git: every run writes it
CODE = ("tasks", "flows", "kernels")  # code is named by the git commit, not by md5


@dataclass(frozen=True)
class Lineage:
    """Digests of everything a version was made from; "unknown" where there is none.

    Attributes:
        git_commit: of the code; git_dirty says whether tracked files differed from it.
        dvc_lock: SHA-256 of dvc.lock, which MLflow keeps with the version's run.
        data: DVC's md5 of every data file or folder on the line's road, inputs and outputs, by path.
        params: SHA-256 of build/params.yaml, the settings of the run.
        constraints: SHA-256 of constraints.txt, the installed versions.
        base: the encoder or base model that was fine-tuned; from the Hub, with its commit.
        measured_on: the CPU that the shipped files were evaluated on, with its instruction sets.
    """

    git_commit: str
    git_dirty: bool
    dvc_lock: str
    params: str
    constraints: str
    data: Mapping[str, str] = field(default_factory=dict)
    base: str = UNKNOWN
    measured_on: str = UNKNOWN

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def tags(self) -> dict[str, str]:
        """MLflow tags; `malgil.md5.<path>` makes a version searchable by the md5 of its data."""
        return {
            "malgil.git_commit": self.git_commit,
            "malgil.git_dirty": str(self.git_dirty).lower(),
            "malgil.dvc_lock": self.dvc_lock,
            "malgil.params": self.params,
            "malgil.constraints": self.constraints,
            "malgil.base": self.base,
            "malgil.measured_on": self.measured_on,
        } | {f"malgil.md5.{path}": md5 for path, md5 in self.data.items()}


def read_lineage(line: Line, build_dir: Path, root: Path | None = None) -> Lineage:
    """The lineage of the line's artifacts in `build_dir`.

    Args:
        root: the project root with dvc.lock, constraints.txt and git; the current folder by default.
    """
    root = root or Path.cwd()
    lock = root / LOCK
    commit, dirty = read_git(root)
    return Lineage(
        git_commit=commit,
        git_dirty=dirty,
        dvc_lock=_digest(lock),
        params=_digest(build_dir / "params.yaml"),
        constraints=_digest(root / "constraints.txt"),
        data=data_md5s(read_yaml(lock), f"build/{line}/") if lock.is_file() else {},
        base=_base(line, build_dir),
        measured_on=_measured_on(line, build_dir),
    )


def _base(line: Line, build_dir: Path) -> str:
    """What was fine-tuned, as the stage that read it wrote it down."""
    path = build_dir / ("asr/checkpoint/malgil.json" if line == "asr" else "llm/base/malgil.json")
    about = read_json(path) if path.is_file() else {}
    return str(about.get("encoder") or about.get("model") or about.get("wheel") or UNKNOWN)


def _measured_on(line: Line, build_dir: Path) -> str:
    """The CPU as the evaluation wrote it down: what ran here last may be another."""
    path = build_dir / line / "evaluation/metrics.json"
    found = (read_json(path) if path.is_file() else {}).get("measured_on", {})
    return f"{found['cpu']} ({found['instruction_sets']})" if found else UNKNOWN


def read_git(root: Path) -> tuple[str, bool]:
    """The commit checked out in `root` and whether tracked files differ from it."""
    if shutil.which("git") is None:
        return UNKNOWN, False
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit or UNKNOWN, bool(changes)


def data_md5s(lock: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """md5 of all data on the way to the outputs under `prefix`, from the content of a dvc.lock.

    Stages are followed upwards from those whose outputs lie under `prefix`, through the files they read.
    """
    stages = {
        name: ({d["path"]: d for d in stage.get("deps", [])}, {o["path"]: o for o in stage.get("outs", [])})
        for name, stage in lock.get("stages", {}).items()
    }
    wanted = {name for name, (_, outs) in stages.items() if any(path.startswith(prefix) for path in outs)}
    grown = True
    while grown:
        read = [path for name in wanted for path in stages[name][0]]
        more = {name for name, (_, outs) in stages.items() if any(_overlap(o, r) for o in outs for r in read)}
        grown = not more <= wanted
        wanted |= more
    found = {
        path: str(entry["md5"])
        for name in wanted
        for kind, part in enumerate(stages[name])
        for path, entry in part.items()
        if "md5" in entry and path.split("/")[0] not in CODE and (kind == 0 or path.startswith(prefix))
    }
    return dict(sorted(found.items()))


def _overlap(out: str, dependency: str) -> bool:
    return out == dependency or dependency.startswith(f"{out}/") or out.startswith(f"{dependency}/")


def _digest(path: Path) -> str:
    return sha256_file(path) if path.is_file() else UNKNOWN


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""

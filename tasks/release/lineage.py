"""Where a version comes from: code, data, settings and environment, each named by a digest.

The same facts go into the model version's tags, the published lineage.json and the model card. Facts that
cannot be had (no git, no dvc.lock) are said to be unknown, never guessed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.artifacts import read_json, sha256_file
from tasks.checkout import UNKNOWN, warn_of_checkout
from tasks.params import read_yaml
from tasks.release.evidence import Line

LOCK = Path("dvc.lock")  # below the project's root; not under git: every run writes it
CODE = ("tasks", "flows", "kernels")  # code is named by the git commit, not by md5


@dataclass(frozen=True)
class Lineage:
    """Digests of everything a version was made from; "unknown" where there is none.

    Attributes:
        git_commit: of the code; git_dirty says whether tracked files differed from it, None where git could
            not tell; git_trouble says why not.
        dvc_lock: SHA-256 of dvc.lock, which MLflow keeps with the version's run.
        data: DVC's md5 of every data file or folder on the line's road, inputs and outputs, by path.
        params: SHA-256 of build/params.yaml, the settings of the run.
        constraints: SHA-256 of constraints.txt, the installed versions.
        base: the encoder or base model that was fine-tuned; from the Hub, with its commit.
        measured_on: the CPU that the shipped files were evaluated on, with its instruction sets.
    """

    git_commit: str
    git_dirty: bool | None
    dvc_lock: str
    params: str
    constraints: str
    data: Mapping[str, str] = field(default_factory=dict)
    base: str = UNKNOWN
    measured_on: str = UNKNOWN
    git_trouble: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `git_trouble` only where there is any."""
        told = asdict(self) | ({"git_dirty": UNKNOWN} if self.git_dirty is None else {})
        return {key: value for key, value in told.items() if key != "git_trouble" or value}

    def commit_in_words(self) -> str:
        """The commit, whether it was changed, and what git could not tell: for readers."""
        changed = " with uncommitted changes" if self.git_dirty else ""
        unsure = "; whether it was changed is unknown" if self.git_dirty is None else ""
        why = f" ({self.git_trouble}{unsure})" if self.git_trouble else ""
        return f"`{self.git_commit}`{changed}{why}"

    def tags(self) -> dict[str, str]:
        """MLflow tags; `malgil.md5.<path>` makes a version searchable by the md5 of its data."""
        return {
            "malgil.git_commit": self.git_commit,
            "malgil.git_dirty": UNKNOWN if self.git_dirty is None else str(self.git_dirty).lower(),
            "malgil.dvc_lock": self.dvc_lock,
            "malgil.params": self.params,
            "malgil.constraints": self.constraints,
            "malgil.base": self.base,
            "malgil.measured_on": self.measured_on,
            **({"malgil.git_trouble": self.git_trouble} if self.git_trouble else {}),
        } | {f"malgil.md5.{path}": md5 for path, md5 in self.data.items()}


def read_lineage(line: Line, build_dir: Path, root: Path | None = None) -> Lineage:
    """The lineage of the line's artifacts in `build_dir`.

    Args:
        root: the project root with dvc.lock, constraints.txt and git; the current folder by default.
    """
    root = root or Path.cwd()
    lock = root / LOCK
    git = warn_of_checkout(root)
    return Lineage(
        git_commit=git.commit,
        git_dirty=git.dirty,
        dvc_lock=_digest(lock),
        params=_digest(build_dir / "params.yaml"),
        constraints=_digest(root / "constraints.txt"),
        data=data_md5s(read_yaml(lock), f"build/{line}/") if lock.is_file() else {},
        base=_base(line, build_dir),
        measured_on=_measured_on(line, build_dir),
        git_trouble=git.trouble,
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

"""The project before a run: git that answers, and a dvc.yaml that fits the settings."""

from collections.abc import Iterator
from pathlib import Path

from tasks.checkout import read_checkout
from tasks.errors import ArtifactError
from tasks.params import read_yaml
from tasks.preflight.finding import Check, Finding, Subject, ok, warning
from tasks.settings import SECTIONS

NAME = "project"
GRAPH = Path("dvc.yaml")


def look(subject: Subject) -> Iterator[Finding]:
    """git and dvc.yaml."""
    yield from _git()
    stages = read_yaml(GRAPH).get("stages")
    if not isinstance(stages, dict) or not stages:
        raise ArtifactError(f"{GRAPH} has no stages", "a run makes them", f"restore {GRAPH} from git")
    unknown = sorted({key for key in _keys(stages) if not _is_setting(key)})
    if unknown:
        raise ArtifactError(
            f"{GRAPH} reads {', '.join(unknown[:5])}",
            "there are no such settings",
            f"restore {GRAPH} from git",
        )
    yield ok(NAME, f"{len(stages)} stages")


def _git() -> Iterator[Finding]:
    """What lineage will not be able to tell; a commit that is yet to be made is no fault of the checkout."""
    git = read_checkout(Path.cwd())
    if git.trouble:
        yield warning(NAME, git.trouble, "the lineage of a version names the commit and changes", git.mend)
    elif git.dirty is not None:
        yield ok(NAME, f"commit {git.commit[:12]}{', with changes' if git.dirty else ''}")


def _keys(stages: dict[str, object]) -> Iterator[str]:
    for stage in stages.values():
        for entry in stage.get("params", ()) if isinstance(stage, dict) else ():
            for keys in entry.values() if isinstance(entry, dict) else ([entry],):
                yield from keys or ()


def _is_setting(key: str) -> bool:
    section, _, name = key.partition(".")
    return section in SECTIONS and (not name or name in SECTIONS[section].model_fields)


CHECK = Check(NAME, (), look)

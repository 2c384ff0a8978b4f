"""Names of models and data sets on the Hub, pinned or not: `org/name`, `org/name@revision`. No command.

A revision is a branch, a tag or a commit. What is fetched lies in the Hub's own cache, in a folder named by
its commit, so that an artifact can say which one it was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple


class HubName(NamedTuple):
    """A repository and the revision asked for; None: the head of its main branch."""

    repository: str
    revision: str | None


def hub_name(name: str) -> HubName | None:
    """What a name means on the Hub; None when it can only be a path."""
    repository, sign, revision = name.partition("@")
    fits = repository.count("/") <= 1 and repository[:1].isalnum() and "\\" not in repository
    return HubName(repository, revision or None) if fits and bool(sign) == bool(revision) else None


def fetch(
    name: HubName, kind: Literal["model", "dataset"] = "model", patterns: Sequence[str] | None = None
) -> Path:
    """The folder of a snapshot in the Hub's cache, its files those of `patterns`; called as its commit.

    With no network it is the one in the cache. Raises what huggingface_hub does; callers say what to do.
    """
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            name.repository,
            repo_type=kind,
            revision=name.revision,
            allow_patterns=None if patterns is None else list(patterns),
        )
    )

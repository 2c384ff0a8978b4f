"""The publishing target before a run: a folder that can be written, or a Hub with token, right and name."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import MalgilError
from tasks.preflight.capacity import require_writable
from tasks.preflight.finding import Check, Finding, Subject, fault, ok
from tasks.release.hub_access import repository_name, require_rights

NAME = "publishing"


def look(subject: Subject) -> Iterator[Finding]:
    """`publish.target` with what it needs."""
    params = subject.params.publish
    if params.target == "folder":
        require_writable(Path(params.folder))
        free = shutil.disk_usage(next(p for p in Path(params.folder).absolute().parents if p.exists())).free
        yield ok(NAME, f"folder {params.folder}, {free / 1e9:.1f} GB free")
        return
    wanted = {"asr": params.asr_repo, "llm": params.llm_repo}
    repositories = []
    for line in subject.lines:
        try:
            repositories.append(repository_name(params.namespace, wanted[line]))
        except MalgilError as error:
            yield fault(NAME, error)
            if not _is_name(params.namespace):
                break  # one mistake, not one for each repository
    account = require_rights(repositories[0] if repositories else f"{params.namespace}/malgil")
    if repositories:
        yield ok(NAME, f"the Hub, {' and '.join(repositories)}, as {account}")


def _is_name(namespace: str) -> bool:
    try:
        return bool(repository_name(namespace, "malgil"))
    except MalgilError:
        return False


CHECK = Check(NAME, ("publish",), look)

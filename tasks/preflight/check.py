"""Everything that can be known before work: the list of checks, run one after another, all faults at once.

    findings = examine(subject)             what `malgil check` prints
    require(findings)                       raises `Preflight` with every fault

Each check asks the functions that the stages ask (docs/reference/cli.md lists what is looked at). What was
found in order stays so while its settings, files and versions are the same (`record.py`); the network and the
disk are asked every time.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tasks.preflight import (
    capacity,
    language_model,
    project,
    publishing,
    recogniser,
    record,
    settings,
    source,
    stores,
    texts,
)
from tasks.preflight.finding import Check, Finding, Preflight, Subject, faults, run_check

CHECKS: tuple[Check, ...] = (
    project.CHECK,
    capacity.WRITABLE,
    capacity.SPACE,
    capacity.ROOM,
    source.CHECK,
    source.RECORDINGS,
    texts.CHECK,
    recogniser.CHECK,
    recogniser.SEARCH,
    language_model.CHECK,
    language_model.FIRST_ADAPTER,
    publishing.CHECK,
    stores.TRACKING,
    stores.RUN_ARTIFACTS,
    stores.DVC_REMOTE,
)


def look_at_settings(
    path: Path, *, quick: bool, sets: Sequence[str], lines: tuple[str, ...]
) -> tuple[Subject, list[Finding]]:
    """The settings as far as they hold, and their mistakes; see `settings.read`."""
    return settings.read(path, quick=quick, sets=sets, lines=lines)


def examine(
    subject: Subject,
    *,
    more: Iterable[Check] = (),
    advance: Callable[[str], None] | None = None,
    keep: bool = True,
) -> list[Finding]:
    """The findings of every check that the lines need and whose settings hold.

    Args:
        more: checks of the caller's own, run after these.
        advance: called with the name of each check before it is run.
        keep: write the record. A run that is refused leaves no file behind.
    """
    known = record.read()
    kept = dict(known)
    findings: list[Finding] = []
    for check in (*CHECKS, *more):
        if not set(check.lines) & set(subject.lines) or not subject.whole >= set(check.needs):
            continue
        if advance:
            advance(check.name)
        key = record.key_of(check, subject)
        found = record.recalled(known, check, key)
        if found is None:
            found = run_check(check, subject)
            entry = record.entry(key, found) if key else None
            if entry:
                kept[check.name] = entry
        findings += found
    if keep and kept != known and not faults(findings):
        record.write(kept)
    return findings


def require(findings: Sequence[Finding]) -> None:
    """Raises Preflight with every fault, if there is one."""
    if faults(findings):
        raise Preflight(findings)

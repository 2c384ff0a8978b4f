"""The settings of a run, read as far as they are right: mistakes in one section hide no fault of another."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks import params as files
from tasks.errors import MalgilError, SettingsError
from tasks.preflight.finding import Finding, Subject, fault, ok
from tasks.settings import SECTIONS, Params


def read(
    path: Path, *, quick: bool, sets: Sequence[str], lines: tuple[str, ...]
) -> tuple[Subject, list[Finding]]:
    """The settings and what is wrong in them; a section with mistakes is missing from the former."""
    try:
        params = files.load(path, quick=quick, sets=sets)
        return Subject(params, lines, frozenset(SECTIONS)), [ok("settings", f"{path} holds")]
    except SettingsError as error:
        findings = [_fault(problem, error) for problem in error.problems]
    except MalgilError as error:
        findings = [fault("settings", error)]
    found = dict(_sections(path, quick, sets))
    names = {name: "validate_" if name == "validate" else name for name in found}
    params = Params.model_construct(**{names[name]: value for name, value in found.items()})
    return Subject(params, lines, frozenset(found)), findings


def _fault(problem: str, error: SettingsError) -> Finding:
    key, _, said = problem.partition(": ")
    return fault("settings", MalgilError(key, said, error.next_step))


def _sections(path: Path, quick: bool, sets: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The sections that hold by themselves."""
    try:
        values, _ = files.resolve(files.read_yaml(path), quick=quick, sets=sets)
    except MalgilError:
        return
    for name, kind in SECTIONS.items():
        try:
            yield name, kind.model_validate(values.get(name))
        except ValidationError:
            continue

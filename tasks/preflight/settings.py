"""The settings of a run, read as far as they are right: a mistake in one hides no fault of another."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks import params as files
from tasks.errors import MalgilError, SettingsError
from tasks.preflight.finding import Finding, Subject, Unknown, fault, ok
from tasks.settings import SECTIONS, Params


class Partial:
    """A section of which some settings are wrong: asked for one of those, it raises `Unknown`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise Unknown(name)

    def model_dump(self) -> dict[str, Any]:
        """What holds."""
        return dict(self.__dict__)

    def model_copy(self, update: Mapping[str, Any]) -> "Partial":
        """Another with `update`."""
        return Partial({**self.__dict__, **update})


def read(
    path: Path, *, quick: bool, sets: Sequence[str], lines: tuple[str, ...]
) -> tuple[Subject, list[Finding]]:
    """The settings and what is wrong in them; of a section with mistakes the other settings are there."""
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
    """The sections, of each what holds."""
    try:
        values, _ = files.resolve(files.read_yaml(path), quick=quick, sets=sets)
    except MalgilError:
        return
    for name, kind in SECTIONS.items():
        try:
            yield name, kind.model_validate(values.get(name))
        except ValidationError as error:
            given = values.get(name)
            if not isinstance(given, dict):
                continue
            wrong = {place["loc"][0] for place in error.errors() if place["loc"]}
            yield name, Partial({key: value for key, value in given.items() if key not in wrong})

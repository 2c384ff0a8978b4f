"""What a check before a run finds, and how checks are run: none stops another. No check stands here."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tasks.errors import MalgilError, explain_os_error
from tasks.settings import Params

State = Literal["ok", "warning", "fault"]
log = logging.getLogger("malgil.check")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at, in a word or two.
        state: a fault stops the run before it begins, a warning does not.
        what, rule, next_step: the parts of a message (`MalgilError`); of what is ok only `what`.
        exit_code: of a fault.
    """

    check: str
    state: State
    what: str
    rule: str = ""
    next_step: str = ""
    exit_code: int = 0

    def __str__(self) -> str:
        return self.what if self.state == "ok" else f"{self.what}: {self.rule}. Next: {self.next_step}"


class Unknown(AttributeError):
    """A setting that is wrong, as has been said: what hangs on it cannot be looked at."""


class Subject(NamedTuple):
    """What a run would be made of.

    Attributes:
        params: the settings; one with a mistake raises `Unknown`, a section that cannot be read is missing.
        lines: "asr", "llm" or both.
        whole: names of the sections that are there, as attributes of `params`.
    """

    params: Params
    lines: tuple[str, ...]
    whole: frozenset[str]


class Check(NamedTuple):
    """A check: its name, the settings it reads, and its body.

    Attributes:
        lines: it is left out of a run of none of these lines.
        stamp: what its answer depends on beside the settings, if it need not be asked again while that is the
            same; None: it is asked every time (the network, the disk).
    """

    name: str
    needs: tuple[str, ...]
    body: Callable[[Subject], Iterator[Finding]]
    lines: tuple[str, ...] = ("asr", "llm")
    stamp: Callable[[Subject], Any] | None = None


def ok(check: str, what: str) -> Finding:
    """A finding that is as it should be."""
    return Finding(check, "ok", what)


def warning(check: str, what: str, rule: str, next_step: str) -> Finding:
    """A finding to know of, which stops nothing."""
    return Finding(check, "warning", what, rule, next_step)


def fault(check: str, error: MalgilError) -> Finding:
    """A finding that a run would end with."""
    return Finding(check, "fault", error.what, error.rule.strip(), error.next_step, error.exit_code)


def run_check(check: Check, subject: Subject) -> list[Finding]:
    """The findings of a check; what it raises is a finding too."""
    found: list[Finding] = []
    try:
        found.extend(check.body(subject))
    except MalgilError as error:
        found.append(fault(check.name, error))
    except Unknown:
        return found
    except OSError as error:
        found.append(fault(check.name, explain_os_error(error)))
    except Exception as error:
        log.debug("%s could not be looked at", check.name, exc_info=True)
        said = (str(error).strip().splitlines() or [""])[0][:200]
        found.append(
            warning(
                check.name,
                f"it could not be looked at ({type(error).__name__}: {said})",
                "what is wrong there shows in its stage",
                "report this line; the run goes on",
            )
        )
    return found


def faults(findings: Sequence[Finding]) -> list[Finding]:
    """Those that stop a run."""
    return [finding for finding in findings if finding.state == "fault"]


def exit_code(findings: Sequence[Finding]) -> int:
    """0 without a fault; the code of the faults if all have one and the same, else 2."""
    codes = {finding.exit_code for finding in faults(findings)}
    return 0 if not codes else codes.pop() if len(codes) == 1 else 2


class Preflight(MalgilError):
    """A run that cannot work: every fault, one below the other."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        found = faults(findings)
        lines = "".join(f"\n  - {finding.check}: {finding}" for finding in found)
        count = f"{len(found)} faults" if len(found) > 1 else "1 fault"
        super().__init__(f"this run cannot work, {count}", lines + "\n", "mend them all, then `malgil check`")
        self.findings = found
        self.exit_code = exit_code(findings)

    def __str__(self) -> str:
        return f"{self.what}:{self.rule}Next: {self.next_step}"


def as_json(findings: Sequence[Finding]) -> list[Mapping[str, Any]]:
    """For programs."""
    return [
        {
            "check": finding.check,
            "state": finding.state,
            "what": finding.what,
            "rule": finding.rule,
            "next": finding.next_step,
            "exit_code": finding.exit_code,
        }
        for finding in findings
    ]

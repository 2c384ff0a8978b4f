"""The errors that Malgil raises on purpose. Each names the value, the rule and the next step.

    MalgilError                 anything a user can mend; exit code 2 unless said otherwise
    ├── SettingsError           params.yaml or an override is wrong (all mistakes at once)
    ├── DataError               a manifest, an audio file, a transcript or a split
    ├── ModelError              a checkpoint, a vocabulary, a GGUF or ONNX file
    ├── ArtifactError           a file of the pipeline is missing, half-written or of another hash
    ├── PublishError            a publishing target refused or holds other bytes
    ├── ConflictError           somebody else holds what we need (a run, a port); exit code 3
    ├── CapacityError           disk full, folder read-only, no permission; exit code 4
    └── MissingDependencyError  a package or program is not installed; exit code 5

A bare exception that reaches the user is a bug in Malgil.
"""

import errno
from pathlib import Path


class MalgilError(Exception):
    """An error with the three parts a reader needs.

    Args:
        what: what was found, with the offending value ("corpus.seed = 'x'").
        rule: what is accepted ("must be an integer of at least 0").
        next_step: what to do now ("correct params.yaml").
    """

    exit_code = 2

    def __init__(self, what: str, rule: str, next_step: str) -> None:
        self.what, self.rule, self.next_step = what, rule, next_step
        super().__init__(what, rule, next_step)

    def __str__(self) -> str:
        return f"{self.what}: {self.rule}. Next: {self.next_step}"


class SettingsError(MalgilError):
    """One or more wrong settings; `problems` has a line for each, with the path of its key."""

    def __init__(self, source: str, problems: list[str], next_step: str) -> None:
        self.problems = problems
        plural = "mistake" if len(problems) == 1 else "mistakes"
        super().__init__(
            f"{source} has {len(problems)} {plural}", "\n  - " + "\n  - ".join(problems) + "\n", next_step
        )

    def __str__(self) -> str:
        return f"{self.what}:{self.rule}Next: {self.next_step}"


class DataError(MalgilError):
    """A manifest, an audio file, a transcript or a split."""


class ModelError(MalgilError):
    """A checkpoint, a vocabulary, a GGUF or ONNX file."""


class ArtifactError(MalgilError):
    """A file of the pipeline is missing, half-written or of another hash."""


class PublishError(MalgilError):
    """A publishing target refused, or holds other bytes under the same name."""


class ConflictError(MalgilError):
    """Somebody else holds what is needed: another run, a port."""

    exit_code = 3


class CapacityError(MalgilError):
    """The disk is full, the folder read-only, the permission missing."""

    exit_code = 4


class MissingDependencyError(MalgilError):
    """A package or program is not installed."""

    exit_code = 5


def explain_os_error(error: OSError, path: Path | str | None = None) -> MalgilError:
    """Turns an operating-system error into one that says what to do."""
    where = str(path or error.filename or "a file")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CapacityError(
            f"no space left while writing {where}",
            "the disk (or quota) is full; nothing half-written was kept",
            "free some space (`dvc gc -w` drops old artifacts) and start the same command again",
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return CapacityError(
            f"cannot write {where}" if error.errno == errno.EROFS else f"no permission for {where}",
            "the folder must be writable and the files readable by this user",
            "change the permissions or work in another folder, then start the same command again",
        )
    if error.errno == errno.ENOENT:
        return ArtifactError(
            f"{where} does not exist",
            "it is needed here",
            "run the stages before this one (`malgil run` or `dvc repro`), or correct the path",
        )
    return ArtifactError(
        f"{where}: {error.strerror or error}",
        "the operating system refused",
        "look at the file, then start the same command again",
    )

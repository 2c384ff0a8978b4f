"""What a training run says while it runs: one JSON line per logged step.

The file is the truth that survives a kill and needs no server; the release step sends it to MLflow in
one batch (`tasks.release.registry`), since a call per metric costs 20 ms.
"""

import json
import math
from pathlib import Path
from typing import Protocol

from tasks.errors import ArtifactError, explain_os_error


class Tracker(Protocol):
    """Takes the metrics of a step."""

    def log(self, step: int, **metrics: float) -> None:
        """Records `metrics` at `step`."""


class JsonlTracker:
    """Appends `{"step": n, ...}` lines to a file.

    Args:
        path: the history file; its folder is made.
        resume_step: keep what was logged up to and including this step, drop the rest (a run that was
            killed has logged past its last checkpoint). None starts an empty file.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        self.path = path
        kept = [] if resume_step is None else [r for r in read_history(path) if r["step"] <= resume_step]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        except OSError as error:
            raise explain_os_error(error, path) from error

    def log(self, step: int, **metrics: float) -> None:
        """Records `metrics` at `step`.

        Raises:
            ArtifactError: a metric is NaN or infinite, so that the run has diverged.
        """
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise ArtifactError(
                f"{', '.join(bad)} is not finite at step {step}",
                "training has diverged",
                "lower the learning rate in params.yaml and start again; the last checkpoint is kept",
            )
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **metrics}) + "\n")


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a history file, oldest first; a last line cut off by a kill is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows

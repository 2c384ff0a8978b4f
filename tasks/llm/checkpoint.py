"""Resumable state of a training run: written whole, checked by hash, two kept.

Lives outside the stage's outputs, since DVC empties those before a stage starts. A state belongs to one
`key` (a digest of settings and inputs): other states are ignored. A damaged newest state falls back to
the one before it.
"""

import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from tasks.artifacts import new_file, read_json, sha256_file, write_json
from tasks.errors import MalgilError

KEPT = 2
log = logging.getLogger("malgil.checkpoint")


class Checkpoints:
    """States of one run below `folder`, each `state-<step>.pt` with its hash in `state-<step>.json`.

    Args:
        folder: the run's work folder.
        key: what the states must belong to.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes a state and drops all but the newest two.

        Raises:
            CapacityError: no space; the states before are as they were.
        """
        path = self.folder / f"state-{step:08d}.pt"
        with new_file(path) as temporary:
            torch.save(state, temporary)
        write_json(path.with_suffix(".json"), {"key": self.key, "step": step, "sha256": sha256_file(path)})
        for old in sorted(self.folder.glob("state-*.json"))[:-KEPT]:
            old.unlink()
            old.with_suffix(".pt").unlink(missing_ok=True)

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """The newest whole state of this key and its step, or None to start from the beginning."""
        for note in sorted(self.folder.glob("state-*.json"), reverse=True):
            try:
                about = read_json(note)
                if about.get("key") != self.key:
                    log.info("%s belongs to other settings or inputs: ignored", note)
                    continue
                path = note.with_suffix(".pt")
                if sha256_file(path) != about["sha256"]:
                    log.warning("%s is damaged (its hash does not match): taking the state before it", path)
                    continue
                state: dict[str, Any] = torch.load(path, weights_only=True)
                return int(about["step"]), state
            except (MalgilError, KeyError, AttributeError, RuntimeError, pickle.UnpicklingError) as error:
                log.warning("%s cannot be read (%s): taking the state before it", note, error)
        return None

    def clear(self) -> None:
        """Removes the work folder: the run is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

"""Resumable state of a training: what a killed run needs to continue to the same result.

Outside a stage's outputs (DVC deletes those first), in `build/work/<stage>/`. The two newest states are
kept, each with a note of its SHA-256, so that a half-written or damaged one is noticed and the one before
it is used. Not here: what a state holds; the random generators of Python, NumPy and torch are added to it.
"""

from __future__ import annotations

import logging
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.artifacts import new_file, read_json, sha256_file, write_json
from tasks.errors import MalgilError

KEPT = 2
log = logging.getLogger("malgil.resume")


class ResumableState:
    """States of one training below `folder`, each `step-<n>.pt` beside its note `step-<n>.json`.

    Args:
        folder: the training's work folder; `clear` removes it.
        key: a digest of settings and inputs; states of another key are ignored.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes the state whole, then its note, then drops those of another key and all but the two newest.

        Raises:
            CapacityError: the disk is full; the earlier states stay.
        """
        path = self.folder / f"step-{step:08d}.pt"
        with new_file(path) as temporary:
            torch.save({**state, "random": _random_states()}, temporary)
        write_json(path.with_suffix(".json"), {"key": self.key, "step": step, "sha256": sha256_file(path)})
        own = [path for path in self._states() if self._is_own(path)]
        for old in {*self._states()} - {*own[:KEPT]}:
            old.with_suffix(".json").unlink(missing_ok=True)
            old.unlink()

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """Step and content of the newest whole state of this key, or None to start afresh.

        Sets the random generators as they were. What is damaged or belongs to other settings is passed
        over with a log line that says so.
        """
        for path in self._states():
            try:
                note = read_json(path.with_suffix(".json"))
                if note["key"] != self.key:
                    log.info("%s belongs to other settings or data: ignored", path)
                    continue
                if note["sha256"] != sha256_file(path):
                    log.warning("%s is damaged (its hash does not match): trying the one before it", path)
                    continue
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                _set_random_states(state.pop("random"))
            except (MalgilError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
                log.warning("%s cannot be read (%s): trying the one before it", path, error)
                continue
            log.info("resuming after step %d (%s)", note["step"], path)
            return int(note["step"]), state
        if self._states():
            log.warning("no usable state in %s: starting afresh", self.folder)
        return None

    def clear(self) -> None:
        """Removes everything: the training has finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_own(self, path: Path) -> bool:
        try:
            return bool(read_json(path.with_suffix(".json")).get("key") == self.key)
        except (MalgilError, AttributeError):
            return False

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"), reverse=True)


def _random_states() -> dict[str, Any]:
    kind, keys, position, has_gauss, cached = np.random.get_state()  # transformers masks with it
    version, internal, gauss = random.getstate()
    words = torch.from_numpy(np.asarray(keys).astype(np.int64))
    return {
        "torch": torch.get_rng_state(),
        "numpy": [str(kind), words, position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))

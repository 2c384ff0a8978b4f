"""Resumable state of a training: what a killed run needs to continue to the same result.

Outside a stage's outputs (DVC deletes those first), in `build/work/<stage>/`. The two newest checkpoints
are kept, each with its SHA-256, so that a half-written or damaged one is noticed and the one before it is
used.
"""

from __future__ import annotations

import logging
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.artifacts import new_file, sha256_file, write_text

log = logging.getLogger("malgil.asr.resume")
_KEEP = 2


class ResumableState:
    """Checkpoints `step-<n>.pt` in `folder`, valid only for the same `key` (a digest of settings and
    inputs).
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes the checkpoint whole, then its hash, then drops all but the two newest.

        Raises `CapacityError` when the disk is full; the earlier checkpoints stay.
        """
        path = self.folder / f"step-{step:07d}.pt"
        with new_file(path) as temporary:
            torch.save({**state, "step": step, "key": self.key, "random": _random_states()}, temporary)
        write_text(path.with_suffix(".sha256"), sha256_file(path) + "\n")
        for old in self._checkpoints()[_KEEP:]:
            old.with_suffix(".sha256").unlink(missing_ok=True)
            old.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest usable checkpoint with the random generators set to it, or None to start afresh.

        Damaged checkpoints and those of other settings are skipped with a log line that says so.
        """
        for path in self._checkpoints():
            digest = path.with_suffix(".sha256")
            if not digest.is_file() or digest.read_text(encoding="utf-8").strip() != sha256_file(path):
                log.warning("%s is damaged or half-written: trying the one before it", path)
                continue
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # noqa: BLE001  an unpickling error of any kind means "not usable"
                log.warning("%s cannot be read (%s): trying the one before it", path, error)
                continue
            if state.get("key") != self.key:
                log.info("%s belongs to other settings or data: starting afresh", path)
                return None
            _set_random_states(state["random"])
            log.info("resuming from step %d (%s)", state["step"], path)
            return state
        if self.folder.is_dir() and any(self.folder.glob("step-*.pt")):
            log.warning("no usable checkpoint in %s: starting afresh", self.folder)
        return None

    def clear(self) -> None:
        """Removes everything: the training has finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"), reverse=True)


def _random_states() -> dict[str, Any]:
    kind, keys, position, has_gauss, cached = np.random.get_state()  # transformers masks with it
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
        "python": [version, list(internal), gauss],
    }


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))

"""What made a result: checkpoint, commit, machine, versions. Names and numbers only, never a path."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tasks.asr.checkpoints.layout import local_folder
from tasks.checkout import UNKNOWN, warn_of_checkout
from tasks.weights.pickled import weights_of

_PACKAGES = ("torch", "transformers", "numpy", "espeakng-loader", "soxr")


def checkpoint(name: str) -> dict[str, str]:
    """A checkpoint by its name and the SHA-256 of its weights (of shards: of the JSON of their hashes).

    Args:
        name: a folder, of which the last part is kept, or a Hub id with its commit (`layout.pinned`).

    Returns:
        `name` and `sha256`; of pickled weights also their `file` and `converted_sha256`.

    Raises:
        ModelError: there is none, or no weights in it.
    """
    weights = weights_of(local_folder(name))
    shown = Path(name).resolve().name if Path(name).is_dir() else name
    if "converted_sha256" in weights:
        return {"name": shown, **weights}
    return {"name": shown, "sha256": weights["sha256"]}


def git_commit() -> str:
    """The commit that is checked out, or "" where there is none."""
    commit = warn_of_checkout(Path.cwd()).commit
    return "" if commit == UNKNOWN else commit


def machine() -> dict[str, Any]:
    """Processor, its cores, and the threads that torch uses."""
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def versions() -> dict[str, str]:
    """Python and the packages on which a training's numbers depend."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )

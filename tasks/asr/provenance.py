"""What made a result: checkpoint, commit, machine, versions. Names and numbers only, never a path."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tasks.asr.checkpoints.digest import weights_sha256
from tasks.asr.checkpoints.layout import local_folder

log = logging.getLogger("malgil.asr.provenance")
_PACKAGES = ("torch", "transformers", "numpy", "espeakng-loader", "soxr")


def checkpoint(name: str) -> dict[str, str]:
    """A checkpoint by its name and the SHA-256 of its weights (of shards: of the JSON of their hashes).

    Args:
        name: a folder, of which the last part is kept, or a Hub id with its commit (`layout.pinned`).

    Raises:
        ModelError: there is none, or no weights in it.
    """
    folder = local_folder(name)
    shown = folder.name if Path(name).is_dir() else name
    return {"name": shown, "sha256": weights_sha256(folder)}


def git_commit() -> str:
    """The commit that is checked out, or "" where there is none."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.info("no git commit is recorded: %s", error)
        return ""
    return answer.stdout.strip()


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

"""How many threads a stage's libraries may use. No command."""

from __future__ import annotations

import os


def thread_count() -> int:
    """Threads from MALGIL_THREADS or OMP_NUM_THREADS, one if unset: stages run side by side on few cores."""
    return max(1, int(os.environ.get("MALGIL_THREADS") or os.environ.get("OMP_NUM_THREADS") or 1))


def use_threads() -> None:
    """Sets torch to `thread_count()`; results are repeatable only for the same count."""
    import torch

    torch.set_num_threads(thread_count())

"""Clipped recordings: measured as the validation stage does, block by block, and told. No command.

A recording whose peaks were cut off is transcribed all the same; its text comes with a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.data.audio import clipped_share

MOST = 0.01  # share of samples at full scale that needs no warning; validate.max_clipped_share as shipped


class Clipping:
    """Counts the samples at full scale of a recording that is read in blocks."""

    def __init__(self) -> None:
        self._samples = 0
        self._clipped = 0.0

    def add(self, block: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        """Counts a block of any shape, as in the file, before channels are averaged or rates converted."""
        self._samples += block.size
        self._clipped += clipped_share(block.reshape(-1)) * block.size

    @property
    def share(self) -> float:
        """Share of the samples so far; 0 without any."""
        return self._clipped / max(1, self._samples)


def clipping_warnings(name: str, share: float) -> Sequence[str]:
    """What to say of a recording of this share: one sentence with what to do, or nothing."""
    if share <= MOST:
        return ()
    return (
        f"{name} is clipped: {share:.1%} of its samples are at full scale, and words may be wrong there. "
        "Next: record it again at a lower level, or ask for the original; "
        "turning a clipped file down does not mend it",
    )

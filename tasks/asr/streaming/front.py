"""Samples to convolution features as they come in, exactly those of one pass over the whole. No command."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tasks.asr.recordings.windows import Grid, measure_grid
from tasks.asr.streaming.level import BLOCK_SAMPLES, Leveller

Audio = np.ndarray[Any, np.dtype[np.float32]]


def grid_of(model: Any) -> Grid:
    """Stride and receptive field of the model's frames, in samples."""
    return measure_grid(lambda n: int(model._get_feat_extract_output_lengths(torch.tensor([n]))[0]))


class Front:
    """The feature encoder on a stream; of the samples it keeps those that a coming frame will see.

    Exact where a frame depends on its own samples alone: layer norm, and an input that is levelled by its
    past (`level`) or not at all.
    """

    def __init__(self, model: Any, grid: Grid, levels: bool) -> None:
        self._encoder = model.base_model.feature_extractor
        self._grid = grid
        self._leveller = Leveller() if levels else None
        self._raw = torch.zeros(0)  # less than a block, waiting to be levelled
        self._samples = torch.zeros(0)

    def add(self, audio: Audio) -> None:
        """Takes samples (samples,) in."""
        raw = torch.cat([self._raw, torch.from_numpy(audio)])
        whole = len(raw) // BLOCK_SAMPLES * BLOCK_SAMPLES if self._leveller else len(raw)
        if whole:
            ready = self._leveller(raw[:whole]) if self._leveller else raw
            self._samples = torch.cat([self._samples, ready])
        self._raw = raw[whole:]

    def end(self) -> None:
        """No more samples come: what waits for the rest of its block goes on without it."""
        if self._leveller and len(self._raw):
            block = torch.nn.functional.pad(self._raw, (0, BLOCK_SAMPLES - len(self._raw)))
            self._samples = torch.cat([self._samples, self._leveller(block)[: len(self._raw)]])
            self._raw = self._raw[:0]

    @property
    def frames(self) -> int:
        """Frames that can be taken."""
        return self._grid.frames(len(self._samples))

    def take(self, frames: int) -> torch.Tensor:
        """The next `frames` (at least one) features, (1, frames, width)."""
        seen = self._samples[: self._grid.samples(frames)]
        # `forward`, for the module itself would level its input once more, as if it were a whole utterance
        features: torch.Tensor = self._encoder.forward(seen[None])
        self._samples = self._samples[frames * self._grid.stride :]
        return features.transpose(1, 2)


def projected(model: Any, features: torch.Tensor) -> torch.Tensor:
    """Features (1, frames, width) as the transformer takes them, (1, frames, hidden)."""
    result = model.base_model.feature_projection(features)
    hidden: torch.Tensor = result[0] if isinstance(result, tuple) else result  # wav2vec2; HuBERT
    return hidden

"""Logits of a stream through any checkpoint: overlapping windows, of which the middle is taken.

An approximation of the pass over the whole audio, and many times its work: every window goes through the
model again. Convolution features are kept between windows where they are exact, which is with layer norm
and an input that is not normalised by the window. No command.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tasks.asr.checkpoints.checkpoint import Checkpoint
from tasks.asr.streaming.attention import hear_chunks
from tasks.asr.streaming.front import Audio, Front, grid_of, projected
from tasks.asr.streaming.shape import shape_of
from tasks.asr.training.augment import normalised
from tasks.asr.training.batching import uses_mask
from tasks.errors import DataError

Logits = np.ndarray[Any, np.dtype[np.float32]]
_FEATURES = ("wav2vec2", "hubert")  # encoders whose parts `projected` knows


@dataclass(frozen=True)
class WindowShape:
    """Seconds before, of, and after the stretch that a window gives logits for."""

    left_s: float = 4.0
    hop_s: float = 1.0
    right_s: float = 0.96

    def __post_init__(self) -> None:
        if min(self.left_s, self.right_s) < 0 or self.hop_s < 0.02:
            raise DataError(
                f"windows of {self.left_s} + {self.hop_s} + {self.right_s} s",
                "no part may be negative, and the middle must be a frame (0.02 s) at least",
                "correct the latency",
            )


class WindowedEncoder:
    """One stream through any checkpoint, in windows; see `CachedEncoder` for the attributes."""

    mode = "windowed"

    def __init__(self, checkpoint: Checkpoint, shape: WindowShape = WindowShape()) -> None:
        self._model = model = checkpoint.model
        hear_chunks(model, False)
        self._normalise = checkpoint.normalise
        self.grid = grid_of(model)
        self._left, self._hop, self._right = (
            round(seconds * 16_000 / self.grid.stride)
            for seconds in (shape.left_s, shape.hop_s, shape.right_s)
        )
        self.latency_s = ((self._hop + self._right - 1) * self.grid.stride + self.grid.field) / 16_000
        exact = not checkpoint.normalise and uses_mask(model) and model.config.model_type in _FEATURES
        self._front = Front(model, self.grid, levels=shape_of(model) is not None) if exact else None
        self._kept = torch.zeros(1, 0, 0)  # features from frame `_first` on
        self._samples = np.zeros(0, np.float32)  # or samples from there
        self._first = self._done = 0

    @torch.inference_mode()
    def accept(self, audio: Audio) -> list[Logits]:
        """Logits (hop, vocabulary) of every window that the samples complete."""
        self._add(audio)
        found = []
        while self._frames() >= self._done + self._hop + self._right:
            found.append(self._step(self._done + self._hop + self._right, self._done + self._hop))
        return found

    @torch.inference_mode()
    def finish(self) -> list[Logits]:
        """Logits of the frames left over."""
        if self._front:
            self._front.end()
            self._add(np.zeros(0, np.float32))
        frames = self._frames()
        return [self._step(frames, frames)] if frames > self._done else []

    def _add(self, audio: Audio) -> None:
        if self._front is None:
            self._samples = np.concatenate([self._samples, audio])
            return
        self._front.add(audio)
        if self._front.frames >= self._hop or (not len(audio) and self._front.frames):
            features = self._front.take(self._front.frames)
            self._kept = torch.cat([self._kept, features], dim=1) if self._kept.shape[1] else features

    def _frames(self) -> int:
        """Frames of the stream so far."""
        if self._front is None:
            return self._first + self.grid.frames(len(self._samples))
        return self._first + self._kept.shape[1]

    def _step(self, end: int, taken: int) -> Logits:
        """Logits of frames `_done` to `taken` from a window that ends with frame `end`."""
        span = end - self._first
        if self._front is None:
            window = self._samples[: self.grid.samples(span)]
            inputs = torch.from_numpy(normalised(window) if self._normalise else window)
            logits = self._model(inputs[None]).logits
        else:
            hidden = projected(self._model, self._kept[:, :span])
            logits = self._model.lm_head(self._model.base_model.encoder(hidden).last_hidden_state)
        result: Logits = logits[0, self._done - self._first : taken - self._first].float().numpy()
        self._done = taken
        gone = max(0, taken - self._left - self._first)
        self._first += gone
        self._kept = self._kept[:, gone:]
        self._samples = self._samples[gone * self.grid.stride :]
        return result

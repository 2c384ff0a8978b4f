"""Logits of a stream through a checkpoint fine-tuned in chunks: exact, at constant work per chunk.

What is kept: the samples that coming frames still see, the features within reach of the positional
convolution, and keys and values of `left_chunks` chunks per layer. No command.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tasks.asr.checkpoints.checkpoint import Checkpoint
from tasks.asr.streaming.attention import LayerCaches, hear_chunks
from tasks.asr.streaming.front import Audio, Front, grid_of, projected
from tasks.asr.streaming.level import BLOCK_SAMPLES
from tasks.asr.streaming.shape import check_architecture, positional, shape_of
from tasks.errors import ModelError

Logits = np.ndarray[Any, np.dtype[np.float32]]


class CachedEncoder:
    """One stream through a streaming checkpoint, whose model it sets to attend in chunks.

    Raises `ModelError` for a checkpoint that was not fine-tuned so.

    Attributes:
        grid: frames and samples.
        latency_s: from a sound to its logits at the latest, without the time of computing, in seconds.
    """

    mode = "cached"

    def __init__(self, checkpoint: Checkpoint) -> None:
        model = checkpoint.model
        shape = shape_of(model)
        if shape is None:
            raise ModelError(
                "cached streaming of a checkpoint that was not fine-tuned in chunks",
                "its config.json must hold malgil_streaming",
                "fine-tune with train_asr.chunk_frames (docs/how-to/stream.md), or use --mode windowed",
            )
        check_architecture(model)
        hear_chunks(model, True)
        self._model, self._encoder = model, model.base_model.encoder
        self._chunk = shape.chunk_frames
        with torch.inference_mode():
            kernel = positional(model).weight.detach()
        self._left = kernel.shape[-1] // 2
        self._right = min(shape.right_frames, kernel.shape[-1] - 1 - self._left)
        self._kernel = kernel[..., : self._left + 1 + self._right].contiguous()
        self.grid = grid_of(model)
        ahead = (self._chunk + self._right - 1) * self.grid.stride + self.grid.field
        self.latency_s = -(-ahead // BLOCK_SAMPLES) * BLOCK_SAMPLES / 16_000  # levelled in whole blocks
        self._front = Front(model, self.grid, levels=True)
        self._caches = LayerCaches(shape.left_chunks * shape.chunk_frames)
        self._features = torch.zeros(
            1, self._left, model.config.hidden_size
        )  # zeros: the padding of the start
        self._ahead = 0  # of these, frames after the end of the last chunk

    @torch.inference_mode()
    def accept(self, audio: Audio) -> list[Logits]:
        """Logits (chunk_frames, vocabulary) of every chunk that the samples complete."""
        self._front.add(audio)
        found = []
        while self._front.frames >= self._chunk + self._right - self._ahead:
            self._look(self._chunk + self._right - self._ahead)
            found.append(self._step(self._chunk))
        return found

    @torch.inference_mode()
    def finish(self) -> list[Logits]:
        """Logits of the frames left over."""
        self._front.end()
        if self._front.frames:
            self._look(self._front.frames)
        padding = torch.zeros(1, self._right, self._features.shape[-1])
        self._features = torch.cat([self._features, padding], dim=1)
        found = []
        while self._ahead:
            found.append(self._step(min(self._chunk, self._ahead)))
        return found

    def _look(self, frames: int) -> None:
        features = projected(self._model, self._front.take(frames))
        self._features = torch.cat([self._features, features], dim=1)
        self._ahead += frames

    def _step(self, frames: int) -> Logits:
        window = self._features[:, : self._left + frames + self._right]
        self._features = self._features[:, frames:]
        self._ahead -= frames
        conv = positional(self._model)
        positions = F.conv1d(window.transpose(1, 2), self._kernel, conv.bias, groups=conv.groups)
        positions = self._encoder.pos_conv_embed.activation(positions).transpose(1, 2)
        hidden = window[:, self._left : self._left + frames] + positions
        stable = self._model.config.do_stable_layer_norm
        hidden = hidden if stable else self._encoder.layer_norm(hidden)
        for layer in self._encoder.layers:
            hidden = layer(hidden, attention_mask=None, layer_caches=self._caches)
        hidden = self._encoder.layer_norm(hidden) if stable else hidden
        logits: Logits = self._model.lm_head(hidden)[0].float().numpy()
        return logits

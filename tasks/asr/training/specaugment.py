"""SpecAugment: spans of frames and of hidden features masked while training.

The masks are those of transformers (`_compute_mask_indices`), drawn for each example from its own seed. So
they do not depend on which examples share a micro batch or a process, and a resumed training draws the
same ones. They are put on where transformers puts them, before the Transformer layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

from tasks.asr.training.batching import Batch
from tasks.asr.training.freeze import encoder_of


@dataclass(frozen=True)
class Masking:
    """Shares of frames and of hidden features inside masked spans (an upper bound: spans overlap), and the
    spans' lengths in frames (20 ms) and features.
    """

    mask_time_prob: float = 0.0
    mask_time_length: int = 10
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10


class SpecAugment:
    """Masks what enters the Transformer layers of `model` while it trains; `close` takes the hook off.

    A checkpoint's own masking is switched off: the settings alone say what is masked.
    """

    def __init__(self, model: Any, masking: Masking) -> None:
        self.model, self.masking = model, masking
        self._seeds: list[int] = []
        self._frames: list[int] = []
        self._base = encoder_of(model)
        model.config.apply_spec_augment = False
        self._hook: Any = None
        if masking.mask_time_prob or masking.mask_feature_prob:
            if not hasattr(self._base, "masked_spec_embed"):
                embedding = torch.empty(model.config.hidden_size, device=model.device).uniform_()
                self._base.masked_spec_embed = torch.nn.Parameter(embedding)
            self._hook = self._base.encoder.register_forward_pre_hook(self._mask)

    def prepare(self, batch: Batch) -> None:
        """Names the examples of the next forward pass."""
        self._seeds = [example.seed for example in batch.examples]
        self._frames = self.model._get_feat_extract_output_lengths(batch.mask.sum(-1)).tolist()

    def close(self) -> None:
        """Takes the hook off the model."""
        if self._hook is not None:
            self._hook.remove()

    def _mask(self, module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not module.training:
            return None
        hidden = arguments[0]  # (batch, frames, hidden)
        config, masking = self.model.config, self.masking
        frames, features = np.zeros(hidden.shape[:2], dtype=bool), np.zeros(hidden.shape[::2], dtype=bool)
        kept = np.random.get_state()
        try:
            for row, (seed, length) in enumerate(zip(self._seeds, self._frames, strict=True)):
                np.random.seed(seed)  # transformers draws from the global generator
                if masking.mask_time_prob and length >= masking.mask_time_length:
                    frames[row, :length] = _compute_mask_indices(
                        (1, length),
                        masking.mask_time_prob,
                        masking.mask_time_length,
                        min_masks=config.mask_time_min_masks,
                    )
                if masking.mask_feature_prob:
                    features[row] = _compute_mask_indices(
                        (1, hidden.shape[2]),
                        masking.mask_feature_prob,
                        masking.mask_feature_length,
                        min_masks=config.mask_feature_min_masks,
                    )
        finally:
            np.random.set_state(kept)
        embedding = self._base.masked_spec_embed.to(hidden.dtype)
        hidden = torch.where(torch.from_numpy(frames).to(hidden.device)[..., None], embedding, hidden)
        hidden = hidden.masked_fill(torch.from_numpy(features).to(hidden.device)[:, None], 0.0)
        return (hidden, *arguments[1:])

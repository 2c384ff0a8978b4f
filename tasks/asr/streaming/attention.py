"""Attention of a streaming encoder, through transformers' own registries: one implementation, `CHUNKED`.

A frame of chunk c sees the frames of the chunks c - left_chunks to c. In a pass over a whole file a mask
says so. In a stream, chunk by chunk, there is no mask: the keys and values of the chunks before come from
a `LayerCaches` handed through the layer's keyword arguments. No command.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import and_masks, sdpa_mask

CHUNKED, WHOLE = "malgil_chunked", "sdpa"
CONFIG_KEY = "malgil_streaming"  # of config.json


def hear_chunks(model: Any, chunked: bool) -> None:
    """Lets the model attend in chunks, as its config says, or to everything."""
    model.set_attn_implementation(CHUNKED if chunked else WHOLE)


class LayerCaches:
    """Keys and values of the last frames, per attention module; each (1, heads, frames, width)."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self._kept: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}

    def extend(
        self, module: torch.nn.Module, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values with those kept before them; the last `frames` of both are kept."""
        if module in self._kept:
            before_key, before_value = self._kept[module]
            key, value = torch.cat([before_key, key], dim=2), torch.cat([before_value, value], dim=2)
        start = max(0, key.shape[2] - self.frames)
        self._kept[module] = (key[:, :, start:], value[:, :, start:])
        return key, value


def _chunked_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    layer_caches: LayerCaches | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention; with caches, over the frames kept and the new ones."""
    if layer_caches is not None:
        key, value = layer_caches.extend(module, key, value)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _chunk_mask(*, config: Any, mask_function: Any, **kwargs: Any) -> torch.Tensor | None:
    """The mask (batch, 1, frames, frames) that padding and chunks leave, True where a frame is seen."""
    shape = getattr(config, CONFIG_KEY)
    chunk, left = int(shape["chunk_frames"]), int(shape["left_chunks"])

    def near(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        behind = query // chunk - key // chunk
        return (behind >= 0) & (behind <= left)

    kwargs["allow_is_bidirectional_skip"] = False
    mask = sdpa_mask(mask_function=and_masks(mask_function, near), **kwargs)
    # A padded frame, whose keys may all be padding, sees itself: not every kernel takes a row of nothing.
    return None if mask is None else mask | torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)


AttentionInterface.register(CHUNKED, _chunked_attention)
AttentionMaskInterface.register(CHUNKED, _chunk_mask)

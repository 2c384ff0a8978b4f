"""Chunked attention in readable PyTorch: each utterance under its explicit mask."""

import torch

from malgil_kernels.attention.reference import masked_attention
from malgil_kernels.attention.rule import Rule, visible_mask


def chunk_mask(frames: int, lengths: torch.Tensor, rule: Rule) -> torch.Tensor:
    """(batch, frames, frames) bool: True where a frame sees another. Padding neither sees nor is seen."""
    place = torch.arange(frames, device=lengths.device)
    real = place[None, :] < lengths[:, None]
    seen = visible_mask(frames, frames, rule, lengths.device)
    return seen[None] & real[:, :, None] & real[:, None, :]


def chunk_attention_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor,
    rule: Rule,
    scale: float,
) -> torch.Tensor:
    """Args and shapes as `malgil_kernels.chunk_attention.chunk_attention`."""
    masks = chunk_mask(q.shape[1], lengths, rule)
    outs = [masked_attention(q[i], k[i], v[i], masks[i], scale)[0] for i in range(q.shape[0])]
    return torch.stack(outs) if outs else torch.zeros_like(q)

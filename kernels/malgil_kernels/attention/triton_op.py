"""Attention over visible ranges as an autograd function; the kernels are in `forward.py`, `backward.py`."""

from typing import Any

import torch

from malgil_kernels.attention.backward import launch_backward
from malgil_kernels.attention.forward import launch_forward
from malgil_kernels.attention.ranges import launch_ranges
from malgil_kernels.attention.rule import Ranges, Rule
from malgil_kernels.dispatch import on_its_device


class RangeAttention(torch.autograd.Function):
    """Saves q, k, v, the output, one float32 per row and head, and the ranges."""

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        ranges: Ranges,
        scale: float,
        softcap: float | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = launch_forward(q, k, v, ranges, scale, softcap)
        ctx.save_for_backward(q, k, v, out, lse, *ranges)
        ctx.scales = scale, softcap
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, out, lse, *ranges = ctx.saved_tensors
        dq, dk, dv = launch_backward(_dense(grads[0]), q, k, v, out, lse, Ranges(*ranges), *ctx.scales)
        return dq, dk, dv, None, None, None


@on_its_device
def range_attention_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    ranges: Ranges,
    scale: float,
    softcap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row of q attends to the keys of its range; lse has no gradient.

    A q, k or v whose inner stride is not 1 is copied first. A NaN or infinity in v may reach rows of other
    sequences that share its tile.
    """
    out, lse = RangeAttention.apply(_dense(q), _dense(k), _dense(v), ranges, scale, softcap)
    return out, lse


@on_its_device
def attention_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    longest: int,
    rule: Rule,
    scale: float,
    softcap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `malgil_kernels.attention.attention`, which checks the arguments."""
    q_bounds, k_bounds = ((starts[:-1], starts[1:]) for starts in (cu_seqlens_q, cu_seqlens_k))
    ranges = launch_ranges(q_bounds, k_bounds, q.shape[0], k.shape[0], longest, rule)
    return range_attention_triton(q, k, v, ranges, scale, softcap)


@on_its_device
def padded_attention_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor,
    longest: int,
    rule: Rule,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Self-attention of (batch · longest, heads, dim) where each `longest` rows end in padding: 0 there."""
    starts = torch.arange(len(lengths), dtype=torch.int32, device=q.device) * longest
    bounds = starts, starts + lengths.clamp(0, longest)
    ranges = launch_ranges(bounds, bounds, q.shape[0], k.shape[0], longest, rule)
    return range_attention_triton(q, k, v, ranges, scale)


def _dense(x: torch.Tensor) -> torch.Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] <= 1 else x.contiguous()

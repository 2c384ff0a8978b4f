"""Frozen experts on Triton, quantised or not, with a LoRA per expert or without: gradients and the op.

    y[t] = x[t] W[e]ᵀ + s (x[t] A[e]ᵀ) B[e]ᵀ;   dx[t] = dy[t] W[e] + s (dy[t] B[e]) A[e]
    dA[e] = Σ_{t of e} s (dy[t] B[e])ᵀ x[t];   dB[e] = Σ_{t of e} dy[t]ᵀ s (x[t] A[e]ᵀ);   W has no gradient

The thin products, s · x A[e]ᵀ and s · dy B[e], are those of `triton_op.py`, and so are dA and dB. Saved for
the backward: with a LoRA x, s · x A[e]ᵀ (a rank wide), A and B; without, nothing of x's size.
"""

from typing import Any

import torch

from malgil_kernels.dispatch import on_its_device
from malgil_kernels.grouped_gemm.launch_frozen import (
    Experts,
    experts_of,
    launch_frozen_input_gradient,
    launch_frozen_product,
)
from malgil_kernels.grouped_gemm.triton_op import launch_product, launch_weight_gradient
from malgil_kernels.quantise.formats import QuantisedWeight


class QuantisedExpertsTriton(torch.autograd.Function):
    """Saves the offsets."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: Experts, offsets: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(offsets)
        ctx.w = w
        return launch_frozen_product(x, w, offsets)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return launch_frozen_input_gradient(_inner(grads[0]), ctx.w, ctx.saved_tensors[0]), None, None


class LoraExpertsTriton(torch.autograd.Function):
    """Saves x, s · x Aᵀ, A, B and the offsets."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        w: Experts,
        offsets: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        low = launch_product(x, a, offsets, scaling)
        ctx.save_for_backward(x, low, a, b, offsets)
        ctx.w, ctx.scaling = w, scaling
        return launch_frozen_product(x, w, offsets, low, b)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, low, a, b, offsets = ctx.saved_tensors
        dy = _inner(grads[0])
        needs_x, needs_a, needs_b = ctx.needs_input_grad[:3]
        dx = da = None
        if needs_x or needs_a:
            dlow = launch_product(dy, b.transpose(1, 2), offsets, ctx.scaling)
            da = launch_weight_gradient(dlow, x, offsets) if needs_a else None
            dx = launch_frozen_input_gradient(dy, ctx.w, offsets, dlow, a) if needs_x else None
        db = launch_weight_gradient(dy, low, offsets) if needs_b else None
        return dx, da, db, None, None, None


@on_its_device
def quantised_grouped_gemm_triton(
    x: torch.Tensor, weight: QuantisedWeight, offsets: torch.Tensor
) -> torch.Tensor:
    """y (tokens, rows) of x (tokens, columns) sorted by expert, weight (experts · rows, columns)."""
    y: torch.Tensor = QuantisedExpertsTriton.apply(x, experts_of(weight, offsets.shape[0] - 1), offsets)
    return y


@on_its_device
def lora_grouped_gemm_triton(
    x: torch.Tensor,
    weight: QuantisedWeight | torch.Tensor,
    offsets: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """The same of frozen weights with a (experts, rank, columns), b (experts, rows, rank) of each expert."""
    w = experts_of(weight, offsets.shape[0] - 1)
    y: torch.Tensor = LoraExpertsTriton.apply(x, a.contiguous(), b.contiguous(), w, offsets, float(scaling))
    return y


def _inner(matrix: torch.Tensor) -> torch.Tensor:
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()

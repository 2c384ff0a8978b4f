"""Residual add + RMSNorm: rms_norm's kernels with ADD, which hold the maths and the bytes per element.

Unfused, the add reads two tensors and writes one, and the norm reads that again: 10 bytes per element forward
in 16 bits instead of 8, and 12 backward (6, then dy + dh: 6) instead of 8.
"""

from typing import Any

import torch

from malgil_kernels.dispatch import on_its_device
from malgil_kernels.rms_norm.triton_op import launch_backward, launch_forward
from malgil_kernels.row_tiles import as_rows


class AddRmsNormTriton(torch.autograd.Function):
    """Saves h, the weight and one float32 per row; h is an output and costs nothing more."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float, variant: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y, h, r = launch_forward(x, weight, eps, variant, residual)
        ctx.save_for_backward(h, weight, r)
        ctx.variant = variant
        ctx.set_materialize_grads(False)  # h of the last layer has no gradient
        return y, h

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        dy, dnext = grads
        h, weight, r = ctx.saved_tensors
        if dy is None:
            return dnext, dnext, None, None, None
        rows = None if dnext is None else as_rows(dnext)
        dh, dw = launch_backward(as_rows(dy), h, weight, r, ctx.variant, rows)
        return dh, dh, dw, None, None


@on_its_device
def add_rms_norm_triton(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float, variant: str = "llama"
) -> tuple[torch.Tensor, torch.Tensor]:
    """(y, h) of x and residual (..., hidden); arguments as `add_rms_norm` has checked them."""
    y, h = AddRmsNormTriton.apply(as_rows(x), as_rows(residual), weight.contiguous(), eps, variant)
    return y.view(x.shape), h.view(x.shape)

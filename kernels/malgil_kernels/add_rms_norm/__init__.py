"""Residual add + RMSNorm fused: h = x + residual, y = rms_norm(h); h is the next residual."""

import torch

from malgil_kernels.add_rms_norm.reference import add_rms_norm_reference
from malgil_kernels.dispatch import select
from malgil_kernels.rms_norm import Variant, check_variant
from malgil_kernels.row_tiles import check_rows

__all__ = ["add_rms_norm"]


def add_rms_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float = 1e-6,
    variant: Variant = "llama",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Adds a block's output to the residual stream and norms the sum, by whatever `dispatch.select` names.

    Deterministic, as rms_norm. The sum is rounded to x's dtype before it is normed, as it is unfused.

    Args:
        x: (..., hidden), hidden ≤ 65,536; any strides (a non-unit inner stride is copied first).
        residual: x's shape, dtype and device.
        weight: (hidden,), same device.
        eps: added to the mean square.
        variant: "llama" or "gemma", as in rms_norm.

    Returns:
        y = rms_norm(h) and h = x + residual, both (..., hidden) in x's dtype. Gradients of both are taken.

    Raises:
        TypeError: a dtype is not a floating type, or x and residual differ in dtype.
        ValueError: shapes or devices do not fit, or the variant is unknown.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467; the decoder layers of Llama in transformers.
    """
    check_rows(x, weight=weight)
    check_variant(variant)
    if residual.shape != x.shape:
        raise ValueError(f"residual has shape {tuple(residual.shape)}: must be x's, {tuple(x.shape)}")
    if residual.dtype != x.dtype:
        raise TypeError(f"residual is {residual.dtype}: must be x's dtype, {x.dtype}")
    if residual.device != x.device:
        raise ValueError(f"residual is on {residual.device}: must be on x's device, {x.device}")
    if select("add_rms_norm", dtype=x.dtype, device=x.device).implementation == "triton":
        from malgil_kernels.add_rms_norm.triton_op import add_rms_norm_triton

        return add_rms_norm_triton(x, residual, weight, eps, variant)
    return add_rms_norm_reference(x, residual, weight, eps, variant)

"""RMSNorm as in Llama: y = x / sqrt(mean(x²) + eps) · w, the mean over the last dimension."""

import torch

from malgil_kernels.dispatch import select
from malgil_kernels.rms_norm.reference import rms_norm_reference

__all__ = ["rms_norm"]


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """Root-mean-square norm over the last dimension, by whatever `dispatch.select` names.

    Args:
        x: (..., hidden), any strides.
        weight: (hidden,), same device as `x`.
        eps: added to the mean square.

    Returns:
        (..., hidden) in x's dtype; statistics are taken in float32.

    Raises:
        ValueError: shapes or devices do not fit.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467; Llama's variant rounds x / rms to x's dtype first.
    """
    if x.ndim == 0 or weight.shape != x.shape[-1:]:
        wanted = x.shape[-1] if x.ndim else "?"
        raise ValueError(f"weight has shape {tuple(weight.shape)}: must be ({wanted},), x's last size")
    if weight.device != x.device:
        raise ValueError(f"weight is on {weight.device}: must be on x's device, {x.device}")
    if select("rms_norm", dtype=x.dtype, device=x.device).implementation == "triton":
        from malgil_kernels.rms_norm.triton_op import rms_norm_triton

        return rms_norm_triton(x, weight, eps)
    return rms_norm_reference(x, weight, eps)

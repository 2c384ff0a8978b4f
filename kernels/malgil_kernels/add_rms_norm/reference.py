"""Residual add + RMSNorm in readable PyTorch: the truth for tests and the implementation on a CPU."""

import torch

from malgil_kernels.rms_norm.reference import rms_norm_reference


def add_rms_norm_reference(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float, variant: str = "llama"
) -> tuple[torch.Tensor, torch.Tensor]:
    """h = x + residual, rounded to x's dtype; y = rms_norm(h). Returns (y, h).

    Args:
        x: (..., hidden), what a block has computed.
        residual: like x, the stream that it is added to.
        weight: (hidden,).
        eps, variant: as in rms_norm.
    """
    inside = torch.promote_types(x.dtype, torch.float32)
    h = (x.to(inside) + residual.to(inside)).to(x.dtype)
    return rms_norm_reference(h, weight, eps, variant), h

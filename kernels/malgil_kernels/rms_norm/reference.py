"""RMSNorm in readable PyTorch: the truth for tests and the implementation on a CPU."""

import torch


def rms_norm_reference(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """y = x / sqrt(mean(x²) + eps) · w over the last dimension; at least float32 inside.

    Args:
        x: (..., hidden).
        weight: (hidden,).
        eps: added to the mean square.
    """
    inside = torch.promote_types(x.dtype, torch.float32)
    wide = x.to(inside)
    normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    return weight * normed.to(x.dtype)

"""RMSNorm in readable PyTorch: the truth for tests and the implementation on a CPU."""

import torch


def rms_norm_reference(
    x: torch.Tensor, weight: torch.Tensor, eps: float, variant: str = "llama"
) -> torch.Tensor:
    """y = x / sqrt(mean(x²) + eps) · w over the last dimension; at least float32 inside, x's dtype outside.

    Args:
        x: (..., hidden).
        weight: (hidden,).
        eps: added to the mean square.
        variant: "llama" rounds the normed x to x's dtype before the product; "gemma" multiplies by 1 + w and
            rounds once.
    """
    inside = torch.promote_types(x.dtype, torch.float32)
    wide = x.to(inside)
    normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    if variant == "gemma":
        return (normed * (1 + weight.to(inside))).to(x.dtype)
    return (weight * normed.to(x.dtype)).to(x.dtype)

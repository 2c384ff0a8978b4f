"""Layer norm in readable PyTorch: the truth for tests and the implementation on a CPU."""

import torch


def layer_norm_reference(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """y = (x − mean(x)) / sqrt(var(x) + eps) · w + b over the last dimension; var divides by the size.

    At least float32 inside, x's dtype outside. Without a weight w = 1, without a bias b = 0.
    """
    return normed(x, weight, bias, eps).to(x.dtype)


def normed(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """The same, not yet rounded to x's dtype."""
    inside = torch.promote_types(x.dtype, torch.float32)
    centred = x.to(inside) - x.to(inside).mean(dim=-1, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(dim=-1, keepdim=True) + eps)
    y = y if weight is None else y * weight.to(inside)
    return y if bias is None else y + bias.to(inside)

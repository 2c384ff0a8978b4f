"""Layer norm + exact GELU in readable PyTorch: the truth for tests and the implementation on a CPU."""

import torch

from malgil_kernels.layer_norm.reference import normed


def layer_norm_gelu_reference(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """y = z·Φ(z), z = layer_norm(x), over the last dimension; at least float32 inside, rounded once."""
    return torch.nn.functional.gelu(normed(x, weight, bias, eps)).to(x.dtype)

"""The LoRA linear in readable PyTorch: the truth for tests and the implementation on a CPU."""

from collections.abc import Sequence

import torch
from torch.nn.functional import linear

from malgil_kernels.quantise.formats import QuantisedWeight


def lora_linear_reference(
    x: torch.Tensor,
    weight: torch.Tensor | QuantisedWeight,
    a: torch.Tensor,
    b: torch.Tensor,
    scaling: float,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """y = x Wᵀ + s · (x Aᵀ) Bᵀ + bias, W dequantised in x's dtype: in float64 when given float64.

    Args:
        x: (..., columns).
        weight: (rows, columns).
        a: (rank, columns); b: (rows, rank); bias: (rows,).
        scaling: s, in LoRA's terms alpha / rank.
    """
    matrix = weight.dequantise(x.dtype) if isinstance(weight, QuantisedWeight) else weight
    return linear(x, matrix, bias) + scaling * linear(linear(x, a), b)


def lora_linear_grouped_reference(
    x: torch.Tensor,
    weight: QuantisedWeight | torch.Tensor,
    a: Sequence[torch.Tensor],
    b: Sequence[torch.Tensor],
    scaling: float,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """The same for each of several weights that are stacked in `weight`, as many rows each as its b has."""
    matrix = weight.dequantise(x.dtype) if isinstance(weight, QuantisedWeight) else weight
    sizes = [part.shape[0] for part in b]
    biases = [None] * len(sizes) if bias is None else torch.split(bias, sizes)
    parts = zip(torch.split(matrix, sizes), a, b, biases, strict=True)
    return tuple(lora_linear_reference(x, w, down, up, scaling, own) for w, down, up, own in parts)

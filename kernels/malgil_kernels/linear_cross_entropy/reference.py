"""Projection and cross-entropy in readable PyTorch: the truth for tests, and what runs on a CPU.

It holds the logits of the rows that count, in float32 at least; ignored rows are not computed here either.
"""

import torch

from malgil_kernels.cross_entropy.options import LossOptions
from malgil_kernels.cross_entropy.reference import cross_entropy_reference


def linear_cross_entropy_reference(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    options: LossOptions,
    num_items: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy of hidden · weightᵀ.

    Args:
        hidden: (tokens, H).
        weight: (vocab, H).
        target: (tokens,).
        options: see there.
        num_items: what "mean" divides by; None for the number of rows that are not ignored.
    """
    inside = torch.promote_types(hidden.dtype, torch.float32)
    kept = target != options.ignore_index
    logits = hidden[kept].to(inside) @ weight.to(inside).t()
    return cross_entropy_reference(logits, target[kept], options, num_items)

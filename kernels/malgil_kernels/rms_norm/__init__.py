"""RMSNorm over the last dimension, y = x / sqrt(mean(x²) + eps) · w, in Llama's and Gemma's variants."""

from typing import Literal

import torch

from malgil_kernels.dispatch import select
from malgil_kernels.rms_norm.reference import rms_norm_reference
from malgil_kernels.row_tiles import check_rows

__all__ = ["VARIANTS", "Variant", "check_variant", "rms_norm"]

Variant = Literal["llama", "gemma"]
VARIANTS = ("llama", "gemma")


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6, variant: Variant = "llama"
) -> torch.Tensor:
    """Root-mean-square norm over the last dimension, by whatever `dispatch.select` names.

    Deterministic: the weight's gradient is summed in an order that depends on the shape and the GPU alone.

    Args:
        x: (..., hidden), hidden ≤ 65,536; any strides (a non-unit inner stride is copied first).
        weight: (hidden,), same device as `x`.
        eps: added to the mean square.
        variant: "llama" rounds x / rms to x's dtype and multiplies by w; "gemma" multiplies by 1 + w in
            float32 and rounds once.

    Returns:
        (..., hidden) in x's dtype; statistics are taken in float32.

    Raises:
        TypeError: a dtype is not a floating type.
        ValueError: shapes or devices do not fit, or the variant is unknown.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467; LlamaRMSNorm and GemmaRMSNorm of transformers.
    """
    check_rows(x, weight=weight)
    check_variant(variant)
    if select("rms_norm", dtype=x.dtype, device=x.device).implementation == "triton":
        from malgil_kernels.rms_norm.triton_op import rms_norm_triton

        return rms_norm_triton(x, weight, eps, variant)
    return rms_norm_reference(x, weight, eps, variant)


def check_variant(variant: str) -> None:
    """Raises ValueError for an unknown variant."""
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}: must be one of {', '.join(VARIANTS)}")

"""Layer norm over the last dimension, y = (x − mean(x)) / sqrt(var(x) + eps) · w + b; w, b optional."""

import torch

from malgil_kernels.dispatch import select
from malgil_kernels.layer_norm.reference import layer_norm_reference
from malgil_kernels.row_tiles import check_rows

__all__ = ["layer_norm"]


def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Layer norm over the last dimension, by whatever `dispatch.select` names.

    Deterministic: gradients of weight and bias are summed in an order that depends on shape and GPU alone.

    Args:
        x: (..., hidden), hidden ≤ 65,536; any strides. (batch, frames, channels) whose frames lie next to
            each other, as after a convolution, keeps that layout up to 512 channels; other inputs with a
            non-unit inner stride are copied first.
        weight: (hidden,) or None for ones, same device as `x`.
        bias: (hidden,) or None for zeros, same device.
        eps: added to the variance.

    Returns:
        x's shape and dtype; statistics are taken in float32.

    Raises:
        TypeError: a dtype is not a floating type.
        ValueError: shapes or devices do not fit.

    Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450; torch.nn.functional.layer_norm.
    """
    check_rows(x, weight=weight, bias=bias)
    if select("layer_norm", dtype=x.dtype, device=x.device).implementation == "triton":
        from malgil_kernels.layer_norm.triton_op import layer_norm_triton

        return layer_norm_triton(x, weight, bias, eps)
    return layer_norm_reference(x, weight, bias, eps)

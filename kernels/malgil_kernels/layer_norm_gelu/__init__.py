"""Layer norm + exact GELU fused, as after wav2vec2's convolutions: y = z·Φ(z), z = layer_norm(x)."""

import torch

from malgil_kernels.dispatch import select
from malgil_kernels.layer_norm_gelu.reference import layer_norm_gelu_reference
from malgil_kernels.row_tiles import check_rows

__all__ = ["layer_norm_gelu"]


def layer_norm_gelu(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Layer norm over the channels and GELU of the result, by whatever `dispatch.select` names.

    Deterministic, as layer_norm. z is not rounded between the two, which unfused it is.

    Args:
        x: (..., channels), channels ≤ 65,536. A convolution's (batch, channels, frames) transposed to
            (batch, frames, channels) is read as it lies up to 512 channels, and y lies alike: transposed
            back, it is contiguous for the next convolution. Other non-unit inner strides are copied first.
        weight: (channels,) or None for ones, same device as `x`.
        bias: (channels,) or None for zeros, same device.
        eps: added to the variance.

    Returns:
        x's shape and dtype; float32 inside.

    Raises:
        TypeError: a dtype is not a floating type.
        ValueError: shapes or devices do not fit.

    Source: Wav2Vec2LayerNormConvLayer of transformers; GELU by Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """
    check_rows(x, weight=weight, bias=bias)
    if select("layer_norm_gelu", dtype=x.dtype, device=x.device).implementation == "triton":
        from malgil_kernels.layer_norm.triton_op import layer_norm_triton

        return layer_norm_triton(x, weight, bias, eps, use_gelu=True)
    return layer_norm_gelu_reference(x, weight, bias, eps)

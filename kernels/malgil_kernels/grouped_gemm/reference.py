"""The grouped matrix products in readable PyTorch: one product per expert."""

import torch

from malgil_kernels.quantise.formats import QuantisedWeight


def grouped_gemm_reference(
    x: torch.Tensor, weight: torch.Tensor | QuantisedWeight, offsets: torch.Tensor
) -> torch.Tensor:
    """y[t] = x[t] · weight[e]ᵀ; tokens after the last offset give zeros.

    Args:
        x: (tokens, in features), sorted by expert.
        weight: (experts, out features, in features), or quantised (experts · out features, in features),
            which is dequantised as a whole in x's dtype: in float64 when given float64.
        offsets: (experts + 1,), read on the host.
    """
    bounds = offsets.tolist()
    if isinstance(weight, QuantisedWeight):
        rows, columns = weight.shape
        weight = weight.dequantise(x.dtype).view(len(bounds) - 1, rows // (len(bounds) - 1), columns)
    parts = [
        x[start:end] @ matrix.t() for start, end, matrix in zip(bounds, bounds[1:], weight, strict=False)
    ]
    rest = x.new_zeros(x.shape[0] - bounds[-1], weight.shape[1])
    return torch.cat([*parts, rest])


def lora_grouped_gemm_reference(
    x: torch.Tensor,
    weight: torch.Tensor | QuantisedWeight,
    offsets: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """y[t] = x[t] W[e]ᵀ + s · (x[t] A[e]ᵀ) B[e]ᵀ.

    Args:
        x, weight, offsets: as in `grouped_gemm_reference`.
        a: (experts, rank, in features); b: (experts, out features, rank).
        scaling: s, in LoRA's terms alpha / rank.
    """
    low = grouped_gemm_reference(x, a, offsets)
    return grouped_gemm_reference(x, weight, offsets) + scaling * grouped_gemm_reference(low, b, offsets)

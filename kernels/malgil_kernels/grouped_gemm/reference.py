"""The grouped matrix product in readable PyTorch: one product per expert."""

import torch


def grouped_gemm_reference(x: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """y[t] = x[t] · weight[e]ᵀ; tokens after the last offset give zeros.

    Args:
        x: (tokens, in features), sorted by expert.
        weight: (experts, out features, in features).
        offsets: (experts + 1,), read on the host.
    """
    bounds = offsets.tolist()
    parts = [
        x[start:end] @ matrix.t() for start, end, matrix in zip(bounds, bounds[1:], weight, strict=False)
    ]
    rest = x.new_zeros(x.shape[0] - bounds[-1], weight.shape[1])
    return torch.cat([*parts, rest])

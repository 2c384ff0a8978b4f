"""Grouped matrix product for mixtures of experts: each token times the matrix of its own expert."""

import torch

from malgil_kernels.dispatch import DTYPES, select
from malgil_kernels.grouped_gemm.reference import grouped_gemm_reference

__all__ = ["grouped_gemm"]

MAX_EXPERTS = 1024


def grouped_gemm(x: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """y[t] = x[t] · weight[e]ᵀ for the tokens t of expert e; gradients for x and weight.

    Deterministic. Nothing is read on the host, so it can stand in a CUDA graph. An expert may have no token:
    its gradient is zero. Tokens after the last offset belong to nobody: their y and their gradient are zero.

    Args:
        x: (tokens, in features), the tokens sorted by expert; inner stride 1.
        weight: (experts, out features, in features), inner stride 1, x's dtype; at most 1,024 experts.
        offsets: (experts + 1,) int32 or int64 on x's device: expert e has tokens offsets[e] to offsets[e + 1]
            − 1. It must begin with 0, never fall and end at or under the number of tokens; that is not
            checked, for it would wait for the device.

    Returns:
        (tokens, out features) in x's dtype; sums are taken in float32.

    Raises:
        ValueError: a shape, dtype, device or stride does not fit.
    """
    if x.ndim != 2 or weight.ndim != 3 or x.shape[1] != weight.shape[2]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and weight {tuple(weight.shape)}: must be (tokens, in features) "
            "and (experts, out features, in features)"
        )
    experts = weight.shape[0]
    if not 1 <= experts <= MAX_EXPERTS:
        raise ValueError(f"weight has {experts} experts: must be 1 to {MAX_EXPERTS}")
    if offsets.shape != (experts + 1,) or offsets.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"offsets is {offsets.dtype} of shape {tuple(offsets.shape)}: must be int32 or int64 "
            f"of ({experts + 1},)"
        )
    for name, tensor in (("weight", weight), ("offsets", offsets)):
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}: must be on x's device, {x.device}")
    if x.dtype not in (*DTYPES, torch.float64) or weight.dtype != x.dtype:
        raise ValueError(
            f"x is {x.dtype} and weight {weight.dtype}: must be one of {', '.join(map(str, DTYPES))}"
        )
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
            raise ValueError(
                f"{name} has inner stride {tensor.stride(-1)}: must be 1. Next: {name}.contiguous()"
            )
    if select("grouped_gemm", dtype=x.dtype, device=x.device).implementation == "triton":
        from malgil_kernels.grouped_gemm.triton_op import grouped_gemm_triton

        return grouped_gemm_triton(x, weight, offsets)
    return grouped_gemm_reference(x, weight, offsets)

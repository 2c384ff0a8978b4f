"""Matrix products for mixtures of experts: each token times the matrix of its expert, LoRA or not."""

import torch

from malgil_kernels.dispatch import DTYPES, select
from malgil_kernels.grouped_gemm.reference import grouped_gemm_reference, lora_grouped_gemm_reference
from malgil_kernels.quantise.formats import QuantisedWeight, check_matmul_format

__all__ = ["grouped_gemm", "lora_grouped_gemm"]

MAX_EXPERTS = 1024
MAX_RANK = 128


def grouped_gemm(
    x: torch.Tensor, weight: torch.Tensor | QuantisedWeight, offsets: torch.Tensor
) -> torch.Tensor:
    """y[t] = x[t] · weight[e]ᵀ for the tokens t of expert e; gradients for x and for a weight of tensors.

    Deterministic. Nothing is read on the host, so it can stand in a CUDA graph. An expert may have no token:
    its gradient is zero. Tokens after the last offset belong to nobody: their y and their gradient are zero.
    A quantised weight is decoded tile by tile inside the matmul, never into memory, forward and backward; it
    is frozen: it has no gradient.

    Args:
        x: (tokens, in features), the tokens sorted by expert; inner stride 1.
        weight: (experts, out features, in features), inner stride 1, x's dtype; or int8, int4, NF4 or fp8 of
            `malgil_kernels.quantise` of (experts · out features, in features): the experts under one another,
            made by `quantise.stack_rows` or quantised as one matrix. At most 1,024 experts.
        offsets: (experts + 1,) int32 or int64 on x's device: expert e has tokens offsets[e] to offsets[e + 1]
            − 1. It must begin with 0, never fall and end at or under the number of tokens; that is not
            checked, for it would wait for the device.

    Returns:
        (tokens, out features) in x's dtype; sums are taken in float32.

    Raises:
        ValueError: a shape, dtype, device or stride does not fit, or a quantised weight requires a gradient.
        TypeError: the weight is in a format that no matmul reads (GGUF's).
    """
    _check(x, weight, offsets)
    if select("grouped_gemm", dtype=x.dtype, device=x.device).implementation != "triton":
        return grouped_gemm_reference(x, weight, offsets)
    if isinstance(weight, QuantisedWeight):
        from malgil_kernels.grouped_gemm.frozen_triton_op import quantised_grouped_gemm_triton

        return quantised_grouped_gemm_triton(x, weight, offsets)
    from malgil_kernels.grouped_gemm.triton_op import grouped_gemm_triton

    return grouped_gemm_triton(x, weight, offsets)


def lora_grouped_gemm(
    x: torch.Tensor,
    weight: torch.Tensor | QuantisedWeight,
    offsets: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """y[t] = x[t] W[e]ᵀ + scaling · (x[t] a[e]ᵀ) b[e]ᵀ; gradients for x, a and b, none for W.

    As `grouped_gemm`, with a LoRA of each expert, added in the kernel that decodes W. LoRA's dropout is not
    part of this op.

    Args:
        x, weight, offsets: as in `grouped_gemm`.
        a: (experts, rank, in features), b: (experts, out features, rank): x's dtype and device; rank at most
            128.
        scaling: alpha / rank.

    Returns:
        (tokens, out features) in x's dtype; sums are taken in float32.

    Raises:
        ValueError, TypeError: as `grouped_gemm`; or W requires a gradient, or a or b does not fit.

    Source: Hu et al. 2021, arXiv:2106.09685.
    """
    _check(x, weight, offsets)
    _check_lora(x, weight, offsets.shape[0] - 1, a, b)
    if select("grouped_gemm", dtype=x.dtype, device=x.device).implementation != "triton":
        return lora_grouped_gemm_reference(x, weight, offsets, a, b, scaling)
    from malgil_kernels.grouped_gemm.frozen_triton_op import lora_grouped_gemm_triton

    return lora_grouped_gemm_triton(x, weight, offsets, a, b, scaling)


def _check(x: torch.Tensor, weight: torch.Tensor | QuantisedWeight, offsets: torch.Tensor) -> None:
    if isinstance(weight, QuantisedWeight):
        experts = _check_quantised(x, weight, offsets)
    else:
        experts = _check_dense(x, weight)
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
    if x.dtype not in (*DTYPES, torch.float64):
        raise ValueError(f"x is {x.dtype}: must be one of {', '.join(map(str, DTYPES))}")
    if x.stride(1) != 1 and x.shape[1] > 1:
        raise ValueError(f"x has inner stride {x.stride(1)}: must be 1. Next: x.contiguous()")


def _check_dense(x: torch.Tensor, weight: torch.Tensor) -> int:
    """The number of experts."""
    if x.ndim != 2 or weight.ndim != 3 or x.shape[1] != weight.shape[2]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and weight {tuple(weight.shape)}: must be (tokens, in features) "
            "and (experts, out features, in features)"
        )
    if weight.dtype != x.dtype:
        raise ValueError(
            f"x is {x.dtype} and weight {weight.dtype}: must be the same of {', '.join(map(str, DTYPES))}, "
            "or the weight quantised"
        )
    if weight.stride(2) != 1 and weight.shape[2] > 1:
        raise ValueError(f"weight has inner stride {weight.stride(2)}: must be 1. Next: weight.contiguous()")
    return weight.shape[0]


def _check_quantised(x: torch.Tensor, weight: QuantisedWeight, offsets: torch.Tensor) -> int:
    """The number of experts, which the offsets say."""
    check_matmul_format(weight)
    if x.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and weight {weight.shape}: must be (tokens, in features) and "
            "(experts · out features, in features)"
        )
    experts = offsets.numel() - 1
    if experts > 0 and weight.shape[0] % experts:
        raise ValueError(
            f"weight has {weight.shape[0]} rows, offsets {experts + 1} numbers: must be as many rows of each "
            f"of {experts} experts. Next: quantise.stack_rows of the experts' weights"
        )
    for name, tensor in weight.tensors().items():
        if tensor.requires_grad:
            raise ValueError(
                f"weight.{name} requires a gradient: a quantised weight is frozen here. "
                "Next: detach() it, or dequantise() the weight and train that"
            )
    return experts


def _check_lora(
    x: torch.Tensor,
    weight: torch.Tensor | QuantisedWeight,
    experts: int,
    a: torch.Tensor,
    b: torch.Tensor,
) -> None:
    if isinstance(weight, torch.Tensor) and weight.requires_grad:
        raise ValueError("weight requires a gradient: W is frozen here. Next: weight.detach()")
    for name, matrix in (("a", a), ("b", b)):
        if matrix.dtype != x.dtype or matrix.device != x.device:
            raise ValueError(
                f"{name} is {matrix.dtype} on {matrix.device}: must be {x.dtype} on {x.device}, as x. "
                f"Next: cast it (PEFT keeps adapters in float32 by default)"
            )
    rows = weight.shape[1] if isinstance(weight, torch.Tensor) else weight.shape[0] // experts
    if a.ndim != 3 or (a.shape[0], a.shape[2]) != (experts, x.shape[1]):
        raise ValueError(f"a has shape {tuple(a.shape)}: must be ({experts}, rank, {x.shape[1]})")
    if b.shape != (experts, rows, a.shape[1]):
        raise ValueError(
            f"b has shape {tuple(b.shape)}: must be ({experts}, {rows}, {a.shape[1]}), the rank of a"
        )
    if not 1 <= a.shape[1] <= MAX_RANK:
        raise ValueError(f"a has rank {a.shape[1]}: must be 1 to {MAX_RANK}")

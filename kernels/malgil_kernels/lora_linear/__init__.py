"""LoRA on a frozen linear layer: y = x Wᵀ + s · (x Aᵀ) Bᵀ, W quantised or not, decoded inside the matmul."""

from collections.abc import Sequence

import torch

from malgil_kernels.dispatch import DTYPES, Choice, select
from malgil_kernels.lora_linear.reference import lora_linear_grouped_reference, lora_linear_reference
from malgil_kernels.quantise.formats import QuantisedWeight, check_matmul_format

__all__ = ["lora_linear", "lora_linear_grouped"]

MAX_RANK = 128


def lora_linear(
    x: torch.Tensor,
    weight: QuantisedWeight | torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scaling: float,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """y = x Wᵀ + scaling · (x Aᵀ) Bᵀ + bias; gradients for x, a, b and bias, none for W.

    Deterministic. Up to the tokens in `thresholds.LORA_LINEAR` W is decoded in registers inside the matmul
    that adds the LoRA term; above, into a buffer of at most 16 MiB, block by block. LoRA's dropout is not
    part of this op.

    Args:
        x: (..., columns), any strides.
        weight: (rows, columns): int8, int4, NF4 or fp8 of `malgil_kernels.quantise`, or a frozen matrix in
        x's dtype.
        a: (rank, columns), b: (rows, rank), bias: (rows,): x's dtype and device; rank at most 128.
        scaling: alpha / rank.

    Returns:
        (..., rows) in x's dtype; sums are taken in float32.

    Raises:
        ValueError: a shape, dtype, device or the rank does not fit, or W requires a gradient.
        TypeError: the weight is in a format that no matmul reads (GGUF's).

    Source: Hu et al. 2021, arXiv:2106.09685; Dettmers et al. 2023, arXiv:2305.14314.
    """
    _check(x, weight, bias)
    _check_pair(x, a, b, "a", "b")
    if b.shape[0] != weight.shape[0]:
        raise ValueError(f"b has {b.shape[0]} rows: must have {weight.shape[0]}, the weight's")
    implementation = choice_for(x, weight).implementation
    if implementation != "reference":
        from malgil_kernels.lora_linear.triton_op import lora_linear_triton

        fused = implementation == "triton"
        return lora_linear_triton(x, weight, a, b, scaling, bias, [(0, b.shape[0])], None, fused)
    return lora_linear_reference(x, weight, a, b, scaling, bias)


def lora_linear_grouped(
    x: torch.Tensor,
    weight: QuantisedWeight | torch.Tensor,
    a: Sequence[torch.Tensor],
    b: Sequence[torch.Tensor],
    scaling: float,
    bias: torch.Tensor | None = None,
    bounds: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Several LoRA linears of one x in one launch: q, k and v, or gate and up.

    Args:
        x: (..., columns).
        weight: the weights under one another (`quantise.stack_rows`), as many rows each as its b has.
        a: (rank, columns) each; b: (rows of its weight, rank) each; the same rank for all.
        scaling: alpha / rank, for all. Where they differ, put the factor into b.
        bias: (all rows,).
        bounds: (weights + 1,) int32 on x's device, the first row of each weight and the number of all rows
            (`row_bounds`); taken from b's shapes if absent, which copies from the host at each call.

    Returns:
        One (..., rows) view per weight, inner stride 1, of one (..., all rows) tensor.

    Raises:
        ValueError, TypeError: as `lora_linear`; or the ranks differ.
    """
    _check(x, weight, bias)
    if not a or len(a) != len(b):
        raise ValueError(
            f"a holds {len(a)} and b {len(b)} matrices: must be one of each per weight, at least one"
        )
    for number, (down, up) in enumerate(zip(a, b, strict=True)):
        _check_pair(x, down, up, f"a[{number}]", f"b[{number}]")
    ranks = [down.shape[0] for down in a]
    if len(set(ranks)) > 1:
        raise ValueError(f"a has ranks {ranks}: must be the same for all. Next: call lora_linear for each")
    sizes = [up.shape[0] for up in b]
    if sum(sizes) != weight.shape[0]:
        raise ValueError(f"b has {sizes} rows: must add up to {weight.shape[0]}, the weight's")
    implementation = choice_for(x, weight).implementation
    if implementation != "reference":
        from malgil_kernels.lora_linear.triton_op import lora_linear_triton

        ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
        segments = list(zip([0, *ends[:-1]], ends, strict=True))
        own = row_bounds(sizes, x.device) if bounds is None else bounds
        fused = implementation == "triton"
        y = lora_linear_triton(
            x, weight, torch.cat(list(a)), torch.cat(list(b)), scaling, bias, segments, own, fused
        )
        return torch.split(y, sizes, dim=-1)
    return lora_linear_grouped_reference(x, weight, a, b, scaling, bias)


def row_bounds(sizes: Sequence[int], device: torch.device) -> torch.Tensor:
    """(weights + 1,) int32: where each weight of a stack begins, and where the last one ends."""
    return torch.tensor(
        [sum(sizes[:number]) for number in range(len(sizes) + 1)], dtype=torch.int32, device=device
    )


def choice_for(x: torch.Tensor, weight: QuantisedWeight | torch.Tensor) -> Choice:
    """Which implementation a call takes, and why: "triton", "dequantise+gemm" or "reference"."""
    # "bf16" is the rules' word for "not quantised"
    form = "bf16" if isinstance(weight, torch.Tensor) else weight.format
    tokens = x.numel() // max(x.shape[-1], 1)
    return select("lora_linear", dtype=x.dtype, device=x.device, rows=tokens, format=form)


def _check(x: torch.Tensor, weight: QuantisedWeight | torch.Tensor, bias: torch.Tensor | None) -> None:
    if isinstance(weight, QuantisedWeight):
        check_matmul_format(weight)
    if x.ndim == 0 or len(weight.shape) != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"x has shape {tuple(x.shape)}: its last size must be the columns of weight {tuple(weight.shape)}"
        )
    if x.dtype not in (*DTYPES, torch.float64):
        raise ValueError(f"x is {x.dtype}: must be one of {', '.join(map(str, DTYPES))}")
    if weight.device != x.device:
        raise ValueError(f"weight is on {weight.device}: must be on x's device, {x.device}")
    if isinstance(weight, torch.Tensor):
        if weight.dtype != x.dtype:
            raise ValueError(f"weight is {weight.dtype}: must be x's dtype, {x.dtype}, or a quantised format")
        if weight.requires_grad:
            raise ValueError(
                "weight requires a gradient: W is frozen here. Next: weight.detach(), or F.linear"
            )
        if weight.stride(1) != 1:
            raise ValueError(
                f"weight has inner stride {weight.stride(1)}: must be 1. Next: weight.contiguous()"
            )
    if bias is not None and (bias.shape, bias.dtype, bias.device) != ((weight.shape[0],), x.dtype, x.device):
        raise ValueError(
            f"bias is {bias.dtype} of shape {tuple(bias.shape)} on {bias.device}: must be {x.dtype} of "
            f"({weight.shape[0]},) on {x.device}"
        )


def _check_pair(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, name_a: str, name_b: str) -> None:
    for name, matrix in ((name_a, a), (name_b, b)):
        if matrix.dtype != x.dtype or matrix.device != x.device:
            raise ValueError(
                f"{name} is {matrix.dtype} on {matrix.device}: must be {x.dtype} on {x.device}, as x. "
                f"Next: cast it (PEFT keeps adapters in float32 by default)"
            )
    if a.ndim != 2 or a.shape[1] != x.shape[-1]:
        raise ValueError(f"{name_a} has shape {tuple(a.shape)}: must be (rank, {x.shape[-1]})")
    if b.ndim != 2 or b.shape[1] != a.shape[0]:
        raise ValueError(
            f"{name_b} has shape {tuple(b.shape)}: must be (rows, {a.shape[0]}), the rank of {name_a}"
        )
    if not 1 <= a.shape[0] <= MAX_RANK:
        raise ValueError(f"{name_a} has rank {a.shape[0]}: must be 1 to {MAX_RANK}")

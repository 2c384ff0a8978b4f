"""Weights in 8 and 4 bits: quantise and dequantise int8, int4, NF4, fp8 e4m3, GGUF Q8_0 and Q4_0.

Formats and their bytes: formats.py. Quantising is for whole weights at load time: it reads values on the host
to refuse NaN and infinity, so it does not belong in a CUDA graph; dequantising does.
"""

from typing import Literal

import torch

from malgil_kernels.dispatch import DTYPES, select
from malgil_kernels.quantise import reference
from malgil_kernels.quantise.formats import (
    GGUF_BLOCK,
    INT4_GROUPS,
    Fp8Weight,
    Int4Weight,
    Int8Weight,
    Nf4Weight,
    Q4_0Weight,
    Q8_0Weight,
    QuantisedWeight,
)
from malgil_kernels.quantise.stacking import nf4_from_bitsandbytes, stack_rows

__all__ = [
    "Fp8Weight",
    "Int4Weight",
    "Int8Weight",
    "Nf4Weight",
    "Q4_0Weight",
    "Q8_0Weight",
    "QuantisedWeight",
    "dequantise",
    "nf4_from_bitsandbytes",
    "quantise_fp8",
    "quantise_int4",
    "quantise_int8",
    "quantise_nf4",
    "quantise_q4_0",
    "quantise_q8_0",
    "stack_rows",
]


def quantise_int8(w: torch.Tensor) -> Int8Weight:
    """int8 with one absmax scale per row of w (rows, columns).

    Raises:
        ValueError: w is not a finite float matrix.
    """
    if _by_triton("quantise_int8", w):
        from malgil_kernels.quantise.triton_op import quantise_rows_triton

        weight = quantise_rows_triton(_inner_contiguous(w), fp8=False)
        assert isinstance(weight, Int8Weight)
        return weight
    return reference.quantise_int8_reference(w)


def quantise_int4(w: torch.Tensor, group: int = 64, symmetric: bool = True) -> Int4Weight:
    """int4 with one float16 scale per `group` columns of a row of w (rows, columns).

    Args:
        w: finite, any float dtype; any number of columns (the last group may be short).
        group: 32, 64 or 128.
        symmetric: zero point 8 for all; otherwise a zero point per group, which pays where a group's weights
            are not centred, at 1 byte a group.

    Raises:
        ValueError: w is not a finite float matrix, or the group is another.
    """
    if group not in INT4_GROUPS:
        raise ValueError(f"group is {group}: must be one of {INT4_GROUPS}")
    if _by_triton("quantise_int4", w):
        from malgil_kernels.quantise.triton_op import quantise_int4_triton

        return quantise_int4_triton(_inner_contiguous(w), group, symmetric)
    return reference.quantise_int4_reference(w, group, symmetric)


def quantise_nf4(w: torch.Tensor, match: Literal["cpu", "cuda"] | None = None) -> Nf4Weight:
    """NF4 with double quantisation of w (rows, columns): blocks of 64, statistics over 256 of them.

    Args:
        w: finite, any float dtype, not empty.
        match: the build of bitsandbytes 0.50 whose bits to give. They share codes, order and offset and
            differ in how the absmax are rounded: "cuda" to the nearest of the map, "cpu" by way of a
            grid, off by one in 4 of 10,000. None: the build for w's device. A block of zeros is stored as
            the CPU build stores it (codes 7, which is 0), on every device.

    Raises:
        ValueError: w is not a finite float matrix, is empty, or `match` is another word.
    """
    match = match or ("cpu" if w.device.type == "cpu" else "cuda")
    if match not in ("cpu", "cuda"):
        raise ValueError(f"match is {match!r}: must be 'cpu', 'cuda' or None")
    by_triton = _by_triton("quantise_nf4", w)
    if w.numel() == 0:
        raise ValueError(f"w has shape {tuple(w.shape)}: NF4 takes the mean of its blocks, so it needs one")
    if by_triton:
        from malgil_kernels.quantise.nf4_triton_op import quantise_nf4_triton

        return quantise_nf4_triton(w.contiguous(), match)
    return reference.quantise_nf4_reference(w, match)


def quantise_fp8(w: torch.Tensor, per_block: bool = False) -> Fp8Weight:
    """e4m3 with one scale per row of w (rows, columns), or per block of 128 × 128.

    Raises:
        ValueError: w is not a finite float matrix.
    """
    if _by_triton("quantise_fp8", w):
        from malgil_kernels.quantise.triton_op import quantise_fp8_blocks_triton, quantise_rows_triton

        rows = _inner_contiguous(w)
        weight = quantise_fp8_blocks_triton(rows) if per_block else quantise_rows_triton(rows, fp8=True)
        assert isinstance(weight, Fp8Weight)
        return weight
    return reference.quantise_fp8_reference(w, per_block)


def quantise_q8_0(w: torch.Tensor) -> Q8_0Weight:
    """GGUF Q8_0 blocks of w (rows, columns), the bytes that `gguf.quants` gives.

    Raises:
        ValueError: w is not a finite float matrix, or its columns are no multiple of 32.
    """
    _check_gguf(w)
    if _by_triton("quantise_q8_0", w):
        from malgil_kernels.quantise.gguf_triton_op import quantise_q8_0_triton

        return quantise_q8_0_triton(w.contiguous())
    return reference.quantise_q8_0_reference(w)


def quantise_q4_0(w: torch.Tensor) -> Q4_0Weight:
    """GGUF Q4_0 blocks of w (rows, columns), the bytes that `gguf.quants` gives.

    Raises:
        ValueError: w is not a finite float matrix, or its columns are no multiple of 32.
    """
    _check_gguf(w)
    if _by_triton("quantise_q4_0", w):
        from malgil_kernels.quantise.gguf_triton_op import quantise_q4_0_triton

        return quantise_q4_0_triton(w.contiguous())
    return reference.quantise_q4_0_reference(w)


def dequantise(weight: QuantisedWeight, dtype: torch.dtype | None = None) -> torch.Tensor:
    """(rows, columns) in `dtype`, or in the dtype that was quantised.

    The products are taken in float32 (float64 for float64) and rounded once.

    Raises:
        ValueError: `dtype` is not a float dtype.
        TypeError: `weight` is no container of this package.
    """
    dtype = dtype or weight.dtype
    if not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}: must be a float dtype")
    if select("dequantise", dtype=dtype, device=weight.device).implementation == "triton":
        if isinstance(weight, Q8_0Weight | Q4_0Weight):
            from malgil_kernels.quantise.gguf_triton_op import dequantise_gguf_triton

            return dequantise_gguf_triton(weight, dtype)
        from malgil_kernels.quantise.triton_op import dequantise_triton

        return dequantise_triton(weight, dtype)
    return reference.dequantise_reference(weight, dtype)


def _by_triton(op: str, w: torch.Tensor) -> bool:
    if w.ndim != 2:
        raise ValueError(f"w has shape {tuple(w.shape)}: must be a matrix (rows, columns)")
    if w.dtype not in DTYPES:
        raise ValueError(f"w is {w.dtype}: must be one of {', '.join(map(str, DTYPES))}")
    if not bool(torch.isfinite(w).all()):
        raise ValueError(
            "w has NaN or infinite values: a scale cannot be taken of them. Next: look at the weight"
        )
    return select(op, dtype=w.dtype, device=w.device).implementation == "triton"


def _check_gguf(w: torch.Tensor) -> None:
    if w.ndim == 2 and w.shape[1] % GGUF_BLOCK:
        raise ValueError(
            f"w has {w.shape[1]} columns: GGUF blocks need a multiple of {GGUF_BLOCK}. "
            "Next: quantise_int8, or pad"
        )


def _inner_contiguous(w: torch.Tensor) -> torch.Tensor:
    return w if w.stride(1) == 1 else w.contiguous()

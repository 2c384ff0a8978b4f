"""Weights from elsewhere and weights together: bitsandbytes' NF4 taken over, several weights under one
another.

A stack is how one launch serves q, k and v (or gate and up): their rows follow each other in one container,
made once when a model is loaded, after which the single weights can be dropped. Nothing is quantised again.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from malgil_kernels.quantise.codes import NF4_BLOCK, NF4_STATISTICS_BLOCK
from malgil_kernels.quantise.formats import (
    FP8_BLOCK,
    Fp8Weight,
    Int4Weight,
    Int8Weight,
    Nf4Weight,
    QuantisedWeight,
)


def nf4_from_bitsandbytes(packed: torch.Tensor, state: Any) -> Nf4Weight:
    """bitsandbytes' packed tensor and `QuantState` as an `Nf4Weight` that shares their memory.

    Raises:
        ValueError: the state is not NF4, blocksize 64, nested with blocksize 256, of a matrix.
    """
    nested = getattr(state, "state2", None)
    found = (state.quant_type, state.blocksize, getattr(nested, "blocksize", None), len(state.shape))
    if found != ("nf4", NF4_BLOCK, NF4_STATISTICS_BLOCK, 2) or nested is None:
        raise ValueError(
            f"state has type, blocksize, nested blocksize, dimensions {found}: must be "
            f"('nf4', {NF4_BLOCK}, {NF4_STATISTICS_BLOCK}, 2). Next: quantise with compress_statistics=True"
        )
    return Nf4Weight(
        (state.shape[0], state.shape[1]),
        state.dtype,
        packed.reshape(-1).view(torch.uint8),
        state.absmax,
        nested.absmax,
        state.offset.reshape(1).float(),
    )


def stack_rows(weights: Sequence[QuantisedWeight]) -> QuantisedWeight:
    """The rows of `weights` under one another, in one container of their format.

    Raises:
        ValueError: formats, columns, dtypes or groups differ; or a weight other than the last ends inside
            something that rows share (NF4: 16,384 weights under one statistic; fp8: 128 rows of a block).
        TypeError: the format cannot be stacked.
    """
    if not weights:
        raise ValueError("weights is empty: a stack needs at least one")
    first = weights[0]
    for weight in weights[1:]:
        if (
            type(weight) is not type(first)
            or weight.shape[1] != first.shape[1]
            or weight.dtype != first.dtype
        ):
            raise ValueError(
                f"weights hold {_about(first)} and {_about(weight)}: format, columns and dtype "
                "must be the same"
            )
    shape = (sum(weight.shape[0] for weight in weights), first.shape[1])
    tensors = _joined(weights)
    return replace(first, shape=shape, **tensors)  # type: ignore[arg-type]


def _joined(weights: Sequence[QuantisedWeight]) -> dict[str, torch.Tensor]:
    first = weights[0]
    match first:
        case Nf4Weight():
            _check_whole(weights, NF4_BLOCK * NF4_STATISTICS_BLOCK, per_row=first.shape[1])
        case Fp8Weight():
            if len({weight.per_block for weight in weights if isinstance(weight, Fp8Weight)}) > 1:
                raise ValueError("weights have scales per row and per block: must all have the same")
            if first.per_block:
                _check_whole(weights, FP8_BLOCK, per_row=1)
        case Int4Weight():
            kinds = {(w.group, w.zero is None) for w in weights if isinstance(w, Int4Weight)}
            if len(kinds) > 1:
                raise ValueError(f"weights have (group, symmetric) {sorted(kinds)}: must all have the same")
        case Int8Weight():
            pass
        case _:
            raise TypeError(
                f"weights are {type(first).__name__}: must be int8, int4, NF4 or fp8 to be stacked"
            )
    parts = [_spread_offset(weight).tensors() for weight in weights]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _spread_offset(weight: QuantisedWeight) -> QuantisedWeight:
    """NF4 with one offset per statistic, so that offsets of several weights can follow each other."""
    if isinstance(weight, Nf4Weight) and weight.offset.numel() == 1:
        return replace(weight, offset=weight.offset.expand(weight.statistics.numel()))
    return weight


def _check_whole(weights: Sequence[QuantisedWeight], unit: int, per_row: int) -> None:
    for weight in weights[:-1]:
        size = weight.shape[0] * per_row
        if size % unit:
            raise ValueError(
                f"a weight of shape {weight.shape} is not the last and holds {size} units: must be a "
                f"multiple of {unit}. Next: put it last, or quantise the stacked matrix"
            )


def _about(weight: QuantisedWeight) -> str:
    return f"{weight.format} with {weight.shape[1]} columns of {weight.dtype}"

"""Launches the forward kernels of the fused LoRA linear: block sizes, splits and grids, from shapes alone."""

import torch
import triton

from malgil_kernels.dispatch import capability, multiprocessors
from malgil_kernels.lora_linear.forward import (
    lora_linear_partial_kernel,
    lora_linear_sum_kernel,
    lora_linear_tile_kernel,
)
from malgil_kernels.quantise.decode import Operands
from malgil_kernels.quantise.unpacking import packed_assembly

DECODE_TOKENS = 32
TILE_N = 128
# By BLOCK_M: what a multiprocessor's registers hold. More programs than that would wait for a second turn.
PROGRAMS_AT_ONCE = {16: 4, 32: 3}


def columns_per_step(about: Operands) -> int:
    """Columns of W per step of the loop, within one group: four steps ahead fit beside other programs."""
    return min(about.group, 64) if about.format in ("nf4", "int4") else 64


def launch_decode(
    x: torch.Tensor,
    about: Operands,
    a: torch.Tensor,
    b: torch.Tensor,
    scaling: float,
    bias: torch.Tensor | None,
    bounds: torch.Tensor | None,
) -> torch.Tensor:
    """x (tokens ≤ 32, columns), a (segments · rank, columns), b (rows, rank) → y (tokens, rows)."""
    (tokens, columns), (rows, rank) = x.shape, b.shape
    y = torch.empty(tokens, rows, dtype=x.dtype, device=x.device)
    block_m = 16 if tokens <= 16 else 32
    block_k = columns_per_step(about)
    planes = planes_of(about, columns)
    tiles = triton.cdiv(rows, TILE_N) + triton.cdiv(a.shape[0], TILE_N)
    steps = triton.cdiv(columns, block_k)
    at_once = PROGRAMS_AT_ONCE[block_m] * multiprocessors(x.device)
    split_columns = triton.cdiv(steps, max(1, min(at_once // tiles, steps // 4))) * block_k
    splits = triton.cdiv(columns, split_columns)
    partial = torch.empty(splits, tokens, rows + a.shape[0], dtype=torch.float32, device=x.device)
    wide = x.dtype == torch.float32
    lora_linear_partial_kernel[(tiles, splits)](
        x,
        *about.pointers,
        a,
        partial,
        tokens,
        rows,
        columns,
        a.shape[0],
        x.stride(0),
        about.row_stride,
        a.stride(0),
        split_columns,
        FORMAT=about.format,
        GROUP=about.group if about.format in ("nf4", "int4") else 0,
        ZERO=about.zero,
        STACKED=about.stacked,
        PLANES=planes,
        ASSEMBLY=packed_assembly(about.format, x.dtype, planes),
        BLOCK_M=block_m,
        BLOCK_N=TILE_N,
        BLOCK_K=block_k,
        EVEN=columns % block_k == 0,
        STAGES=2 if wide else 3 if about.format == "dense" else 4,
        num_warps=4,
    )
    lora_linear_sum_kernel[(triton.cdiv(rows, 64),)](
        partial,
        b,
        b if bias is None else bias,
        b if bounds is None else bounds,
        y,
        scaling,
        tokens,
        rows,
        rank,
        splits,
        b.stride(0),
        y.stride(0),
        SEGMENTS=a.shape[0] // rank,
        BIAS=bias is not None,
        BLOCK_M=block_m,
        BLOCK_N=64,
        BLOCK_R=rank_block(rank),
        num_warps=4,
    )
    return y


def launch_tiles(
    x: torch.Tensor,
    about: Operands,
    low: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None,
    bounds: torch.Tensor | None,
) -> torch.Tensor:
    """x (tokens, columns), low = s · x Aᵀ (tokens, segments · rank), b (rows, rank) → y (tokens, rows)."""
    (tokens, columns), (rows, rank) = x.shape, b.shape
    y = torch.empty(tokens, rows, dtype=x.dtype, device=x.device)
    planes = planes_of(about, columns)
    if planes > 1:  # column by column modulo `planes`: each plane goes to shared memory as it is
        x = x.reshape(tokens, columns // planes, planes).transpose(1, 2).reshape(tokens, columns)
    wide = x.dtype == torch.float32
    # two accumulators of 128 × 128 and W's planes are over the 512 columns of sm_100's tensor memory
    narrow = planes > 1 and capability(x.device) >= 100
    block_m = 64 if tokens <= 64 or wide or narrow else 128
    block_k = columns_per_step(about)
    lora_linear_tile_kernel[(triton.cdiv(tokens, block_m), triton.cdiv(rows, TILE_N))](
        x,
        *about.pointers,
        low,
        b,
        b if bias is None else bias,
        b if bounds is None else bounds,
        y,
        tokens,
        rows,
        columns,
        rank,
        x.stride(0),
        about.row_stride,
        low.stride(0),
        b.stride(0),
        y.stride(0),
        SEGMENTS=low.shape[1] // rank,
        BIAS=bias is not None,
        FORMAT=about.format,
        GROUP=about.group if about.format in ("nf4", "int4") else 0,
        ZERO=about.zero,
        STACKED=about.stacked,
        PRESPLIT=planes > 1,
        PLANES=planes,
        ASSEMBLY=packed_assembly(about.format, x.dtype, planes),
        BLOCK_M=block_m,
        BLOCK_N=TILE_N,
        BLOCK_K=block_k,
        BLOCK_R=rank_block(rank),
        EVEN=columns % block_k == 0,
        STAGES=2 if wide else 3,
        num_warps=8,
    )
    return y


def planes_of(about: Operands, columns: int) -> int:
    """Planes that packed columns decode to: by words of 16 bits where a step has 16, else by bytes."""
    if about.format not in ("nf4", "int4"):
        return 1
    return 4 if about.group >= 64 and columns % 4 == 0 else 2


def rank_block(rank: int) -> int:
    """The columns a tile holds of a LoRA rank: a power of two, at least the 16 that a dot needs."""
    return max(16, int(triton.next_power_of_2(rank)))

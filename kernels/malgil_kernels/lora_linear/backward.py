"""The input gradient of the fused LoRA linear, W decoded tile by tile.

    dx = dy W + (s dy B) A

A program owns (tokens, in features) and walks down W's rows; a decoded tile is scaled where it is decoded,
since the scales of a group of columns cannot wait for the sum over rows. The gradients of A and B are plain
products of small matrices and are left to PyTorch (`triton_op.py`). Deterministic: no atomics.
"""

import torch
import triton
import triton.language as tl

from malgil_kernels.lora_linear.matmul import dot
from malgil_kernels.quantise.decode import Operands, weight_tile
from malgil_kernels.quantise.unpacking import packed_assembly


@triton.jit
def lora_linear_input_gradient_kernel(
    dy_ptr,
    codes_ptr,
    scale_ptr,
    second_ptr,
    offset_ptr,
    map_ptr,
    dlow_ptr,
    a_ptr,
    dx_ptr,
    tokens,
    rows,
    columns,
    ranks,
    dy_stride,
    row_stride,
    dlow_stride,
    a_stride,
    dx_stride,
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    STACKED: tl.constexpr,
    ASSEMBLY: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    STAGES: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    start = tl.program_id(1) * BLOCK_K
    column = start + tl.arange(0, BLOCK_K)
    inside = (token < tokens)[:, None]
    dtype: tl.constexpr = dy_ptr.dtype.element_ty
    acc = tl.zeros((BLOCK_M, BLOCK_K), dtype=tl.float32)
    for n in tl.range(0, rows, BLOCK_N, num_stages=STAGES):
        place = n + tl.arange(0, BLOCK_N).to(tl.int64)
        here = dy_ptr + token[:, None] * dy_stride + place[None, :]
        dy = tl.load(here, mask=inside & (place < rows)[None, :], other=0.0)
        w = weight_tile(
            codes_ptr,
            scale_ptr,
            second_ptr,
            offset_ptr,
            map_ptr,
            place,
            start,
            rows,
            columns,
            row_stride,
            FORMAT,
            GROUP,
            ZERO,
            STACKED,
            True,
            BLOCK_N,
            BLOCK_K,
            dtype,
            ASSEMBLY,
        )
        acc = dot(dy, w.to(dtype), acc)
    for first in range(0, ranks, BLOCK_R):
        rank = first + tl.arange(0, BLOCK_R)
        dlow = tl.load(
            dlow_ptr + token[:, None] * dlow_stride + rank[None, :],
            mask=inside & (rank < ranks)[None, :],
            other=0.0,
        )
        a = tl.load(
            a_ptr + rank[:, None] * a_stride + column[None, :],
            mask=(rank < ranks)[:, None] & (column < columns)[None, :],
            other=0.0,
        )
        acc = dot(dlow, a, acc)
    out = dx_ptr + token[:, None] * dx_stride + column[None, :]
    tl.store(out, acc, mask=inside & (column < columns)[None, :])


def launch_input_gradient(
    dy: torch.Tensor, about: Operands, dlow: torch.Tensor, a: torch.Tensor
) -> torch.Tensor:
    """dy (tokens, rows), dlow = s · dy B (tokens, ranks), a (ranks, columns) → dx (tokens, columns)."""
    (tokens, rows), (ranks, columns) = dy.shape, a.shape
    dx = torch.empty(tokens, columns, dtype=dy.dtype, device=dy.device)
    wide = dy.dtype == torch.float32
    block_m = 32 if tokens <= 32 or wide else 64 if tokens <= 64 else 128
    block_k = min(about.group, 64) if about.format in ("nf4", "int4") else 64
    grid = (triton.cdiv(tokens, block_m), triton.cdiv(columns, block_k))
    lora_linear_input_gradient_kernel[grid](
        dy,
        *about.pointers,
        dlow,
        a,
        dx,
        tokens,
        rows,
        columns,
        ranks,
        dy.stride(0),
        about.row_stride,
        dlow.stride(0),
        a.stride(0),
        dx.stride(0),
        FORMAT=about.format,
        GROUP=about.group if about.format in ("nf4", "int4") else 0,
        ZERO=about.zero,
        STACKED=about.stacked,
        ASSEMBLY=packed_assembly(about.format, dy.dtype, 2),
        BLOCK_M=block_m,
        BLOCK_N=32 if wide else 64,
        BLOCK_K=block_k,
        BLOCK_R=32,
        STAGES=2 if wide else 3,
        num_warps=4,
    )
    return dx

"""The grouped matrix product in Triton: y, dx and dW of all experts in one launch each.

    y[t] = s · x[t] W[e]ᵀ;   dx[t] = dy[t] W[e];   dW[e] = Σ_{t of e} dy[t]ᵀ x[t]      (s is 1 but for LoRA)

How many tiles of tokens an expert has is known on the device only. The grid is the bound ⌈tokens / BLOCK⌉ +
experts + 1; a program finds its expert by counting tiles in the offsets (one load of experts + 1 numbers) and
leaves if there is none. dx is the same kernel with W's two strides exchanged. dW takes one program per tile
of an expert's matrix and walks its tokens in order: no atomics, the same bits each time, zeros where an
expert has no token. Tiles of 128 × 128 × 64 in 16 bits: 64 FLOP per byte read, wgmma on sm_90; smaller ones
where experts have few tokens, or the matrices few rows (a LoRA's rank).
"""

from typing import Any

import torch
import triton
import triton.language as tl

from malgil_kernels.dispatch import on_its_device
from malgil_kernels.lora_linear.matmul import dot


@triton.jit
def expert_tile(offsets_ptr, tile, experts, tokens, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr):
    """The expert of a tile of tokens, its first token and the end of its expert's tokens.

    Expert number `experts` stands for the tokens that belong to nobody, over it for no tile at all.
    """
    places = tl.arange(0, BLOCK_E)
    start = tl.load(offsets_ptr + places, mask=places <= experts, other=0).to(tl.int64)
    end = tl.load(offsets_ptr + places + 1, mask=places < experts, other=0).to(tl.int64)
    end = tl.where(places == experts, tokens, end)
    tiles = tl.where(places <= experts, tl.cdiv(end - start, BLOCK_M), 0)
    expert = tl.sum((tl.cumsum(tiles, axis=0) <= tile).to(tl.int32), axis=0)
    before = tl.sum(tl.where(places < expert, tiles, 0), axis=0)
    first = tl.sum(tl.where(places == expert, start, 0), axis=0) + (tile - before) * BLOCK_M
    return expert, first, tl.sum(tl.where(places == expert, end, 0), axis=0)


@triton.jit
def grouped_gemm_kernel(
    x_ptr,
    w_ptr,
    offsets_ptr,
    y_ptr,
    scaling,
    tokens,
    experts,
    rows,
    columns,
    x_stride,
    w_stride,
    w_row_stride,
    w_column_stride,
    y_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
    STAGES: tl.constexpr,
):
    expert, first, end = expert_tile(offsets_ptr, tl.program_id(0), experts, tokens, BLOCK_M, BLOCK_E)
    if expert > experts:
        return
    token = first + tl.arange(0, BLOCK_M)
    row = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (token < end)[:, None]
    here = x_ptr + token[:, None] * x_stride
    w_here = w_ptr + expert.to(tl.int64) * w_stride + row[None, :].to(tl.int64) * w_row_stride
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    last = tl.where(expert < experts, columns, 0)  # nobody's tokens: no step, zeros
    for k in tl.range(0, last, BLOCK_K, num_stages=STAGES):
        column = k + tl.arange(0, BLOCK_K)
        x = tl.load(here + column[None, :], mask=inside & (column < columns)[None, :], other=0.0)
        w = tl.load(
            w_here + column[:, None].to(tl.int64) * w_column_stride,
            mask=(column < columns)[:, None] & (row < rows)[None, :],
            other=0.0,
        )
        acc = dot(x, w, acc)
    out = y_ptr + token[:, None] * y_stride + row[None, :]
    tl.store(out, acc * scaling, mask=inside & (row < rows)[None, :])


@triton.jit
def grouped_gemm_weight_gradient_kernel(
    dy_ptr,
    x_ptr,
    offsets_ptr,
    dw_ptr,
    rows,
    columns,
    dy_stride,
    x_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
):
    expert = tl.program_id(2)
    row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    start = tl.load(offsets_ptr + expert).to(tl.int64)
    end = tl.load(offsets_ptr + expert + 1).to(tl.int64)
    acc = tl.zeros((BLOCK_N, BLOCK_K), dtype=tl.float32)
    for first in tl.range(0, (end - start).to(tl.int32), BLOCK_M, num_stages=STAGES):
        token = start + first + tl.arange(0, BLOCK_M)
        inside = token < end
        dy = tl.load(
            dy_ptr + token[:, None] * dy_stride + row[None, :],
            mask=inside[:, None] & (row < rows)[None, :],
            other=0.0,
        )
        x = tl.load(
            x_ptr + token[:, None] * x_stride + column[None, :],
            mask=inside[:, None] & (column < columns)[None, :],
            other=0.0,
        )
        acc = dot(tl.trans(dy), x, acc)
    out = (
        dw_ptr + expert.to(tl.int64) * rows * columns + row[:, None].to(tl.int64) * columns + column[None, :]
    )
    tl.store(out, acc, mask=(row < rows)[:, None] & (column < columns)[None, :])


def launch_product(
    x: torch.Tensor, w: torch.Tensor, offsets: torch.Tensor, scaling: float = 1.0
) -> torch.Tensor:
    """x (tokens, columns), w (experts, rows, columns) of any strides → scaling · (tokens, rows)."""
    (tokens, columns), (experts, rows, _) = x.shape, w.shape
    y = torch.empty(tokens, rows, dtype=x.dtype, device=x.device)
    if not y.numel():
        return y
    block_m = tokens_per_tile(tokens, experts, x.dtype)
    block_n = fitted(64 if x.dtype == torch.float32 else 128, rows)
    grid = (triton.cdiv(tokens, block_m) + experts + 1, triton.cdiv(rows, block_n))
    grouped_gemm_kernel[grid](
        x,
        w,
        offsets,
        y,
        scaling,
        tokens,
        experts,
        rows,
        columns,
        x.stride(0),
        *w.stride(),
        y.stride(0),
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_K=32 if x.dtype == torch.float32 else 64,
        BLOCK_E=triton.next_power_of_2(experts + 1),
        STAGES=2 if x.dtype == torch.float32 else 3,
        num_warps=8 if block_m == 128 else 4,
    )
    return y


def launch_weight_gradient(dy: torch.Tensor, x: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """dy (tokens, rows), x (tokens, columns) → (experts, rows, columns)."""
    rows, columns, experts = dy.shape[1], x.shape[1], offsets.shape[0] - 1
    dw = torch.empty(experts, rows, columns, dtype=x.dtype, device=x.device)
    if not dw.numel():
        return dw
    wide = x.dtype == torch.float32
    block_n, block_k = (fitted(64 if wide else 128, size) for size in (rows, columns))
    grouped_gemm_weight_gradient_kernel[(triton.cdiv(rows, block_n), triton.cdiv(columns, block_k), experts)](
        dy,
        x,
        offsets,
        dw,
        rows,
        columns,
        dy.stride(0),
        x.stride(0),
        BLOCK_M=32 if wide else 64,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        STAGES=2 if wide else 3,
        num_warps=4 if wide else 8,
    )
    return dw


def tokens_per_tile(tokens: int, experts: int, dtype: torch.dtype) -> int:
    """Half of the mean share of an expert or more, so that few tiles are mostly padding: 16 to 128."""
    most = 32 if dtype == torch.float32 else 128
    return min(most, max(16, int(triton.next_power_of_2(triton.cdiv(tokens, experts)))))


def fitted(block: int, size: int) -> int:
    """`block`, or less where `size` is less: a power of two, at least the 16 that a dot needs."""
    return min(block, max(16, int(triton.next_power_of_2(size))))


class GroupedGemmTriton(torch.autograd.Function):
    """Saves x, the weight and the offsets."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight, offsets)
        return launch_product(x, weight, offsets)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, weight, offsets = ctx.saved_tensors
        dy = grads[0] if grads[0].stride(1) == 1 else grads[0].contiguous()
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        dx = launch_product(dy, weight.transpose(1, 2), offsets) if needs_x else None
        dw = launch_weight_gradient(dy, x, offsets) if needs_weight else None
        return dx, dw, None


@on_its_device
def grouped_gemm_triton(x: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """y (tokens, out features) of x (tokens, in features) sorted by expert."""
    y: torch.Tensor = GroupedGemmTriton.apply(x, weight, offsets)
    return y

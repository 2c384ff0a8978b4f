"""The kernels of experts whose weights are frozen: W quantised or not, decoded tile by tile, and a LoRA term.

    y[t] = x[t] W[e]ᵀ + low[t] B[e]ᵀ;   dx[t] = dy[t] W[e] + dlow[t] A[e];   low = s · x Aᵀ, dlow = s · dy B

Experts are found as in `triton_op.py`. W is one matrix, the experts' rows under one another: row r of expert
e is row e · rows + r in every format. The forward decodes as `lora_linear` does: W is the left operand, from
registers. Where bytes or blocks of a format span W's rows (NF4 of columns that 64 does not divide, int4 of an
odd number), no planes can be cut and W is decoded weight by weight. Deterministic: no atomics.
`launch_frozen.py` launches them.

A weight is decoded once per tile of tokens: on sm_90 3.5 instructions, 0.03 clocks of a multiprocessor,
beside 0.06 clocks of its tensor cores for 128 tokens. Dequantising Mixtral's 8 gate matrices ahead would take
0.94 GB, and 0.4 ms at 4.3 TB/s to write and to read them, in each direction. Estimates, unmeasured.
"""

import triton
import triton.language as tl

from malgil_kernels.grouped_gemm.triton_op import expert_tile
from malgil_kernels.lora_linear.matmul import add_low_rank, dot, weight_product
from malgil_kernels.quantise.decode import weight_tile


@triton.jit
def unaligned_product(
    x_ptr,
    codes_ptr,
    scale_ptr,
    second_ptr,
    offset_ptr,
    map_ptr,
    token,  # (BLOCK_M,) int64, all inside
    row,  # (BLOCK_N,) int64
    end_row,
    columns,
    x_stride,
    row_stride,
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    STACKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
):
    """(BLOCK_N, BLOCK_M) float32: W[row] · x[token]ᵀ of weights without planes."""
    acc = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    for k in tl.range(0, columns, BLOCK_K, num_stages=STAGES):
        column = k + tl.arange(0, BLOCK_K)
        places = x_ptr + token[:, None] * x_stride + column[None, :]
        x = tl.load(places, mask=(column < columns)[None, :], other=0.0)
        w = weight_tile(
            codes_ptr,
            scale_ptr,
            second_ptr,
            offset_ptr,
            map_ptr,
            row,
            k,
            end_row,
            columns,
            row_stride,
            FORMAT,
            GROUP,
            ZERO,
            STACKED,
            ALIGNED,
            BLOCK_N,
            BLOCK_K,
            dtype,
            "",
        )
        acc = dot(w.to(dtype), tl.trans(x), acc)
    return acc


@triton.jit
def store_transposed(out_ptr, acc, token, end, column, columns, stride):
    """Writes acc (columns, tokens) to the rows `token` < end of out."""
    out = out_ptr + token[:, None] * stride + column[None, :]
    tl.store(out, tl.trans(acc), mask=(token < end)[:, None] & (column < columns)[None, :])


@triton.jit
def frozen_experts_kernel(
    x_ptr,
    codes_ptr,
    scale_ptr,
    second_ptr,
    offset_ptr,
    map_ptr,
    offsets_ptr,
    low_ptr,
    up_ptr,
    y_ptr,
    tokens,
    experts,
    rows,
    columns,
    rank,  # 0: no LoRA
    x_stride,
    expert_stride,  # of an unquantised W; the experts of a quantised one follow each other
    row_stride,
    low_stride,
    y_stride,
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    STACKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    PLANES: tl.constexpr,  # 0: decoded weight by weight
    PRESPLIT: tl.constexpr,
    ASSEMBLY: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_R: tl.constexpr,
    EVEN: tl.constexpr,
    STAGES: tl.constexpr,
):
    expert, first, end = expert_tile(offsets_ptr, tl.program_id(0), experts, tokens, BLOCK_M, BLOCK_E)
    token = first + tl.arange(0, BLOCK_M)
    place = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    if expert >= experts:  # nobody's tokens, or no tokens
        nothing = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
        store_transposed(y_ptr, nothing, token, end, place, rows, y_stride)
        return
    owner = expert.to(tl.int64)
    row = tl.minimum(place, rows - 1) + (0 if FORMAT == "dense" else owner * rows)
    if FORMAT == "dense":
        codes_ptr += owner * expert_stride
    if PLANES == 0:
        acc = unaligned_product(
            x_ptr,
            codes_ptr,
            scale_ptr,
            second_ptr,
            offset_ptr,
            map_ptr,
            tl.minimum(token, end - 1),
            row.to(tl.int64),
            (owner + 1) * rows,
            columns,
            x_stride,
            row_stride,
            FORMAT,
            GROUP,
            ZERO,
            STACKED,
            ALIGNED,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            STAGES,
        )
    else:
        acc = weight_product(
            x_ptr,
            codes_ptr,
            scale_ptr,
            second_ptr,
            offset_ptr,
            map_ptr,
            tl.minimum(token, end - 1),
            row.to(tl.int64),
            columns,
            x_stride,
            row_stride,
            0,
            columns,
            FORMAT,
            GROUP,
            ZERO,
            STACKED,
            PLANES,
            PRESPLIT,
            ASSEMBLY,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            EVEN,
            STAGES,
        )
    up_ptr += owner * rows * rank
    for lowest in range(0, rank, BLOCK_R):
        ranks = lowest + tl.arange(0, BLOCK_R)
        known = (token < end)[:, None] & (ranks < rank)[None, :]
        low = tl.load(low_ptr + token[:, None] * low_stride + ranks[None, :], mask=known, other=0.0)
        acc = add_low_rank(acc, low, up_ptr + lowest, place, place < rows, rank, rank - lowest, BLOCK_R)
    store_transposed(y_ptr, acc, token, end, place, rows, y_stride)


@triton.jit
def frozen_experts_input_gradient_kernel(
    dy_ptr,
    codes_ptr,
    scale_ptr,
    second_ptr,
    offset_ptr,
    map_ptr,
    offsets_ptr,
    dlow_ptr,
    a_ptr,
    dx_ptr,
    tokens,
    experts,
    rows,
    columns,
    rank,
    dy_stride,
    expert_stride,
    row_stride,
    dlow_stride,
    dx_stride,
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    STACKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    ASSEMBLY: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_R: tl.constexpr,
    STAGES: tl.constexpr,
):
    """A program owns (tokens, in features) and walks down the rows of its expert."""
    expert, first, end = expert_tile(offsets_ptr, tl.program_id(0), experts, tokens, BLOCK_M, BLOCK_E)
    token = first + tl.arange(0, BLOCK_M)
    inside = (token < end)[:, None]
    start = tl.program_id(1) * BLOCK_K
    column = start + tl.arange(0, BLOCK_K)
    if expert >= experts:  # nobody's tokens, or no tokens
        nothing = tl.zeros((BLOCK_K, BLOCK_M), dtype=tl.float32)
        store_transposed(dx_ptr, nothing, token, end, column, columns, dx_stride)
        return
    owner = expert.to(tl.int64)
    top = 0 if FORMAT == "dense" else owner * rows  # its first row in W
    if FORMAT == "dense":
        codes_ptr += owner * expert_stride
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
            top + place,
            start,
            top + rows,
            columns,
            row_stride,
            FORMAT,
            GROUP,
            ZERO,
            STACKED,
            ALIGNED,
            BLOCK_N,
            BLOCK_K,
            dtype,
            ASSEMBLY,
        )
        acc = dot(dy, w.to(dtype), acc)
    for lowest in range(0, rank, BLOCK_R):
        ranks = lowest + tl.arange(0, BLOCK_R)
        known = (ranks < rank)[None, :]
        dlow = tl.load(
            dlow_ptr + token[:, None] * dlow_stride + ranks[None, :], mask=inside & known, other=0.0
        )
        a = tl.load(
            a_ptr + (owner * rank + ranks[:, None]) * columns + column[None, :],
            mask=(ranks < rank)[:, None] & (column < columns)[None, :],
            other=0.0,
        )
        acc = dot(dlow, a, acc)
    out = dx_ptr + token[:, None] * dx_stride + column[None, :]
    tl.store(out, acc, mask=inside & (column < columns)[None, :])

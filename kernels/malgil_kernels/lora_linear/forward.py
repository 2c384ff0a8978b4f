"""The forward kernels of the fused LoRA linear; `launch_forward.py` launches them.

    y = x Wᵀ + s (x Aᵀ) Bᵀ + bias

Few tokens (`launch_decode`, at most 32): the time is W's bytes. W is cut into tiles of rows and the columns
into splits, so that three or four programs per multiprocessor read W once; A's rows ride along as more tiles.
Each split writes its float32 partial, and a second kernel adds them in order, multiplies by B and adds the
bias: two launches, no atomics. NF4 4096 → 14336: 30.3 MB read, 7 µs at 4.3 TB/s; the partials (4 splits · M ·
14336 · 4 bytes) stay in L2.

More tokens (`launch_tiles`): one program per tile of (128 out features, 64 or 128 tokens), x Aᵀ computed
before. Each decoded weight serves 64 or 128 tokens; beyond some hundred tokens decoding again for every tile
costs more than decoding once, see `blocks.py`.
"""

import triton
import triton.language as tl

from malgil_kernels.lora_linear.matmul import add_low_rank, weight_product


@triton.jit
def lora_linear_partial_kernel(
    x_ptr,
    codes_ptr,
    scale_ptr,
    second_ptr,
    offset_ptr,
    map_ptr,
    a_ptr,
    partial_ptr,
    tokens,
    rows,
    columns,
    ranks,
    x_stride,
    row_stride,
    a_stride,
    split_columns,
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    STACKED: tl.constexpr,
    PLANES: tl.constexpr,
    ASSEMBLY: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN: tl.constexpr,
    STAGES: tl.constexpr,
):
    """partial (splits, tokens, rows + ranks) float32: a split's share of x Wᵀ, and of x Aᵀ behind it."""
    tile = tl.program_id(0)
    split = tl.program_id(1).to(tl.int64)
    first = tl.program_id(1) * split_columns
    last = tl.minimum(first + split_columns, columns)
    tokens_here = tl.arange(0, BLOCK_M)
    token = tl.minimum(tokens_here, tokens - 1).to(tl.int64)
    weight_tiles = tl.cdiv(rows, BLOCK_N)
    if tile < weight_tiles:
        place = tile.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        inside = place < rows
        acc = weight_product(
            x_ptr,
            codes_ptr,
            scale_ptr,
            second_ptr,
            offset_ptr,
            map_ptr,
            token,
            tl.minimum(place, rows - 1),
            columns,
            x_stride,
            row_stride,
            first,
            last,
            FORMAT,
            GROUP,
            ZERO,
            STACKED,
            PLANES,
            False,
            ASSEMBLY,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            EVEN,
            STAGES,
        )
    else:
        place = (tile - weight_tiles).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        inside = place < ranks
        acc = weight_product(
            x_ptr,
            a_ptr,
            a_ptr,
            a_ptr,
            a_ptr,
            a_ptr,
            token,
            tl.minimum(place, ranks - 1),
            columns,
            x_stride,
            a_stride,
            first,
            last,
            "dense",
            1,
            False,
            False,
            1,
            False,
            "",
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            EVEN,
            2,
        )
        place += rows
    width = rows + ranks
    out = partial_ptr + (split * tokens + tokens_here[:, None]) * width + place[None, :]
    tl.store(out, tl.trans(acc), mask=(tokens_here < tokens)[:, None] & inside[None, :])


@triton.jit
def lora_linear_sum_kernel(
    partial_ptr,
    up_ptr,
    bias_ptr,
    bounds_ptr,
    y_ptr,
    scaling,
    tokens,
    rows,
    rank,
    splits,
    up_stride,
    y_stride,
    SEGMENTS: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Adds the splits in order, then s · (x Aᵀ) Bᵀ and the bias."""
    place = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    token = tl.arange(0, BLOCK_M)
    width = rows + SEGMENTS * rank
    size = tokens.to(tl.int64) * width
    inside = (place < rows)[:, None] & (token < tokens)[None, :]
    acc = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    for split in range(splits):
        here = partial_ptr + split * size + token[None, :] * width + place[:, None]
        acc += tl.load(here, mask=inside, other=0.0)
    ranks = tl.arange(0, BLOCK_R)
    for segment in tl.static_range(SEGMENTS):
        mine = place < rows
        if SEGMENTS > 1:
            start = tl.load(bounds_ptr + segment)
            mine = (place >= start) & (place < tl.load(bounds_ptr + segment + 1))
        low = tl.zeros((BLOCK_M, BLOCK_R), dtype=tl.float32)
        known = (token < tokens)[:, None] & (ranks < rank)[None, :]
        for split in range(splits):
            here = (
                partial_ptr + split * size + token[:, None] * width + rows + segment * rank + ranks[None, :]
            )
            low += tl.load(here, mask=known, other=0.0)
        low = (low * scaling).to(up_ptr.dtype.element_ty)
        acc = add_low_rank(acc, low, up_ptr, place, mine, up_stride, rank, BLOCK_R)
    if BIAS:
        acc += tl.load(bias_ptr + place, mask=place < rows, other=0.0).to(tl.float32)[:, None]
    out = y_ptr + token[:, None].to(tl.int64) * y_stride + place[None, :]
    tl.store(out, tl.trans(acc), mask=tl.trans(inside))


@triton.jit
def lora_linear_tile_kernel(
    x_ptr,
    codes_ptr,
    scale_ptr,
    second_ptr,
    offset_ptr,
    map_ptr,
    low_ptr,
    up_ptr,
    bias_ptr,
    bounds_ptr,
    y_ptr,
    tokens,
    rows,
    columns,
    rank,
    x_stride,
    row_stride,
    low_stride,
    up_stride,
    y_stride,
    SEGMENTS: tl.constexpr,
    BIAS: tl.constexpr,
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    STACKED: tl.constexpr,
    PLANES: tl.constexpr,
    PRESPLIT: tl.constexpr,
    ASSEMBLY: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    EVEN: tl.constexpr,
    STAGES: tl.constexpr,
):
    place = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    token = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    acc = weight_product(
        x_ptr,
        codes_ptr,
        scale_ptr,
        second_ptr,
        offset_ptr,
        map_ptr,
        tl.minimum(token, tokens - 1),
        tl.minimum(place, rows - 1),
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
    ranks = tl.arange(0, BLOCK_R)
    known = (token < tokens)[:, None] & (ranks < rank)[None, :]
    for segment in tl.static_range(SEGMENTS):
        mine = place < rows
        if SEGMENTS > 1:
            start = tl.load(bounds_ptr + segment)
            mine = (place >= start) & (place < tl.load(bounds_ptr + segment + 1))
        here = low_ptr + token[:, None] * low_stride + segment * rank + ranks[None, :]
        low = tl.load(here, mask=known, other=0.0)
        acc = add_low_rank(acc, low, up_ptr, place, mine, up_stride, rank, BLOCK_R)
    if BIAS:
        acc += tl.load(bias_ptr + place, mask=place < rows, other=0.0).to(tl.float32)[:, None]
    out = y_ptr + token[:, None] * y_stride + place[None, :]
    tl.store(out, tl.trans(acc), mask=(token < tokens)[:, None] & (place < rows)[None, :])

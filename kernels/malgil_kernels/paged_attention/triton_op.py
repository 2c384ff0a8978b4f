"""Decoding over a paged cache: split over the context, then one reduction in a fixed order.

    a split: m, t = Σ 2^(s − m), o = Σ 2^(s − m) v / t;   out = Σ_split w·o / Σ_split w,  w = 2^(m + log₂ t)

A program takes one sequence, one kv head with all its query heads, and one split: each key and value is read
once, 4·dim bytes (bf16) per key and kv head for 4·dim·group FLOPs, far below what a GPU computes per byte. So
the programs only have to be many and long enough to keep memory busy: `PROGRAMS_PER_SM` of them per
multiprocessor, each at least `SHORTEST_SPLIT` keys. A split writes group·dim floats: under 1%.
"""

import torch
import triton
import triton.language as tl

from malgil_kernels.attention.forward import dot, padded_dim, score_scales, tanh
from malgil_kernels.dispatch import multiprocessors, on_its_device

PROGRAMS_PER_SM = 16
SHORTEST_SPLIT = 256
MOST_SPLITS = 128


@triton.jit
def paged_split_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    table_ptr,
    length_ptr,
    first_ptr,
    part_ptr,
    weight_ptr,
    query_stride,
    query_head_stride,
    key_block_stride,
    key_slot_stride,
    key_head_stride,
    value_block_stride,
    value_slot_stride,
    value_head_stride,
    table_stride,
    table_width,
    block_size,
    window,
    inner_scale,
    outer_scale,
    splits,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    FIRST: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1).to(tl.int64)
    split = tl.program_id(2)
    # never past the table, whatever stands in context_lengths
    length = tl.minimum(tl.load(length_ptr + sequence), table_width * block_size)
    start = 0
    if FIRST:
        start = tl.maximum(tl.load(first_ptr + sequence), 0)
    if WINDOW:
        start = tl.maximum(start, length - window)
    size = tl.cdiv(tl.cdiv(tl.maximum(length - start, 0), splits), BLOCK_N) * BLOCK_N
    start += split * size
    end = tl.minimum(start + size, length)

    member = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    inside = dims < HEAD_DIM
    head = kv_head * GROUP + member
    query_row_ptr = query_ptr + sequence * query_stride + head[:, None] * query_head_stride
    query = tl.load(
        query_row_ptr + dims[None, :], mask=(member < GROUP)[:, None] & inside[None, :], other=0.0
    )
    acc = tl.zeros([ROWS, DIM], dtype=tl.float32)
    total = tl.zeros([ROWS], dtype=tl.float32)
    highest = tl.full([ROWS], float("-inf"), dtype=tl.float32)
    for number in tl.range(0, tl.cdiv(tl.maximum(end - start, 0), BLOCK_N), num_stages=STAGES):
        key = start + number * BLOCK_N + tl.arange(0, BLOCK_N)
        seen = key < end
        block = tl.load(table_ptr + sequence * table_stride + key // block_size, mask=seen, other=0).to(
            tl.int64
        )
        slot = (key % block_size).to(tl.int64)
        key_row = block * key_block_stride + slot * key_slot_stride + kv_head * key_head_stride
        value_row = block * value_block_stride + slot * value_slot_stride + kv_head * value_head_stride
        if HEAD_DIM == DIM:
            k = tl.load(key_ptr + key_row[:, None] + dims[None, :], mask=seen[:, None], other=0.0)
            v = tl.load(value_ptr + value_row[:, None] + dims[None, :], mask=seen[:, None], other=0.0)
        else:
            whole = seen[:, None] & inside[None, :]
            k = tl.load(key_ptr + key_row[:, None] + dims[None, :], mask=whole, other=0.0)
            v = tl.load(value_ptr + value_row[:, None] + dims[None, :], mask=whole, other=0.0)
        scores = dot(query, tl.trans(k), None) * inner_scale
        if SOFTCAP:
            scores = outer_scale * tanh(scores, query.dtype == tl.float32)
        scores = tl.where(seen[None, :], scores, float("-inf"))
        new = tl.maximum(highest, tl.max(scores, axis=1))  # finite: each block has a key
        weights = tl.exp2(scores - new[:, None])
        fade = tl.exp2(highest - new)
        total = total * fade + tl.sum(weights, axis=1)
        acc = dot(weights.to(v.dtype), v, acc * fade[:, None])
        highest = new

    nothing = total == 0.0
    part = (tl.program_id(0).to(tl.int64) * tl.num_programs(1) * GROUP + head) * splits + split
    acc = acc / tl.where(nothing, 1.0, total)[:, None]
    weight = tl.where(nothing, float("-inf"), highest + tl.log2(tl.where(nothing, 1.0, total)))
    tl.store(part_ptr + part[:, None] * DIM + dims[None, :], acc, mask=(member < GROUP)[:, None])
    tl.store(weight_ptr + part, weight, mask=member < GROUP)


@triton.jit
def paged_reduce_kernel(
    part_ptr,
    weight_ptr,
    out_ptr,
    out_stride,
    out_head_stride,
    splits,
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    STEP: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    first = (sequence * tl.num_programs(1) + head) * splits
    split = tl.arange(0, SPLITS)
    dims = tl.arange(0, DIM)
    weight = tl.load(weight_ptr + first + split, mask=split < splits, other=float("-inf"))
    highest = tl.max(weight, axis=0)
    highest = tl.where(highest == float("-inf"), 0.0, highest)
    total = tl.sum(tl.exp2(weight - highest), axis=0)
    out = tl.zeros([DIM], dtype=tl.float32)
    for start in range(0, splits, STEP):
        some = start + tl.arange(0, STEP)
        weight = tl.load(weight_ptr + first + some, mask=some < splits, other=float("-inf"))
        part_tile_ptr = part_ptr + (first + some)[:, None] * DIM + dims[None, :]
        part = tl.load(part_tile_ptr, mask=(some < splits)[:, None], other=0.0)
        out += tl.sum(part * tl.exp2(weight - highest)[:, None], axis=0)
    out = out / tl.where(total == 0.0, 1.0, total)
    out_row_ptr = out_ptr + sequence * out_stride + head * out_head_stride
    tl.store(out_row_ptr + dims, out, mask=dims < HEAD_DIM)


@on_its_device
def paged_attention_triton(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_tables: torch.Tensor,
    context_lengths: torch.Tensor,
    first_keys: torch.Tensor | None,
    scale: float,
    softcap: float | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """As `malgil_kernels.paged_attention.paged_attention`, which checks the arguments."""
    batch, heads, dim = query.shape
    block_size, kv_heads = key_cache.shape[1:3]
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    if not query.numel():
        return out
    width = padded_dim(dim)
    longest = block_tables.shape[1] * block_size
    longest = longest if window is None else min(longest, window)
    splits = splits_for(longest, batch * kv_heads, query.device)
    part = torch.empty(batch, heads, splits, width, dtype=torch.float32, device=query.device)
    weight = torch.empty(batch, heads, splits, dtype=torch.float32, device=query.device)
    inner_scale, outer_scale = score_scales(scale, softcap)
    group = heads // kv_heads
    block_n, warps, stages = tile_of(dim, query.dtype)
    paged_split_kernel[(batch, kv_heads, splits)](
        query, key_cache, value_cache, block_tables, context_lengths, first_keys, part, weight,
        query.stride(0), query.stride(1), *key_cache.stride()[:3], *value_cache.stride()[:3],
        block_tables.stride(0), block_tables.shape[1], block_size, window or 0, inner_scale, outer_scale,
        splits, GROUP=group, ROWS=max(triton.next_power_of_2(group), 16), FIRST=first_keys is not None,
        WINDOW=window is not None, SOFTCAP=softcap is not None, HEAD_DIM=dim, DIM=width, BLOCK_N=block_n,
        STAGES=stages, num_warps=warps,
    )  # fmt: skip
    paged_reduce_kernel[(batch, heads)](
        part, weight, out, out.stride(0), out.stride(1), splits,
        HEAD_DIM=dim, DIM=width, SPLITS=triton.next_power_of_2(splits),
        STEP=min(triton.next_power_of_2(splits), 16), num_warps=4,
    )  # fmt: skip
    return out


def splits_for(longest: int, pairs: int, device: torch.device) -> int:
    """Into how many parts a context of up to `longest` keys is cut, for `pairs` of sequence and kv head."""
    wanted = -(-multiprocessors(device) * PROGRAMS_PER_SM // pairs)
    return max(min(wanted, longest // SHORTEST_SPLIT, MOST_SPLITS), 1)


def tile_of(dim: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Keys per step, warps, and steps in flight; at most 64 KB of keys and values are under way."""
    if dtype == torch.float32:
        return (32, 8, 2)
    return (64, 4, 3) if dim <= 128 else (32, 4, 3)

"""Attention over visible ranges, forward: one tile of query rows and one head per program.

    s = q·kᵀ·scale (capped);  m = max s;  out = Σ 2^((s − m)·log₂e) v / Σ 2^((s − m)·log₂e);  lse = m + ln Σ

The scores never leave the chip: 4·dim FLOPs per visible (query, key) and head against 2·dim bytes per query,
so from a few hundred keys on the tensor cores are the limit. Keys that only some rows of a tile see (its
diagonal, a window's edge, a document's end) go first and are masked; the keys in between, which all rows see,
need no mask; the others are never read. Late rows, which see the most under a causal rule, start first.
"""

import torch
import triton
import triton.language as tl

from malgil_kernels.attention.rule import Ranges
from malgil_kernels.attention.tiles import forward_tile_of

LOG2E = 1.4426950408889634
FAR = tl.constexpr(2**30)  # beyond every row
# the interpreter multiplies the bits of a bfloat16 as if they were whole numbers
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(a, b, acc):
    """acc + a·b; the operands as they are, also float32 without rounding them to tf32."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def tanh(x, PRECISE: tl.constexpr):
    """tanh by one exponential; PRECISE: a series where that would cancel, for float32 results."""
    big = 1.0 - 2.0 / (1.0 + tl.exp2(x * 2.8853900817779268))
    if PRECISE:
        square = x * x
        series = 62.0 / 2835.0 - square * (1382.0 / 155925.0)
        series = 17.0 / 315.0 - square * series
        series = 2.0 / 15.0 - square * series
        series = 1.0 / 3.0 - square * series
        big = tl.where(tl.abs(x) < 0.25, x - x * square * series, big)
    return big


@triton.jit
def spans(lo, hi, empty, BLOCK: tl.constexpr):
    """Splits what the rows of a tile see, from the first to the last, into blocks of BLOCK.

    Returns (first, before, whole, after): from `first` on, `before` blocks that only some rows see, `whole`
    blocks that every row sees (empty rows aside), and `after` blocks that only some rows see.
    """
    last = tl.max(tl.where(empty, 0, hi), axis=0)
    first = tl.minimum(tl.min(tl.where(empty, FAR, lo), axis=0), last)
    inner_first = tl.max(tl.where(empty, 0, lo), axis=0)
    inner_last = tl.minimum(tl.min(tl.where(empty, FAR, hi), axis=0), last)
    before = tl.cdiv(tl.maximum(inner_first - first, 0), BLOCK)
    before = tl.minimum(before, tl.cdiv(last - first, BLOCK))
    whole = tl.maximum(inner_last - (first + before * BLOCK), 0) // BLOCK
    after = tl.cdiv(tl.maximum(last - (first + (before + whole) * BLOCK), 0), BLOCK)
    return first, before, whole, after


@triton.jit
def load_rows(
    base_ptr,
    first,
    stride,
    last,
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """(ROWS, DIM) from row `first` on; 0 from row `last` on unless WHOLE, and in dims from HEAD_DIM on."""
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    tile_ptr = base_ptr + first.to(tl.int64) * stride + rows.to(tl.int64)[:, None] * stride + dims[None, :]
    if WHOLE and HEAD_DIM == DIM:
        tile = tl.load(tile_ptr)
    elif WHOLE:
        tile = tl.load(tile_ptr, mask=(dims < HEAD_DIM)[None, :], other=0.0)
    elif HEAD_DIM == DIM:
        tile = tl.load(tile_ptr, mask=(first + rows < last)[:, None], other=0.0)
    else:
        tile = tl.load(tile_ptr, mask=(first + rows < last)[:, None] & (dims < HEAD_DIM)[None, :], other=0.0)
    return tile


@triton.jit
def attend_block(
    acc,
    total,
    highest,
    q,
    k_ptr,
    v_ptr,
    k_stride,
    v_stride,
    start,
    last,
    lo,
    hi,
    inner_scale,
    outer_scale,
    SOFTCAP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Adds the keys [start, start + BLOCK_N) to a tile's running sums; scores are kept in units of log 2."""
    k = load_rows(k_ptr, start, k_stride, last, HEAD_DIM, DIM, BLOCK_N, WHOLE)
    scores = dot(q, tl.trans(k), None) * inner_scale
    if SOFTCAP:
        scores = outer_scale * tanh(scores, q.dtype == tl.float32)
    if not WHOLE:
        key = start + tl.arange(0, BLOCK_N)
        scores = tl.where((key[None, :] >= lo[:, None]) & (key[None, :] < hi[:, None]), scores, float("-inf"))
    new = tl.maximum(highest, tl.max(scores, axis=1))
    base = new
    if not WHOLE:  # a row that has seen nothing yet
        base = tl.where(new == float("-inf"), 0.0, new)
    weights = tl.exp2(scores - base[:, None])
    fade = tl.exp2(highest - base)
    total = total * fade + tl.sum(weights, axis=1)
    v = load_rows(v_ptr, start, v_stride, last, HEAD_DIM, DIM, BLOCK_N, WHOLE)
    acc = dot(weights.to(v.dtype), v, acc * fade[:, None])
    return acc, total, new


@triton.jit
def attention_forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    lse_ptr,
    lo_ptr,
    hi_ptr,
    q_stride,
    q_head_stride,
    k_stride,
    k_head_stride,
    v_stride,
    v_head_stride,
    out_stride,
    out_head_stride,
    total_q,
    inner_scale,
    outer_scale,
    GROUP: tl.constexpr,
    SOFTCAP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
):
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    start_m = tile * BLOCK_M
    row = start_m + tl.arange(0, BLOCK_M)
    lo = tl.load(lo_ptr + row, mask=row < total_q, other=0)
    hi = tl.load(hi_ptr + row, mask=row < total_q, other=0)
    empty = hi <= lo
    first, before, whole, after = spans(lo, hi, empty, BLOCK_N)
    last = tl.max(tl.where(empty, 0, hi), axis=0)
    k_ptr += head // GROUP * k_head_stride
    v_ptr += head // GROUP * v_head_stride
    q = load_rows(q_ptr + head * q_head_stride, start_m, q_stride, total_q, HEAD_DIM, DIM, BLOCK_M, False)

    acc = tl.zeros([BLOCK_M, DIM], dtype=tl.float32)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)
    highest = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    for number in tl.range(0, before + after, num_stages=STAGES):
        start = first + tl.where(number < before, number, number + whole) * BLOCK_N
        acc, total, highest = attend_block(
            acc, total, highest, q, k_ptr, v_ptr, k_stride, v_stride, start, last, lo, hi,
            inner_scale, outer_scale, SOFTCAP, HEAD_DIM, DIM, BLOCK_N, False,
        )  # fmt: skip
    for number in tl.range(before, before + whole, num_stages=STAGES):
        acc, total, highest = attend_block(
            acc, total, highest, q, k_ptr, v_ptr, k_stride, v_stride, first + number * BLOCK_N, last, lo, hi,
            inner_scale, outer_scale, SOFTCAP, HEAD_DIM, DIM, BLOCK_N, True,
        )  # fmt: skip

    out = tl.where(empty[:, None], 0.0, acc / tl.where(empty, 1.0, total)[:, None])
    lse = tl.where(empty, float("-inf"), (highest + tl.log2(total)) * 0.6931471805599453)
    dims = tl.arange(0, DIM)
    out_tile_ptr = out_ptr + head * out_head_stride + row.to(tl.int64)[:, None] * out_stride + dims[None, :]
    tl.store(out_tile_ptr, out, mask=(row < total_q)[:, None] & (dims < HEAD_DIM)[None, :])
    tl.store(lse_ptr + head * total_q + row, lse, mask=row < total_q)


def launch_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ranges: Ranges, scale: float, softcap: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """q (total_q, heads, dim), k and v (total_k, kv_heads, dim) → out like q, lse (heads, total_q) float32."""
    rows, heads, dim = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(heads, rows, dtype=torch.float32, device=q.device)
    if not q.numel():
        return out, lse
    tile = forward_tile_of(dim, q.dtype, q.device)
    inner_scale, outer_scale = score_scales(scale, softcap)
    attention_forward_kernel[(triton.cdiv(rows, tile.block_m), heads)](
        q, k, v, out, lse, ranges.query_lo, ranges.query_hi,
        q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1), out.stride(0), out.stride(1),
        rows, inner_scale, outer_scale,
        GROUP=heads // k.shape[1], SOFTCAP=softcap is not None, HEAD_DIM=dim, DIM=padded_dim(dim),
        BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, STAGES=tile.stages, num_warps=tile.warps,
    )  # fmt: skip
    return out, lse


def score_scales(scale: float, softcap: float | None) -> tuple[float, float]:
    """Factors before and after tanh that give scores in units of log 2; without a cap the first alone does."""
    return (scale * LOG2E, 1.0) if softcap is None else (scale / softcap, softcap * LOG2E)


def padded_dim(dim: int) -> int:
    """The power of two that a tile is wide."""
    return max(triton.next_power_of_2(dim), 16)

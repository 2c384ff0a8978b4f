"""Attention over visible ranges, backward: one kernel owns query rows (dq), one owns keys (dk, dv). No atomics.

    p = exp(s − lse);  δ = Σ_dim dout·out;  ds = p·(dout·vᵀ − δ)·(1 − tanh²);
    dq = scale·ds·k;  dk = scale·dsᵀ·q;  dv = pᵀ·dout

Both kernels recompute the scores: seven products where atomics would do with five, and in return every sum has
one order, so the same input gives the same bits. The first kernel also leaves δ for the second. A key's
program walks the query rows that see it for every query head of its group, so grouped heads are summed in
registers.
"""

import torch
import triton
import triton.language as tl

from malgil_kernels.attention.forward import dot, load_rows, padded_dim, score_scales, spans, tanh
from malgil_kernels.attention.rule import Ranges
from malgil_kernels.attention.tiles import dkdv_tile_of, dq_tile_of


@triton.jit
def dq_block(
    acc,
    q,
    dout,
    lse,
    delta,
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
    """Adds what the keys [start, start + BLOCK_N) give to dq; `lse` in units of log 2."""
    k = load_rows(k_ptr, start, k_stride, last, HEAD_DIM, DIM, BLOCK_N, WHOLE)
    scores = dot(q, tl.trans(k), None) * inner_scale
    if SOFTCAP:
        bent = tanh(scores, q.dtype == tl.float32)
        scores = outer_scale * bent
    weights = tl.exp2(scores - lse[:, None])
    if not WHOLE:
        key = start + tl.arange(0, BLOCK_N)
        weights = tl.where((key[None, :] >= lo[:, None]) & (key[None, :] < hi[:, None]), weights, 0.0)
    v = load_rows(v_ptr, start, v_stride, last, HEAD_DIM, DIM, BLOCK_N, WHOLE)
    slope = weights * (dot(dout, tl.trans(v), None) - delta[:, None])
    if SOFTCAP:
        slope *= 1.0 - bent * bent
    return dot(slope.to(k.dtype), k, acc)


@triton.jit
def attention_dq_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    dout_ptr,
    dq_ptr,
    lse_ptr,
    delta_ptr,
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
    dout_stride,
    dout_head_stride,
    dq_stride,
    dq_head_stride,
    total_q,
    scale,
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
    dout = load_rows(
        dout_ptr + head * dout_head_stride, start_m, dout_stride, total_q, HEAD_DIM, DIM, BLOCK_M, False
    )
    out = load_rows(
        out_ptr + head * out_head_stride, start_m, out_stride, total_q, HEAD_DIM, DIM, BLOCK_M, False
    )
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), axis=1)
    tl.store(delta_ptr + head * total_q + row, delta, mask=row < total_q)
    lse = tl.load(lse_ptr + head * total_q + row, mask=row < total_q, other=0.0) * 1.4426950408889634
    lse = tl.where(empty, 0.0, lse)

    acc = tl.zeros([BLOCK_M, DIM], dtype=tl.float32)
    for number in tl.range(0, before + after, num_stages=STAGES):
        start = first + tl.where(number < before, number, number + whole) * BLOCK_N
        acc = dq_block(
            acc, q, dout, lse, delta, k_ptr, v_ptr, k_stride, v_stride, start, last, lo, hi,
            inner_scale, outer_scale, SOFTCAP, HEAD_DIM, DIM, BLOCK_N, False,
        )  # fmt: skip
    for number in tl.range(before, before + whole, num_stages=STAGES):
        acc = dq_block(
            acc, q, dout, lse, delta, k_ptr, v_ptr, k_stride, v_stride, first + number * BLOCK_N, last, lo, hi,
            inner_scale, outer_scale, SOFTCAP, HEAD_DIM, DIM, BLOCK_N, True,
        )  # fmt: skip
    dims = tl.arange(0, DIM)
    dq_tile_ptr = dq_ptr + head * dq_head_stride + row.to(tl.int64)[:, None] * dq_stride + dims[None, :]
    dq = tl.where(empty[:, None], 0.0, acc * scale)
    tl.store(dq_tile_ptr, dq, mask=(row < total_q)[:, None] & (dims < HEAD_DIM)[None, :])


@triton.jit
def dkdv_block(
    dk,
    dv,
    k,
    v,
    q_ptr,
    dout_ptr,
    lse_ptr,
    delta_ptr,
    q_stride,
    dout_stride,
    start,
    last,
    lo,
    hi,
    inner_scale,
    outer_scale,
    SOFTCAP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Adds what the query rows [start, start + BLOCK_M) of one head give to dk and dv; scores are (keys, rows)."""
    row = start + tl.arange(0, BLOCK_M)
    q = load_rows(q_ptr, start, q_stride, last, HEAD_DIM, DIM, BLOCK_M, WHOLE)
    scores = dot(k, tl.trans(q), None) * inner_scale
    if SOFTCAP:
        bent = tanh(scores, k.dtype == tl.float32)
        scores = outer_scale * bent
    if WHOLE:
        lse = tl.load(lse_ptr + row) * 1.4426950408889634
        delta = tl.load(delta_ptr + row)
        weights = tl.exp2(scores - lse[None, :])
    else:
        lse = tl.load(lse_ptr + row, mask=row < last, other=0.0) * 1.4426950408889634
        delta = tl.load(delta_ptr + row, mask=row < last, other=0.0)
        visible = (row[None, :] >= lo[:, None]) & (row[None, :] < hi[:, None])
        weights = tl.where(visible, tl.exp2(scores - lse[None, :]), 0.0)
    dout = load_rows(dout_ptr, start, dout_stride, last, HEAD_DIM, DIM, BLOCK_M, WHOLE)
    dv = dot(weights.to(dout.dtype), dout, dv)
    slope = weights * (dot(v, tl.trans(dout), None) - delta[None, :])
    if SOFTCAP:
        slope *= 1.0 - bent * bent
    dk = dot(slope.to(q.dtype), q, dk)
    return dk, dv


@triton.jit
def attention_dkdv_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    dout_ptr,
    dk_ptr,
    dv_ptr,
    lse_ptr,
    delta_ptr,
    lo_ptr,
    hi_ptr,
    q_stride,
    q_head_stride,
    k_stride,
    k_head_stride,
    v_stride,
    v_head_stride,
    dout_stride,
    dout_head_stride,
    dk_stride,
    dk_head_stride,
    dv_stride,
    dv_head_stride,
    total_q,
    total_k,
    scale,
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
    start_n = tl.program_id(0) * BLOCK_N
    kv_head = tl.program_id(1).to(tl.int64)
    key = start_n + tl.arange(0, BLOCK_N)
    lo = tl.load(lo_ptr + key, mask=key < total_k, other=0)
    hi = tl.load(hi_ptr + key, mask=key < total_k, other=0)
    empty = hi <= lo
    first, before, whole, after = spans(lo, hi, empty, BLOCK_M)
    last = tl.max(tl.where(empty, 0, hi), axis=0)
    k = load_rows(k_ptr + kv_head * k_head_stride, start_n, k_stride, total_k, HEAD_DIM, DIM, BLOCK_N, False)
    v = load_rows(v_ptr + kv_head * v_head_stride, start_n, v_stride, total_k, HEAD_DIM, DIM, BLOCK_N, False)

    dk = tl.zeros([BLOCK_N, DIM], dtype=tl.float32)
    dv = tl.zeros([BLOCK_N, DIM], dtype=tl.float32)
    edges = before + after
    for number in tl.range(0, GROUP * edges, num_stages=STAGES):
        head = kv_head * GROUP + number // edges
        block = number % edges
        start = first + tl.where(block < before, block, block + whole) * BLOCK_M
        dk, dv = dkdv_block(
            dk, dv, k, v, q_ptr + head * q_head_stride, dout_ptr + head * dout_head_stride,
            lse_ptr + head * total_q, delta_ptr + head * total_q, q_stride, dout_stride, start, last, lo, hi,
            inner_scale, outer_scale, SOFTCAP, HEAD_DIM, DIM, BLOCK_M, False,
        )  # fmt: skip
    for number in tl.range(0, GROUP * whole, num_stages=STAGES):
        head = kv_head * GROUP + number // whole
        start = first + (before + number % whole) * BLOCK_M
        dk, dv = dkdv_block(
            dk, dv, k, v, q_ptr + head * q_head_stride, dout_ptr + head * dout_head_stride,
            lse_ptr + head * total_q, delta_ptr + head * total_q, q_stride, dout_stride, start, last, lo, hi,
            inner_scale, outer_scale, SOFTCAP, HEAD_DIM, DIM, BLOCK_M, True,
        )  # fmt: skip

    dims = tl.arange(0, DIM)
    inside = (key < total_k)[:, None] & (dims < HEAD_DIM)[None, :]
    wide_key = key.to(tl.int64)[:, None]
    dk = tl.where(empty[:, None], 0.0, dk * scale)
    dv = tl.where(empty[:, None], 0.0, dv)
    tl.store(dk_ptr + kv_head * dk_head_stride + wide_key * dk_stride + dims[None, :], dk, mask=inside)
    tl.store(dv_ptr + kv_head * dv_head_stride + wide_key * dv_stride + dims[None, :], dv, mask=inside)


def launch_backward(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    ranges: Ranges,
    scale: float,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v, contiguous; arguments as the forward kept them."""
    rows, heads, dim = q.shape
    keys, kv_heads = k.shape[:2]
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    delta = torch.empty_like(lse)
    constants = {
        "GROUP": heads // max(kv_heads, 1),
        "SOFTCAP": softcap is not None,
        "HEAD_DIM": dim,
        "DIM": padded_dim(dim),
    }
    scales = (scale, *score_scales(scale, softcap))
    if q.numel():
        tile = dq_tile_of(dim, q.dtype, q.device)
        attention_dq_kernel[(triton.cdiv(rows, tile.block_m), heads)](
            q, k, v, out, dout, dq, lse, delta, ranges.query_lo, ranges.query_hi,
            q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1),
            out.stride(0), out.stride(1), dout.stride(0), dout.stride(1), dq.stride(0), dq.stride(1),
            rows, *scales, **constants,
            BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, STAGES=tile.stages, num_warps=tile.warps,
        )  # fmt: skip
    if k.numel():
        tile = dkdv_tile_of(dim, q.dtype, q.device)
        attention_dkdv_kernel[(triton.cdiv(keys, tile.block_n), kv_heads)](
            q, k, v, dout, dk, dv, lse, delta, ranges.key_lo, ranges.key_hi,
            q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1),
            dout.stride(0), dout.stride(1), dk.stride(0), dk.stride(1), dv.stride(0), dv.stride(1),
            rows, keys, *scales, **constants,
            BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, STAGES=tile.stages, num_warps=tile.warps,
        )  # fmt: skip
    return dq, dk, dv

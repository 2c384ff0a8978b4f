"""Rotary position embedding in Triton, one token per program, q and k in one launch.

    y_a = a·cos − b·sin;  y_b = b·cos + a·sin;  backward: the same with −sin

A rotation's transpose is the rotation by the negative angle, so the backward needs nothing of the forward but
the tables. Each element of q and k is read once and written once: 4 bytes per element in a 16-bit type, plus
one table row per token, shared by all heads. A token of Llama 3 8B (32 + 8 heads of 128) moves 20 KB, enough
that a few programs per multiprocessor cover the memory's latency. Both halves of a head (or whole pairs) lie
contiguously, so that loads are 16 bytes wide. Deterministic: no element is written twice.
"""

from typing import Any

import torch
import triton
import triton.language as tl

TILE = 2048  # pairs per program and step: 32 elements per thread of four warps


@triton.jit
def rotate_heads(
    x_ptr,
    y_ptr,
    x_head_stride,
    y_head_stride,
    cos,
    sin,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_REST: tl.constexpr,
):
    """All heads of one token: (HEADS, 2·HALF + REST); `cos` and `sin` are (BLOCK_HALF,)."""
    for first in range(0, HEADS, BLOCK_HEADS):
        heads = first + tl.arange(0, BLOCK_HEADS)[:, None]
        x_rows = x_ptr + heads.to(tl.int64) * x_head_stride
        y_rows = y_ptr + heads.to(tl.int64) * y_head_stride
        here = heads < HEADS
        if INTERLEAVED:
            columns = tl.arange(0, 2 * BLOCK_HALF)[None, :]
            inside = here & (columns < 2 * HALF)
            pairs = tl.load(x_rows + columns, mask=inside, other=0.0).to(tl.float32)
            a, b = tl.split(tl.reshape(pairs, (BLOCK_HEADS, BLOCK_HALF, 2)))
            turned = tl.join(a * cos[None, :] - b * sin[None, :], b * cos[None, :] + a * sin[None, :])
            turned = tl.reshape(turned, (BLOCK_HEADS, 2 * BLOCK_HALF))
            tl.store(y_rows + columns, turned.to(y_ptr.dtype.element_ty), mask=inside)
        else:
            columns = tl.arange(0, BLOCK_HALF)[None, :]
            inside = here & (columns < HALF)
            a = tl.load(x_rows + columns, mask=inside, other=0.0).to(tl.float32)
            b = tl.load(x_rows + HALF + columns, mask=inside, other=0.0).to(tl.float32)
            y_a = a * cos[None, :] - b * sin[None, :]
            y_b = b * cos[None, :] + a * sin[None, :]
            tl.store(y_rows + columns, y_a.to(y_ptr.dtype.element_ty), mask=inside)
            tl.store(y_rows + HALF + columns, y_b.to(y_ptr.dtype.element_ty), mask=inside)
        if REST > 0:  # dims that are not rotated, where the output is another tensor
            columns = 2 * HALF + tl.arange(0, BLOCK_REST)[None, :]
            inside = here & (columns < 2 * HALF + REST)
            tl.store(y_rows + columns, tl.load(x_rows + columns, mask=inside), mask=inside)


@triton.jit
def rope_kernel(
    q_ptr,
    k_ptr,
    q_out_ptr,
    k_out_ptr,
    cos_ptr,
    sin_ptr,
    position_ptr,
    q_batch_stride,
    q_token_stride,
    q_head_stride,
    k_batch_stride,
    k_token_stride,
    k_head_stride,
    q_out_batch_stride,
    q_out_token_stride,
    q_out_head_stride,
    k_out_batch_stride,
    k_out_token_stride,
    k_out_head_stride,
    table_batch_stride,
    table_token_stride,
    position_batch_stride,
    position_token_stride,
    seq,
    table_rows,
    Q_HEADS: tl.constexpr,
    K_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    INVERSE: tl.constexpr,
    GATHER: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_REST: tl.constexpr,
):
    program = tl.program_id(0)
    batch = (program // seq).to(tl.int64)
    token = (program % seq).to(tl.int64)
    pairs = tl.arange(0, BLOCK_HALF)
    inside = pairs < HALF
    if GATHER:
        row = tl.load(position_ptr + batch * position_batch_stride + token * position_token_stride).to(
            tl.int64
        )
        inside = (
            inside & (row >= 0) & (row < table_rows)
        )  # a position off the table gives NaN, not its neighbour
    else:
        row = token
    table = batch * table_batch_stride + row * table_token_stride + pairs
    cos = tl.load(cos_ptr + table, mask=inside, other=float("nan")).to(tl.float32)
    sin = tl.load(sin_ptr + table, mask=inside, other=float("nan")).to(tl.float32)
    if INVERSE:
        sin = -sin
    rotate_heads(
        q_ptr + batch * q_batch_stride + token * q_token_stride,
        q_out_ptr + batch * q_out_batch_stride + token * q_out_token_stride,
        q_head_stride,
        q_out_head_stride,
        cos,
        sin,
        Q_HEADS,
        HALF,
        REST,
        INTERLEAVED,
        BLOCK_Q,
        BLOCK_HALF,
        BLOCK_REST,
    )
    if K_HEADS > 0:
        rotate_heads(
            k_ptr + batch * k_batch_stride + token * k_token_stride,
            k_out_ptr + batch * k_out_batch_stride + token * k_out_token_stride,
            k_head_stride,
            k_out_head_stride,
            cos,
            sin,
            K_HEADS,
            HALF,
            REST,
            INTERLEAVED,
            BLOCK_K,
            BLOCK_HALF,
            BLOCK_REST,
        )


class Tables:
    """cos and sin (batch or 1, rows, half), equal in strides; position ids (batch or 1, seq) or None."""

    def __init__(
        self, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor | None, interleaved: bool
    ):
        if cos.stride() != sin.stride() or cos.stride(-1) != 1:
            cos, sin = cos.contiguous(), sin.contiguous()
        self.cos, self.sin, self.positions, self.interleaved = cos, sin, positions, interleaved


def by_token(x: torch.Tensor, heads_dim: int) -> torch.Tensor:
    """A view of x as (batch, seq, heads, dim); x is (batch, heads, seq, dim), (batch, seq, heads, dim) or
    (tokens, heads, dim)."""
    if x.ndim == 3:
        return x.unsqueeze(0)
    return x.transpose(1, 2) if heads_dim == 1 else x


def launch(
    xs: list[torch.Tensor], outs: list[torch.Tensor], tables: Tables, heads_dim: int, inverse: bool
) -> None:
    """Rotates one or two tensors (q, or q and k) into `outs`, which may be the tensors themselves."""
    inputs = [by_token(x, heads_dim) for x in xs]
    outputs = [by_token(y, heads_dim) for y in outs]
    batch, seq, _, dim = inputs[0].shape
    half = tables.cos.shape[-1]
    if not batch or not seq or not half or not any(x.numel() for x in inputs):
        return
    heads = [x.shape[2] for x in inputs] + [0] * (2 - len(inputs))
    q, k, q_out, k_out = inputs[0], inputs[-1], outputs[0], outputs[-1]
    rest = 0 if xs[0] is outs[0] else dim - 2 * half
    block_half = triton.next_power_of_2(half)
    positions = tables.positions
    position_strides = (0, 0) if positions is None else _broadcast_strides(positions)
    with torch.cuda.device_of(q):
        rope_kernel[(batch * seq,)](
            q,
            k,
            q_out,
            k_out,
            tables.cos,
            tables.sin,
            positions,
            *q.stride()[:3],
            *k.stride()[:3],
            *q_out.stride()[:3],
            *k_out.stride()[:3],
            *_broadcast_strides(tables.cos),
            *position_strides,
            seq,
            tables.cos.shape[1],
            Q_HEADS=heads[0],
            K_HEADS=heads[1],
            HALF=half,
            REST=rest,
            INTERLEAVED=tables.interleaved,
            INVERSE=inverse,
            GATHER=positions is not None,
            BLOCK_Q=_block_heads(heads[0], block_half),
            BLOCK_K=_block_heads(heads[1], block_half),
            BLOCK_HALF=block_half,
            BLOCK_REST=triton.next_power_of_2(max(rest, 1)),
            num_warps=4,
        )


def _block_heads(heads: int, block_half: int) -> int:
    wanted: int = triton.next_power_of_2(max(heads, 1))
    return max(1, min(wanted, TILE // block_half))


def _broadcast_strides(x: torch.Tensor) -> tuple[int, int]:
    """Strides of (batch, token), the first 0 where one row of the batch serves all."""
    return (0 if x.shape[0] == 1 else x.stride(0)), x.stride(1)


class RopeTriton(torch.autograd.Function):
    """q and k into new tensors; keeps only the tables. Gradients too are new: autograd may share them."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, tables: Tables, heads_dim: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.tables, ctx.heads_dim = tables, heads_dim
        q_out, k_out = torch.empty_like(q), torch.empty_like(k)
        launch([q, k], [q_out, k_out], tables, heads_dim, inverse=False)
        return q_out, k_out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        dys = [_inner_contiguous(dy) for dy in grads]
        dxs = [torch.empty_like(dy) for dy in dys]
        launch(dys, dxs, ctx.tables, ctx.heads_dim, inverse=True)
        return dxs[0], dxs[1], None, None


class RopeInPlaceTriton(torch.autograd.Function):
    """Marks one tensor as changed in place; `pair` (q, k) is rotated in one launch by the first of two calls.

    Two calls, because autograd allows a function that changes a view in place only one output, and q and k
    are views (of a projection, or of one fused projection) in every model.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, pair: list[torch.Tensor] | None, tables: Tables, heads_dim: int
    ) -> torch.Tensor:
        ctx.tables, ctx.heads_dim = tables, heads_dim
        ctx.mark_dirty(x)
        if pair is not None:
            launch(pair, pair, tables, heads_dim, inverse=False)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        dy = _inner_contiguous(grads[0])
        dx = torch.empty_like(dy)
        launch([dy], [dx], ctx.tables, ctx.heads_dim, inverse=True)
        return dx, None, None, None


def _inner_contiguous(x: torch.Tensor) -> torch.Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def rope_triton(
    q: torch.Tensor, k: torch.Tensor, tables: Tables, heads_dim: int, in_place: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary position embedding of q and k by the kernel above; arguments are checked by `rope`."""
    if in_place:
        q_out: torch.Tensor = RopeInPlaceTriton.apply(q, [q.detach(), k.detach()], tables, heads_dim)
        k_out: torch.Tensor = RopeInPlaceTriton.apply(k, None, tables, heads_dim)
        return q_out, k_out
    pair: tuple[torch.Tensor, torch.Tensor] = RopeTriton.apply(q, k, tables, heads_dim)
    return pair

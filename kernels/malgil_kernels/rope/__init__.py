"""Rotary position embedding of q and k: half (Llama, NeoX) and interleaved (GPT-J) pairs, partial dims,
packed position ids. Attention itself and the choice of frequencies are the caller's."""

import torch

from malgil_kernels.dispatch import select
from malgil_kernels.rope.reference import rope_reference

__all__ = ["rope", "rope_", "rope_tables"]

ROUTES = {3: (1,), 4: (1, 2)}  # dimensions of q → accepted places of the heads


def rope_tables(
    inv_freq: torch.Tensor, positions: torch.Tensor, scaling: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of position · inv_freq, times the attention scaling factor, in float32.

    Args:
        inv_freq: (rotary_dim / 2,), whatever the scheme (default, linear, dynamic, YaRN, Llama 3) made of it.
        positions: integers of any shape: `torch.arange(n)` for a table to look up by position ids, or the
            position ids themselves for one row per token.
        scaling: transformers' `attention_scaling` (YaRN, LongRoPE); 1 elsewhere.

    Returns:
        (*positions.shape, rotary_dim / 2) each.

    Source: Su et al. 2021, arXiv:2104.09864; angles are taken in float32, as transformers does.
    """
    angles = positions[..., None].to(torch.float32) * inv_freq.to(torch.float32)
    return angles.cos() * scaling, angles.sin() * scaling


def rope(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor | None = None,
    *,
    heads_dim: int = 1,
    interleaved: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotates q and k by their positions, in one launch, into new tensors: the form to train with.

    Args:
        q: (batch, heads, seq, dim), (batch, seq, heads, dim) with `heads_dim=2`, or (tokens, heads, dim) of
            packed sequences; any outer strides, inner stride 1.
        k: as q, with its own number of heads.
        cos, sin: without `position_ids` one row per token, (batch or 1, seq, half) or (seq, half); with them
            a table (positions, half). `half` is half of the rotary dims: of transformers' full-width tables,
            which repeat themselves, pass `cos[..., : half]` (`cos[..., ::2]` where it interleaves them). Dims
            of a head past 2·half are passed through. A scaling factor is part of the tables.
        position_ids: (batch or 1, seq) or (seq,) integers, reset at each document of a packed sequence.
            One that is not a row of the table gives NaN on a GPU (no look at values there), an error on CPU.
        heads_dim: which dimension holds the heads; transformers calls it `unsqueeze_dim`.
        interleaved: pairs are (0, 1), (2, 3), … as in GPT-J; otherwise (0, half), … as in Llama and NeoX.

    Returns:
        q and k rotated, in their dtypes and memory layouts; computed in float32 at least.

    Raises:
        ValueError: shapes, strides, devices or dtypes do not fit, or a table requires grad.

    Gradients are those of q and k: the rotation by −sin, one launch too. Deterministic.
    Source: Su et al. 2021, arXiv:2104.09864; the layouts are transformers' Llama and GPT-J.
    """
    return _rope(q, k, cos, sin, position_ids, heads_dim, interleaved, in_place=False)


def rope_(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor | None = None,
    *,
    heads_dim: int = 1,
    interleaved: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`rope` in place: for decoding, where no gradient is needed and no new tensor wanted.

    Autograd knows that q and k changed: what needed their old values raises in its backward. Training through
    it is right but slower than `rope`: for views, autograd copies the gradient of the whole base.

    Raises:
        ValueError: as `rope`; also a leaf that requires grad (or a view of one), whose value would be lost,
            and tensors whose elements share memory (stride 0).
    """
    for name, x in (("q", q), ("k", k)):
        base = x._base if x._base is not None else x
        if torch.is_grad_enabled() and base.is_leaf and x.requires_grad:
            raise ValueError(
                f"{name} is a leaf that requires grad, or a view of one: rope_ would overwrite it. "
                "Next: use rope"
            )
        if any(step == 0 and size > 1 for step, size in zip(x.stride(), x.shape, strict=True)):
            raise ValueError(f"{name} has strides {x.stride()}: elements share memory. Next: use rope")
    return _rope(q, k, cos, sin, position_ids, heads_dim, interleaved, in_place=True)


def _rope(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor | None,
    heads_dim: int,
    interleaved: bool,
    in_place: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    _check_pair(q, k, heads_dim)
    cos, sin, position_ids = _check_tables(q, cos, sin, position_ids, heads_dim)
    if select("rope", dtype=q.dtype, device=q.device).implementation == "triton":
        from malgil_kernels.rope.triton_op import Tables, rope_triton

        return rope_triton(q, k, Tables(cos, sin, position_ids, interleaved), heads_dim, in_place)
    if position_ids is not None:
        low, high = (int(x) for x in position_ids.aminmax()) if position_ids.numel() else (0, -1)
        if low < 0 or high >= cos.shape[1]:
            raise ValueError(
                f"position_ids go from {low} to {high}: must be rows of the table, 0 to {cos.shape[1] - 1}"
            )
        cos, sin = cos[0][position_ids.long()], sin[0][position_ids.long()]

    def rotated(x: torch.Tensor) -> torch.Tensor:
        swap = x.ndim == 4 and heads_dim == 1
        tokens_first = x.transpose(1, 2) if swap else x if x.ndim == 4 else x.unsqueeze(0)
        y = rope_reference(tokens_first, cos, sin, interleaved)
        y = y.transpose(1, 2) if swap else y if x.ndim == 4 else y.squeeze(0)
        return x.copy_(y) if in_place else y

    return rotated(q), rotated(k)


def _check_pair(q: torch.Tensor, k: torch.Tensor, heads_dim: int) -> None:
    if q.ndim not in ROUTES or heads_dim not in ROUTES[q.ndim]:
        raise ValueError(
            f"q has shape {tuple(q.shape)} and heads_dim is {heads_dim}: must be (batch, heads, seq, dim) or "
            "(tokens, heads, dim) with heads_dim 1, or (batch, seq, heads, dim) with heads_dim 2"
        )
    same = [d for d in range(q.ndim) if d != heads_dim]
    if k.ndim != q.ndim or any(k.shape[d] != q.shape[d] for d in same):
        raise ValueError(f"k has shape {tuple(k.shape)}: must be q's, {tuple(q.shape)}, but for the heads")
    if k.dtype != q.dtype or k.device != q.device:
        raise ValueError(f"k is {k.dtype} on {k.device}: must be {q.dtype} on {q.device}, as q")
    if not q.dtype.is_floating_point:
        raise ValueError(f"q is {q.dtype}: must be a floating-point type")
    for name, x in (("q", q), ("k", k)):
        if x.stride(-1) != 1 and x.shape[-1] > 1:
            raise ValueError(
                f"{name} has inner stride {x.stride(-1)}: must be 1. Next: pass {name}.contiguous()"
            )


def _check_tables(
    q: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, position_ids: torch.Tensor | None, heads_dim: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """cos and sin as (batch or 1, rows, half), position ids as (batch or 1, seq)."""
    batch, seq = (1, q.shape[0]) if q.ndim == 3 else (q.shape[0], q.shape[3 - heads_dim])
    if sin.shape != cos.shape or sin.dtype != cos.dtype:
        raise ValueError(
            f"sin is {sin.dtype} {tuple(sin.shape)}: must be as cos, {cos.dtype} {tuple(cos.shape)}"
        )
    for name, table in (("cos", cos), ("sin", sin)):
        if table.device != q.device or not table.dtype.is_floating_point:
            raise ValueError(
                f"{name} is {table.dtype} on {table.device}: must be a floating-point type on {q.device}"
            )
        if table.requires_grad:
            raise ValueError(f"{name} requires grad: tables get no gradient. Next: pass {name}.detach()")
    if cos.ndim not in (2, 3) or not 0 < 2 * cos.shape[-1] <= q.shape[-1]:
        raise ValueError(
            f"cos has shape {tuple(cos.shape)}: must end in half of the rotary dims, at most "
            f"{q.shape[-1] // 2}. Next: of a full-width table pass cos[..., :half]"
        )
    if position_ids is None:
        wanted = ((1, seq), (batch, seq))
        table_shape = tuple(cos.shape[:-1]) if cos.ndim == 3 else (1, cos.shape[0])
        if table_shape not in wanted:
            raise ValueError(
                f"cos has shape {tuple(cos.shape)}: must have one row for each of {batch} x {seq} tokens, "
                "or come with position_ids"
            )
    else:
        if cos.ndim != 2:
            raise ValueError(
                f"cos has shape {tuple(cos.shape)}: with position_ids it must be (positions, half)"
            )
        position_ids = position_ids if position_ids.ndim == 2 else position_ids.reshape(1, -1)
        if tuple(position_ids.shape) not in ((1, seq), (batch, seq)):
            raise ValueError(
                f"position_ids has shape {tuple(position_ids.shape)}: must be ({batch} or 1, {seq})"
            )
        if position_ids.dtype not in (torch.int32, torch.int64) or position_ids.device != q.device:
            raise ValueError(
                f"position_ids is {position_ids.dtype} on {position_ids.device}: "
                f"must be int32 or int64 on {q.device}"
            )
    if cos.ndim == 2:
        cos, sin = cos.unsqueeze(0), sin.unsqueeze(0)
    return cos, sin, position_ids

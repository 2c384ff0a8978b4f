"""Flash attention over packed sequences of any lengths, forward and backward."""

import torch

from malgil_kernels.attention.reference import attention_reference
from malgil_kernels.attention.rule import causal_rule
from malgil_kernels.dispatch import select

__all__ = ["attention"]

HEAD_DIMS = range(1, 257)
MAX_ROWS = 2**29  # row numbers and their sums stay in int32


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor | None = None,
    *,
    max_seqlen: int,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(cap(q kᵀ · scale)) v within each sequence, by whatever `dispatch.select` names.

    The last query of a sequence stands at its last key, so fewer queries than keys (a prefix in a cache) work;
    for one query per sequence `paged_attention` is the faster one. The same input gives the same bits,
    gradients included: no atomics.

    Args:
        q: (total_q, heads, dim), any strides; float32, float16 or bfloat16; dim from 1 to 256. Dims
            other than 16, 32, 64, 128 and 256 cost as much as the next of these.
        k, v: (total_k, kv_heads, dim); kv_heads divides heads.
        cu_seqlens_q: (sequences + 1,) int32, where each sequence starts in q, then where the last ends. Rows
            past the last end give 0.
        cu_seqlens_k: the same for k and v; None: as in q.
        max_seqlen: rows of the longest sequence in q or k, known to the host. A wrong one costs time alone.
        causal: a query sees no key after its own position.
        window: how many keys a query sees from its own to the left; None: all.
        softcap: scores become softcap · tanh(score / softcap) (Gemma 2); None: no cap.
        scale: of the scores; None: dim ** -0.5.

    Returns:
        (total_q, heads, dim) in q's dtype, and lse (heads, total_q) float32, the natural logarithm of each
        row's sum of exponentials, without gradient. A row that sees no key gives 0, −inf and gradients of 0.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.

    Source: Dao 2023, arXiv:2307.08691; the cap: Gemma Team 2024, arXiv:2408.00118.
    """
    cu_seqlens_k = cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k
    check_tensors(q, k, v)
    for name, starts in (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
        check_starts(name, starts, q.device)
    if cu_seqlens_q.shape != cu_seqlens_k.shape:
        raise ValueError(
            f"cu_seqlens_k has {cu_seqlens_k.shape[0]} entries and cu_seqlens_q {cu_seqlens_q.shape[0]}: "
            "must be as many"
        )
    scale = checked_scale(scale, softcap, q.shape[-1])
    rule = causal_rule(causal, window)
    choice = select(
        "attention",
        dtype=q.dtype,
        device=q.device,
        head_dim=q.shape[-1],
        packed=True,
        length=max_seqlen,
        softcap=softcap is not None,
        window=window is not None,
    )
    if choice.implementation == "triton":
        from malgil_kernels.attention.triton_op import attention_triton

        return attention_triton(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen, rule, scale, softcap)
    out, lse = attention_reference(q, k, v, cu_seqlens_q, cu_seqlens_k, rule, scale, softcap)
    return out, lse.detach()


def check_tensors(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Raises ValueError or TypeError unless q, k and v fit each other and the kernels."""
    if q.ndim != 3 or q.shape[2] not in HEAD_DIMS or not q.shape[1]:
        raise ValueError(
            f"q has shape {tuple(q.shape)}: must be (rows, heads, dim), dim from {HEAD_DIMS[0]} to {HEAD_DIMS[-1]}"
        )
    for name, x in (("k", k), ("v", v)):
        if x.ndim != 3 or x.shape[2] != q.shape[2] or not x.shape[1] or q.shape[1] % x.shape[1]:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}: must be (rows, kv_heads, {q.shape[2]}), kv_heads a divisor "
                f"of q's {q.shape[1]} heads"
            )
        if x.dtype != q.dtype:
            raise TypeError(f"{name} is {x.dtype}: must be q's dtype, {q.dtype}")
        if x.device != q.device:
            raise ValueError(f"{name} is on {x.device}: must be on q's device, {q.device}")
    if k.shape != v.shape:
        raise ValueError(f"v has shape {tuple(v.shape)}: must be k's, {tuple(k.shape)}")
    for name, x in (("q", q), ("k", k)):
        if x.shape[0] > MAX_ROWS:
            raise ValueError(
                f"{name} has {x.shape[0]} rows: must be at most {MAX_ROWS}. Next: split the batch"
            )


def check_starts(name: str, starts: torch.Tensor, device: torch.device) -> None:
    """Raises unless `starts` can say where sequences start; its values stay on the device, unread."""
    if starts.dtype != torch.int32:
        raise TypeError(f"{name} is {starts.dtype}: must be torch.int32. Next: {name}.to(torch.int32)")
    if starts.ndim != 1 or not starts.shape[0] or not starts.is_contiguous():
        raise ValueError(
            f"{name} has shape {tuple(starts.shape)}, strides {starts.stride()}: must be (sequences + 1,), contiguous"
        )
    if starts.device != device:
        raise ValueError(f"{name} is on {starts.device}: must be on q's device, {device}")


def checked_scale(scale: float | None, softcap: float | None, dim: int) -> float:
    """The scale, 1/√dim unless given; raises ValueError unless scale and softcap are positive."""
    scale = dim**-0.5 if scale is None else scale
    if not scale > 0:
        raise ValueError(f"scale is {scale}: must be over 0, or None for dim ** -0.5")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap is {softcap}: must be over 0, or None for no cap")
    return scale

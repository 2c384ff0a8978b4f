"""Attention in readable PyTorch: the truth for varlen, paged and chunked attention, and what runs on a CPU."""

import torch

from malgil_kernels.attention.rule import Rule, visible_mask


def masked_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    softcap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(cap(q kᵀ · scale)) v over the keys that `mask` allows, for one sequence; at least float32 inside.

    Args:
        q: (queries, heads, dim).
        k, v: (keys, kv_heads, dim); kv_heads divides heads.
        mask: (queries, keys) bool, True where a query sees a key.
        scale: of the scores.
        softcap: scores become softcap · tanh(score / softcap), as in Gemma 2.

    Returns:
        (queries, heads, dim) in q's dtype, and the natural logarithm of the sum of exponentials,
        (heads, queries). A query without a visible key gives 0 and −inf.
    """
    inside = torch.promote_types(q.dtype, torch.float32)
    group = q.shape[1] // k.shape[1]
    wide_k = k.to(inside).repeat_interleave(group, dim=1)
    wide_v = v.to(inside).repeat_interleave(group, dim=1)
    scores = torch.einsum("qhd,khd->hqk", q.to(inside), wide_k) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    lonely = ~mask.any(dim=1)
    # a row without keys: of zeros instead of −inf, so that neither it nor its gradient is NaN
    scores = scores.masked_fill(~mask, float("-inf")).masked_fill(lonely[:, None], 0.0)
    weights = torch.softmax(scores, dim=-1).masked_fill(lonely[:, None], 0.0)
    out = torch.einsum("hqk,khd->qhd", weights, wide_v).to(q.dtype)
    return out, torch.logsumexp(scores, dim=-1).masked_fill(lonely, float("-inf"))


def attention_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    rule: Rule,
    scale: float,
    softcap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each packed sequence by itself through `masked_attention`; rows past the last sequence give 0.

    Args and shapes as `malgil_kernels.attention.attention`; returns out and lse (heads, total_q).
    """
    outs, lses = [q.new_zeros(0, *q.shape[1:])], []
    starts, key_starts = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    for number in range(len(starts) - 1):
        mine = q[starts[number] : starts[number + 1]]
        keys = slice(key_starts[number], key_starts[number + 1])
        mask = visible_mask(len(mine), keys.stop - keys.start, rule, q.device)
        out, lse = masked_attention(mine, k[keys], v[keys], mask, scale, softcap)
        outs.append(out)
        lses.append(lse)
    rest = len(q) - starts[-1]
    outs.append(q.new_zeros(rest, *q.shape[1:]))
    inside = torch.promote_types(q.dtype, torch.float32)
    lses.append(torch.full((q.shape[1], rest), float("-inf"), dtype=inside, device=q.device))
    return torch.cat(outs), torch.cat(lses, dim=1)

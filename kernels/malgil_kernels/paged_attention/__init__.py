"""Attention of one new token per sequence over a cache in blocks: decoding. Forward only."""

import torch

from malgil_kernels.attention import HEAD_DIMS, checked_scale
from malgil_kernels.dispatch import select
from malgil_kernels.paged_attention.reference import paged_attention_reference

__all__ = ["paged_attention"]


def paged_attention(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_tables: torch.Tensor,
    context_lengths: torch.Tensor,
    *,
    first_keys: torch.Tensor | None = None,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """softmax(cap(q kᵀ · scale)) v for one query per sequence, by whatever `dispatch.select` names.

    The context is split over programs and reduced in a fixed order: the same input gives the same bits. There
    is no backward; a query or cache that requires a gradient is refused while gradients are on.

    Args:
        query: (batch, heads, dim), dim from 1 to 256, inner stride 1.
        key_cache, value_cache: (blocks, block_size, kv_heads, dim), inner stride 1; kv_heads divides heads.
        block_tables: (batch, width) int32, inner stride 1: the block that holds keys i·block_size on.
        context_lengths: (batch,) int32, contiguous: keys of each sequence, the query's own among them.
        first_keys: (batch,) int32, contiguous: the first key a sequence sees (left padding); None: 0.
        window: how many of the last keys are seen; None: all.
        softcap: scores become softcap · tanh(score / softcap); None: no cap.
        scale: of the scores; None: dim ** -0.5.

    Returns:
        (batch, heads, dim) in query's dtype; 0 for a sequence without a visible key. Lengths past the table
        are cut to it; block numbers are not checked (that would wait for the device).

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.

    Source: Kwon et al. 2023, arXiv:2309.06180; the split: Dao et al. 2023, Flash-Decoding.
    """
    _check_cache(query, key_cache, value_cache)
    _check_numbers("block_tables", block_tables, query, 2)
    _check_numbers("context_lengths", context_lengths, query, 1)
    if first_keys is not None:
        _check_numbers("first_keys", first_keys, query, 1)
    if window is not None and window < 1:
        raise ValueError(f"window is {window}: must be at least 1, or None for no window")
    scale = checked_scale(scale, softcap, query.shape[-1])
    if select("paged_attention", dtype=query.dtype, device=query.device).implementation == "triton":
        from malgil_kernels.paged_attention.triton_op import paged_attention_triton as op
    else:
        op = paged_attention_reference
    return op(
        query, key_cache, value_cache, block_tables, context_lengths, first_keys, scale, softcap, window
    )


def _check_cache(query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor) -> None:
    if query.ndim != 3 or query.shape[2] not in HEAD_DIMS or not query.shape[1]:
        raise ValueError(
            f"query has shape {tuple(query.shape)}: must be (batch, heads, dim), dim from {HEAD_DIMS[0]} to {HEAD_DIMS[-1]}"
        )
    heads, dim = query.shape[1:]
    for name, cache in (("key_cache", key_cache), ("value_cache", value_cache)):
        if cache.ndim != 4 or cache.shape[3] != dim or not cache.shape[2] or heads % cache.shape[2]:
            raise ValueError(
                f"{name} has shape {tuple(cache.shape)}: must be (blocks, block_size, kv_heads, {dim}), kv_heads a "
                f"divisor of {heads}"
            )
        if cache.dtype != query.dtype:
            raise TypeError(f"{name} is {cache.dtype}: must be query's dtype, {query.dtype}")
        if cache.device != query.device:
            raise ValueError(f"{name} is on {cache.device}: must be on query's device, {query.device}")
    if key_cache.shape != value_cache.shape:
        raise ValueError(
            f"value_cache has shape {tuple(value_cache.shape)}: must be key_cache's, {tuple(key_cache.shape)}"
        )
    for name, x in (("query", query), ("key_cache", key_cache), ("value_cache", value_cache)):
        if x.shape[-1] > 1 and x.stride(-1) != 1:
            raise ValueError(f"{name} has inner stride {x.stride(-1)}: must be 1. Next: {name}.contiguous()")
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{name} requires a gradient: decoding has none. Next: torch.no_grad(), or attention"
            )


def _check_numbers(name: str, numbers: torch.Tensor, query: torch.Tensor, ndim: int) -> None:
    if numbers.dtype != torch.int32:
        raise TypeError(f"{name} is {numbers.dtype}: must be torch.int32. Next: {name}.to(torch.int32)")
    dense = numbers.stride(-1) == 1 if numbers.ndim and numbers.shape[-1] > 1 else True
    if numbers.ndim != ndim or numbers.shape[0] != query.shape[0] or not dense:
        wanted = "(batch,)" if ndim == 1 else "(batch, width)"
        raise ValueError(
            f"{name} has shape {tuple(numbers.shape)}, strides {numbers.stride()}: must be {wanted} for a batch of "
            f"{query.shape[0]}, inner stride 1"
        )
    if numbers.device != query.device:
        raise ValueError(f"{name} is on {numbers.device}: must be on query's device, {query.device}")

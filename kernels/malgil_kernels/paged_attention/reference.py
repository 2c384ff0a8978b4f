"""Paged decoding in readable PyTorch: each sequence's keys are gathered, then `masked_attention`."""

import torch

from malgil_kernels.attention.reference import masked_attention


def paged_attention_reference(
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
    """Args and shapes as `malgil_kernels.paged_attention.paged_attention`."""
    block_size = key_cache.shape[1]
    outs = [query[:0]]
    for number, length in enumerate(context_lengths.tolist()):
        start = 0 if first_keys is None else int(first_keys[number])
        if window is not None:
            start = max(start, length - window)
        places = torch.arange(max(length, 0), device=query.device)
        blocks = block_tables[number, places // block_size].long()
        keys, values = (cache[blocks, places % block_size] for cache in (key_cache, value_cache))
        out, _ = masked_attention(
            query[number : number + 1], keys, values, (places >= start)[None, :], scale, softcap
        )
        outs.append(out)
    return torch.cat(outs)

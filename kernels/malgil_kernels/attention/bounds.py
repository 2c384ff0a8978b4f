"""Visible keys of a batch of padded or packed rows, as transformers describes them. No kernels, no waiting.

Bounds are (batch, 1, queries, 3) int32: the first key of a query's own segment, one past the last, and the
query's position among the keys of its row. Under a rule they become the kernels' `Ranges` or a mask.
"""

import torch

from malgil_kernels.attention.rule import Ranges, Rule


def plain_bounds(batch: int, queries: int, keys: int, device: torch.device) -> torch.Tensor:
    """Bounds of rows without padding, the last query at the last key."""
    position = torch.arange(keys - queries, keys, dtype=torch.int32, device=device)
    bounds = torch.stack([torch.zeros_like(position), torch.full_like(position, keys), position], dim=-1)
    return bounds.expand(batch, 1, -1, -1)


def within_segments(bounds: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Bounds cut to segments, for as many queries as keys; `new` (batch, queries) is True where one starts."""
    queries = new.shape[1]
    place = torch.arange(queries, dtype=torch.int32, device=new.device)
    first = torch.where(new, place, 0).cummax(dim=1).values
    following = torch.where(new, place, queries).flip(1).cummin(dim=1).values.flip(1)
    last = torch.cat([following[:, 1:], torch.full_like(following[:, :1], queries)], dim=1)
    own_first, own_last, position = bounds[:, 0].unbind(-1)
    cut = [torch.maximum(own_first, first), torch.minimum(own_last, last), position]
    return torch.stack(cut, dim=-1)[:, None].to(torch.int32)


def _keys_of_queries(bounds: torch.Tensor, rule: Rule) -> tuple[torch.Tensor, torch.Tensor]:
    """First and one past the last visible key, (batch, queries) each, counted in their row; chunk is 1."""
    lo, hi, position = bounds[:, 0].unbind(-1)
    if rule.left is not None:
        lo = torch.maximum(lo, position - rule.left)
    if rule.right is not None:
        hi = torch.minimum(hi, position + 1 + rule.right)
    return lo, torch.maximum(lo, hi)


def bounds_mask(bounds: torch.Tensor, keys: int, rule: Rule) -> torch.Tensor:
    """(batch, queries, keys) bool: True where a query sees a key."""
    lo, hi = _keys_of_queries(bounds, rule)
    key = torch.arange(keys, device=bounds.device)
    return (key >= lo[..., None]) & (key < hi[..., None])


def bounds_ranges(bounds: torch.Tensor, keys: int, rule: Rule) -> Ranges:
    """The ranges of the batch's rows laid end to end, for the kernels."""
    batch, _, queries, _ = bounds.shape
    row = torch.arange(batch, device=bounds.device)[:, None]
    lo, hi = _keys_of_queries(bounds, rule)
    first, last, position = bounds[:, 0].unbind(-1)
    start = position[:, :1]
    key = torch.arange(keys, device=bounds.device)
    if queries == keys:  # a key's segment is that of the query at its place
        key_lo, key_hi = first, last
    else:  # one segment in each row
        first, last = first[:, :1], last[:, :1]
        key_lo, key_hi = start, start + queries
    if rule.right is not None:
        key_lo = torch.maximum(key_lo, key - rule.right)
    if rule.left is not None:
        key_hi = torch.minimum(key_hi, key + 1 + rule.left)
    seen = (key >= first) & (key < last)
    key_lo, key_hi = (torch.where(seen, x - start, 0).clamp(0, queries) for x in (key_lo, key_hi))
    ends = (lo + row * keys, hi + row * keys, key_lo + row * queries, key_hi + row * queries)
    return Ranges(*(x.to(torch.int32).flatten() for x in ends))

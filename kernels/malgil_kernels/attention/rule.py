"""Which keys a query sees, as one rule: causal, windowed, bidirectional and chunked attention are cases of it.

Position p of a query and its keys are counted from the end of a sequence: the last query stands at the last
key. With c = p // chunk, query p sees the keys

    [c·chunk − left, (c + 1)·chunk + right)

that exist. Causal: chunk 1, right 0. A window of W keys: left W − 1. `None` is "without bound". No kernels here.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch


@dataclass(frozen=True)
class Rule:
    """The visible keys of a query, around its own chunk of `chunk` positions."""

    chunk: int = 1
    left: int | None = None  # keys before the own chunk; None: all
    right: int | None = None  # keys after the own chunk; None: all


class Ranges(NamedTuple):
    """Half-open ranges of visible rows, in rows of the packed tensors, int32; hi ≤ lo: nothing is visible."""

    query_lo: torch.Tensor  # (total_q,) first key
    query_hi: torch.Tensor  # (total_q,) one past the last key
    key_lo: torch.Tensor  # (total_k,) first query row
    key_hi: torch.Tensor  # (total_k,) one past the last query row


def causal_rule(causal: bool, window: int | None) -> Rule:
    """The rule of a decoder: `window` counts the keys from a query's own position to the left.

    Raises:
        ValueError: the window is below 1.
    """
    if window is not None and window < 1:
        raise ValueError(f"window is {window}: must be at least 1 (a query's own key), or None for no window")
    return Rule(left=None if window is None else window - 1, right=0 if causal else None)


def visible_mask(queries: int, keys: int, rule: Rule, device: torch.device | str = "cpu") -> torch.Tensor:
    """(queries, keys) bool: True where a query of one sequence sees a key."""
    position = torch.arange(queries, device=device)[:, None] + (keys - queries)
    key = torch.arange(keys, device=device)[None, :]
    own = torch.div(position, rule.chunk, rounding_mode="floor") * rule.chunk
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device)
    if rule.left is not None:
        seen &= key >= own - rule.left
    if rule.right is not None:
        seen &= key < own + rule.chunk + rule.right
    return seen

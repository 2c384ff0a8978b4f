"""The order in which a small budget sees the most: examples that bring what was seen least come first. Pure.

Among a few drawn at random, the example whose tool, argument values and words were seen least so far is next.
A training that ends before it has seen every example has then met each tool, value and word about as often as
the others, rather than as chance would have it. Nothing is left out: it is an order.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

CANDIDATES = 64


def covering_order(rows: Sequence[Mapping[str, Any]], rng: random.Random) -> list[int]:
    """The places of all rows, in that order.

    Args:
        rows: `written` and `tool_call` of the prepared split.
    """
    facets = [facets_of(row) for row in rows]
    left = list(range(len(rows)))
    rng.shuffle(left)
    seen: Counter[str] = Counter()
    order = []
    while left:
        start = max(0, len(left) - CANDIDATES)
        place = max(range(start, len(left)), key=lambda at: _novelty(facets[left[at]], seen))
        left[place], left[-1] = left[-1], left[place]
        chosen = left.pop()
        seen.update(facets[chosen])
        order.append(chosen)
        if left:  # a candidate that was passed over need not be one again
            swap = rng.randrange(len(left))
            left[swap], left[-1] = left[-1], left[swap]
    return order


def facets_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What an example shows: its tool, the tool's argument values in words, and the words without digits."""
    call = row["tool_call"]
    name, arguments = call["name"], call["arguments"]
    values = [f"{name}.{key}={value}" for key, value in arguments.items() if isinstance(value, str)]
    words = [word.lstrip("0123456789") for word in row["written"].split()]
    shape = f"{name}({','.join(sorted(arguments))})"
    return (name, shape, *values, *(f"{name}:{word}" for word in words if word))


def _novelty(facets: Sequence[str], seen: Counter[str]) -> float:
    return sum(1 / (1 + seen[facet]) for facet in facets) / len(facets)

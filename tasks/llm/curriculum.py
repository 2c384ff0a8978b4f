"""Rows of the examples that are hardest for the model so far, so that a small budget goes where it helps.

What an example asks for is known by its kind (the tool and which of its arguments are given) and by its
parts (values and words, each with its tool). The loss of what was learned last is remembered for every kind
and part; the next examples are drawn with a weight that grows with both. A kind that was never seen counts as
hard, so every tool, value and word comes early. Everything that the choice depends on is in `state`, so a
killed training goes on to the same rows. Within a pass no example comes twice.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.llm.feed import Feed
from tasks.llm.packing import Example, Pack, pack

WRITING = 0.1  # what the loss of other tokens counts: what is written out where nothing is left to decide
HARDEST = 1.0  # a loss counts as no more than this: an answer of probability 0.37
UNSEEN_PART = 0.5
EASY_KIND = 0.3  # a part can be hard though most of its kind is easy
MEMORY = {"kind": 0.8, "part": 0.7}  # of the loss before, in the running mean
FLOOR = 0.004  # weight of what is no longer hard: it is seen again now and then
log = logging.getLogger("malgil.train_llm")


class Curriculum(Feed):
    """Examples chosen by their running loss, until a budget of tokens is spent.

    Args:
        examples: with their decisions, and with their `rows` of the prepared split, one for one.
        prefix: prompt tokens that all examples share.
        length, max_tokens: of a packed row, and of the whole training.
    """

    asks, unit = True, "tokens"

    def __init__(
        self,
        examples: Sequence[Example],
        rows: Sequence[Mapping[str, Any]],
        *,
        prefix: int,
        length: int,
        max_tokens: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._examples, self._prefix, self._length = examples, prefix, length
        self._max_tokens, self._seed = max_tokens, seed
        self._kinds = [kind_of(row["tool_call"]) for row in rows]
        self._parts = [parts_of(row) for row in rows]
        self._loss: dict[str, float] = {}
        self._used: set[int] = set()
        self._last: list[int] = []

    @property
    def place(self) -> tuple[int, int]:
        return min(self.tokens, self._max_tokens), self._max_tokens

    def tell(self, row: Pack, losses: Tensor) -> None:
        counted = losses * torch.where(row.deciding, 1.0, WRITING)
        of_each = torch.split(counted, [len(self._examples[place].completion) for place in self._last])
        for place, own in zip(self._last, of_each, strict=True):
            hardness = min(own.sum().item(), HARDEST)
            self._remember(self._kinds[place], hardness, MEMORY["kind"])
            for part in self._parts[place]:
                self._remember(part, hardness, MEMORY["part"])

    def state(self) -> dict[str, Any]:
        return {**super().state(), "_loss": dict(self._loss), "_used": sorted(self._used)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore({**state, "_used": set(state["_used"])})

    def _next(self) -> Pack | None:
        if self.tokens >= self._max_tokens:
            return None
        self._last = self._draw()
        self._used.update(self._last)
        (row,) = pack([self._examples[place] for place in self._last], self._length, self._prefix)
        return row

    def _draw(self) -> list[int]:
        """Examples of one row, without replacement, by weight (Efraimidis and Spirakis 2006)."""
        left = [place for place in range(len(self._examples)) if place not in self._used]
        if not left:
            log.info("every example was seen; a new pass")
            self._used.clear()
            left = list(range(len(self._examples)))
        rng = random.Random(f"{self._seed}-{self.rows}")
        order = sorted(left, key=lambda place: rng.random() ** (1 / self._weight(place)), reverse=True)
        free = self._length - self._prefix
        chosen: list[int] = []
        for place in order:
            example = self._examples[place]
            free -= len(example.prompt) - self._prefix + len(example.completion)
            if chosen and free < 0:
                break
            chosen.append(place)
        return chosen

    def _weight(self, place: int) -> float:
        part = max((self._loss.get(part, UNSEEN_PART) for part in self._parts[place]), default=HARDEST)
        return max(self._loss.get(self._kinds[place], HARDEST), EASY_KIND) * part + FLOOR

    def _remember(self, name: str, loss: float, memory: float) -> None:
        before = self._loss.get(name)
        self._loss[name] = loss if before is None else memory * before + (1 - memory) * loss


def kind_of(call: Mapping[str, Any]) -> str:
    """The tool and which of its arguments are given: "set_alarm(day,hour,minute)"."""
    return f"{call['name']}({','.join(sorted(call['arguments']))})"


def parts_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Values in words and words without digits, each with its tool."""
    name, arguments = row["tool_call"]["name"], row["tool_call"]["arguments"]
    values = (f"{name}.{key}={value}" for key, value in arguments.items() if isinstance(value, str))
    words = (word.lstrip("0123456789") for word in row["written"].split())
    return (*values, *(f"{name}:{word}" for word in words if word))

"""Answers from a Hugging Face folder through transformers, in float32 on the CPU.

Prompts of similar length go together, padded on the left; the key-value cache is the model's own. Where
the choices leave one way only, the tokens up to the next decision go through the model at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from tasks.inference.engine import Advance, Allowed, choices_for, shared_prefix
from tasks.inference.loading import load_model, load_tokenizer
from tasks.llm.constrain import Choices


class TransformersEngine:
    """A model folder, ready to answer.

    Args:
        folder: config, tokenizer and safetensors.
        batch: prompts that decode at once.

    Raises:
        ModelError: the folder cannot be read.
    """

    def __init__(self, folder: Path, *, batch: int = 16) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.model = load_model(folder).eval()
        self.batch = batch

    def tokenise(self, text: str) -> list[int]:
        """Token ids of a text in which special tokens are written out; nothing is added."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def logits(self, ids: Sequence[int]) -> Any:
        """(vocabulary,) logits after the last of `ids`, as a NumPy array."""
        with torch.inference_mode():
            return self.model(torch.tensor([list(ids)]), logits_to_keep=1).logits[0, -1].numpy()

    def generate(
        self,
        prompts: Sequence[str],
        max_tokens: int,
        *,
        allowed: Allowed | None = None,
        advance: Advance | None = None,
    ) -> list[str]:
        """See `Engine.generate`."""
        answers = self.generate_ids(prompts, max_tokens, allowed=allowed, advance=advance)
        return [self.tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]

    def generate_ids(
        self,
        prompts: Sequence[str],
        max_tokens: int,
        *,
        allowed: Allowed | None = None,
        advance: Advance | None = None,
    ) -> list[list[int]]:
        """The token ids of `generate`'s answers, without the end-of-turn token."""
        if not prompts:
            return []
        ids = [self.tokenise(prompt) for prompt in prompts]
        prefix = shared_prefix(ids)
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
        answers: list[list[int]] = [[]] * len(ids)
        for start in range(0, len(order), self.batch):
            numbers = order[start : start + self.batch]
            end = self.tokenizer.eos_token_id
            choices = [choices_for(allowed, number, self.tokenise, end) for number in numbers]
            said = self._answer([ids[number] for number in numbers], choices, max_tokens, prefix)
            for number, answer in zip(numbers, said, strict=True):
                answers[number] = answer
            if advance:
                advance(len(numbers))
        return answers

    @torch.inference_mode()
    def _answer(
        self, ids: list[list[int]], choices: list[Choices | None], max_tokens: int, prefix: int
    ) -> list[list[int]]:
        """Decodes one batch; rows that are finished leave it. The first `prefix` tokens are computed once."""
        end = self.tokenizer.eos_token_id
        rows = [_Row(row[prefix:], prefix, choice) for row, choice in zip(ids, choices, strict=True)]
        for row in rows:
            row.follow()
        alive = [row for row in rows if not row.ended(end, max_tokens)]
        cache = DynamicCache(config=self.model.config)
        if prefix and alive:
            self._forward(torch.tensor([ids[0][:prefix]]), cache)
            cache.batch_repeat_interleave(len(alive))
        seen = torch.ones(len(alive), prefix, dtype=torch.long)
        while alive:
            logits, seen = self._ask(alive, seen, cache)
            for row, scores in zip(alive, logits, strict=True):
                row.take(pick(scores, row.choices))
            kept = [place for place, row in enumerate(alive) if not row.ended(end, max_tokens)]
            if kept and len(kept) < len(alive):
                places = torch.tensor(kept)
                cache.batch_select_indices(places)
                seen = seen[places]
            alive = [alive[place] for place in kept]
        return [[token for token in row.answer if token != end][:max_tokens] for row in rows]

    def _ask(
        self, rows: Sequence["_Row"], seen: torch.Tensor, cache: DynamicCache
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Feeds what is pending in every row, padded on the left.

        Args:
            seen: (rows, places) 1 where the cache holds a token of the row, 0 where padding.

        Returns:
            (rows, vocabulary) logits after each row's last token, and `seen` with the new places.
        """
        width = max(len(row.pending) for row in rows)
        padding = [width - len(row.pending) for row in rows]
        pad = self.tokenizer.eos_token_id
        tokens = torch.tensor([[pad] * n + row.pending for n, row in zip(padding, rows, strict=True)])
        new = torch.tensor([[0] * n + [1] * (width - n) for n in padding])
        positions = (new.cumsum(1) - 1).clamp(min=0) + torch.tensor([[row.position] for row in rows])
        seen = torch.cat((seen, new), dim=1)
        out = self._forward(tokens, cache, attention_mask=seen, position_ids=positions)
        for row in rows:
            row.position += len(row.pending)
            row.pending = []
        return out.logits[:, -1], seen

    def _forward(self, tokens: torch.Tensor, cache: DynamicCache, **places: torch.Tensor) -> Any:
        return self.model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1, **places)


@dataclass
class _Row:
    """A prompt that is being answered.

    Attributes:
        pending: tokens that the model has not seen; the logits after the last of them choose the next.
        position: place of the first pending token.
        choices: what the answer may be; None for anything.
        answer: the token ids so far, with the end-of-turn token once it has come.
    """

    pending: list[int]
    position: int
    choices: Choices | None
    answer: list[int] = field(default_factory=list)

    def take(self, token: int) -> None:
        """Goes on with the token that was chosen."""
        self._append([token])
        self.follow()

    def follow(self) -> None:
        """Goes on with the tokens that leave no choice: the model sees them at the next decision."""
        if self.choices is not None:
            self._append(self.choices.forced())

    def ended(self, end: int, max_tokens: int) -> bool:
        """Whether nothing more is to be chosen."""
        return self.answer[-1:] == [end] or len(self.answer) >= max_tokens

    def _append(self, tokens: list[int]) -> None:
        self.pending = self.pending + tokens
        self.answer += tokens


def pick(logits: torch.Tensor, choices: Choices | None) -> int:
    """The most likely token, among the choices if there are any; the choices go on with it."""
    if choices is None:
        return int(logits.argmax())
    tokens = choices.tokens
    token = tokens[int(logits[tokens].argmax())]
    choices.take(token)
    return token

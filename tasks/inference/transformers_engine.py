"""Answers from a Hugging Face folder through transformers, in float32 on the CPU.

Prompts of similar length go together, padded on the left; the key-value cache is the model's own.
"""

from collections.abc import Sequence
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

    def __init__(self, folder: Path, *, batch: int = 48) -> None:
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
        cache = DynamicCache(config=self.model.config)
        if prefix:
            self.model(
                input_ids=torch.tensor([ids[0][:prefix]]),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache.batch_repeat_interleave(len(ids))
            ids = [row[prefix:] for row in ids]
        width = max(map(len, ids))
        end, pad = self.tokenizer.eos_token_id, self.tokenizer.eos_token_id
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids])
        positions = (mask.cumsum(1) - 1).clamp(min=0) + prefix
        mask = torch.cat((torch.ones(len(ids), prefix, dtype=torch.long), mask), dim=1)
        answers: list[list[int]] = [[] for _ in ids]
        alive = list(range(len(ids)))  # the answer each row of the batch belongs to
        for _ in range(max_tokens):
            out = self.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen = [
                pick(logits, choices[number]) for number, logits in zip(alive, out.logits[:, -1], strict=True)
            ]
            kept = []
            for row, (number, token) in enumerate(zip(alive, chosen, strict=True)):
                if token == end:
                    continue
                answers[number].append(token)
                kept.append(row)
            if not kept:
                break
            if len(kept) < len(alive):
                rows = torch.tensor(kept)
                cache.batch_select_indices(rows)
                mask, positions = mask[rows], positions[rows]
                alive, chosen = [alive[row] for row in kept], [chosen[row] for row in kept]
            tokens = torch.tensor(chosen)[:, None]
            mask = torch.cat((mask, torch.ones_like(tokens)), dim=1)
            positions = positions[:, -1:] + 1
        return answers


def pick(logits: torch.Tensor, choices: Choices | None) -> int:
    """The most likely token, among the choices if there are any; the choices go on with it."""
    if choices is None:
        return int(logits.argmax())
    tokens = choices.tokens
    token = tokens[int(logits[tokens].argmax())] if len(tokens) > 1 else tokens[0]
    choices.take(token)
    return token

"""Training an adapter on packed rows: the loop, its checkpoints and its figures, whatever the rows hold.

One packed row per step (`packing.py`), loss on the completions alone, AdamW with linear warm-up and decay,
float32 (a CPU without bf16 units multiplies bf16 ten times slower), on the GPU where there is one
(`hardware.py`). Which rows, and what becomes of the adapter, is the stage's (`train.py`, `pretrain.py`).
"""

import itertools
import logging
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from torch.nn.functional import cross_entropy

from tasks.llm.attention import completion_loss, packed_logits
from tasks.llm.feed import Feed
from tasks.llm.hardware import Kernels, kernels_used
from tasks.llm.packing import Example, Pack, pack
from tasks.progress import Progress
from tasks.resume import ResumableState
from tasks.settings import LlmTraining
from tasks.tracking import JsonlTracker

CLIP_NORM = 1.0
BETAS = (0.9, 0.99)
B_FACTOR = 4.0
log = logging.getLogger("malgil.train_llm")


@dataclass(frozen=True)
class TrainingResult:
    """What a training run ends with."""

    steps: int
    tokens: int
    completion_tokens: int
    examples: int
    epochs: float
    loss: float
    validation_loss: float
    validation_exact: float
    seconds: float
    tokens_per_s: float
    trainable_parameters: int
    device: str
    kernels: str
    kernels_used: dict[str, list[str]]


@dataclass(frozen=True)
class Group:
    """Examples whose prompts start alike, by `prefix` tokens; only they stand in one row together."""

    examples: Sequence[Example]
    prefix: int


def plan(groups: Sequence[Group], params: LlmTraining) -> list[Pack]:
    """The rows of the whole run: shuffled passes over the examples, cut where the token budget is met.

    What the budget leaves out is said in a log line; nothing is dropped silently.
    """
    rows: list[Pack] = []
    left = params.max_tokens
    for row in _passes(groups, params):
        rows.append(row)
        left -= len(row.ids)
        if left <= 0:
            break
    given = sum(len(group.examples) for group in groups)
    used = sum(len(row.segments) for row in rows)
    tokens = sum(len(row.ids) for row in rows)
    log.info("%d steps, %d tokens, %d examples (%.2f passes)", len(rows), tokens, used, used / given)
    if used < given:
        log.warning(
            "max_tokens = %d ends before %d of %d examples are seen", params.max_tokens, given - used, given
        )
    return rows


def _passes(groups: Sequence[Group], params: LlmTraining) -> Iterator[Pack]:
    for number in itertools.count():
        rng = random.Random(f"{params.seed}-{number}")
        rows: list[Pack] = []
        for group in groups:
            order = list(group.examples)
            rng.shuffle(order)
            rows += pack(order, params.pack_length, group.prefix)
        if len(groups) > 1:
            rng.shuffle(rows)
        yield from rows


def learning_rate(step: int, steps: int, params: LlmTraining) -> float:
    """The rate of step 0..steps-1: linear warm-up over `warmup_share` of them, then linear to zero."""
    warmup = max(1, round(params.warmup_share * steps))
    if step < warmup:
        return params.learning_rate * (step + 1) / warmup
    return params.learning_rate * (steps - step) / max(1, steps - warmup)


def _groups(model: Any) -> list[dict[str, Any]]:
    """Parameter groups: B learns faster than A (LoRA+, Hayou et al. 2024)."""
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return [
        {"params": [weight for name, weight in named if "lora_B" not in name], "factor": 1.0},
        {"params": [weight for name, weight in named if "lora_B" in name], "factor": B_FACTOR},
    ]


class Run:
    """The loop with its optimizer and checkpoints."""

    def __init__(
        self,
        params: LlmTraining,
        model: Any,
        kernels: Kernels,
        feed: Feed,
        looks: list[Pack],
        *,
        work: Path,
        key: str,
        name: str = "train llm",
        decision_weight: float = 1.0,
    ) -> None:
        self.params, self.model, self.feed, self.looks = params, model, feed, looks
        self.kernels, self.name, self.decision_weight = kernels, name, decision_weight
        self.place = next(model.parameters()).device
        self.causal = model.get_base_model()
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(_groups(model), betas=BETAS, weight_decay=0.0, fused=True)
        self.state = ResumableState(work / "checkpoints", key)
        self.step, self.seconds, self.loss = 0, 0.0, 0.0
        self._resume()
        self.tracker = JsonlTracker(work / "history.jsonl", self.step if self.step else None)

    def finish(self, examples: int) -> TrainingResult:
        """Runs the remaining steps and returns the figures of the whole run."""
        done, total = self.feed.place
        with Progress(self.name, total, self.feed.unit, start=done) as progress:
            while (row := self.feed.take()) is not None:
                began = time.monotonic()
                self._update(row.to(self.place), done, total)
                self.seconds += time.monotonic() - began
                self.step += 1
                before, (done, _) = done, self.feed.place
                progress.advance(done - before, loss=self.loss)
                last = done >= total
                if self.step % self.params.evaluate_every == 0 or last:
                    validation_loss, exact = self._look()
                    self.tracker.log(self.step, validation_loss=validation_loss, validation_exact=exact)
                if self.step % self.params.checkpoint_every == 0 and not last:
                    self._save()
        return TrainingResult(
            steps=self.step,
            tokens=self.feed.tokens,
            completion_tokens=self.feed.targets,
            examples=self.feed.examples,
            epochs=self.feed.examples / examples,
            loss=self.loss,
            validation_loss=validation_loss,
            validation_exact=exact,
            seconds=self.seconds,
            tokens_per_s=self.feed.tokens / self.seconds,
            trainable_parameters=sum(weight.numel() for weight in self.weights),
            device=self.place.type,
            kernels=str(self.kernels),
            kernels_used=kernels_used() if self.kernels.on else {},
        )

    def _update(self, row: Pack, done: int, total: int) -> None:
        rate = learning_rate(done, total, self.params)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        torch.manual_seed(
            self.params.seed * 1_000_003 + self.step
        )  # dropout resumes without a stored generator
        self.model.train()
        loss, weighted = (total / len(row.targets) for total in self._losses(row))
        weighted.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.weights, CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss = loss.item()
        self.tracker.log(self.step + 1, loss=self.loss, learning_rate=rate, gradient_norm=norm.item())

    def _losses(self, row: Pack) -> tuple[Tensor, Tensor]:
        """The summed loss of a row, as it is and with the decisions weighed; the feed is told if it asks."""
        if not self.feed.asks and self.decision_weight == 1.0:
            loss = completion_loss(self.causal, row, kernels=self.kernels.on)
            return loss, loss
        losses = cross_entropy(packed_logits(self.causal, row), row.targets, reduction="none")
        if self.feed.asks:
            self.feed.tell(row, losses.detach())
        weighted = losses * torch.where(row.deciding, self.decision_weight, 1.0)
        return losses.sum(), weighted.sum()

    def _look(self) -> tuple[float, float]:
        """Mean loss per completion token, and the share of answers right token by token.

        With the right answer given so far, the most likely token is right at every place exactly when
        greedy decoding gives that answer; one pass replaces generating it.
        """
        self.model.eval()
        loss, tokens, right, answers = 0.0, 0, 0, 0
        with torch.inference_mode():
            for row in self.looks:
                logits = packed_logits(self.causal, row)
                loss += cross_entropy(logits, row.targets, reduction="sum").item()
                tokens += len(row.targets)
                hit = logits.argmax(-1) == row.targets
                for start, end in row.segments:
                    right += bool(hit[(row.predicting >= start) & (row.predicting < end)].all())
                answers += len(row.segments)
        return loss / tokens, right / answers

    def _save(self) -> None:
        state = {
            "adapter": get_peft_model_state_dict(self.model),
            "optimizer": self.optimizer.state_dict(),
            "seconds": self.seconds,
            "loss": self.loss,
            "feed": self.feed.state(),
        }
        self.state.save(self.step, state)

    def _resume(self) -> None:
        found = self.state.load()
        if found is None:
            return
        self.step, state = found
        set_peft_model_state_dict(self.model, state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seconds, self.loss = state["seconds"], state["loss"]
        self.feed.restore(state["feed"])

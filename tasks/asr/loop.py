"""The steps of a CTC training: optimizer, schedule, resumable checkpoints, evaluation. Used by `pretrain`
and `train`.

What is learned from and how it is judged come from the caller; nothing here knows Korean or espeak-ng.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from tasks.asr.augment import Example
from tasks.asr.batching import AudioStore, ctc_loss, make_batch, uses_mask
from tasks.progress import Progress
from tasks.resume import ResumableState
from tasks.tracking import Tracker

_BETAS = (0.9, 0.98)
_WEIGHT_DECAY = 0.01
_CLIP_NORM = 1.0
_LOG_EVERY = 20


@dataclass(frozen=True)
class Schedule:
    """Steps, peak learning rate, share of linear warm-up, and steps between checkpoints and evaluations."""

    steps: int
    learning_rate: float
    warmup_share: float
    checkpoint_every: int
    evaluate_every: int

    def rate(self, step: int) -> float:
        """Learning rate of `step` (from 0): linear warm-up, then linear to zero."""
        warmup = max(1, round(self.steps * self.warmup_share))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * max(0.0, (self.steps - step) / max(1, self.steps - warmup))


@dataclass
class Outcome:
    """What a training leaves: mean loss of the last steps, best score and weights, seconds with resumes."""

    step: int = 0
    loss: float = float("nan")
    best_score: float = float("inf")
    best_step: int = 0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    audio_s: float = 0.0
    resumed_from: int = 0


def train_steps(
    model: Any,
    plans: Iterator[tuple[Example, ...]],
    store: AudioStore,
    labels_of: Callable[[tuple[int, ...]], list[int]],
    schedule: Schedule,
    state: ResumableState,
    tracker_from: Callable[[int | None], Tracker],
    evaluate: Callable[[Any], dict[str, float]],
    what: str,
    normalise: bool = True,
    head_factor: float = 1.0,
) -> Outcome:
    """Trains `model` in place for `schedule.steps`, continuing from `state` where it has a checkpoint.

    `head_factor` multiplies the learning rate of the CTC head (`lm_head`): a fresh head on a pre-trained
    encoder has further to go.
    `evaluate` returns metrics whose "score" (lower is better) chooses the best weights. Raises
    `ArtifactError` when the loss is not finite (through the tracker).
    """
    optimizer = torch.optim.AdamW(
        _groups(model, head_factor), lr=0.0, betas=_BETAS, weight_decay=_WEIGHT_DECAY, fused=True
    )
    outcome = Outcome()
    saved = state.load()
    if saved is not None:
        step, content = saved
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        outcome = Outcome(**content["outcome"], best_weights=content["best"], resumed_from=step)
    tracker = tracker_from(outcome.step if saved is not None else None)
    masked = uses_mask(model)
    before = outcome.seconds
    began = time.monotonic()
    losses: list[float] = []
    with Progress(what, schedule.steps, "steps", start=outcome.step) as progress:
        for plan in islice(plans, outcome.step, schedule.steps):
            model.train()
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(outcome.step) * group["factor"]
            batch = make_batch(plan, store, labels_of, normalise, masked)
            loss = ctc_loss(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            outcome.step += 1
            outcome.audio_s += float(batch.mask.sum()) / 16_000
            outcome.seconds = before + time.monotonic() - began
            losses.append(loss.item())
            outcome.loss = sum(losses[-_LOG_EVERY:]) / len(losses[-_LOG_EVERY:])
            progress.advance(loss=outcome.loss)
            last = outcome.step == schedule.steps
            if outcome.step % _LOG_EVERY == 0 or last:
                tracker.log(outcome.step, loss=outcome.loss, learning_rate=schedule.rate(outcome.step - 1))
            if outcome.step % schedule.evaluate_every == 0 or last:
                _evaluate(model, evaluate, tracker, outcome)
            if outcome.step % schedule.checkpoint_every == 0 and not last:
                state.save(outcome.step, _resumable(model, optimizer, outcome))
    return outcome


def _groups(model: Any, head_factor: float) -> list[dict[str, Any]]:
    head = list(model.lm_head.parameters())
    ids = {id(weight) for weight in head}
    body = [weight for weight in model.parameters() if id(weight) not in ids]
    return [{"params": body, "factor": 1.0}, {"params": head, "factor": head_factor}]


def _evaluate(
    model: Any, evaluate: Callable[[Any], dict[str, float]], tracker: Tracker, outcome: Outcome
) -> None:
    model.eval()
    with torch.inference_mode():
        metrics = evaluate(model)
    tracker.log(outcome.step, seconds=outcome.seconds, **{k: v for k, v in metrics.items() if k != "score"})
    if metrics["score"] <= outcome.best_score:
        outcome.best_score, outcome.best_step = metrics["score"], outcome.step
        outcome.best_weights = {name: value.detach().clone() for name, value in model.state_dict().items()}


def _resumable(model: Any, optimizer: torch.optim.Optimizer, outcome: Outcome) -> dict[str, Any]:
    numbers = {
        name: getattr(outcome, name)
        for name in ("step", "loss", "best_score", "best_step", "seconds", "audio_s")
    }
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "outcome": numbers,
        "best": outcome.best_weights,
    }

"""The steps of a training: schedule, resumable checkpoints, evaluation, early stop. Used by `pretrain`,
`train` and the transfer study.

What is learned from and how it is judged come from the caller, the loss too where it is not CTC's; nothing
here knows Korean or espeak-ng. What happens inside a step is `tasks.asr.training.update`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from tasks.asr.training.augment import Example
from tasks.asr.training.batching import AudioStore, Batch, ctc_loss, make_batch, uses_mask
from tasks.asr.training.paths import Paths
from tasks.asr.training.processes import World
from tasks.asr.training.update import Method, Updater
from tasks.errors import ArtifactError
from tasks.progress import Progress
from tasks.resume import ResumableState
from tasks.tracking import Tracker

log = logging.getLogger("malgil.asr.loop")
_LOG_EVERY = 20
_ALONE = World()
_PLAIN = Method()


@dataclass(frozen=True)
class Schedule:
    """Steps, peak learning rate, share of linear warm-up, and steps between checkpoints and evaluations.

    With `patience` > 0 the training ends early once that many evaluations in a row brought nothing better.
    """

    steps: int
    learning_rate: float
    warmup_share: float
    checkpoint_every: int
    evaluate_every: int
    patience: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of `step` (from 0): linear warm-up, then linear to zero."""
        warmup = max(1, round(self.steps * self.warmup_share))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * max(0.0, (self.steps - step) / max(1, self.steps - warmup))


@dataclass
class Outcome:
    """What a training leaves: mean loss of the last steps, best score and weights, seconds with resumes.

    `stale` counts the evaluations since the score last fell; `without_path` the examples with more labels
    than frames, whose CTC loss is infinite and counts as zero.
    """

    step: int = 0
    loss: float = float("nan")
    best_score: float = float("inf")
    best_step: int = 0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    audio_s: float = 0.0
    stale: int = 0
    losses: list[float] = field(default_factory=list)  # the newest, whose mean `loss` is
    resumed_from: int = 0
    stopped_early: bool = False
    without_path: int = 0


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
    method: Method = _PLAIN,
    world: World = _ALONE,
    loss_of: Callable[[Any, Batch], torch.Tensor] | None = None,
) -> Outcome:
    """Trains `model` in place for `schedule.steps`, continuing from `state` where it has a checkpoint.

    Each of the `plans` is a micro batch; an update takes the next `method.accumulation * world.size`.
    `evaluate` returns metrics whose "score" (lower is better) chooses the best weights; it and the tracker
    are called in the leading process alone. `loss_of` computes the loss of a micro batch, CTC's unless given.
    Raises `ArtifactError` when the loss is not finite,
    `CapacityError` when one utterance does not fit into memory, `SettingsError` as `Updater`.
    """
    rounded = uses_mask(model) and not method.frames_first(model, world.device)

    def batch_of(plan: tuple[Example, ...]) -> Batch:
        return make_batch(plan, store, labels_of, normalise, rounded)

    updater = Updater(model, method, schedule.steps, batch_of, loss_of or (lambda *a: ctc_loss(*a)), world)
    outcome, resumed = _restored(model, updater, state, world)
    tracker = tracker_from(outcome.step if resumed else None) if world.leads else None
    together = method.accumulation * world.size
    rest = islice(plans, outcome.step * together, None)
    paths = Paths(model.config, labels_of) if loss_of is None else None
    before, began = outcome.seconds, time.monotonic()
    with ExitStack() as stack:
        stack.callback(updater.close)
        progress = (
            stack.enter_context(Progress(what, schedule.steps, "steps", start=outcome.step))
            if world.leads
            else None
        )
        while outcome.step < schedule.steps:
            model.train()
            rate = schedule.rate(outcome.step)
            taken = list(islice(rest, together))
            loss, audio_s = updater.update(taken, outcome.step, rate)
            outcome.step += 1
            _count(paths.without(taken) if paths else 0, outcome, world)
            outcome.audio_s += audio_s
            outcome.seconds = before + time.monotonic() - began
            outcome.losses = [*outcome.losses, loss][-_LOG_EVERY:]
            outcome.loss = sum(outcome.losses) / len(outcome.losses)
            if progress:
                progress.advance(loss=outcome.loss)
            if _ends(model, updater, outcome, schedule, evaluate, tracker, state, rate, world):
                break
    return outcome


def _count(without_path: int, outcome: Outcome, world: World) -> None:
    """Counts examples that CTC cannot align, and says so at the first."""
    if without_path and not outcome.without_path and world.leads:
        log.warning(
            "step %d: %d examples have more labels and repeats than frames: their loss is infinite, counts "
            "as zero and teaches nothing (they are counted as without_path)",
            outcome.step,
            without_path,
        )
    outcome.without_path += without_path


def _ends(
    model: Any,
    updater: Updater,
    outcome: Outcome,
    schedule: Schedule,
    evaluate: Callable[[Any], dict[str, float]],
    tracker: Tracker | None,
    state: ResumableState,
    rate: float,
    world: World,
) -> bool:
    """Logs, evaluates and saves where `outcome.step` asks for it; says whether the training ends here."""
    last = outcome.step == schedule.steps
    if outcome.step % _LOG_EVERY == 0 or last:
        if tracker:
            lost = {"without_path": outcome.without_path} if outcome.without_path else {}
            tracker.log(outcome.step, loss=outcome.loss, learning_rate=rate, **lost)
            if lost and last:
                log.warning("%d examples had more labels than frames and taught nothing", *lost.values())
        else:
            _check_finite(outcome)
    if outcome.step % schedule.evaluate_every == 0 or last:
        if tracker:
            _evaluate(model, evaluate, tracker, outcome)
        outcome.best_score, outcome.best_step, outcome.stale = world.told(
            (outcome.best_score, outcome.best_step, outcome.stale)
        )
        outcome.stopped_early = not last and 0 < schedule.patience <= outcome.stale
    ended = last or outcome.stopped_early
    if outcome.step % schedule.checkpoint_every == 0 and not ended and world.leads:
        state.save(outcome.step, _resumable(model, updater, outcome))
    return ended


def _restored(model: Any, updater: Updater, state: ResumableState, world: World) -> tuple[Outcome, bool]:
    """The outcome so far and whether there was one; every process reads the same checkpoint."""
    saved = state.load()
    step = saved[0] if saved else -1
    if world.told(step) != step:
        raise ArtifactError(
            f"process {world.rank} finds its last checkpoint at step {step}, the first process another",
            "all processes of a training read one work folder",
            f"put {state.folder} where every machine sees it, or clear it on all of them",
        )
    if saved is None:
        return Outcome(), False
    content = saved[1]
    model.load_state_dict(content["model"])
    updater.load(content)
    return Outcome(**content["outcome"], best_weights=content["best"], resumed_from=step), True


def _check_finite(outcome: Outcome) -> None:
    """The tracker's check, for the processes that have none: all end together."""
    if not math.isfinite(outcome.loss):
        raise ArtifactError(
            f"loss is not finite at step {outcome.step}", "training has diverged", "lower the learning rate"
        )


def _evaluate(
    model: Any, evaluate: Callable[[Any], dict[str, float]], tracker: Tracker, outcome: Outcome
) -> None:
    model.eval()
    with torch.inference_mode():
        metrics = evaluate(model)
    tracker.log(outcome.step, seconds=outcome.seconds, **{k: v for k, v in metrics.items() if k != "score"})
    outcome.stale = 0 if metrics["score"] < outcome.best_score else outcome.stale + 1
    if metrics["score"] <= outcome.best_score:
        outcome.best_score, outcome.best_step = metrics["score"], outcome.step
        outcome.best_weights = {name: value.detach().clone() for name, value in model.state_dict().items()}


def _resumable(model: Any, updater: Updater, outcome: Outcome) -> dict[str, Any]:
    numbers = {
        name: getattr(outcome, name)
        for name in (
            "step",
            "loss",
            "best_score",
            "best_step",
            "seconds",
            "audio_s",
            "stale",
            "losses",
            "without_path",
        )
    }
    return {
        "model": model.state_dict(),
        "outcome": numbers,
        "best": outcome.best_weights,
        **updater.state(),
    }

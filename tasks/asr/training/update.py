"""One update of a CTC training: micro batches to gradients to an optimizer step.

However the examples of an update (the global batch) are cut into micro batches and spread over processes,
the update is that of one large batch: the loss is the mean over all of its utterances. So running out of
memory costs no run: the micro batch is halved and the same update is done again. Dropout and layer drop are
drawn from a seed of each micro batch, the same in every process and after a resume.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from tasks.asr.training.augment import Example
from tasks.asr.training.batching import Batch, cut_batches, rounded_up
from tasks.asr.training.feature_encoder import train_frames_first
from tasks.asr.training.freeze import Freezer, Trainable, head_of
from tasks.asr.training.processes import World
from tasks.asr.training.specaugment import Masking, SpecAugment
from tasks.data.espeak import SAMPLE_RATE_HZ
from tasks.errors import CapacityError, SettingsError

log = logging.getLogger("malgil.asr.update")
Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BETAS = (0.9, 0.98)
_WEIGHT_DECAY = 0.01
_CLIP_NORM = 1.0


@dataclass(frozen=True)
class Method:
    """How an update is computed; the defaults are one fp32 micro batch for all weights.

    `head_factor` multiplies the learning rate of the CTC head (`lm_head`): a fresh head on a pre-trained
    encoder has further to go. `accumulation` micro batches per process make an update.
    """

    head_factor: float = 1.0
    accumulation: int = 1
    precision: Precision = "fp32"
    gradient_checkpointing: bool = False
    trainable: Trainable = field(default_factory=Trainable)
    masking: Masking = field(default_factory=Masking)


class Updater:
    """Optimizer, precision, frozen parts and micro batches of one training of `model`.

    Args:
        steps: updates of the whole training (gradual unfreezing counts in shares of them).
        batch_of: renders and pads examples.
        loss_of: mean loss over a batch's utterances.

    Raises:
        SettingsError: this device cannot compute in `method.precision`, or there are too few layers.
    """

    def __init__(
        self,
        model: Any,
        method: Method,
        steps: int,
        batch_of: Callable[[tuple[Example, ...]], Batch],
        loss_of: Callable[[Any, Batch], torch.Tensor],
        world: World,
    ) -> None:
        self.model, self.method, self.world = model, method, world
        self.batch_of, self.loss_of = batch_of, loss_of
        self.micro_s = math.inf
        self.freezer = Freezer(model, method.trainable, steps)
        self.masks = SpecAugment(model, method.masking)
        if method.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        device = torch.device(world.device).type
        check_precision(method.precision, device)
        plain = device == "cpu" and method.precision == "fp32" and not method.gradient_checkpointing
        self._undo = train_frames_first(model) if plain else lambda: None
        self.scaler = torch.amp.GradScaler(device, enabled=method.precision == "fp16")
        self.optimizer = torch.optim.AdamW(
            self._groups(), lr=0.0, betas=_BETAS, weight_decay=_WEIGHT_DECAY, fused=True
        )

    def update(self, plans: Sequence[tuple[Example, ...]], step: int, rate: float) -> tuple[float, float]:
        """Learns from `plans`, the micro batches of all processes in their order, at learning rate `rate`.

        Returns the mean loss over the global batch and its seconds of audio.

        Raises:
            CapacityError: a single utterance does not fit into memory.
        """
        self.freezer.at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        utterances = sum(len(plan) for plan in plans)
        mine = plans[self.world.rank :: self.world.size]
        while True:
            pieces = [piece for plan in mine for piece in self._cut(plan)]
            gathered = self._gather(pieces, utterances, step)
            if self._all_fitted(gathered is not None, pieces):
                break
            self.optimizer.zero_grad(set_to_none=True)
        assert gathered is not None
        loss, audio_s = self.world.sum_gradients(self.freezer.weights, gathered)
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, audio_s

    def state(self) -> dict[str, Any]:
        """What a resumed training needs."""
        micro_s = self.micro_s if math.isfinite(self.micro_s) else 0.0
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "micro_s": micro_s,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continues from `state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.micro_s = state["micro_s"] or math.inf

    def close(self) -> None:
        """Leaves the model as it was found, apart from what it has learned."""
        self.masks.close()
        self._undo()
        if self.method.gradient_checkpointing:
            self.model.gradient_checkpointing_disable()
        for weight in self.model.parameters():
            weight.requires_grad_(True)

    def _groups(self) -> list[dict[str, Any]]:
        head = head_of(self.model)
        learning = {id(weight) for weight in self.freezer.weights} - {id(weight) for weight in head}
        body = [weight for weight in self.model.parameters() if id(weight) in learning]
        groups = [{"params": body, "factor": 1.0}, {"params": head, "factor": self.method.head_factor}]
        return [group for group in groups if group["params"]]

    def _cut(self, plan: tuple[Example, ...]) -> list[tuple[Example, ...]]:
        return [plan] if _padded_s(plan) <= self.micro_s else cut_batches(plan, self.micro_s)

    def _gather(
        self, pieces: list[tuple[Example, ...]], utterances: int, step: int
    ) -> tuple[float, float] | None:
        """Gradients, weighted loss and seconds of `pieces`; None when memory ran out."""
        loss_sum = audio_s = 0.0
        try:
            for piece in pieces:
                batch = self.batch_of(piece)
                self.masks.prepare(batch)
                torch.manual_seed((piece[0].seed << 24) + step)
                with self._autocast():
                    loss = self.loss_of(self.model, batch) * (len(piece) / utterances)
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                loss_sum += loss.item()
                audio_s += float(batch.mask.sum()) / SAMPLE_RATE_HZ
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return loss_sum, audio_s

    def _all_fitted(self, fitted: bool, pieces: list[tuple[Example, ...]]) -> bool:
        """Whether every process had enough memory; else halves the micro batch in all of them."""
        divisible_s = max((_padded_s(piece) for piece in pieces if len(piece) > 1), default=0.0)
        hopeless = not fitted and not divisible_s
        failed, lost, divisible_s = self.world.largest([not fitted, hopeless, divisible_s])
        if lost:
            longest_s = max(_padded_s(piece) for piece in pieces)
            raise CapacityError(
                f"memory does not suffice for a micro batch of one utterance (up to {longest_s:.1f} s)",
                "one utterance is the smallest micro batch",
                "set train_asr.gradient_checkpointing or precision: bf16, lower max_joined, or remove the "
                "longest recordings; the last checkpoint is kept",
            )
        if failed:
            self.micro_s = divisible_s / 2
            log.warning(
                "out of memory at micro batches of %.1f s: going on with %.1f s, twice as many per update; "
                "the update stays that of the same global batch",
                divisible_s,
                self.micro_s,
            )
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return not failed

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = _DTYPES.get(self.method.precision)
        return torch.autocast(self.model.device.type, dtype) if dtype else contextlib.nullcontext()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is a failed allocation: CUDA's, the CPU allocator's, oneDNN's or NumPy's."""
    words = str(error).lower()
    said = "out of memory" in words or "can't allocate memory" in words or "not enough memory" in words
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or said


def check_precision(precision: Precision, device: str) -> None:
    """Raises `SettingsError` where `device` cannot run a convolution and a product in `precision`."""
    if precision not in _DTYPES:
        return
    try:
        with torch.autocast(device, _DTYPES[precision]):
            weight = torch.ones(4, 1, 3, device=device, requires_grad=True)
            hidden = torch.nn.functional.conv1d(torch.ones(2, 1, 9, device=device), weight)
            (hidden @ torch.ones(7, 7, device=device)).float().sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise SettingsError(
            "params.yaml",
            [f"train_asr.precision = {precision}: {device} cannot compute in it ({error})"],
            "set train_asr.precision to bf16 or fp32",
        ) from error


def _padded_s(examples: tuple[Example, ...]) -> float:
    longest = max(example.samples for example in examples)
    return rounded_up(longest) * len(examples) / SAMPLE_RATE_HZ

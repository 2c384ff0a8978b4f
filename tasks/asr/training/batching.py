"""Which utterances a training step sees, and padded batches with masks.

Avoiding padding is the win on any machine, so examples are drawn in blocks, sorted by length inside the
block and cut into batches of a number of *padded seconds*. The sequence of batches is a pure function of
lengths, settings and seed: after a kill, planning again and skipping the steps already taken continues
exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tasks.asr.training.augment import Augmentation, Example, draw_example, normalised, render
from tasks.data.espeak import SAMPLE_RATE_HZ

Audio = np.ndarray[Any, np.dtype[np.float32]]
_BLOCK = 384  # examples sorted together: long enough to pad little, short enough to mix lengths over time
# Padded to a multiple of this (0.3 s), the shapes of batches come back: for a shape never seen, oneDNN
# compiles the convolutions anew, which on a small model costs as much as the step itself.
_LENGTH_STEP = 4_800


@dataclass(frozen=True)
class AudioStore:
    """Utterances in one flat int16 array (usually memory-mapped) with offsets and lengths in samples."""

    flat: np.ndarray[Any, np.dtype[np.int16]]
    offsets: np.ndarray[Any, np.dtype[np.int64]]
    lengths: np.ndarray[Any, np.dtype[np.int64]]

    def clip(self, index: int) -> Audio:
        """Utterance `index` as float32 in [-1, 1], shape (samples,)."""
        start = int(self.offsets[index])
        return self.flat[start : start + int(self.lengths[index])].astype(np.float32) / np.float32(32768.0)


@dataclass(frozen=True)
class Batch:
    """`inputs` and `mask` (batch, samples), `targets` (all labels, flat), `target_lengths` (batch,)."""

    inputs: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    target_lengths: torch.Tensor
    examples: tuple[Example, ...]


def plan_batches(
    lengths: np.ndarray[Any, np.dtype[np.int64]],
    how: Augmentation,
    batch_seconds: float,
    seed: int,
    ramp_examples: int = 0,
    fit: Callable[[tuple[int, ...], int], bool] | None = None,
) -> Iterator[tuple[Example, ...]]:
    """Endless batches of examples, deterministic given the arguments.

    The first `ramp_examples` are not augmented, and over as many again the augmentation grows to all of
    it: CTC leaves its all-blank plateau on short clean clips. `fit`: see `draw_example`.
    """
    rng = np.random.default_rng(seed)
    indices = _endless_permutations(len(lengths), rng)
    drawn = 0
    while True:
        strength = 1.0 if ramp_examples <= 0 else min(1.0, max(0.0, drawn / ramp_examples - 1.0))
        now = how.scaled(strength)
        block = []
        for _ in range(_BLOCK):
            joined = int(rng.integers(2, how.max_joined + 1)) if _joins(now, rng) else 1
            parts = tuple(next(indices) for _ in range(joined))
            block.append(draw_example(parts, lengths, now, rng, fit))
        drawn += len(block)
        batches = cut_batches(block, batch_seconds)
        for position in rng.permutation(len(batches)):
            yield batches[position]


def cut_batches(examples: Sequence[Example], batch_seconds: float) -> list[tuple[Example, ...]]:
    """Sorts by length and fills batches up to `batch_seconds` of padded audio (lengths rounded up as
    `make_batch` does); a longer example is a batch alone.
    """
    budget = batch_seconds * SAMPLE_RATE_HZ
    batches: list[tuple[Example, ...]] = []
    current: list[Example] = []
    for example in sorted(examples, key=lambda e: (e.samples, e.parts)):
        if current and rounded_up(example.samples) * (len(current) + 1) > budget:
            batches.append(tuple(current))
            current = []
        current.append(example)
    if current:
        batches.append(tuple(current))
    return batches


def make_batch(
    examples: tuple[Example, ...],
    store: AudioStore,
    labels_of: Callable[[tuple[int, ...]], list[int]],
    normalise: bool,
    rounded: bool,
) -> Batch:
    """Renders and pads the examples; `labels_of` gives the label ids of the joined parts.

    `rounded`: lengths are rounded up, so that shapes come back; only for a model that looks at the mask
    (`uses_mask`), to which padding is harmless.
    """
    audio = [render(example, [store.clip(part) for part in example.parts]) for example in examples]
    longest = max(len(clip) for clip in audio)
    inputs, mask = pad(
        [normalised(clip) if normalise else clip for clip in audio],
        rounded_up(longest) if rounded else longest,
    )
    labels = [labels_of(example.parts) for example in examples]
    return Batch(
        inputs=inputs,
        mask=mask,
        targets=torch.tensor([label for sequence in labels for label in sequence], dtype=torch.long),
        target_lengths=torch.tensor([len(sequence) for sequence in labels], dtype=torch.long),
        examples=examples,
    )


def rounded_up(samples: int) -> int:
    """The length to which a batch whose longest example has `samples` is padded."""
    return -(-samples // _LENGTH_STEP) * _LENGTH_STEP


def pad(audio: Sequence[Audio], samples: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero-pads on the right: inputs float32 and mask int64, both (batch, longest, or `samples` if more)."""
    longest = max(samples, *(len(clip) for clip in audio))
    inputs = torch.zeros(len(audio), longest)
    mask = torch.zeros(len(audio), longest, dtype=torch.long)
    for row, clip in enumerate(audio):
        inputs[row, : len(clip)] = torch.from_numpy(clip)
        mask[row, : len(clip)] = 1
    return inputs, mask


def ctc_loss(model: Any, batch: Batch) -> torch.Tensor:
    """CTC loss of the batch (mean over utterances of loss per label, in nats); blank is the model's pad
    token.
    """
    frames = model._get_feat_extract_output_lengths(batch.mask.sum(-1)).to(torch.long)
    mask = batch.mask.to(model.device) if takes_mask(model) and _hides_frames(model, batch) else None
    logits = model(batch.inputs.to(model.device), attention_mask=mask).logits
    log_probabilities = F.log_softmax(logits.float(), dim=-1).transpose(0, 1)  # (frames, batch, vocabulary)
    return F.ctc_loss(
        log_probabilities,
        batch.targets.to(model.device),
        frames.to(model.device),
        batch.target_lengths.to(model.device),
        blank=model.config.pad_token_id,
        zero_infinity=True,
    )


def takes_mask(model: Any) -> bool:
    """Whether the model was trained with a mask: group-norm feature encoders (wav2vec2-base) were not, and
    give other outputs with one.
    """
    return getattr(model.config, "feat_extract_norm", "layer") == "layer"


def _hides_frames(model: Any, batch: Batch) -> bool:
    """Whether some row ends frames before the others; else the mask hides nothing, and attention without
    one is cheaper.
    """
    if getattr(model.config, "add_adapter", False):  # counts its own, longer frames
        return True
    samples = torch.cat([batch.mask.sum(-1), torch.tensor([batch.mask.shape[1]])])
    frames = model._get_feat_extract_output_lengths(samples)
    return bool((frames < frames[-1]).any())


def uses_mask(model: Any) -> bool:
    """Whether a padded batch with its mask equals its utterances one by one, so that padding is harmless.

    Not with group norm, and not where frames behind the end are looked at again after they were zeroed:
    data2vec stacks positional convolutions, a conformer has one in every layer, HuBERT may have a batch
    norm before its own.
    """
    config = model.config
    layers = config.num_conv_pos_embeddings if config.model_type == "data2vec-audio" else 1
    return (
        takes_mask(model)
        and layers == 1
        and config.model_type != "wav2vec2-conformer"
        and not getattr(config, "conv_pos_batch_norm", False)
    )


def buckets(lengths: Sequence[int], batch_seconds: float, equal_only: bool = False) -> list[list[int]]:
    """Indices of utterances in inference batches of `batch_seconds` padded audio; `equal_only` never pads."""
    budget = batch_seconds * SAMPLE_RATE_HZ
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        fits = groups and lengths[index] * (len(groups[-1]) + 1) <= budget
        if fits and not (equal_only and lengths[groups[-1][0]] != lengths[index]):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _endless_permutations(count: int, rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from (int(index) for index in rng.permutation(count))


def _joins(how: Augmentation, rng: np.random.Generator) -> bool:
    return how.max_joined > 1 and bool(rng.random() < how.joined_share)

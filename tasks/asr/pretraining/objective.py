"""What a pre-training learns: CTC on the symbols of its utterances, or wav2vec2's task on audio alone.

No command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein

from tasks.asr.checkpoints.checkpoint import (
    SPACE,
    Vocabulary,
    fresh_model,
    load_encoder,
    mini_config,
    normalises,
)
from tasks.asr.decoding.decode import greedy_labels
from tasks.asr.pretraining.contrastive import (
    Task,
    contrastive_accuracy,
    contrastive_loss,
    contrastive_model,
    shortest_samples,
)
from tasks.asr.pretraining.corpus import PretrainingSpeech
from tasks.asr.training.augment import normalised
from tasks.asr.training.batching import AudioStore, Batch, buckets, pad, uses_mask
from tasks.data.espeak import SAMPLE_RATE_HZ
from tasks.errors import DataError
from tasks.settings import Pretrain


@dataclass(frozen=True)
class Objective:
    """What is learned: a model, the symbols it writes, its loss (None: CTC) and its judge."""

    kind: str
    model: Any
    vocabulary: Vocabulary
    labels: list[list[int]]
    loss_of: Callable[[Any, Batch], torch.Tensor] | None
    evaluate: Callable[[Any], dict[str, float]]
    normalise: bool


def supervised(params: Pretrain, speech: PretrainingSpeech, held: int) -> Objective:
    """CTC on the symbols of the utterances; the first `held` are judged by.

    Raises `ModelError` and `ArtifactError` (nothing usable in `pretrain.initial`).
    """
    vocabulary = Vocabulary.of_symbols(_characters(speech))
    ids = vocabulary.ids
    labels = [[ids[symbol] for symbol in symbols] for symbols in speech.symbols]
    normalise = normalises(params.initial) if params.initial else True
    if params.initial:
        model = load_encoder(params.initial, vocabulary, params.seed)
    else:
        model = fresh_model(mini_config(len(vocabulary.symbols)), params.seed)
    judge = partial(
        _symbol_error_rate,
        store=speech.store,
        references=labels[:held],
        blank_id=vocabulary.blank_id,
        normalise=normalise,
    )
    kind = f"pre-trained encoder with {'an IPA' if params.source == 'espeak' else 'a character'} head"
    return Objective(kind, model, vocabulary, labels, None, judge, normalise)


def contrastive(params: Pretrain, speech: PretrainingSpeech, held: int) -> Objective:
    """wav2vec2's task on audio alone; the first `held` utterances are judged by.

    Raises `DataError` (utterances too short for the masks), `ModelError` and `ArtifactError` (nothing usable
    in `pretrain.initial`).
    """
    task = Task(params.mask_share, params.mask_frames, params.negatives)
    model = contrastive_model(
        params.initial, task, params.diversity_weight, params.gumbel_temperature, params.seed
    )
    needed = 1.2 * shortest_samples(model.config, task)  # a faster voice shortens an example
    if (short := int((speech.store.lengths < needed).sum())) > 0:
        raise DataError(
            f"{short} utterances are shorter than {needed / SAMPLE_RATE_HZ:.2f} s",
            f"masked spans of pretrain.mask_frames = {params.mask_frames} must fit twice",
            "lower pretrain.mask_frames in params.yaml, or leave these files out",
        )
    judge = partial(contrastive_accuracy, store=speech.store, count=held, task=task)
    normalise = normalises(params.initial) if params.initial else True
    return Objective(
        "encoder pre-trained without transcripts, with its quantiser",
        model,
        Vocabulary.of_symbols(()),
        [[]] * len(speech.symbols),
        partial(contrastive_loss, task=task),
        judge,
        normalise,
    )


def _characters(speech: PretrainingSpeech) -> tuple[str, ...]:
    return tuple(sorted({symbol for symbols in speech.symbols for symbol in symbols} - {SPACE}))


def _symbol_error_rate(
    model: Any, store: AudioStore, references: list[list[int]], blank_id: int, normalise: bool
) -> dict[str, float]:
    """Symbol error rate of the held-out utterances, without augmentation."""
    lengths = [int(length) for length in store.lengths[: len(references)]]
    masked = uses_mask(model)
    edits = 0
    for group in buckets(lengths, 40.0, equal_only=not masked):
        clips = [store.clip(index) for index in group]
        inputs, mask = pad([normalised(clip) if normalise else clip for clip in clips])
        shown = mask.to(model.device) if masked else None
        logits = model(inputs.to(model.device), attention_mask=shown).logits.float().cpu().numpy()
        frames = model._get_feat_extract_output_lengths(mask.sum(-1)).tolist()
        for row, index in enumerate(group):
            edits += Levenshtein.distance(
                references[index], greedy_labels(logits[row, : int(frames[row])], blank_id)
            )
    rate = edits / max(1, sum(len(reference) for reference in references))
    return {"symbol_error_rate": rate, "score": rate}

"""Self-supervised wav2vec2 pre-training: a masked frame must be told from other frames of its utterance.

The model, its Gumbel quantiser, the contrastive and the diversity loss are transformers'
`Wav2Vec2ForPreTraining` (Baevski et al. 2020, https://arxiv.org/abs/2006.11477). Here: which frames are
masked and which are the negatives, drawn from the examples' own seeds so that a resumed training draws the
same; and the accuracy by which a pre-training without transcripts is judged. No command: `tasks.asr.pretrain`
runs it. Not here: the decay of the Gumbel temperature and the smaller gradient of the feature encoder that
fairseq has.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, Wav2Vec2Config, Wav2Vec2ForPreTraining
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

from tasks.asr.checkpoints.checkpoint import check_provenance, is_known_extra, mini_config
from tasks.asr.checkpoints.layout import first_line, local_folder
from tasks.asr.training.augment import normalised
from tasks.asr.training.batching import AudioStore, Batch, buckets, pad, uses_mask
from tasks.errors import ModelError
from tasks.weights.stored import require_floats, stored_in
from tasks.weights.whole import require_loaded

_FEWEST_SPANS = 2  # masked per utterance: one span alone would offer few negatives
_EVALUATION_BATCH_S = 40.0
_QUANTISER = ("quantizer.", "project_q.", "project_hid.")
_DRAWN = ("masked_spec_embed", *_QUANTISER)
_AGAIN = "fetch config.json and the weights again from one revision, or make it again"


@dataclass(frozen=True)
class Task:
    """What is asked of the model: the share of frames at which a masked span may start times its length in
    frames (spans overlap, so fewer frames are masked), the spans' length, and the negatives per frame.
    """

    mask_share: float
    mask_frames: int
    negatives: int

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1.0 / (self.negatives + 1)


def contrastive_model(
    initial: str, task: Task, diversity_weight: float, gumbel_temperature: float, seed: int
) -> Any:
    """A model to pre-train: of the shape of malgil-xlsr-mini with random weights, or the one of the folder
    (or Hub id) `initial`, whose encoder is kept and whose quantiser too where it has one.

    Raises `ModelError` (nothing usable there, or not wav2vec2) and `ArtifactError` (not the weights that
    its PROVENANCE.json names).
    """
    settings = {
        "mask_time_prob": task.mask_share,  # above 0 it gives the model its masked embedding
        "mask_time_length": task.mask_frames,
        "mask_feature_prob": 0.0,
        "num_negatives": task.negatives,
        "diversity_loss_weight": diversity_weight,
    }
    torch.manual_seed(seed)
    if initial:
        model = _loaded(initial, settings)
    else:
        config = mini_config(vocabulary_size=3)  # blank, space, unknown: there is no head to use it
        config.update(
            {"num_codevectors_per_group": 128, "codevector_dim": 128, "proj_codevector_dim": 128, **settings}
        )
        model = Wav2Vec2ForPreTraining(config)
    model.set_gumbel_temperature(gumbel_temperature)
    return model


def contrastive_loss(model: Any, batch: Batch, task: Task) -> torch.Tensor:
    """Contrastive plus weighted diversity loss of the batch, per masked frame."""
    masked, negatives = _drawn(model, batch.inputs, batch.mask, task, [e.seed for e in batch.examples])
    with _masking(model):
        output = model(
            batch.inputs.to(model.device),
            attention_mask=batch.mask.to(model.device) if uses_mask(model) else None,
            mask_time_indices=masked,
            sampled_negative_indices=negatives,
        )
    loss: torch.Tensor = output.loss / masked.sum()
    return loss


def contrastive_accuracy(model: Any, store: AudioStore, count: int, task: Task) -> dict[str, float]:
    """How often the true frame is more similar than every negative, over the first `count` utterances.

    Masks and negatives are the same at every call. A negative equal to the true frame counts as a tie,
    which a guess decides: a model whose codebook has collapsed scores chance. "score" is the share of
    errors. Beside it the codevectors in use (perplexity).
    """
    right = frames = codes = 0.0
    for group in buckets([int(length) for length in store.lengths[:count]], _EVALUATION_BATCH_S):
        inputs, mask = pad([normalised(store.clip(index)) for index in group])
        masked, negatives = _drawn(model, inputs, mask, task, group)
        with _masking(model):
            output = model(
                inputs.to(model.device),
                attention_mask=mask.to(model.device) if uses_mask(model) else None,
                mask_time_indices=masked,
            )
        right += float(_won(output, masked, negatives).sum())
        count_here = float(masked.sum())
        frames += count_here
        codes += float(output.codevector_perplexity) * count_here
    accuracy = right / max(1.0, frames)
    return {
        "contrastive_accuracy": accuracy,
        "chance": task.chance,
        "codevectors_in_use": codes / max(1.0, frames),
        "score": 1.0 - accuracy,
    }


def shortest_samples(model_config: Any, task: Task) -> int:
    """Samples that an utterance needs so that its masked spans can be drawn."""
    samples = task.mask_frames + _FEWEST_SPANS
    layers = list(zip(model_config.conv_kernel, model_config.conv_stride, strict=True))
    for kernel, stride in reversed(layers):
        samples = (samples - 1) * stride + kernel
    return samples


def _won(output: Any, masked: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """For every masked frame 1 where the true frame wins, 1/n where n tie, else 0."""
    targets, predicted = output.projected_quantized_states, output.projected_states
    others = targets.reshape(-1, targets.shape[-1])[negatives[masked]]  # (masked, negatives, size)
    candidates = torch.cat([targets[masked][:, None], others], dim=1)
    similar = torch.cosine_similarity(predicted[masked][:, None].float(), candidates.float(), dim=-1)
    same = (others == targets[masked][:, None]).all(-1)
    better = (similar[:, 1:] > similar[:, :1]) & ~same
    won: torch.Tensor = (~better.any(-1)).float() / (1 + same.sum(-1))
    return won


def _drawn(
    model: Any, inputs: torch.Tensor, mask: torch.Tensor, task: Task, seeds: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masked frames (batch, frames) and negatives (batch, frames, negatives) of utterances with `seeds`."""
    total = int(model._get_feat_extract_output_lengths(inputs.shape[-1]))
    shown = model._get_feature_vector_attention_mask(total, mask)
    with _numpy_seeded(zlib.crc32(np.asarray(seeds, dtype=np.int64).tobytes())):
        masked = _compute_mask_indices(
            (len(inputs), total), task.mask_share, task.mask_frames, shown.long(), _FEWEST_SPANS
        )
        negatives = _sample_negative_indices((len(inputs), total), task.negatives, masked)
    return torch.from_numpy(masked).to(model.device), torch.from_numpy(negatives).long().to(model.device)


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """transformers draws masks from NumPy's global generator, which is put back afterwards."""
    kept = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(kept)


@contextmanager
def _masking(model: Any) -> Iterator[None]:
    """transformers heeds the given mask only with `apply_spec_augment`, which is off at all other times: so
    a model fine-tuned from this one is not masked by accident.
    """
    model.config.apply_spec_augment = True
    try:
        yield
    finally:
        model.config.apply_spec_augment = False


def _loaded(initial: str, settings: dict[str, Any]) -> Any:
    place = local_folder(initial)
    check_provenance(place)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        if isinstance(config, Wav2Vec2Config):
            config.update({**settings, "apply_spec_augment": False})
            loaded: Any = Wav2Vec2ForPreTraining.from_pretrained(
                place,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # they are named below
                output_loading_info=True,
            )
            model, report = loaded
            tensors = stored_in(place)
            # a fine-tuned one has no quantiser, and its own is drawn; half of one is torn
            drawn = ("masked_spec_embed",) if any(name.startswith(_QUANTISER) for name in tensors) else _DRAWN
            require_loaded(
                report,
                where=initial,
                next_step=_AGAIN,
                optional=lambda name: any(part in name for part in drawn),
                known=is_known_extra,
            )
            require_floats(tensors, model, where=initial)
            return model
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{initial} cannot be loaded ({first_line(error)})",
            "needs a whole config.json and the weights of a wav2vec2 model",
            _AGAIN,
        ) from error
    raise ModelError(
        f"{initial} is a {config.model_type} model",
        "contrastive pre-training goes on from wav2vec2 models alone",
        "name a wav2vec2 checkpoint, or none",
    )

"""The shape of a streaming checkpoint: chunks, left context, look-ahead, and how it comes into a model.

It stands in the checkpoint's config.json, under `malgil_streaming`. Such a checkpoint levels its own input
(`tasks.asr.streaming.level`, in front of the feature encoder), so it takes raw samples everywhere; loaded
for transcription, evaluation or export it attends to the whole utterance. No command.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from tasks.asr.streaming import level
from tasks.asr.streaming.attention import CONFIG_KEY
from tasks.errors import ModelError

_TRAIN = "fine-tune one with train_asr.chunk_frames (docs/how-to/stream.md)"


@dataclass(frozen=True)
class StreamingShape:
    """Attention in chunks of `chunk_frames`, to `left_chunks` before; `right_frames` of look-ahead."""

    chunk_frames: int
    left_chunks: int
    right_frames: int
    level: str = level.KIND


def shape_of(model: Any) -> StreamingShape | None:
    """The streaming shape that the model's config tells, None for any other checkpoint.

    Raises `ModelError` when it cannot be understood.
    """
    told = getattr(model.config, CONFIG_KEY, None)
    if told is None:
        return None
    try:
        shape = StreamingShape(**told)
    except TypeError as error:
        raise ModelError(
            f"{CONFIG_KEY} in config.json is {told!r}",
            "must be a streaming shape as train_asr writes it",
            _TRAIN,
        ) from error
    numbers = (shape.chunk_frames, shape.left_chunks, shape.right_frames)
    if (
        not all(type(n) is int and n >= 0 for n in numbers)
        or not shape.chunk_frames
        or shape.level != level.KIND
    ):
        raise ModelError(
            f"{CONFIG_KEY} in config.json is {told!r}",
            f"frames must be whole numbers and the level {level.KIND!r}",
            _TRAIN,
        )
    return shape


def make_streaming(model: Any, shape: StreamingShape) -> None:
    """Turns a loaded encoder into a streaming one, before its fine-tuning.

    Raises `ModelError` for an encoder that cannot stream exactly.
    """
    check_architecture(model)
    setattr(model.config, CONFIG_KEY, asdict(shape))
    bound_positions(model, shape.right_frames)
    level_input(model)


def level_input(model: Any) -> None:
    """Puts the leveller in front of the feature encoder of a model with a streaming shape."""
    model.base_model.feature_extractor.register_forward_pre_hook(
        lambda _, inputs: (level.levelled(inputs[0]),)
    )


def positional(model: Any) -> Any:
    """The positional convolution."""
    return model.base_model.encoder.pos_conv_embed.conv


def bound_positions(model: Any, right_frames: int) -> None:
    """Silences the taps of the positional convolution further than `right_frames` to the right, for good.

    Its weight norm has a gain per tap: at zero, and with no gradient, the tap is exactly zero in whatever
    loads the weights.
    """
    gains = positional(model).parametrizations.weight.original0  # (1, 1, kernel)
    keep = (taps_right(gains.shape[-1]) <= right_frames).to(gains.device)
    with torch.no_grad():
        gains *= keep
    gains.register_hook(lambda gradient: gradient * keep)


def taps_right(kernel: int) -> torch.Tensor:
    """How many frames to the right each tap of a kernel looks; negative: to the left."""
    return torch.arange(kernel) - kernel // 2


def check_architecture(model: Any) -> None:
    """Raises `ModelError` unless the parts of the model are those whose stream equals a whole pass."""
    config = model.config
    kind = config.model_type
    problem = ""
    if kind not in ("wav2vec2", "hubert"):
        problem = f"a {kind} encoder"
    elif getattr(config, "feat_extract_norm", "") != "layer":
        problem = "a feature encoder with group norm, which needs the whole utterance"
    elif getattr(config, "add_adapter", False):
        problem = "an encoder with a convolutional adapter"
    elif not hasattr(positional(model), "parametrizations"):
        problem = "a positional convolution without weight norm"
    if problem:
        raise ModelError(
            f"cached streaming of {problem}",
            "needs wav2vec2 or HuBERT with layer norm in the feature encoder",
            "stream it with --mode windowed, or fine-tune another encoder (XLSR, XLS-R, malgil-xlsr-mini)",
        )

"""Fine-tuning for two uses at once: some steps hear whole utterances, the others in chunks. No command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from tasks.asr.streaming.attention import hear_chunks
from tasks.asr.streaming.shape import StreamingShape, make_streaming, shape_of
from tasks.errors import ModelError
from tasks.settings import TrainAsr

Plan = TypeVar("Plan")


def prepare_encoder(model: Any, params: TrainAsr) -> bool:
    """Makes the encoder a streaming one where `train_asr.chunk_frames` asks for it; says whether it did.

    Raises `ModelError` for an encoder that cannot, and for a streaming one that is to be fine-tuned as if
    it were none.
    """
    if params.chunk_frames:
        make_streaming(model, StreamingShape(params.chunk_frames, params.left_chunks, params.right_frames))
    elif shape_of(model):
        raise ModelError(
            f"encoder {params.encoder!r} is a streaming one, and train_asr.chunk_frames is 0",
            "fine-tuned without chunks it would no longer stream as its config says",
            "set train_asr.chunk_frames, or start from the encoder that it was made from",
        )
    return bool(params.chunk_frames)


def alternating(
    plans: Iterator[Plan], model: Any, share: float, seed: int, per_step: int = 1
) -> Iterator[Plan]:
    """The plans as they are; before each is handed out the model is set to hear its step whole or in chunks.

    Which of the two depends on seed and step alone, so a resumed training takes the same. `share` of the
    steps are whole; a step takes `per_step` plans.
    """
    for number, plan in enumerate(plans):
        hear_chunks(model, bool(np.random.default_rng((seed, number // per_step)).random() >= share))
        yield plan


def both_ways(model: Any, rates: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Validation rates of the stream, which choose the best weights, and of whole utterances beside them."""
    hear_chunks(model, True)
    streamed = rates()
    hear_chunks(model, False)
    whole = {f"{name}_whole": rate for name, rate in rates().items() if name != "score"}
    return {**streamed, **whole}

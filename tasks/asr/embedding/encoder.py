"""A wav2vec2-family encoder as a source of vectors: the frames of the layers that are asked for.

    frames = load_encoder_layers(Path("models/malgil-xlsr-mini"), (0, 4)).frames([audio])   # float32, 16 kHz

Layer 0 is the convolutional front after its projection, 1 to n are the blocks of the Transformer, and -1 is
the last one, whose output is the encoder's own (after its final layer norm, where it has one). Blocks above
the highest layer asked for are not computed. Heads are ignored, so a pre-trained folder serves as well as a
fine-tuned one. No command.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from tasks.asr.checkpoints.checkpoint import check_provenance, normalises, use_threads
from tasks.asr.checkpoints.digest import weights_sha256
from tasks.asr.recordings.windows import Grid, measure_grid
from tasks.asr.training.augment import normalised
from tasks.asr.training.batching import buckets, pad, uses_mask
from tasks.errors import ModelError

Audio = np.ndarray[Any, np.dtype[np.float32]]
Frames = np.ndarray[Any, np.dtype[np.float32]]
_PARTS = ("feature_extractor", "feature_projection", "encoder")
_UNUSED = ("masked_spec_embed",)  # a weight of training alone, absent from many checkpoints


class EncoderLayers:
    """An encoder cut off above the highest of `layers`.

    Attributes:
        layers: as numbers from 0 to `depth`.
        depth: blocks of the whole model.
        hidden: length of a frame's vector.
        normalise: inputs must have zero mean and unit variance; `frames` does not do that.
        grid: frames and samples.
        sha256: of the file of weights.
    """

    def __init__(self, model: Any, layers: Sequence[int], normalise: bool, sha256: str) -> None:
        self.depth = len(model.encoder.layers)
        self.layers = tuple(_resolved(layer, self.depth) for layer in layers)
        self.hidden = int(model.config.hidden_size)
        self.normalise, self.sha256 = normalise, sha256
        self.masked = uses_mask(model)
        self._model = model
        self._is_last = {layer: layer == self.depth for layer in self.layers}
        top = max(self.layers)
        if 0 < top < self.depth:
            model.encoder.layers = model.encoder.layers[:top]
        self.grid: Grid = measure_grid(lambda n: int(self._frame_counts(torch.tensor([n]))[0]))

    def frames(self, audio: Sequence[Audio], batch_seconds: float) -> Iterator[tuple[int, list[Frames]]]:
        """Index of an input and its frames (frames, hidden) per layer, batch by batch, not in order.

        Args:
            audio: each (samples,), normalised where `normalise` says so, with at least one frame.
            batch_seconds: padded audio per batch; encoders without a mask get only equal lengths together.
        """
        for group in buckets([len(clip) for clip in audio], batch_seconds, equal_only=not self.masked):
            inputs, mask = pad([audio[index] for index in group])
            with torch.inference_mode():
                found = self._hidden(inputs, mask if self.masked else None)
            counts = self._frame_counts(mask.sum(-1)).tolist()
            for row, (index, count) in enumerate(zip(group, counts, strict=True)):
                yield index, [layer[row, : int(count)].float().numpy() for layer in found]

    def prepared(self, audio: Audio) -> Audio:
        """A whole clip as the encoder wants it."""
        return normalised(audio) if self.normalise else audio

    def _hidden(self, inputs: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
        """Outputs (batch, frames, hidden) of `layers`, in their order."""
        model, taken = self._model, {}
        if max(self.layers) == 0:
            return [_first(model.feature_projection(model.feature_extractor(inputs).transpose(1, 2)))] * len(
                self.layers
            )

        def keep(layer: int) -> Callable[[Any, Any, Any], None]:
            def hook(_module: Any, _inputs: Any, output: Any) -> None:
                taken[layer] = _first(output).clone()  # the encoder writes zeros into padded frames

            return hook

        modules = {0: model.feature_projection}
        modules.update({n + 1: block for n, block in enumerate(model.encoder.layers)})
        hooks = [
            modules[layer].register_forward_hook(keep(layer))
            for layer in set(self.layers)
            if not self._is_last[layer]
        ]
        try:
            last = model(inputs, attention_mask=mask).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return [last if self._is_last[layer] else taken[layer] for layer in self.layers]

    def _frame_counts(self, samples: torch.Tensor) -> torch.Tensor:
        counts: torch.Tensor = self._model._get_feat_extract_output_lengths(samples)
        return counts


def load_encoder_layers(folder: Path, layers: Sequence[int] | None) -> EncoderLayers:
    """The encoder of a folder, for inference on the CPU; without `layers` all of them.

    Raises:
        ModelError: no wav2vec2-family folder with safetensors weights, weights missing from it, or a layer
            that it does not have.
        ArtifactError: the weights are not those that PROVENANCE.json names.
    """
    use_threads()
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json",
            "an encoder is a Hugging Face folder",
            "name one with --model, for example models/malgil-xlsr-mini",
        )
    check_provenance(folder)
    try:
        with _quiet():
            model, report = AutoModel.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ModelError(
            f"{folder} cannot be loaded ({reason})",
            "needs a whole config.json and model.safetensors",
            "copy it again, or name another folder",
        ) from error
    if not all(hasattr(model, part) for part in _PARTS):
        raise ModelError(
            f"{folder} holds a model of type {model.config.model_type!r}",
            "needs an encoder of the wav2vec2 family (wav2vec2, HuBERT, WavLM, data2vec-audio)",
            "name another folder",
        )
    if missing := sorted(key for key in report["missing_keys"] if key not in _UNUSED):
        raise ModelError(
            f"{folder} lacks {len(missing)} weights ({', '.join(missing[:3])}, ...)",
            "an encoder needs all of its weights",
            "copy it again from its origin",
        )
    asked = range(len(model.encoder.layers) + 1) if layers is None else layers
    return EncoderLayers(model.eval(), tuple(asked), normalises(str(folder)), weights_sha256(folder))


def _resolved(layer: int, depth: int) -> int:
    if not -1 <= layer <= depth:
        raise ModelError(
            f"layer {layer}",
            f"this encoder has layers 0 (the features after their projection) to {depth}; -1 is the last",
            f"choose one from 0 to {depth}",
        )
    return depth if layer == -1 else layer


def _first(output: Any) -> torch.Tensor:
    """The tensor of a module that returns it alone, or first of several."""
    tensor: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the report of weights that are not used: the head is left out on purpose."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)

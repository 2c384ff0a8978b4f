"""A recogniser's logits, without its text: one interface for the torch checkpoint and the shipped ONNX file.

`tasks.asr.model` loads them and decodes whole utterances; here is what long recordings need besides: the
grid of frames, and logits of windows that are already normalised. No command.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from tasks.artifacts import sha256_file
from tasks.asr.batching import buckets, pad, uses_mask
from tasks.asr.checkpoint import Vocabulary, use_threads
from tasks.asr.decode import BeamSearch
from tasks.asr.model import ONNX_NAME, OnnxRecogniser, TorchRecogniser
from tasks.asr.windows import Grid, measure_grid
from tasks.errors import ModelError

Audio = np.ndarray[Any, np.dtype[np.float32]]
Logits = np.ndarray[Any, np.dtype[np.float32]]
_SORTED_BATCHES = 4  # windows of so many batches are sorted together, so that a batch pads little
BACKENDS = ("onnx", "torch")


class Acoustic(Protocol):
    """Audio to logits, and what is needed to read them.

    Attributes:
        vocabulary: symbols of the labels.
        search: beam search with the n-gram model; None: greedy.
        normalise: inputs must have zero mean and unit variance.
        grid: frames and samples.
        sha256: of the file of weights.
        pool_seconds: audio that is best handed over at once, in seconds.
    """

    vocabulary: Vocabulary
    search: BeamSearch | None
    normalise: bool
    grid: Grid
    sha256: str
    pool_seconds: float

    def logits(self, audio: Sequence[Audio]) -> list[Logits]:
        """Logits (frames, vocabulary) per input; inputs are normalised where `normalise` says so."""


class TorchAcoustic:
    """A Hugging Face CTC folder, in padded batches of `batch_seconds` with masks."""

    def __init__(self, folder: Path, batch_seconds: float, use_search: bool = True) -> None:
        use_threads()
        recogniser = TorchRecogniser(folder)
        self.model = recogniser.checkpoint.model
        self.vocabulary = recogniser.checkpoint.vocabulary
        self.normalise = recogniser.checkpoint.normalise
        self.search = recogniser.search if use_search else None
        self.sha256 = sha256_file(folder / "model.safetensors")
        self.batch_seconds = batch_seconds
        self.pool_seconds = _SORTED_BATCHES * batch_seconds
        self.grid = measure_grid(lambda samples: int(self._frames(torch.tensor([samples]))[0]))

    def _frames(self, samples: torch.Tensor) -> torch.Tensor:
        frames: torch.Tensor = self.model._get_feat_extract_output_lengths(samples)
        return frames

    def logits(self, audio: Sequence[Audio]) -> list[Logits]:
        """See `Acoustic`."""
        masked = uses_mask(self.model)
        found: list[Logits] = [np.zeros((0, 0), np.float32)] * len(audio)
        with torch.inference_mode():
            for group in buckets([len(a) for a in audio], self.batch_seconds, equal_only=not masked):
                inputs, mask = pad([audio[index] for index in group])
                rows = self.model(inputs, attention_mask=mask if masked else None).logits.float().numpy()
                for row, index, frames in zip(rows, group, self._frames(mask.sum(-1)).tolist(), strict=True):
                    found[index] = row[: int(frames)]
        return found


class OnnxAcoustic:
    """The shipped ONNX file, window by window: it has no mask, so nothing is padded."""

    def __init__(self, folder: Path, use_search: bool = True) -> None:
        recogniser = OnnxRecogniser(folder)
        self._session = recogniser.session
        self.vocabulary = recogniser.vocabulary
        self.normalise = recogniser.normalise
        self.search = recogniser.search if use_search else None
        self.sha256 = recogniser.sha256
        self.pool_seconds = 0.0
        self.grid = measure_grid(lambda samples: len(self._run(np.zeros(samples, np.float32))))

    def _run(self, audio: Audio) -> Logits:
        (logits,) = self._session.run(["logits"], {"input_values": audio[None]})
        return np.asarray(logits[0], dtype=np.float32)

    def logits(self, audio: Sequence[Audio]) -> list[Logits]:
        """See `Acoustic`."""
        return [self._run(window) for window in audio]


def load_acoustic(folder: Path, backend: str | None, batch_seconds: float, use_search: bool) -> Acoustic:
    """The recogniser in `folder`; without a `backend`, whichever the folder is for.

    Raises:
        ModelError: there is none, or it is broken.
        ArtifactError: it has another hash than the file beside it names.
    """
    onnx = (folder / ONNX_NAME).is_file()
    # a published version has its checkpoint in a folder below the ONNX file
    weights = folder / "checkpoint" if onnx else folder
    checkpoint = (weights / "config.json").is_file()
    if not (onnx if backend == "onnx" else checkpoint if backend == "torch" else onnx or checkpoint):
        needed = {"onnx": ONNX_NAME, "torch": "config.json"}
        raise ModelError(
            f"{folder} holds no recogniser" + (f" for {backend}" if backend else ""),
            f"must hold {needed[backend] if backend else ' or '.join(needed.values())}",
            "make one with `malgil run --line asr`, or name its folder with --model",
        )
    if backend == "torch" or (backend is None and not onnx):
        return TorchAcoustic(weights, batch_seconds, use_search)
    return OnnxAcoustic(folder, use_search)

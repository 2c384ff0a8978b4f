"""A recogniser's logits, without its text: one interface for the torch checkpoint and the shipped ONNX file.

`torch_model` and `onnx_model` load them and decode whole utterances; here is what long recordings need
besides: the grid of frames, and logits of windows that are already normalised. torch is imported for a
checkpoint alone (`torch_acoustic`): starting on the ONNX file takes neither its seconds nor its memory. No
command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tasks.asr.checkpoints.vocabulary import Vocabulary
from tasks.asr.decoding.decode import BeamSearch
from tasks.asr.engines.named import find_model
from tasks.asr.engines.onnx_model import OnnxRecogniser
from tasks.asr.recordings.windows import Grid, measure_grid
from tasks.asr.threads import thread_count

Audio = np.ndarray[Any, np.dtype[np.float32]]
Logits = np.ndarray[Any, np.dtype[np.float32]]
# Windows of so much audio are handed over together: enough to give every worker something to do, and little
# enough that the next are read, and the last decoded, meanwhile.
POOL_S = 60.0
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


class Workers:
    """Threads that each compute one batch at a time, alone: `thread_count()` of them.

    A small model gains little from several threads in one operation, and everything from several batches
    at once. What a batch gives does not depend on how many there are.

    Args:
        prepare: called once in every thread, before its first batch.
    """

    def __init__(self, prepare: Callable[[], None] | None = None) -> None:
        self.count = thread_count()
        self._pool = ThreadPoolExecutor(self.count, "malgil-asr", prepare)

    def map(self, compute: Callable[[list[int]], list[Logits]], groups: list[list[int]]) -> list[Logits]:
        """`compute` of every group of indices, the longest audio first; the results by index."""
        found: list[Logits] = [np.zeros((0, 0), np.float32)] * sum(len(group) for group in groups)
        work = groups[::-1]
        results = self._pool.map(compute, work) if self.count > 1 else map(compute, work)
        for group, rows in zip(work, results, strict=True):
            for index, row in zip(group, rows, strict=True):
                found[index] = row
        return found


class OnnxAcoustic:
    """The shipped ONNX file, window by window: it has no mask, so nothing is padded."""

    def __init__(self, folder: Path, use_search: bool = True) -> None:
        self._recogniser = recogniser = OnnxRecogniser(folder, threads=1)
        self.vocabulary = recogniser.vocabulary
        self.normalise = recogniser.normalise
        self.search = recogniser.search if use_search else None
        self.sha256 = recogniser.sha256
        self.workers = Workers()
        self.pool_seconds = POOL_S if self.workers.count > 1 else 0.0
        self.grid = measure_grid(lambda samples: len(self._run(np.zeros(samples, np.float32))))

    def _run(self, audio: Audio) -> Logits:
        return self._recogniser.run(audio)

    def logits(self, audio: Sequence[Audio]) -> list[Logits]:
        """See `Acoustic`."""
        lengths = [len(clip) for clip in audio]
        order = sorted(range(len(audio)), key=lambda index: lengths[index])
        return self.workers.map(
            lambda group: [self._run(audio[index]) for index in group], [[index] for index in order]
        )


def load_acoustic(model: str | Path, backend: str | None, batch_seconds: float, use_search: bool) -> Acoustic:
    """The recogniser of a folder or Hub id (`named.find_model`); without a `backend`, whichever it holds.

    Raises:
        ModelError: there is none, or it is broken.
        ArtifactError: it has another hash than the file beside it names.
    """
    found = find_model(model, backend)
    if found.backend == "torch":
        from tasks.asr.engines.torch_acoustic import TorchAcoustic

        return TorchAcoustic(found.folder, batch_seconds, use_search)
    return OnnxAcoustic(found.folder, use_search)

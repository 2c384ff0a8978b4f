"""Recordings of any length to vectors: frames of one or more layers, or one vector per recording.

    for result in embed(sources, encoder, "mean"): ...

A recording up to `WINDOW_S` goes through the encoder whole; a longer one in overlapping windows, normalised
by the level of the whole recording, their frames cut in the middle of the overlaps
(`tasks.asr.recordings.windows`). Pooling is over all frames of the recording, so its memory does not grow
with its length; frame-level vectors of one recording are held until they are handed on. Batches are filled by
seconds and masked; how a recording is batched changes its vectors by rounding alone. The command is `malgil
asr embed` (flows/asr_embed.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tasks.asr.embedding.encoder import EncoderLayers
from tasks.asr.recordings.in_order import Job, finished
from tasks.asr.recordings.recording import Recording, stretches, survey
from tasks.asr.recordings.sources import Failure, Source
from tasks.asr.recordings.windows import Window, plan_windows
from tasks.data.audio import SAMPLE_RATE_HZ
from tasks.errors import DataError, MalgilError, explain_os_error
from tasks.progress import Progress

Audio = np.ndarray[Any, np.dtype[np.float32]]
Frames = np.ndarray[Any, np.dtype[np.float32]]
Vector = np.ndarray[Any, np.dtype[np.float32]]
Pooling = Literal["mean", "statistics", "frames"]
WINDOW_S = 20.0  # as for transcription
OVERLAP_S = 4.0
BATCH_S = 15.0  # of padded audio; larger batches are slower on a CPU, since they leave its cache
_SORTED_BATCHES = 8  # so many are sorted together, so that a batch pads little


@dataclass(frozen=True)
class Embedded:
    """What came of a recording.

    Attributes:
        name: of its source.
        duration_s: at its own rate, in seconds.
        times_s: where each frame's own stretch begins, in seconds, shape (frames,).
        vectors: one array per layer: (hidden,) for mean, (2 * hidden,) for statistics (means, then standard
            deviations), (frames, hidden) for frames.
        notes: sentences about what was put right while it was read.
    """

    name: str
    duration_s: float
    times_s: Vector
    vectors: tuple[Vector, ...]
    notes: tuple[str, ...] = ()


class Pool:
    """Mean and standard deviation over frames that come piece by piece."""

    def __init__(self, hidden: int) -> None:
        self.count = 0
        self._mean = np.zeros(hidden)
        self._squares = np.zeros(hidden)  # of the distances from the mean, summed

    def add(self, frames: Frames) -> None:
        """Takes frames (frames, hidden) by the merging of moments (Chan et al., 1979): no cancellation."""
        if not len(frames):
            return
        exact = frames.astype(np.float64)
        mean, count = exact.mean(axis=0), len(exact)
        apart, total = mean - self._mean, self.count + count
        self._squares += np.square(exact - mean).sum(axis=0) + apart**2 * (self.count * count / total)
        self._mean += apart * (count / total)
        self.count = total

    def vector(self, statistics: bool) -> Vector:
        """The mean (hidden,), or mean and standard deviation (2 * hidden,), float32."""
        parts = [self._mean]
        if statistics:
            parts.append(np.sqrt(self._squares / max(1, self.count)))
        return np.concatenate(parts).astype(np.float32)


def embed(
    sources: Iterable[Source | Failure],
    encoder: EncoderLayers,
    pooling: Pooling,
    batch_seconds: float = BATCH_S,
    window_s: float = WINDOW_S,
    progress: Progress | None = None,
) -> Iterator[Embedded | Failure]:
    """One result per source, in their order, as soon as it and those before it are known.

    Args:
        window_s: the longest audio that the encoder sees at once, in seconds.
        progress: told of every recording done.
    """
    runner = _Runner(encoder, pooling, batch_seconds, window_s)
    for source in sources:
        runner.add(source)
        yield from _told(runner.finished(), progress)
    runner.run()
    yield from _told(runner.finished(), progress)


def _told(results: Iterator[Embedded | Failure], progress: Progress | None) -> Iterator[Embedded | Failure]:
    for result in results:
        if progress:
            progress.advance()
        yield result


class _Runner:
    """Collects windows of several recordings and runs them together."""

    def __init__(
        self, encoder: EncoderLayers, pooling: Pooling, batch_seconds: float, window_s: float
    ) -> None:
        self.encoder, self.pooling, self.batch_seconds = encoder, pooling, batch_seconds
        self.longest = encoder.grid.frames(round(window_s * SAMPLE_RATE_HZ))
        self.overlap = round(self.longest * OVERLAP_S / WINDOW_S)
        self.jobs: deque[Job[Embedded] | Failure] = deque()
        self.pool: list[tuple[_Job, Window, Audio]] = []
        self.pool_s = 0.0

    def add(self, source: Source | Failure) -> None:
        """Reads a recording; runs the pool whenever it is full."""
        if isinstance(source, Failure):
            self.jobs.append(source)
            return
        job = None
        try:
            grid = self.encoder.grid
            # one sample less than gives a frame more than a window holds
            recording = survey(source.path, source.name, grid.samples(self.longest + 1) - 1)
            job = _Job(recording, self.encoder, self.pooling)
            self.jobs.append(job)
            for window, audio in job.windows(self.longest, self.overlap):
                self.pool.append((job, window, audio))
                self.pool_s += len(audio) / SAMPLE_RATE_HZ
                if self.pool_s >= _SORTED_BATCHES * self.batch_seconds:
                    self.run()
        except (DataError, OSError) as error:
            known = explain_os_error(error, source.name) if isinstance(error, OSError) else error
            if job is None:
                self.jobs.append(Failure(source.name, known))
            else:
                job.error = known

    def run(self) -> None:
        """Frames of every window of the pool, each to its recording, in the order of its windows."""
        pool, self.pool, self.pool_s = self.pool, [], 0.0
        found: list[list[Frames]] = [[] for _ in pool]
        for index, frames in self.encoder.frames([audio for _, _, audio in pool], self.batch_seconds):
            found[index] = frames
        for (job, window, _), frames in zip(pool, found, strict=True):
            job.accept(window, frames)

    def finished(self) -> Iterator[Embedded | Failure]:
        """Results at the head of the line that are complete."""
        return finished(self.jobs)


class _Job:
    """A recording on its way: takes the frames of its windows in their order."""

    def __init__(self, recording: Recording, encoder: EncoderLayers, pooling: Pooling) -> None:
        if not recording.samples:
            raise DataError(
                f"{recording.name} lasts {recording.duration_s:.6f} s: at 16 kHz no sample is left",
                "must hold speech",
                "record it again",
            )
        self.recording, self.encoder, self.pooling = recording, encoder, pooling
        self.samples = max(recording.samples, encoder.grid.field)
        self.frames = encoder.grid.frames(self.samples)
        self.taken = 0
        self.error: MalgilError | None = None
        self._pools = [Pool(encoder.hidden) for _ in encoder.layers]
        self._kept: list[list[Frames]] = [[] for _ in encoder.layers]

    @property
    def complete(self) -> bool:
        """All frames are in, or never will be."""
        return self.error is not None or self.taken == self.frames

    def windows(self, longest: int, overlap: int) -> Iterator[tuple[Window, Audio]]:
        """The windows and their audio as the encoder wants it; a clip too short for a frame gets zeros."""
        grid, recording = self.encoder.grid, self.recording
        planned = plan_windows(self.frames, longest, overlap)
        if recording.audio is not None:
            audio = self.encoder.prepared(recording.audio)
            yield planned[0], np.pad(audio, (0, self.samples - len(audio)))
            return
        starts = [window.first * grid.stride for window in planned]
        ranges = ((start, start + grid.samples(longest)) for start in starts)
        deviation = np.sqrt(recording.variance + 1e-7) if self.encoder.normalise else 1.0
        mean = recording.mean if self.encoder.normalise else 0.0
        for window, audio in zip(planned, stretches(recording, ranges), strict=True):
            yield window, ((audio - mean) / deviation).astype(np.float32)

    def accept(self, window: Window, layers: list[Frames]) -> None:
        """Takes the frames that the window keeps."""
        for number, frames in enumerate(layers):
            kept = frames[window.keep_from - window.first : window.keep_to - window.first]
            if self.pooling == "frames":
                self._kept[number].append(kept.copy())
            else:
                self._pools[number].add(kept)
        self.taken = window.keep_to

    def result(self) -> Embedded | Failure:
        """What came of it."""
        if self.error is not None:
            return Failure(self.recording.name, self.error)
        if self.pooling == "frames":
            vectors = tuple(np.concatenate(kept) for kept in self._kept)
        else:
            vectors = tuple(pool.vector(self.pooling == "statistics") for pool in self._pools)
        times = [self.encoder.grid.start_s(frame) for frame in range(self.frames)]
        return Embedded(
            self.recording.name,
            self.recording.duration_s,
            np.asarray(times, np.float32),
            vectors,
            self.recording.notes,
        )

"""A recording of any length, block by block: float32 mono at 16 kHz, never the whole of a long one at once.

It is read twice: once for its length, its level and its faults (`survey`), then window by window. A short
one is kept from the first time. Files are read by `tasks.audio.reader`; channels become one and rates are
converted as `tasks.data.audio` does, sample for sample. No command.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from tasks.asr.recordings.clipping import Clipping
from tasks.audio.channels import to_mono
from tasks.audio.reader import BLOCK_FRAMES, AudioFile, choose_channel, open_audio
from tasks.data.audio import SAMPLE_RATE_HZ, Header, probe
from tasks.errors import DataError

Audio = np.ndarray[Any, np.dtype[np.float32]]
__all__ = [
    "BLOCK_FRAMES",
    "Heard",
    "Recording",
    "blocks",
    "read_header",
    "stated_seconds",
    "stretches",
    "survey",
]


@dataclass
class Heard:
    """What reading a recording tells: filled in by `blocks`.

    Attributes:
        frames: samples per channel so far, at `rate_hz`.
        rate_hz: of the file.
        notes: what was put right, each a clause whose subject is the file.
        choice: the channel taken, None for the mean; meaningless before `is_chosen`.
    """

    frames: int = 0
    rate_hz: int = SAMPLE_RATE_HZ
    notes: tuple[str, ...] = field(default=())
    choice: int | None = None
    is_chosen: bool = False


@dataclass(frozen=True)
class Recording:
    """A readable recording.

    Attributes:
        path: the file.
        name: what messages call it.
        duration_s: at its own rate, in seconds.
        samples: at 16 kHz.
        mean: of the samples.
        variance: of the samples.
        clipped_share: samples at full scale, as the file has them.
        audio: all samples, of a short recording; else None.
        heard: what was found on the first reading, for the second.
    """

    path: Path
    name: str
    duration_s: float
    samples: int
    mean: float
    variance: float
    clipped_share: float
    audio: Audio | None
    heard: Heard

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was put right while it was read."""
        return tuple(f"{self.name} {note}" for note in self.heard.notes)


def survey(path: Path, name: str, keep: int) -> Recording:
    """Reads a recording once; its samples are kept where there are at most `keep`.

    Raises:
        DataError: not audio, empty, cut short, or with samples that are not numbers.
    """
    heard = Heard()
    kept: list[Audio] | None = []
    samples, total, squares, clipping = 0, 0.0, 0.0, Clipping()
    for block in blocks(path, name, clipping, heard):
        samples += len(block)
        exact = block.astype(np.float64)
        total += float(exact.sum())
        squares += float(exact @ exact)
        kept = [*kept, block] if kept is not None and samples <= keep else None
    mean = total / max(1, samples)
    return Recording(
        path=path,
        name=name,
        duration_s=heard.frames / heard.rate_hz,
        samples=samples,
        mean=mean,
        variance=max(0.0, squares / max(1, samples) - mean * mean),
        clipped_share=clipping.share,
        audio=None if kept is None else np.concatenate([np.zeros(0, np.float32), *kept]),
        heard=heard,
    )


def read_header(path: Path, name: str) -> Header:
    """As `tasks.data.audio.probe`, with `name` in the message."""
    return probe(path, name)


def stated_seconds(path: Path, name: str) -> float:
    """Length by the structure of a file; 0 where only decoding would tell. Raises `DataError` as `survey`."""
    with open_audio(path, name) as file:
        return (file.stated() or 0) / file.rate_hz


def blocks(
    path: Path, name: str, clipping: Clipping | None = None, heard: Heard | None = None
) -> Iterator[Audio]:
    """The samples at 16 kHz, some seconds at a time.

    Args:
        clipping: counts the samples as they are read.
        heard: is told what is found; one that knows the channel to take spares a reading.

    Raises:
        DataError: as `survey`.
    """
    heard = Heard() if heard is None else heard
    with open_audio(path, name) as file:
        if not heard.is_chosen:
            heard.choice, heard.is_chosen = choose_channel(file), True
            heard.notes = file.notes
        heard.rate_hz, heard.frames = file.rate_hz, 0
        yield from _converted(file, clipping, heard)


def _converted(file: AudioFile, clipping: Clipping | None, heard: Heard) -> Iterator[Audio]:
    resampler = None
    if file.rate_hz != SAMPLE_RATE_HZ:
        resampler = soxr.ResampleStream(file.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
    for block in file.blocks():
        heard.frames += len(block)
        if clipping is not None:
            clipping.add(block)
        mono = np.ascontiguousarray(to_mono(block, heard.choice))
        yield _limited(mono if resampler is None else resampler.resample_chunk(mono))
    if resampler is not None:
        yield _limited(resampler.resample_chunk(np.zeros(0, np.float32), last=True))


def _limited(audio: Audio) -> Audio:
    return np.clip(audio.astype(np.float32, copy=False), -1.0, 1.0)


def stretches(recording: Recording, ranges: Iterable[tuple[int, int]]) -> Iterator[Audio]:
    """The samples from start to stop of each range; starts and stops must not fall.

    Holds no more than the longest range and a block. Raises `DataError` when the file has become shorter.
    """
    source = blocks(recording.path, recording.name, None, replace(recording.heard))
    held, at = np.zeros(0, np.float32), 0  # `held` begins at sample `at`
    for start, stop in ranges:
        parts = [held]
        end = at + len(held)
        while end < stop:
            block = next(source, None)
            if block is None:
                raise DataError(
                    f"{recording.name} became shorter while it was read",
                    "a file must stay as it is until its text is printed",
                    "start again when nobody writes to it",
                )
            parts.append(block)
            end += len(block)
        held = np.concatenate(parts)
        held, at = held[start - at :], start
        yield held[: stop - start]

"""A recording of any length, block by block: float32 mono at 16 kHz, never the whole of a long one at once.

It is read twice: once for its length, its level and its faults (`survey`), then window by window. A short
one is kept from the first time. Channels are averaged and rates converted as `tasks.data.audio` does,
sample for sample. No command.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from tasks.asr.recordings.clipping import Clipping
from tasks.data.audio import SAMPLE_RATE_HZ, Header, probe
from tasks.errors import DataError

Audio = np.ndarray[Any, np.dtype[np.float32]]
BLOCK_FRAMES = 1 << 16  # of the file, at its own rate
_RATES_HZ = (1_000, 768_000)
_AGAIN = "record, copy or convert it again (`ffmpeg -i FILE OTHER.wav`)"


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
    """

    path: Path
    name: str
    duration_s: float
    samples: int
    mean: float
    variance: float
    clipped_share: float
    audio: Audio | None


def survey(path: Path, name: str, keep: int) -> Recording:
    """Reads a recording once; its samples are kept where there are at most `keep`.

    Raises:
        DataError: not audio, empty, cut short, or with samples that are not numbers.
    """
    header = read_header(path, name)
    kept: list[Audio] | None = []
    samples, total, squares, clipping = 0, 0.0, 0.0, Clipping()
    for block in blocks(path, name, clipping):
        samples += len(block)
        exact = block.astype(np.float64)
        total += float(exact.sum())
        squares += float(exact @ exact)
        kept = [*kept, block] if kept is not None and samples <= keep else None
    mean = total / max(1, samples)
    return Recording(
        path=path,
        name=name,
        duration_s=header.duration_s,
        samples=samples,
        mean=mean,
        variance=max(0.0, squares / max(1, samples) - mean * mean),
        clipped_share=clipping.share,
        audio=None if kept is None else np.concatenate([np.zeros(0, np.float32), *kept]),
    )


def read_header(path: Path, name: str) -> Header:
    """As `tasks.data.audio.probe`, with `name` in the message and no advice about manifests."""
    try:
        header = probe(path)
    except TypeError as error:  # soundfile asks for a rate, by the suffix alone
        raise DataError(
            f"{name} is called RAW", "such samples have no header", "convert it to WAV or rename it"
        ) from error
    except DataError as error:
        raise DataError(error.what.replace(str(path), name), error.rule, _AGAIN) from error
    low, high = _RATES_HZ
    if not low <= header.sample_rate_hz <= high:
        raise DataError(
            f"{name} has a rate of {header.sample_rate_hz} Hz", f"must be {low} to {high} Hz", _AGAIN
        )
    return header


def blocks(path: Path, name: str, clipping: Clipping | None = None) -> Iterator[Audio]:
    """The samples at 16 kHz, some seconds at a time.

    Args:
        clipping: counts the samples as they are read.

    Raises:
        DataError: as `survey`.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            yield from _converted(file, name, clipping)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = str(error).split(": ")[-1].rstrip(".")
        raise DataError(
            f"{name} cannot be decoded ({reason})", "must be a whole audio file", _AGAIN
        ) from error


def _converted(file: soundfile.SoundFile, name: str, clipping: Clipping | None) -> Iterator[Audio]:
    rate_hz, expected, read = file.samplerate, file.frames, 0
    resampler = None
    if rate_hz != SAMPLE_RATE_HZ:
        resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
    while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            raise DataError(f"{name} holds NaN or infinite samples", "samples must be numbers", _AGAIN)
        read += len(block)
        if clipping is not None:
            clipping.add(block)
        mono = np.ascontiguousarray(block.mean(axis=1) if block.shape[1] > 1 else block[:, 0])
        yield _limited(mono if resampler is None else resampler.resample_chunk(mono))
    if read < expected:
        raise DataError(
            f"{name} is truncated: {read} of {expected} samples", "an audio file must be whole", _AGAIN
        )
    if resampler is not None:
        yield _limited(resampler.resample_chunk(np.zeros(0, np.float32), last=True))


def _limited(audio: Audio) -> Audio:
    return np.clip(audio.astype(np.float32, copy=False), -1.0, 1.0)


def stretches(recording: Recording, ranges: Iterable[tuple[int, int]]) -> Iterator[Audio]:
    """The samples from start to stop of each range; starts and stops must not fall.

    Holds no more than the longest range and a block. Raises `DataError` when the file has become shorter.
    """
    source = blocks(recording.path, recording.name)
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

"""Audio files in, float32 mono at 16 kHz out; headers and simple measures of the samples. No command.

Files are read by `tasks.audio.reader`. Channels are averaged, unless they cancel each other
(`tasks.audio.channels`), and rates converted with soxr. It judges nothing: what is too short, too quiet or
clipped is for the validation stage to say.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr

from tasks.audio.channels import Balance, to_mono
from tasks.audio.faults import no_samples
from tasks.audio.reader import open_audio

SAMPLE_RATE_HZ = 16_000
FULL_SCALE = 0.999  # |sample| from here on counts as clipped; 16-bit full scale is 0.99997
SILENCE_FRAME_S = 0.02
SILENCE_DBFS = -50.0  # a frame with a lower RMS counts as silent

Audio = np.ndarray[Any, np.dtype[np.float32]]


class Header(NamedTuple):
    """What a file holds: `duration_s` in seconds, `sample_rate_hz`, number of `channels`."""

    duration_s: float
    sample_rate_hz: int
    channels: int


def probe(path: Path, name: str | None = None) -> Header:
    """Length, rate and channels of an audio file, decoded only where its structure does not give its length.

    `name` is what messages call it.

    Raises:
        DataError: the file is missing, empty, of zero length, not an audio file, or cut off.
    """
    with open_audio(path, name) as file:
        samples = file.stated()
        if samples is None:
            samples = sum(len(block) for block in file.blocks())
        if not samples:
            raise no_samples(file.name)
        return Header(samples / file.rate_hz, file.rate_hz, file.channels)


def decode(path: Path) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    """All samples as float32, shape (samples, channels), and their rate in Hz, as the file has them.

    Raises:
        DataError: the file is missing, truncated (fewer samples than it promises), of zero length, with NaN
        or infinite samples, or not an audio file.
    """
    with open_audio(path) as file:
        blocks = list(file.blocks())
        return (blocks[0] if len(blocks) == 1 else np.concatenate(blocks)), file.rate_hz


def read_audio(path: Path) -> Audio:
    """The file as float32 mono at 16 kHz, shape (samples,), in [-1, 1]: channels averaged, rate converted.

    Raises:
        DataError: as `decode`.
    """
    samples, rate_hz = decode(path)
    return to_mono_16k(samples, rate_hz)


def to_mono_16k(samples: np.ndarray[Any, np.dtype[np.float32]], rate_hz: int) -> Audio:
    """(samples, channels) to one channel at 16 kHz; shape (samples,), in [-1, 1].

    Channels are averaged; of channels that cancel each other the loudest is taken.
    """
    balance = Balance(samples.shape[1], rate_hz)
    balance.add(samples)
    mono = to_mono(samples, balance.choice)
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    return np.clip(np.ascontiguousarray(mono, dtype=np.float32), -1.0, 1.0)


def to_int16(audio: Audio) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Float audio in [-1, 1] as 16-bit integers, rounded, same shape."""
    return np.round(np.clip(audio, -1.0, 1.0) * 32767.0).astype(np.int16)


def flac_bytes(audio: Audio) -> bytes:
    """Mono 16 kHz audio, shape (samples,), as a 16-bit FLAC file in memory."""
    stream = io.BytesIO()
    # Lowest compression level: a tenth more bytes, half the time.
    soundfile.write(
        stream, to_int16(audio), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16", compression_level=0.0
    )
    return stream.getvalue()


def silent_share(audio: Audio, rate_hz: int = SAMPLE_RATE_HZ) -> float:
    """Share of 20 ms frames whose RMS is below -50 dBFS; 1.0 for no samples at all."""
    frame = max(1, int(SILENCE_FRAME_S * rate_hz))
    padded = np.pad(audio, (0, -len(audio) % frame)).reshape(-1, frame)
    if not len(padded):
        return 1.0
    rms = np.sqrt(np.mean(np.square(padded, dtype=np.float64), axis=1))
    return float(np.mean(rms < 10.0 ** (SILENCE_DBFS / 20.0)))


def clipped_share(audio: Audio) -> float:
    """Share of samples at full scale (|sample| of at least 0.999)."""
    return float(np.mean(np.abs(audio) >= FULL_SCALE)) if len(audio) else 0.0

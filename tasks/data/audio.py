"""Audio files in, float32 mono at 16 kHz out; headers and simple measures of the samples. No command.

Reads whatever libsndfile reads (WAV, FLAC, OGG, MP3), averages the channels and resamples with soxr. It
judges nothing: what is too short, too quiet or clipped is for the validation stage to say.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr

from tasks.errors import DataError

SAMPLE_RATE_HZ = 16_000
FULL_SCALE = 0.999  # |sample| from here on counts as clipped; 16-bit full scale is 0.99997
SILENCE_FRAME_S = 0.02
SILENCE_DBFS = -50.0  # a frame with a lower RMS counts as silent

# libsndfile shortens a cut WAV file silently and says so only in its log: "data : 32000 (should be 15978)".
_CUT_WAV = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_UNKNOWN_BYTES = 0xFFFFFFFF  # written by programs that stream a WAV file and never learn its length

Audio = np.ndarray[Any, np.dtype[np.float32]]


class Header(NamedTuple):
    """What a file says about itself: `duration_s` in seconds, `sample_rate_hz`, number of `channels`."""

    duration_s: float
    sample_rate_hz: int
    channels: int


def probe(path: Path) -> Header:
    """The header of an audio file, without decoding it.

    Raises:
        DataError: the file is missing, empty, of zero length, not an audio file, or a truncated WAV file.
    """
    _require_bytes(path)
    try:
        info = soundfile.info(str(path), verbose=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    cut = _CUT_WAV.search(info.extra_info)
    if cut and _UNKNOWN_BYTES != int(cut[1]) > int(cut[2]):
        raise _truncated(path, f"{cut[2]} of {cut[1]} bytes of samples")
    if info.frames <= 0:
        raise _zero_length(path)
    return Header(info.frames / info.samplerate, info.samplerate, info.channels)


def decode(path: Path) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    """All samples as float32, shape (samples, channels), and their rate in Hz, as the file has them.

    Raises:
        DataError: the file is missing, truncated (fewer samples than its header promises), of zero length,
            or not an audio file.
    """
    header = probe(path)
    try:
        samples, rate_hz = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    expected = round(header.duration_s * header.sample_rate_hz)
    if len(samples) < expected:
        raise _truncated(path, f"{len(samples)} of {expected} samples")
    if not np.isfinite(samples).all():
        raise DataError(
            f"{path} holds NaN or infinite samples", "samples must be numbers", "record or convert it again"
        )
    return samples, int(rate_hz)


def read_audio(path: Path) -> Audio:
    """The file as float32 mono at 16 kHz, shape (samples,), in [-1, 1]: channels averaged, rate converted.

    Raises:
        DataError: as `decode`.
    """
    samples, rate_hz = decode(path)
    return to_mono_16k(samples, rate_hz)


def to_mono_16k(samples: np.ndarray[Any, np.dtype[np.float32]], rate_hz: int) -> Audio:
    """Average the channels of (samples, channels) and convert to 16 kHz; shape (samples,), in [-1, 1]."""
    mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
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


def _require_bytes(path: Path) -> None:
    if not path.is_file():
        raise DataError(
            f"{path} is missing", "every row of a manifest needs its file", "restore it or remove the row"
        )
    if path.stat().st_size == 0:
        raise DataError(
            f"{path} is empty (0 bytes)", "an audio file must hold samples", "copy it again or remove its row"
        )


def _zero_length(path: Path) -> DataError:
    return DataError(
        f"{path} has zero length", "an audio file must hold samples", "record it again or remove its row"
    )


def _truncated(path: Path, how: str) -> DataError:
    return DataError(
        f"{path} is truncated: {how}",
        "an audio file must be whole",
        "copy it again from its origin, or remove its row from the manifest",
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = str(error).split(": ")[-1].rstrip(".")
    return DataError(
        f"{path} cannot be decoded ({reason})",
        "it must be a whole file of a format libsndfile reads (WAV, FLAC, OGG, MP3)",
        "convert or copy it again, or remove its row from the manifest",
    )

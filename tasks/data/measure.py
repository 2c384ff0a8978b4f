"""What a recording really is, measured in one pass: state, hashes, format, silence, clipping.

Used by the validation stage, which compares the result with the manifest. It judges nothing: the rules are in
`tasks.data.checks`.
"""

import hashlib
import io
import math
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from tasks.data.audio import clipped_share, silent_share

_SIZE_UNKNOWN = 0xFFFFFFFF  # written by programs that stream a WAV file and never learn its length


class Measured(NamedTuple):
    """One file. What needs samples (all but the first three) is None or NaN when they cannot be read.

    `state` is ok, outside (of the folder), missing, empty (no bytes or no samples), unreadable or truncated
    (fewer samples than its header promises). `audio_hash` is over the decoded samples, so that a re-packed
    copy of a recording is found as well.
    """

    state: str
    detail: str = ""
    file_sha256: str | None = None
    audio_hash: str | None = None
    measured_duration_s: float = math.nan
    measured_rate_hz: float = math.nan
    channels: float = math.nan
    silent_share: float = math.nan
    clipped_share: float = math.nan
    level_dbfs: float = math.nan


def measure(path: Path) -> Measured:
    """Reads the file once and measures it; a bad file is a result, not an error."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Measured("missing", "there is no such file")
    except OSError as error:
        return Measured("unreadable", error.strerror or str(error))
    if not data:
        return Measured("empty", "the file has no bytes")
    digest = hashlib.sha256(data).hexdigest()
    promised_bytes, held_bytes = wav_data_bytes(data)
    if held_bytes < promised_bytes:
        return Measured("truncated", f"{held_bytes} of {promised_bytes} bytes of samples", digest)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as stream:
            promised, rate_hz = stream.frames, stream.samplerate
            samples = stream.read(dtype="float32", always_2d=True)  # (samples, channels)
    except (soundfile.LibsndfileError, ValueError, OverflowError, MemoryError) as error:
        # A FLAC decoder that loses its place has read a good header before it: the file was cut off.
        state = (
            "truncated" if data[:4] == b"fLaC" and len(data) > 42 and "sync" in str(error) else "unreadable"
        )
        reason = str(error).rpartition("Error : ")[2].rpartition(">: ")[2]
        return Measured(state, " ".join(reason.split()), digest)
    if len(samples) < promised:
        return Measured("truncated", f"{len(samples)} of {promised} samples", digest)
    if not len(samples):
        return Measured("empty", "the file has no samples", digest)
    if not np.isfinite(samples).all():
        return Measured("unreadable", "it holds NaN or infinite samples", digest)
    return Measured("ok", "", digest, *_measure_samples(samples, rate_hz))


def measure_all(folder: Path, paths: Iterable[str]) -> Iterator[Measured]:
    """`measure` of each path relative to `folder`; one that leads out of the folder is not opened."""
    root = folder.resolve()
    for path in paths:
        if not is_inside(path):
            yield Measured("outside", "the path is not below the manifest's folder")
        else:
            yield measure(root / path)


def is_inside(path: object) -> bool:
    """Whether a manifest path is relative and stays below its folder."""
    return (
        isinstance(path, str)
        and path not in ("", ".")
        and "\0" not in path
        and not path.startswith(("/", "\\"))
        and ".." not in Path(path).parts
    )


def wav_data_bytes(data: bytes) -> tuple[int, int]:
    """Bytes of samples that a WAV header promises, and bytes that the file holds; (0, 0) for other formats.

    libsndfile corrects a length that is too large silently, so that a cut-off WAV file would pass for a short
    one.
    """
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return 0, 0
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        at += 8
        if name == b"data":
            return (0, 0) if size == _SIZE_UNKNOWN else (size, len(data) - at)
        at += size + size % 2  # chunks are padded to even lengths
    return 0, 0


def _measure_samples(samples: np.ndarray[Any, np.dtype[np.float32]], rate_hz: int) -> tuple[Any, ...]:
    """The fields from `audio_hash` on, for samples of shape (samples, channels)."""
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    power = float(np.dot(mono, mono)) / len(mono)
    return (
        hashlib.blake2b(samples.tobytes(), digest_size=16).hexdigest(),
        len(samples) / rate_hz,
        float(rate_hz),
        float(samples.shape[1]),
        silent_share(mono, rate_hz),
        clipped_share(samples.reshape(-1)),
        10.0 * math.log10(max(power, 1e-12)),
    )

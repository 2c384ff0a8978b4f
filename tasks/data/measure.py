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
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile

from tasks.data.audio import SILENCE_FRAME_S, clipped_share, silent_share

_BLOCK_FRAMES = 1500  # 20 ms frames read at once: half a minute
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
    """Reads the file once, block by block, and measures it; a bad file is a result, not an error."""
    try:
        if not path.stat().st_size:
            return Measured("empty", "the file has no bytes")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            promised_bytes, held_bytes = wav_data_bytes(stream)
            stream.seek(0)
            first = stream.read(4)
    except FileNotFoundError:
        return Measured("missing", "there is no such file")
    except OSError as error:
        return Measured("unreadable", error.strerror or str(error))
    if held_bytes < promised_bytes:
        return Measured("truncated", f"{held_bytes} of {promised_bytes} bytes of samples", digest)
    try:
        with soundfile.SoundFile(path) as audio:
            return _measure_samples(audio, digest)
    except (soundfile.LibsndfileError, ValueError, OverflowError, MemoryError) as error:
        # A FLAC decoder that loses its place has read a good header before it: the file was cut off.
        is_cut = first == b"fLaC" and path.stat().st_size > 42 and "sync" in str(error)
        reason = str(error).rpartition("Error : ")[2].rpartition(">: ")[2]
        return Measured("truncated" if is_cut else "unreadable", " ".join(reason.split()), digest)


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


def wav_data_bytes(stream: BinaryIO) -> tuple[int, int]:
    """Bytes of samples that a WAV header promises, and bytes that the file holds; (0, 0) for other formats.

    libsndfile corrects a length that is too large silently, so that a cut-off WAV file would pass for a short
    one.
    """
    length = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    start = stream.read(12)
    if len(start) < 12 or start[:4] != b"RIFF" or start[8:12] != b"WAVE":
        return 0, 0
    at = 12
    while at + 8 <= length:
        stream.seek(at)
        name, size = struct.unpack("<4sI", stream.read(8))
        at += 8
        if name == b"data":
            return (0, 0) if size == _SIZE_UNKNOWN else (size, length - at)
        at += size + size % 2  # chunks are padded to even lengths
    return 0, 0


def _measure_samples(audio: soundfile.SoundFile, digest: str) -> Measured:
    """Everything that needs samples, of a file of any length, in blocks of whole 20 ms frames."""
    rate_hz, promised, held = audio.samplerate, audio.frames, 0
    samples_hash = hashlib.blake2b(digest_size=16)
    power = silent = clipped = 0.0
    frame = max(1, int(SILENCE_FRAME_S * rate_hz))
    while len(block := audio.read(frame * _BLOCK_FRAMES, dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            return Measured("unreadable", "it holds NaN or infinite samples", digest)
        mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        held += len(block)
        samples_hash.update(block.tobytes())
        power += float(np.dot(mono, mono))
        silent += silent_share(mono, rate_hz) * -(-len(mono) // frame)
        clipped += clipped_share(block.reshape(-1)) * len(block)
    if held < promised:
        return Measured("truncated", f"{held} of {promised} samples", digest)
    if not held:
        return Measured("empty", "the file has no samples", digest)
    return Measured(
        state="ok",
        file_sha256=digest,
        audio_hash=samples_hash.hexdigest(),
        measured_duration_s=held / rate_hz,
        measured_rate_hz=float(rate_hz),
        channels=float(audio.channels),
        silent_share=silent / -(-held // frame),
        clipped_share=clipped / held,
        level_dbfs=10.0 * math.log10(max(power / held, 1e-12)),
    )

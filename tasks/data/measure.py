"""What a recording really is, measured in one pass: state, hashes, format, silence, clipping.

Used by the validation stage, which compares the result with the manifest. It judges nothing: the rules are in
`tasks.data.checks`.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.audio.channels import to_mono
from tasks.audio.faults import AudioError
from tasks.audio.reader import AudioFile, choose_channel, open_audio
from tasks.data.audio import SILENCE_FRAME_S, clipped_share, silent_share

_BLOCK_FRAMES = 1500  # 20 ms frames read at once: half a minute


class Measured(NamedTuple):
    """One file. What needs samples (all but the first three) is None or NaN when they cannot be read.

    `state` is ok, outside (of the folder), missing, empty (no bytes or no samples), unreadable, truncated
    (fewer samples than it promises) or joined (recordings one behind the other that do not fit). `detail`
    says what is wrong, or of a good file what was put right. `audio_hash` is over the decoded samples, so
    that a re-packed copy of a recording is found as well.
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
    """Reads the file block by block and measures it; a bad file is a result, not an error."""
    digest = None
    try:
        with open_audio(path, "the file") as file:
            digest = file.content.sha256()
            return _measure_samples(file, digest)
    except AudioError as error:
        if error.state == "missing":
            return Measured("missing", "there is no such file")
        known = error.state == "empty"
        return Measured(error.state, error.detail, None if known else digest or _digest(path))
    except FileNotFoundError:
        return Measured("missing", "there is no such file")
    except OSError as error:
        return Measured("unreadable", error.strerror or str(error))


def _digest(path: Path) -> str | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


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


def _measure_samples(file: AudioFile, digest: str) -> Measured:
    """Everything that needs samples, of a file of any length, in blocks of whole 20 ms frames."""
    rate_hz, held = file.rate_hz, 0
    samples_hash = hashlib.blake2b(digest_size=16)
    power = silent = clipped = 0.0
    frame = max(1, int(SILENCE_FRAME_S * rate_hz))
    choice = choose_channel(file)
    for block in _in_frames(file, frame):
        mono = to_mono(block, choice)
        held += len(block)
        samples_hash.update(block.tobytes())
        power += float(np.dot(mono, mono)) if np.abs(mono).max() < 1e6 else math.inf
        silent += silent_share(mono, rate_hz) * -(-len(mono) // frame)
        clipped += clipped_share(block.reshape(-1)) * len(block)
    return Measured(
        state="ok",
        detail="; ".join(file.notes),
        file_sha256=digest,
        audio_hash=samples_hash.hexdigest(),
        measured_duration_s=held / rate_hz,
        measured_rate_hz=float(rate_hz),
        channels=float(file.channels),
        silent_share=silent / -(-held // frame),
        clipped_share=clipped / held,
        level_dbfs=10.0 * math.log10(min(max(power / held, 1e-12), 1e12)),
    )


def _in_frames(file: AudioFile, frame: int) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Blocks of whole frames, but for the last one: a decoder may give any number of samples at a time."""
    size = max(frame, frame * min(_BLOCK_FRAMES, (1 << 21) // (frame * file.channels)))
    held: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    count = 0
    for block in file.blocks(size):
        held.append(block)
        count += len(block)
        if count < size:
            continue
        whole = held[0] if len(held) == 1 else np.concatenate(held)
        yield whole[:size]
        held, count = [whole[size:]], len(whole) - size
    if count:
        yield held[0] if len(held) == 1 else np.concatenate(held)

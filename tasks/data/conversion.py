"""One recording into the corpus folder: as it is when it is 16 kHz mono, else converted to FLAC. No command.

A file that cannot be converted (cut off, NaN, no audio, another hash than its row states) is copied as it is:
it keeps its row, and the validation stage says what is wrong with it. Memory stays small for any length.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from tasks.artifacts import sha256_file
from tasks.data.audio import SAMPLE_RATE_HZ, Header, probe, to_int16
from tasks.errors import DataError

LONGEST_S = 600.0  # of what is converted: nothing longer is an utterance, and the validation stage says so
_BLOCK_S = 10


class Taken(NamedTuple):
    """A file in the corpus: its name there, its hash, what its header says, and the origin's rate in Hz.

    `header` is None where none can be read; `origin_rate_hz` is then 0.
    """

    name: str
    sha256: str
    header: Header | None
    origin_rate_hz: int
    is_converted: bool = False
    notes: tuple[str, ...] = ()


def take(source: Path, folder: Path, stem: str, stated_sha256: str = "", stated_rate_hz: int = 0) -> Taken:
    """Put `source` into `folder` under the name `stem`, as 16 kHz mono.

    Args:
        source: an existing file.
        stated_sha256: what the row says of the source, "" for nothing. A file with another hash or rate than
            stated is not converted: the validation stage finds the contradiction.
        stated_rate_hz: likewise, 0 for nothing.
    """
    sha256 = sha256_file(source)
    try:
        header = probe(source)
    except DataError:
        return Taken(_copy(source, folder, stem), sha256, None, 0)
    fits = header.sample_rate_hz == SAMPLE_RATE_HZ and header.channels == 1
    other = bool(stated_sha256) and stated_sha256.lower() != sha256
    other = other or stated_rate_hz not in (0, header.sample_rate_hz)
    if not fits and not other and header.duration_s <= LONGEST_S:
        target = folder / f"{stem}.flac"
        try:
            convert(source, target, header)
            return Taken(target.name, sha256_file(target), probe(target), header.sample_rate_hz, True)
        except DataError:
            target.unlink(missing_ok=True)
    return Taken(_copy(source, folder, stem), sha256, header, header.sample_rate_hz)


def convert(source: Path, target: Path, header: Header) -> None:
    """Write `source` to `target` as 16-bit FLAC, 16 kHz mono: channels averaged, then soxr, in blocks.

    Raises:
        DataError: it cannot be decoded to its end, or holds NaN or infinite samples, or too few to resample.
    """
    written = read = 0
    resampler = soxr.ResampleStream(header.sample_rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
    try:
        with (
            soundfile.SoundFile(source) as reader,
            soundfile.SoundFile(target, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="FLAC") as writer,
        ):
            while True:
                block = reader.read(_BLOCK_S * header.sample_rate_hz, dtype="float32", always_2d=True)
                if not np.isfinite(block).all():
                    raise _refused(source, "it holds NaN or infinite samples")
                read += len(block)
                mono = np.ascontiguousarray(block.mean(axis=1) if header.channels > 1 else block[:, 0])
                resampled = resampler.resample_chunk(mono, last=not len(block))
                writer.write(to_int16(resampled))
                written += len(resampled)
                if not len(block):
                    break
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise _refused(source, str(error)) from error
    if read < round(header.duration_s * header.sample_rate_hz) or not written:
        raise _refused(source, f"{read} samples could be read")


def _copy(source: Path, folder: Path, stem: str) -> str:
    name = f"{stem}{source.suffix.lower()}"
    shutil.copyfile(source, folder / name)
    return name


def _refused(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be converted ({why})", "it must be whole audio", "copy it again")

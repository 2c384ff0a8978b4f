"""One recording into the corpus folder: as it is when it is 16 kHz mono, else converted to FLAC. No command.

Every file is decoded to its end: its length is what came out, not what its header says. A file that cannot be
(cut off, NaN, no audio), or that has another hash than its row states, is copied as it is: it keeps its row,
and the validation stage says what is wrong with it. Memory stays small for any length.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from tasks.artifacts import sha256_file
from tasks.audio import faults
from tasks.audio.channels import Balance, chosen_note, to_mono
from tasks.audio.reader import AudioFile, open_audio
from tasks.data.audio import SAMPLE_RATE_HZ, Header, to_int16
from tasks.errors import DataError

LONGEST_S = 600.0  # of what is converted: nothing longer is an utterance, and the validation stage says so
_BLOCK_S = 10


class Taken(NamedTuple):
    """A file in the corpus: its name there, its hash, what it holds, and the origin's rate in Hz.

    `header` is None where it cannot be read; `origin_rate_hz` is then 0. `notes` say what was put right on
    the way, each a clause whose subject is the file.
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
    try:
        with open_audio(source) as file:
            sha256 = file.content.sha256()
            other = bool(stated_sha256) and stated_sha256.lower() != sha256
            other = other or stated_rate_hz not in (0, file.rate_hz)
            return _taken(file, sha256, folder, stem, keep=other)
    except DataError:
        return Taken(_copy(source, folder, stem), sha256_file(source), None, 0)


def _taken(file: AudioFile, sha256: str, folder: Path, stem: str, *, keep: bool) -> Taken:
    """As `take`; `keep` its bytes whatever they are. Raises `DataError` where it is not whole audio."""
    rate_hz = file.rate_hz
    # What libsndfile alone would read otherwise is written anew, plainly.
    keep = keep or (rate_hz == SAMPLE_RATE_HZ and file.channels == 1 and not file.notes)
    samples, choice = file.stated(), None
    if keep or samples is None or file.channels > 1 or samples > LONGEST_S * rate_hz:
        balance, samples = Balance(file.channels, rate_hz), 0
        for block in file.blocks():
            samples += len(block)
            balance.add(block)
        choice = balance.choice
        keep = keep or samples > LONGEST_S * rate_hz
    notes = (*file.notes, *chosen_note(choice))
    if keep:
        header = Header(samples / rate_hz, rate_hz, file.channels)
        return Taken(_copy(file.path, folder, stem), sha256, header, rate_hz, notes=notes)
    target = folder / f"{stem}.flac"
    try:
        written = convert(file, target, choice)
    except DataError:
        target.unlink(missing_ok=True)
        raise
    header = Header(written / SAMPLE_RATE_HZ, SAMPLE_RATE_HZ, 1)
    return Taken(target.name, sha256_file(target), header, rate_hz, True, notes)


def convert(file: AudioFile, target: Path, choice: int | None) -> int:
    """Write a file to `target` as 16-bit FLAC, 16 kHz mono, in blocks; returns the number of samples written.

    Args:
        choice: the channel to take; None averages them.

    Raises:
        DataError: it cannot be decoded to its end, or holds NaN or infinite samples, or too few to resample.
    """
    written = 0
    resampler = soxr.ResampleStream(file.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
    with soundfile.SoundFile(target, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="FLAC") as writer:
        for block in file.blocks(_BLOCK_S * file.rate_hz):
            resampled = resampler.resample_chunk(np.ascontiguousarray(to_mono(block, choice)))
            writer.write(to_int16(resampled))
            written += len(resampled)
        resampled = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        writer.write(to_int16(resampled))
        written += len(resampled)
    if not written:
        raise faults.no_samples(file.name)
    return written


def _copy(source: Path, folder: Path, stem: str) -> str:
    name = f"{stem}{source.suffix.lower()}"
    shutil.copyfile(source, folder / name)
    return name

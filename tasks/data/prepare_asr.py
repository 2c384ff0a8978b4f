"""Stage `prepare_asr`: validated recordings to what the recogniser's training reads.

    python -m tasks.data.prepare_asr [--corpus build/corpus] [--validated build/validated]

audio.npy holds all utterances one after another (int16, mono, 16 kHz, memory-mappable) and
utterances.parquet the manifest with normalised text, offset and length. Nothing is decided here: bad rows
are already in quarantine.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from tasks.artifacts import new_folder, write_parquet
from tasks.data.audio import read_audio, to_int16
from tasks.data.chains import steps_of
from tasks.data.manifest import read_manifest, require_splits
from tasks.data.normalisers import normalise
from tasks.errors import DataError
from tasks.progress import track
from tasks.settings import Prepare
from tasks.stage import run_stage

log = logging.getLogger("malgil.prepare_asr")
_HEADER_BYTES = 128  # numpy pads a one-dimensional header to this, so it can be written after the samples


def prepare(params: Prepare, *, corpus: Path, validated: Path, out_dir: Path) -> None:
    """Write prepared/asr, whole or not at all.

    Raises:
        DataError: a split has no good row, an audio file cannot be read, a transcript is empty.
        CapacityError: the disk is full or the folder read-only; earlier results stay as they were.
    """
    log.info("normaliser %s (%s)", params.normaliser, " ".join(steps_of(params.normaliser)))
    manifest = read_manifest(validated / "manifest.parquet")
    require_splits(manifest["split"], validated / "manifest.parquet")
    with new_folder(out_dir) as folder:
        _prepare(manifest, corpus, folder, params.normaliser)


def _prepare(manifest: pd.DataFrame, corpus: Path, folder: Path, normaliser: str) -> None:
    texts = [normalise(transcript, normaliser) for transcript in manifest["transcript"]]
    if "" in texts:
        raise DataError(
            f"utterance {manifest['utterance_id'].iloc[texts.index('')]} has no text after normalisation",
            "a transcript must hold words",
            "correct the manifest or let the validation stage quarantine the row",
        )
    offsets, lengths = [], []
    with (folder / "audio.npy").open("wb") as stream:
        stream.seek(_HEADER_BYTES)
        total = 0
        for path in track(manifest["path"].tolist(), "prepare", unit="utterances"):
            samples = to_int16(read_audio(corpus / path))
            stream.write(samples.astype("<i2").tobytes())
            offsets.append(total)
            lengths.append(len(samples))
            total += len(samples)
        _write_header(stream, total)
    table = manifest.assign(
        text=texts,
        offset=np.asarray(offsets, dtype=np.int64),
        samples=np.asarray(lengths, dtype=np.int64),
        normaliser=normaliser,
    )
    write_parquet(folder / "utterances.parquet", table)


def _write_header(stream: BinaryIO, samples: int) -> None:
    """The .npy header of a flat int16 array, at the start of the file, where room was left for it."""
    stream.seek(0)
    header: dict[str, Any] = {"descr": "<i2", "fortran_order": False, "shape": (samples,)}
    np.lib.format.write_array_header_1_0(stream, header)
    if stream.tell() != _HEADER_BYTES:
        raise AssertionError(f"numpy wrote a header of {stream.tell()} bytes, not {_HEADER_BYTES}")


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            __spec__.name,
            "prepare",
            prepare,
            inputs={"corpus": Path("build/corpus"), "validated": Path("build/validated")},
            outputs={"out_dir": Path("build/prepared/asr")},
        )
    )

"""Stage `prepare`: validated rows to what training reads, for both lines.

    python -m tasks.data.prepare [--corpus build/corpus] [--validated build/validated]

asr/audio.npy holds all utterances one after another (int16, mono, 16 kHz, memory-mappable) and
asr/utterances.parquet the manifest with normalised text, offset and length. llm/*.jsonl holds one command a
line with its spoken and written form. Nothing is decided here: bad rows are already in quarantine.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from tasks.artifacts import new_folder, write_json, write_parquet, write_text
from tasks.data.audio import read_audio, to_int16
from tasks.data.chains import steps_of
from tasks.data.manifest import (
    COMMAND_COLUMNS,
    COMMAND_SPLITS,
    read_manifest,
    read_table,
    records,
    require_columns,
    require_splits,
)
from tasks.data.normalisers import normalise
from tasks.data.text import inverse_normalise
from tasks.errors import DataError
from tasks.progress import track
from tasks.settings import Prepare
from tasks.stage import run_stage

log = logging.getLogger("malgil.prepare")
_HEADER_BYTES = 128  # numpy pads a one-dimensional header to this, so it can be written after the samples


def prepare(params: Prepare, *, corpus: Path, validated: Path, asr_dir: Path, llm_dir: Path) -> None:
    """Write prepared/asr and prepared/llm, each whole or not at all.

    Raises:
        DataError: a split has no good row, an audio file cannot be read, a transcript is empty.
        CapacityError: the disk is full or the folder read-only; earlier results stay as they were.
    """
    steps = " ".join(steps_of(params.normaliser))
    log.info("normalisers %s (%s) and %s", params.normaliser, steps, params.inverse_normaliser)
    manifest = read_manifest(validated / "manifest.parquet")
    require_splits(manifest["split"], validated / "manifest.parquet")
    commands = read_table(corpus / "commands.parquet")
    require_columns(commands, COMMAND_COLUMNS, corpus / "commands.parquet")
    if not commands.empty:
        require_splits(commands["split"], corpus / "commands.parquet", COMMAND_SPLITS)
    with new_folder(asr_dir) as folder:
        _prepare_asr(manifest, corpus, folder, params.normaliser)
    with new_folder(llm_dir) as folder:
        _prepare_llm(commands, corpus, folder)


def _prepare_asr(manifest: pd.DataFrame, corpus: Path, folder: Path, normaliser: str) -> None:
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


def _prepare_llm(commands: pd.DataFrame, corpus: Path, folder: Path) -> None:
    for split in COMMAND_SPLITS:
        rows = records(commands[commands["split"] == split])
        lines = [
            json.dumps(
                {
                    "id": row["sentence_id"],
                    "text": row["text"],
                    "written": inverse_normalise(row["text"]),
                    "tool_call": _name_first(json.loads(row["tool_call"])),
                    "intent": row["intent"],
                },
                ensure_ascii=False,
            )
            for row in rows
        ]
        write_text(folder / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))
    write_json(folder / "tools.json", json.loads((corpus / "tools.json").read_text(encoding="utf-8")))


def _name_first(call: dict[str, Any]) -> dict[str, Any]:
    """The name before the arguments: a model that writes from left to right then chooses the tool first."""
    return {"name": call["name"], "arguments": call["arguments"]}


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            __spec__.name,
            "prepare",
            prepare,
            inputs={"corpus": Path("build/corpus"), "validated": Path("build/validated")},
            outputs={"asr_dir": Path("build/prepared/asr"), "llm_dir": Path("build/prepared/llm")},
        )
    )

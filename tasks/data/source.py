"""A user's own recordings: a Parquet manifest anywhere becomes the corpus folder that later stages read.

Required columns: path (relative to the manifest, or absolute), transcript, speaker, split. The others are
computed when absent. Files are copied as they are; bad ones (missing, truncated, another sample rate) keep
their row, so that the validation stage quarantines them with a reason. No command: `corpus.source: manifest`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.artifacts import read_json, sha256_file, write_json, write_parquet, write_text
from tasks.data.audio import probe
from tasks.data.card import manifest_card
from tasks.data.grammar import TOOLS, canonical_json
from tasks.data.manifest import (
    COMMAND_COLUMNS,
    KNOWN_SPLITS,
    OUT_OF_DOMAIN,
    read_table,
    records,
    require_columns,
    require_splits,
    with_types,
    write_manifest,
)
from tasks.data.text import inverse_normalise, normalise, unspaced
from tasks.errors import DataError
from tasks.progress import track

REQUIRED = ("path", "transcript", "speaker", "split")
log = logging.getLogger("malgil.corpus")


def ingest(manifest_path: Path, folder: Path) -> None:
    """Fill `folder` with the audio, manifest, commands, tools and card of a user's manifest.

    `tools.json` beside the manifest is taken when it is there (with `tool_call` values of one's own).

    Raises:
        DataError: missing columns (all named), unknown or empty splits, a tool call that is not JSON.
        ArtifactError: the manifest is missing.
    """
    frame = read_table(manifest_path)
    require_columns(frame, REQUIRED, manifest_path)
    frame = with_types(_with_defaults(frame), manifest_path)
    unknown = sorted(set(frame["split"]) - set(KNOWN_SPLITS))
    if unknown:
        raise DataError(
            f"column split of {manifest_path} holds {', '.join(map(repr, unknown))}",
            f"a split is one of {', '.join(KNOWN_SPLITS)}",
            "name test_sentences what known speakers say and test_voices what other speakers say",
        )
    require_splits(frame["split"], manifest_path)
    frame = _copy_audio(frame, manifest_path.parent, folder)
    write_manifest(folder / "manifest.parquet", frame)
    commands = _commands(frame, manifest_path)
    write_parquet(folder / "commands.parquet", commands)
    tools = manifest_path.parent / "tools.json"
    write_json(folder / "tools.json", read_json(tools) if tools.is_file() else TOOLS)
    write_text(folder / "card.md", manifest_card(manifest_path.name, frame, commands))
    if commands.empty:
        log.info(
            "no utterance of %s has a tool_call: the language model cannot be trained on it", manifest_path
        )


def _with_defaults(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with every optional column, filled with what can be told without opening a file."""
    frame = frame.reset_index(drop=True).copy()
    if "utterance_id" not in frame:
        frame["utterance_id"] = [f"u{index:06d}" for index in range(len(frame))]
    if "sentence_ids" not in frame:
        frame["sentence_ids"] = [_sentence_id(text) for text in frame["transcript"].fillna("").astype(str)]
    for name, value in (("joined", 1), ("snr_db", float("nan")), ("tool_call", ""), ("sha256", "")):
        if name not in frame:
            frame[name] = value
    for name in ("duration_s", "sample_rate_hz"):
        frame[name] = frame[name].fillna(0) if name in frame else 0
    return frame


def _sentence_id(transcript: str) -> str:
    """The same for the same words, however spaced: leakage between splits is looked for by it."""
    return "t" + hashlib.sha256(unspaced(normalise(transcript)).encode()).hexdigest()[:12]


def _copy_audio(frame: pd.DataFrame, origin: Path, folder: Path) -> pd.DataFrame:
    """Copy what exists into folder/audio and fill in hashes, durations and rates that the manifest lacks."""
    (folder / "audio").mkdir()
    rows: list[dict[str, Any]] = []
    for index, row in enumerate(track(records(frame), "copying audio", unit="files")):
        source = origin / row["path"]
        row["path"] = f"audio/{index:06d}{source.suffix.lower()}"
        target = folder / row["path"]
        if source.is_file():
            shutil.copyfile(source, target)
            row["sha256"] = row["sha256"] or sha256_file(target)
            if not row["duration_s"] or not row["sample_rate_hz"]:
                try:
                    header = probe(target)
                except DataError:  # kept for the validation stage, which says why it is unreadable
                    header = None
                if header is not None:
                    row["duration_s"] = row["duration_s"] or header.duration_s
                    row["sample_rate_hz"] = row["sample_rate_hz"] or header.sample_rate_hz
        rows.append(row)
    return pd.DataFrame(rows)


def _commands(frame: pd.DataFrame, manifest_path: Path) -> pd.DataFrame:
    """One row per sentence that has a tool call, for the language model."""
    said = frame[(frame["tool_call"] != "") & (frame["joined"] == 1) & (frame["split"] != OUT_OF_DOMAIN)]
    # The same words in two splits belong to the first: what was trained on is no test.
    said = said.iloc[said["split"].map(KNOWN_SPLITS.index).argsort(kind="stable")]
    said = said[~said["transcript"].map(lambda text: unspaced(normalise(text))).duplicated()]
    said = said.drop_duplicates("sentence_ids")
    rows = []
    for row in records(said):
        try:
            call = json.loads(row["tool_call"])
            intent = str(call["name"])
            if not isinstance(call["arguments"], dict):
                raise TypeError("arguments is not an object")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"tool_call of utterance {row['utterance_id']} in {manifest_path} ({error})",
                'it must be JSON like {"name": "set_light", "arguments": {"room": "거실"}}, or empty',
                "correct the value and write the Parquet file again",
            ) from error
        text = normalise(row["transcript"])
        split = "test" if row["split"].startswith("test") else row["split"]
        rows.append((row["sentence_ids"], text, inverse_normalise(text), canonical_json(call), intent, split))
    return pd.DataFrame(rows, columns=list(COMMAND_COLUMNS))

"""A user's own recordings become the corpus folder that later stages read. No command: `corpus.source`.

    manifest   a table: .parquet, .csv, .tsv or .jsonl    `tasks.data.tables`
    folder     audio files with their transcripts         `tasks.data.folders`
    hub        a data set with an audio column            `tasks.data.hub_dataset`

Only audio and transcript are required. Where a split or all are missing they are cut (`tasks.data.splits`);
audio that is not 16 kHz mono is converted (`tasks.data.conversion`), its rate kept in `origin_rate_hz`. Bad
files keep their row, so that the validation stage quarantines them with a reason.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tasks.artifacts import read_json, write_text
from tasks.data.card import manifest_card
from tasks.data.conversion import take
from tasks.data.folders import rows_of_folder
from tasks.data.grammar import TOOLS, canonical_json
from tasks.data.hub_dataset import rows_of_hub
from tasks.data.manifest import (
    COLUMNS,
    COMMAND_COLUMNS,
    KNOWN_SPLITS,
    OUT_OF_DOMAIN,
    records,
    require_columns,
    require_splits,
    with_types,
    write_manifest,
)
from tasks.data.manifest import read_table as read_manifest_table
from tasks.data.normalisers import normalise
from tasks.data.readings import with_readings
from tasks.data.splits import complete_splits
from tasks.data.tables import read_table, with_manifest_names
from tasks.data.text import composed, inverse_normalise, unspaced
from tasks.data.transcripts.rows import SET_ASIDE, with_marks
from tasks.errors import DataError
from tasks.progress import track
from tasks.settings import Corpus

REQUIRED = ("path", "transcript")
log = logging.getLogger("malgil.corpus")


class Source(NamedTuple):
    """Rows as the user wrote them; paths are relative to `origin`; `name` and `path` are for readers."""

    frame: pd.DataFrame
    origin: Path
    name: str
    path: Path


def ingest(params: Corpus, folder: Path, normaliser: str) -> None:
    """Fill `folder`, which holds commands.parquet, with the audio, manifest and card of a user's recordings.

    Args:
        normaliser: id of the chain by which two transcripts are the same sentence.

    Raises:
        DataError: missing columns (all named), unknown or empty splits.
        ArtifactError: the manifest or folder is missing.
    """
    incoming = folder / "incoming"
    source, frame, notes = _split_rows(params, incoming, normaliser)
    frame, converted = _take_audio(frame, source.origin, folder)
    shutil.rmtree(incoming, ignore_errors=True)
    notes += [f"{converted} files were converted to 16 kHz mono FLAC"] if converted else []
    for note in notes:
        log.info("%s: %s", source.name, note)
    write_manifest(folder / "manifest.parquet", frame)
    commands = read_manifest_table(folder / "commands.parquet")
    write_text(folder / "card.md", manifest_card(source.name, frame, commands, notes, normaliser))


def take_commands(params: Corpus, normaliser: str) -> tuple[pd.DataFrame, Any]:
    """The commands of a user's recordings (`COMMAND_COLUMNS`) and their tools; no audio is read.

    `tools.json` beside the manifest is taken when it is there (with `tool_call` values of one's own).

    Raises:
        DataError: as `ingest`, or a tool call that is not JSON.
        ArtifactError: the manifest or folder is missing.
    """
    source, frame, _ = _split_rows(params, None, normaliser)
    commands = _commands(frame, source.path, normaliser)
    if commands.empty:
        log.info(
            "no utterance of %s has a tool_call: the language model cannot be trained on it", source.name
        )
    tools = source.origin / "tools.json"
    return commands, read_json(tools) if tools.is_file() else TOOLS


def _split_rows(
    params: Corpus, incoming: Path | None, normaliser: str
) -> tuple[Source, pd.DataFrame, list[str]]:
    """The source, its rows with every column and split, and what was decided on the way.

    `incoming` takes the audio of a Hub data set; None leaves it where it is.
    """
    source = _read(params, incoming)
    require_columns(source.frame, REQUIRED, source.path)
    frame, marked = with_marks(
        source.frame, version=params.marks, side=params.dual_side, fillers=params.fillers
    )
    frame, said = with_readings(frame, Path(params.readings) if params.readings else None)
    frame = _with_defaults(frame, normaliser)
    frame, notes = complete_splits(frame, frame["sentence_ids"], source.name)
    frame = with_types(frame, source.path)
    require_splits(frame["split"], source.path)
    return source, frame, [*notes, *marked, *said]


def _read(params: Corpus, incoming: Path | None) -> Source:
    named = {
        "path": params.audio_column,
        "transcript": params.transcript_column,
        "speaker": params.speaker_column,
        "split": params.split_column,
    }
    if params.source == "folder":
        path = Path(params.folder)
        return Source(rows_of_folder(path, named), path, path.name, path)
    if params.source == "hub":
        if incoming is not None:
            incoming.mkdir()
        frame, name = rows_of_hub(params.hub, incoming, named)
        local = Path(params.hub)
        return Source(frame, incoming or local, name, local)
    path = Path(params.manifest)
    frame = with_manifest_names(read_table(path), named, path)
    return Source(frame, path.parent, path.name, path)


def _with_defaults(frame: pd.DataFrame, normaliser: str) -> pd.DataFrame:
    """The frame with every optional column, filled with what can be told without opening a file."""
    frame = frame.reset_index(drop=True).copy()
    frame["transcript"] = frame["transcript"].fillna("").astype(str).map(composed)
    frame["path"] = frame["path"].fillna("").astype(str)
    if "utterance_id" not in frame:
        frame["utterance_id"] = [f"u{index:06d}" for index in range(len(frame))]
    if "sentence_ids" not in frame:
        frame["sentence_ids"] = [_sentence_id(text, normaliser) for text in frame["transcript"]]
    for name, value in (("joined", 1), ("snr_db", float("nan")), ("tool_call", ""), ("sha256", "")):
        if name not in frame:
            frame[name] = value
    for name in ("speaker", "split", "sha256"):
        frame[name] = frame[name].fillna("").astype(str) if name in frame else ""
    for name, kind in COLUMNS.items():
        if kind != "string" and name in frame:  # a CSV file has empty fields
            frame[name] = frame[name].replace("", None)
    frame["joined"] = frame["joined"].fillna(1)
    for name in ("duration_s", "sample_rate_hz"):
        frame[name] = frame[name].fillna(0) if name in frame else 0
    frame["tool_call"] = [canonical_json(c) if isinstance(c, dict) else c for c in frame["tool_call"]]
    return frame


def _sentence_id(transcript: str, normaliser: str) -> str:
    """The same for the same words, however spaced: leakage between splits is looked for by it."""
    words = unspaced(normalise(transcript, normaliser))
    return "t" + hashlib.sha256(words.encode()).hexdigest()[:12]


def _take_audio(frame: pd.DataFrame, origin: Path, folder: Path) -> tuple[pd.DataFrame, int]:
    """Take what exists into folder/audio; fill in the hashes, durations and rates that the rows lack.

    What a row states of a file is checked later, never replaced, unless the file was converted. Returns the
    rows and how many files were converted.
    """
    (folder / "audio").mkdir()
    rows: list[dict[str, Any]] = []
    converted = 0
    for index, row in enumerate(track(records(frame), "taking audio", unit="files")):
        source = origin / row["path"]
        row["path"] = f"audio/{index:06d}{source.suffix.lower()}"
        row.setdefault("origin_rate_hz", 0)
        if source.is_file():
            stated = row["sample_rate_hz"]
            taken = take(source, folder / "audio", f"{index:06d}", row["sha256"], stated)
            row["path"] = f"audio/{taken.name}"
            row["origin_rate_hz"] = row["origin_rate_hz"] or taken.origin_rate_hz
            row["sha256"] = taken.sha256 if taken.is_converted else row["sha256"] or taken.sha256
            if taken.header is not None:
                converted += taken.is_converted
                row["duration_s"] = row["duration_s"] or taken.header.duration_s
                if taken.is_converted or not stated:
                    row["sample_rate_hz"] = taken.header.sample_rate_hz
        rows.append(row)
    return pd.DataFrame(rows), converted


def _commands(frame: pd.DataFrame, manifest_path: Path, normaliser: str) -> pd.DataFrame:
    """One row per sentence that has a tool call, for the language model."""
    said = frame[(frame["tool_call"] != "") & (frame["joined"] == 1) & (frame["split"] != OUT_OF_DOMAIN)]
    if SET_ASIDE in said:  # what they say is not known
        said = said[said[SET_ASIDE] == ""]
    # The same words in two splits belong to the first: what was trained on is no test.
    said = said.iloc[said["split"].map(KNOWN_SPLITS.index).argsort(kind="stable")]
    words = said["transcript"].map(lambda text: unspaced(normalise(text, normaliser)))
    said = said[~words.duplicated()]
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
        text = normalise(row["transcript"], normaliser)
        split = "test" if row["split"].startswith("test") else row["split"]
        rows.append((row["sentence_ids"], text, inverse_normalise(text), canonical_json(call), intent, split))
    return pd.DataFrame(rows, columns=list(COMMAND_COLUMNS))

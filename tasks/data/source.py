"""A user's own recordings become the corpus folder that later stages read. No command: `corpus.source`.

    manifest   a table: .parquet, .csv, .tsv, .jsonl, .trn    `tasks.data.own.reader`, `tasks.data.tables`
    folder     audio files with their transcripts             `tasks.data.folders`
    hub        a data set with an audio column                `tasks.data.hub_dataset`

Only audio and transcript are required. Where a split or all are missing they are cut (`tasks.data.splits`);
audio that is not 16 kHz mono is converted (`tasks.data.conversion`), its rate kept in `origin_rate_hz`. Bad
files keep their row, so that the validation stage quarantines them with a reason; lines that are no row are
set aside by name. What went in is what came out plus what was set aside (`tasks.data.own.reconciliation`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tasks.artifacts import read_json, write_text
from tasks.data.card import manifest_card
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
from tasks.data.own.intake import find_recordings, named_lines, take_audio, tell, write_reconciliation
from tasks.data.own.manifests import rows_of_manifest
from tasks.data.own.paths import Found, told
from tasks.data.own.reconciliation import Count, SetAside, counted, place
from tasks.data.readings import with_readings
from tasks.data.splits import complete_splits
from tasks.data.text import composed, inverse_normalise, unspaced
from tasks.data.transcripts.rows import SET_ASIDE, with_marks
from tasks.errors import DataError
from tasks.settings import Corpus

REQUIRED = ("path", "transcript")
_LARGEST = 1e12  # no duration, rate or count is larger
log = logging.getLogger("malgil.corpus")


class Source(NamedTuple):
    """Rows as the user wrote them; paths are relative to `origin`; `name` and `path` are for readers.

    `counts`, `aside` and `notes` say what the door read, what became no row, and what it decided.
    """

    frame: pd.DataFrame
    origin: Path
    name: str
    path: Path
    counts: Sequence[Count]
    aside: Sequence[SetAside]
    notes: Sequence[str]


def ingest(params: Corpus, folder: Path, normaliser: str) -> None:
    """Fill `folder`, which holds commands.parquet, with the audio, manifest and card of a user's recordings.

    It also gets reconciliation.json (what went in, came out, was set aside) and set_aside.parquet.

    Args:
        normaliser: id of the chain by which two transcripts are the same sentence.

    Raises:
        DataError: missing columns (all named), unknown or empty splits, numbers that do not agree.
        ArtifactError: the manifest or folder is missing.
    """
    incoming = folder / "incoming"
    source, frame, notes = split_rows(params, incoming, normaliser)
    found = find_recordings(frame, source.origin, is_hub=params.source == "hub")
    notes += told(found)
    if params.source == "folder":
        notes += _unlisted(source, found)
    frame, said = take_audio(frame, found, folder)
    notes += said
    shutil.rmtree(incoming, ignore_errors=True)
    tell(source.name, notes, source.counts, source.aside)
    write_manifest(folder / "manifest.parquet", frame)
    write_reconciliation(folder, source.counts, source.aside)
    commands = read_manifest_table(folder / "commands.parquet")
    card = manifest_card(source.name, frame, commands, notes, normaliser, source.counts)
    write_text(folder / "card.md", card)


def take_commands(params: Corpus, normaliser: str) -> tuple[pd.DataFrame, Any]:
    """The commands of a user's recordings (`COMMAND_COLUMNS`) and their tools; no audio is read.

    `tools.json` beside the manifest is taken when it is there (with `tool_call` values of one's own).

    Raises:
        DataError: as `ingest`, or a tool call that is not JSON.
        ArtifactError: the manifest or folder is missing.
    """
    source, frame, _ = split_rows(params, None, normaliser)
    commands = _commands(frame, source.path, normaliser)
    if commands.empty:
        log.info(
            "no utterance of %s has a tool_call: the language model cannot be trained on it", source.name
        )
    tools = source.origin / "tools.json"
    return commands, read_json(tools) if tools.is_file() else TOOLS


def read_source(params: Corpus, incoming: Path | None = None) -> Source:
    """The rows of a user's recordings under the manifest's names, before anything is decided about them.

    `incoming` takes the audio of a Hub data set; None leaves it where it is.

    Raises:
        DataError: it cannot be read, or has no column of audio or of transcripts.
        ArtifactError: the manifest or folder is missing.
    """
    named = {
        "path": params.audio_column,
        "transcript": params.transcript_column,
        "speaker": params.speaker_column,
        "split": params.split_column,
    }
    if params.source == "hub" and incoming is not None:
        incoming.mkdir()
    names = {"manifest": params.manifest, "folder": params.folder, "hub": params.hub}
    return open_door(params.source, names[params.source], named, incoming)


def open_door(door: str, name: str, named: Mapping[str, str], incoming: Path | None = None) -> Source:
    """The rows behind a door: "manifest" (a table), "folder" or "hub".

    Args:
        name: the table, the folder, or the data set.
        named: column of the manifest (path, transcript, speaker, split) to the user's own; "" is looked for.
        incoming: an empty folder for the audio of a Hub data set; None leaves it where it is.

    Raises:
        DataError: it cannot be read, or has no column of audio or of transcripts.
        ArtifactError: the table or folder is missing.
    """
    path = Path(name)
    if door == "folder":
        origin, called = path, path.resolve().name
        gathered = rows_of_folder(path, named)
    elif door == "hub":
        origin = incoming or path
        gathered, called = rows_of_hub(name, incoming, named)
    else:
        origin, called = path.parent, path.name
        gathered = rows_of_manifest(path, named, called)
    source = Source(gathered.frame, origin, called, path, gathered.counts, gathered.aside, gathered.notes)
    require_columns(source.frame, REQUIRED, source.path)
    return _without_unreadable_values(source)


def split_rows(
    params: Corpus, incoming: Path | None, normaliser: str
) -> tuple[Source, pd.DataFrame, list[str]]:
    """The source, its rows with every column and split, and what was decided on the way.

    `incoming` takes the audio of a Hub data set; None leaves it where it is.
    """
    source = read_source(params, incoming)
    frame, marked = with_marks(
        source.frame, version=params.marks, side=params.dual_side, fillers=params.fillers
    )
    frame, said = with_readings(frame, Path(params.readings) if params.readings else None)
    frame = _with_defaults(frame, normaliser)
    rows = len(frame)
    frame, notes, left_out = complete_splits(frame, frame["sentence_ids"], source.name)
    frame = with_types(frame, source.path)
    try:
        require_splits(frame["split"], source.path)
    except DataError as error:
        raise DataError(error.what + named_lines(source.aside), error.rule, error.next_step) from error
    aside = [
        _set_aside(row, "left_out_by_split", "its sentence is in another split") for row in records(left_out)
    ]
    count = counted("corpus", "row", rows, len(frame), aside)
    source = source._replace(counts=[*source.counts, count], aside=[*source.aside, *aside])
    return source, frame, [*source.notes, *notes, *marked, *said]


def _without_unreadable_values(source: Source) -> Source:
    """The source without rows whose transcript is no text, or whose duration, rate or the like is no number:
    they are set aside by name."""
    frame = source.frame
    bad = {
        row: f"transcript is {value!r:.200}, no text"
        for row, value in enumerate(frame["transcript"])
        if isinstance(value, bool | dict | list | tuple | np.ndarray | bytes)
    }
    for name in (name for name, kind in COLUMNS.items() if kind != "string" and name in frame):
        given = frame[name].where(frame[name].notna(), "").astype(str).str.strip()
        numbers = pd.to_numeric(given.where(given != "", None), errors="coerce").astype("float64")
        is_wrong = (given != "") & ~(numbers.abs() < _LARGEST) & (given.str.lower() != "nan")
        if len(frame) > 1 and is_wrong.all():
            continue  # the column is of another kind: told whole, by `with_types`
        bad |= {row: f"{name} is {given.iat[row]!r}, no number" for row in np.flatnonzero(is_wrong).tolist()}
    if not bad:
        return source
    aside = [_set_aside(records(frame.iloc[[row]])[0], "unreadable_line", why) for row, why in bad.items()]
    count = counted("values", "row", len(frame), len(frame) - len(bad), aside)
    kept = frame.drop(frame.index[list(bad)]).reset_index(drop=True)
    return source._replace(frame=kept, counts=[*source.counts, count], aside=[*source.aside, *aside])


def _set_aside(row: Mapping[str, Any], reason: str, why: str) -> SetAside:
    text = f"{row['origin_path']} {row.get('transcript') or ''}"
    return SetAside(row["origin_file"], int(row["origin_line"]), reason, why, text)


def _with_defaults(frame: pd.DataFrame, normaliser: str) -> pd.DataFrame:
    """The frame with every optional column, filled with what can be told without opening a file."""
    frame = frame.reset_index(drop=True).copy()
    frame["transcript"] = frame["transcript"].fillna("").astype(str).map(composed)
    frame["path"] = frame["path"].fillna("").astype(str)
    frame["origin_detail"] = ""
    if "utterance_id" not in frame:
        frame["utterance_id"] = [f"u{index:06d}" for index in range(len(frame))]
    stated = frame["sentence_ids"].map(_text_of) if "sentence_ids" in frame else [""] * len(frame)
    frame["sentence_ids"] = [
        own or _sentence_id(text, normaliser) for own, text in zip(stated, frame["transcript"], strict=True)
    ]
    for name, value in (("joined", 1), ("snr_db", float("nan")), ("tool_call", ""), ("sha256", "")):
        if name not in frame:
            frame[name] = value
    for name in ("speaker", "split", "sha256"):
        frame[name] = frame[name].fillna("").astype(str).str.strip() if name in frame else ""
    for name, kind in COLUMNS.items():
        if kind != "string" and name in frame:  # a CSV file has empty fields
            given = frame[name].map(lambda value: value.strip() if isinstance(value, str) else value)
            frame[name] = given.replace("", None)
    frame["joined"] = frame["joined"].fillna(1)
    for name in ("duration_s", "sample_rate_hz"):
        frame[name] = frame[name].fillna(0) if name in frame else 0
    frame["tool_call"] = [
        canonical_json(call) if isinstance(call, dict) else _text_of(call) for call in frame["tool_call"]
    ]
    return frame


def _text_of(value: object) -> str:
    """A value as text without spaces around it; "" for none."""
    return "" if value is None or value != value else str(value).strip()


def _sentence_id(transcript: str, normaliser: str) -> str:
    """The same for the same words, however spaced: leakage between splits is looked for by it."""
    words = unspaced(normalise(transcript, normaliser))
    return "t" + hashlib.sha256(words.encode()).hexdigest()[:12]


def _unlisted(source: Source, found: Sequence[Found]) -> list[str]:
    """A note of the recordings of a folder that no line of its tables names; they are its user's choice."""
    recordings = sum(count.set_aside.get("recording", 0) for count in source.counts)
    unlisted = recordings - len({one.path for one in found if one.path is not None})
    return (
        [f"{unlisted} recordings of the folder stand in no table and were left out"] if unlisted > 0 else []
    )


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
                f"tool_call of utterance {row['utterance_id']} in {manifest_path} ({error}; "
                f"{place(row['origin_file'], row['origin_line'])})",
                'it must be JSON like {"name": "set_light", "arguments": {"room": "거실"}}, or empty',
                "correct the value in the table",
            ) from error
        text = normalise(row["transcript"], normaliser)
        split = "test" if row["split"].startswith("test") else row["split"]
        rows.append((row["sentence_ids"], text, inverse_normalise(text), canonical_json(call), intent, split))
    return pd.DataFrame(rows, columns=list(COMMAND_COLUMNS))

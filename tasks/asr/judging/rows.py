"""Transcribed speech by the name that a user gives, as rows: through the doors that a corpus is read by.

    a file                        a table of recordings          `tasks.data.tables`
    a folder                      recordings with transcripts    `tasks.data.folders`
    a folder of a corpus          its manifest.parquet           `tasks.data.tables`
    a folder of Parquet shards    a data set as on the Hub       `tasks.data.hub_dataset`
    org/name, org/name@revision   a data set of the Hub          `tasks.data.hub_dataset`

This is the one module of the evaluation that knows these doors. No splits are needed, and none is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from tasks.asr.recordings.sources import SUFFIXES
from tasks.data.folders import rows_of_folder
from tasks.data.hub import HubName, fetch, hub_name
from tasks.data.hub_dataset import rows_of_hub
from tasks.data.readings import with_readings
from tasks.data.tables import read_table, with_manifest_names
from tasks.errors import DataError, MalgilError

Door = Literal["manifest", "folder", "hub"]
_SYNTHETIC = re.compile(r"speech here is synthetic|^\s*-\s*synthetic(?:-data|-speech)?\s*$", re.MULTILINE)
_CARDS = ("card.md", "README.md")
_OPTIONS = (  # what the doors call a setting is an option here
    (re.compile(r"(?:corpus\.)?\b(audio|transcript|speaker|split)_column"), r"--\1-column"),
    (re.compile(r"corpus\.source: (?:folder|manifest|hub)"), "--data"),
    (re.compile(r"corpus\.(?:folder|manifest|hub)\b"), "--data"),
    (re.compile(r"corpus\.(readings|marks|fillers)\b"), r"--\1"),
    (re.compile(r"the settings\b"), "the options"),
    (re.compile(r'leave one empty \(""\)'), "leave one out"),
    (re.compile(r"\bleave (--\S+(?:, --\S+)* and --\S+) empty"), r"leave out \1"),
)


class Rows(NamedTuple):
    """The rows of a data set.

    Attributes:
        frame: every row that was read, in its order, under the manifest's column names; at least `path` and
            `transcript`.
        origin: what the paths are relative to.
        name: for readers: "org/name at commit", or the file's or folder's name.
        door: through which it came.
        notes: what was done to the rows.
        synthetic: its card says that the speech is synthetic.
    """

    frame: pd.DataFrame
    origin: Path
    name: str
    door: Door
    notes: tuple[str, ...]
    synthetic: bool


def read_rows(data: str, named: Mapping[str, str], scratch: Path, readings: Path | None = None) -> Rows:
    """The rows of `data`: a table, a folder, or a data set of the Hub.

    Args:
        named: column of the manifest (path, transcript, speaker, split) to the data set's own; those that
            are "" are looked for.
        scratch: an empty folder, which takes the recordings of a Hub data set.
        readings: table of words and how they are said (`tasks.data.readings`).

    Raises:
        DataError: there is no such data set, or its columns or rows cannot be read.
        ArtifactError: a file is missing.
    """
    with _said_as_options():
        frame, origin, name, door, card = _through_a_door(data, named, scratch)
        missing = [column for column in ("path", "transcript") if column not in frame]
        if missing:
            raise DataError(
                f"{name} has no column {', '.join(missing)}",
                f"its columns are {', '.join(map(str, frame.columns))}",
                "name yours: corpus.audio_column COLUMN, corpus.transcript_column COLUMN",
            )
        # The marks of transcribers are read here: `tasks.data.transcripts.with_marks(frame, ...)`.
        frame, notes = with_readings(frame.reset_index(drop=True), readings)
    return Rows(frame, origin, name, door, tuple(notes), _is_synthetic(card))


def _through_a_door(
    data: str, named: Mapping[str, str], scratch: Path
) -> tuple[pd.DataFrame, Path, str, Door, Path]:
    """The rows, what their paths are relative to, their name, the door, and the folder of their card."""
    path = Path(data)
    if path.is_dir() and (path / "manifest.parquet").is_file():
        path = path / "manifest.parquet"
    if path.is_file():
        frame = with_manifest_names(read_table(path), named, path)
        return frame, path.parent, path.name, "manifest", path.parent
    if path.is_dir() and not _is_sharded(path):
        return rows_of_folder(path, named), path, path.resolve().name, "folder", path
    asked = None if path.exists() else hub_name(data)
    if not path.is_dir() and (asked is None or asked.repository.count("/") != 1):
        raise DataError(
            f"--data {data} does not exist",
            "names a table, a folder, or a data set of the Hub (org/name, org/name@revision)",
            "correct the path",
        )
    frame, name = rows_of_hub(data, scratch, named)
    if asked is not None:  # its card is in the Hub's cache by now
        path = fetch(HubName(asked.repository, name.rpartition(" at ")[2]), "dataset")
    return frame, scratch, name, "hub", path


def _is_sharded(folder: Path) -> bool:
    """Whether a folder is a data set as on the Hub: Parquet files, and no recordings beside them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return any(path.suffix == ".parquet" for path in files) and not any(
        path.suffix.lower() in SUFFIXES for path in files
    )


def _is_synthetic(folder: Path) -> bool:
    cards = [folder / name for name in _CARDS if (folder / name).is_file()]
    return any(_SYNTHETIC.search(card.read_text(encoding="utf-8", errors="replace")) for card in cards)


@contextmanager
def _said_as_options() -> Iterator[None]:
    """Errors of the doors, with the options of the command in place of the settings of the pipeline."""
    try:
        yield
    except MalgilError as error:
        parts = [error.what, error.rule, error.next_step]
        for pattern, option in _OPTIONS:
            parts = [pattern.sub(option, part) for part in parts]
        if parts == [error.what, error.rule, error.next_step]:
            raise
        raise type(error)(*parts) from error

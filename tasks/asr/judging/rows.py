"""Transcribed speech by the name that a user gives, as rows: through the doors that a corpus is read by.

    a file                        a table of recordings
    a folder                      recordings with transcripts
    a folder of a corpus          its manifest.parquet
    a folder of Parquet shards    a data set as on the Hub
    org/name, org/name@revision   a data set of the Hub

The doors are those of `tasks.data.source`; this is the one module of the evaluation that knows them. No
splits are needed, and none is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from tasks.asr.recordings.sources import SUFFIXES
from tasks.data.hub import HubName, fetch, hub_name
from tasks.data.own.reconciliation import BAD, SetAside
from tasks.data.readings import with_readings
from tasks.data.source import Source, open_door
from tasks.data.transcripts.conventions import MARKS_ID
from tasks.data.transcripts.reader import Fillers, Side
from tasks.data.transcripts.rows import with_marks
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


class Marks(NamedTuple):
    """How marks of transcribers are read: as the settings `corpus.marks`, `dual_side` and `fillers`."""

    version: str = MARKS_ID
    side: Side = "spoken"
    fillers: Fillers = "keep"


_AS_SHIPPED = Marks()


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
        aside: lines and files that became no row, though they should have.
    """

    frame: pd.DataFrame
    origin: Path
    name: str
    door: Door
    notes: tuple[str, ...]
    synthetic: bool
    aside: tuple[SetAside, ...] = ()

    @property
    def read(self) -> int:
        """Everything that should have been a row."""
        return len(self.frame) + len(self.aside)


def read_rows(
    data: str,
    named: Mapping[str, str],
    scratch: Path,
    readings: Path | None = None,
    marks: Marks = _AS_SHIPPED,
) -> Rows:
    """The rows of `data`: a table, a folder, or a data set of the Hub.

    Args:
        named: column of the manifest (path, transcript, speaker, split) to the data set's own; those that
            are "" are looked for.
        scratch: an empty folder, which takes the recordings of a Hub data set.
        readings: table of words and how they are said (`tasks.data.readings`).
        marks: how the marks of transcribers are read.

    Raises:
        DataError: there is no such data set, or its columns or rows cannot be read.
        ArtifactError: a file is missing.
    """
    with _said_as_options():
        source, door, card = _through_a_door(data, named, scratch)
        frame, read = with_marks(source.frame.reset_index(drop=True), **marks._asdict())
        frame, said = with_readings(frame, readings)
    aside = tuple(one for one in source.aside if one.reason in BAD)
    notes = (*(_as_options(note) for note in source.notes), *read, *said)
    return Rows(frame, source.origin, source.name, door, notes, _is_synthetic(card), aside)


def _through_a_door(data: str, named: Mapping[str, str], scratch: Path) -> tuple[Source, Door, Path]:
    """The rows, the door, and the folder of their card."""
    path = Path(data)
    if path.is_dir() and (path / "manifest.parquet").is_file():
        path = path / "manifest.parquet"
    if path.is_file():
        return open_door("manifest", str(path), named), "manifest", path.parent
    if path.is_dir() and not _is_sharded(path):
        return open_door("folder", str(path), named), "folder", path
    asked = None if path.exists() else hub_name(data)
    if not path.is_dir() and (asked is None or asked.repository.count("/") != 1):
        raise DataError(
            f"--data {data} does not exist",
            "names a table, a folder, or a data set of the Hub (org/name, org/name@revision)",
            "correct the path",
        )
    source = open_door("hub", data, named, scratch)
    if asked is not None:  # its card is in the Hub's cache by now
        path = fetch(HubName(asked.repository, source.name.rpartition(" at ")[2]), "dataset")
    return source, "hub", path


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
        parts = [_as_options(part) for part in (error.what, error.rule, error.next_step)]
        if parts == [error.what, error.rule, error.next_step]:
            raise
        raise type(error)(*parts) from error


def _as_options(text: str) -> str:
    for pattern, option in _OPTIONS:
        text = pattern.sub(option, text)
    return text

"""What a door of the corpus brings in: rows with their origin, and the counts of what it read. No command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from tasks.data.own.reader import Table
from tasks.data.own.reconciliation import Count, SetAside, counted
from tasks.data.own.system_files import is_system_file
from tasks.data.tables import require_named, with_manifest_names
from tasks.errors import DataError


@dataclass(frozen=True)
class Gathered:
    """Rows under the manifest's names, each with `origin_file`, `origin_line` and `origin_path`.

    `counts` are the steps that the door went through, `aside` what became no row, `notes` what it decided.
    """

    frame: pd.DataFrame
    counts: Sequence[Count]
    aside: Sequence[SetAside]
    notes: Sequence[str] = field(default=())


def with_origin(frame: pd.DataFrame, files: Sequence[str], lines: Sequence[int]) -> pd.DataFrame:
    """The frame with the columns of its origin; the path as written is its column `path`."""
    return frame.assign(
        origin_file=list(files),
        origin_line=list(lines),
        origin_path=[_path(value) for value in frame["path"]],
    )


def rows_of_table(
    table: Table, named: Mapping[str, str] | None, file: str, needed: Sequence[str] = ("path", "transcript")
) -> Gathered:
    """The rows of a table that was read, those of operating systems' own files set aside.

    Args:
        named: column of the manifest to the user's own.
        file: the table's name for readers, relative to the folder that its paths are relative to.

    Raises:
        DataError: a needed column was not found, or stands twice.
    """
    notes = list(table.notes)
    frame = with_manifest_names(table.frame, named, table.path, notes, needed)
    require_named(frame, [str(name) for name in table.frame.columns], needed, table.path)
    _refuse_embedded(frame, table.path)
    frame = with_origin(frame, [file] * len(frame), table.lines)
    frame["path"] = frame["origin_path"]
    aside = [one._replace(file=file) for one in table.aside]
    left = [names_a_system_file(path) for path in frame["path"]]
    if any(left):
        rows = frame[left]
        aside += [
            SetAside(file, line, "operating_system_file", "", path)
            for line, path in zip(rows["origin_line"], rows["origin_path"], strict=True)
        ]
        frame = frame[[not own for own in left]].reset_index(drop=True)
    count = counted("read", table.count.unit, table.count.entered, len(frame), aside)
    return Gathered(frame, [count], aside, notes)


def names_a_system_file(path: str) -> bool:
    """Whether a row names what an operating system left: a table that a program listed holds them too.

    A hidden folder that a row names is its user's choice.
    """
    *folders, name = PurePosixPath(path.replace("\\", "/")).parts or ("",)
    visible = [folder for folder in folders if not folder.startswith(".")]
    return is_system_file(name) or any(is_system_file(folder) for folder in visible)


def _refuse_embedded(frame: pd.DataFrame, path: Path) -> None:
    """Recordings inside a table, as in the Parquet shards of the Hub, are read by another door."""
    if any(isinstance(value, dict) and value.get("bytes") is not None for value in frame["path"]):
        raise DataError(
            f"{path} holds the recordings themselves, not their paths",
            "corpus.manifest names a table of paths; a data set with audio inside is corpus.source: hub",
            f"-S corpus.source=hub -S corpus.hub={path.parent}",
        )


def _path(value: object) -> str:
    """A path as text; of Hugging Face's {"path", "bytes"} its path."""
    if isinstance(value, dict):
        value = value.get("path")
    return "" if value is None or value != value else str(value)

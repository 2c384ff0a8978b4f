"""The rows of a table or list of recordings, whatever its form: every command reads it here. No command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.data.own.gathered import Gathered, rows_of_table
from tasks.data.own.listed import is_listed, rows_of_listed
from tasks.data.own.ljspeech import is_ljspeech, rows_of_ljspeech
from tasks.data.own.reader import read


def has_column_names(path: Path) -> bool:
    """Whether a table names its columns: LJSpeech's does not, nor a list of `<path> :: <text>`."""
    return not is_ljspeech(path) and not is_listed(path)


def rows_of_manifest(
    path: Path,
    named: Mapping[str, str] | None,
    file: str,
    needed: Sequence[str] = ("path", "transcript"),
) -> Gathered:
    """The rows of a table under the manifest's names (`rows_of_table`), or of a list without column names.

    Args:
        named: column of the manifest to the user's own; where one is named the table has column names.
        file: the table's name for readers, relative to the folder that its paths are relative to.

    Raises:
        DataError: it cannot be read, or a needed column was not found or stands twice.
        ArtifactError: the file is missing.
    """
    if not any((named or {}).values()):
        if is_ljspeech(path):
            return rows_of_ljspeech(path, file)
        if is_listed(path):
            return rows_of_listed(path, file)
    return rows_of_table(read(path), named, file, needed)

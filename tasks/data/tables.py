"""A user's table of recordings: Parquet, CSV, TSV or JSONL by its suffix, as one data frame. No command.

Errors name the file, the line and what to do. Column names are those that data sets use: `ALIASES` lists the
ones understood, `SETTINGS` the settings that name others. What the rows must hold is for `tasks.data.source`
and the validation stage.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tasks.data.manifest import read_table as read_parquet
from tasks.errors import DataError, explain_os_error

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl")

ALIASES: dict[str, tuple[str, ...]] = {
    "path": ("path", "file", "file_name", "audio", "audio_path", "wav", "filename"),
    "transcript": ("transcript", "text", "sentence", "transcription", "normalized_text"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "split": ("split", "subset", "partition"),
    "utterance_id": ("utterance_id", "id"),
}
"""Column of the manifest to the names it is found under, the likeliest first."""

SETTINGS = {
    "path": "corpus.audio_column",
    "transcript": "corpus.transcript_column",
    "speaker": "corpus.speaker_column",
    "split": "corpus.split_column",
}
"""Column of the manifest to the setting that names the user's own."""

_MARKS = ((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))
_SEPARATORS = ",;\t|"


def read_table(path: Path) -> pd.DataFrame:
    """The table as it is written; every value of a CSV or TSV file is text, empty fields are empty text.

    A CSV file may start with a byte order mark and separate its fields by `,`, `;`, `|` or tabs (told from
    its header).

    Raises:
        DataError: another suffix, not UTF-8 (with the line), a line that is no JSON object (with its number),
            a row with more or fewer fields than the header (with its number), no rows.
        ArtifactError: the file is missing.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return read_parquet(path)
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path} ends in {suffix or 'nothing'}",
            f"a table of recordings ends in {', '.join(SUFFIXES)}",
            "save it in one of these formats; a folder of audio files is corpus.source: folder",
        )
    text = _read_text(path)
    frame = _from_json_lines(text, path) if suffix == ".jsonl" else _from_separated(text, suffix, path)
    if frame.empty:
        raise DataError(f"{path} has no rows", "a table needs one row per recording", "write the rows")
    return frame


def with_manifest_names(
    frame: pd.DataFrame, named: Mapping[str, str] | None = None, where: Path | str = "the table"
) -> pd.DataFrame:
    """The frame with the manifest's column names: those that are `named`, else the likeliest of `ALIASES`.

    A column that bears the manifest's name but is not the one named is left out.

    Args:
        named: column of the manifest to the user's own; those named "" are looked for.
        where: what the frame was read from, for the message.

    Raises:
        DataError: with every named column that is not there, and every one named twice.
    """
    named = {name: own for name, own in (named or {}).items() if own}
    check_named([str(column) for column in frame.columns], named, where)
    names = {own: name for name, own in named.items()}
    for name, aliases in ALIASES.items():
        found = next((alias for alias in aliases if alias in frame.columns and alias not in names), None)
        if name not in named and found is not None:
            names[found] = name
    others = [name for name in names.values() if name in frame.columns and name not in names]
    return frame.drop(columns=others).rename(columns=names)


def check_named(columns: Sequence[str], named: Mapping[str, str], where: Path | str) -> None:
    """Raises DataError with every named column that is not among `columns`, and every one named twice."""
    problems = [
        f"{SETTINGS[name]} names {own!r}, which is not there"
        for name, own in named.items()
        if own not in columns
    ]
    for own in sorted({own for own in named.values() if list(named.values()).count(own) > 1}):
        twice = " and ".join(SETTINGS[name] for name in named if named[name] == own)
        problems.append(f"{twice} name the same column {own!r}")
    if problems:
        raise DataError(
            f"{where}: {'; '.join(problems)}",
            f"its columns are {', '.join(columns) or 'none'}",
            'correct the settings, or leave one empty ("") to have the column looked for',
        )


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise explain_os_error(error, path) from error
    for mark, name in _MARKS:
        if data.startswith(mark):
            raise _wrong_encoding(path, f"is {name}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _wrong_encoding(path, f"is not UTF-8 (line {line})") from error


def _wrong_encoding(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} {what}",
        "a text table is UTF-8",
        f"convert it, for example `iconv -f CP949 -t UTF-8 {path.name}` for a file from Korean Windows",
    )


def _from_json_lines(text: str, path: Path) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _broken_line(path, number, str(error), "one JSON object a line") from error
        if not isinstance(row, dict):
            raise _broken_line(path, number, f"it holds {line.strip():.40}", "one JSON object a line")
        rows.append(row)
    return pd.DataFrame(rows)


def _from_separated(text: str, suffix: str, path: Path) -> pd.DataFrame:
    header = text.partition("\n")[0]
    separator = "\t" if suffix == ".tsv" else max(_SEPARATORS, key=header.count)
    rows = csv.reader(text.splitlines(keepends=True), delimiter=separator)
    try:
        names = [name.strip() for name in next(rows, [])]
        found: list[list[str]] = []
        for row in rows:
            if row and len(row) != len(names):
                what = f"it has {len(row)} fields"
                raise _broken_line(path, rows.line_num, what, f"{len(names)} as the header")
            if row:
                found.append([field.strip() for field in row])
    except csv.Error as error:
        raise _broken_line(path, rows.line_num, str(error), "fields as the header has") from error
    return pd.DataFrame(found, columns=names)


def _broken_line(path: Path, number: int, what: str, rule: str) -> DataError:
    return DataError(
        f"line {number} of {path} cannot be read ({what})",
        f"needs {rule}",
        "correct the line; a field with a separator in it stands in double quotes",
    )

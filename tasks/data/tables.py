"""A user's table of recordings: Parquet, CSV, TSV or JSONL by its suffix, as one data frame. No command.

Errors name the file, the line and what to do. Column names are those that data sets use: `ALIASES` lists the
ones understood. What the rows must hold is for `tasks.data.source` and the validation stage.
"""

from __future__ import annotations

import codecs
import csv
import json
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


def with_manifest_names(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with columns found under another of their `ALIASES` renamed; the likeliest name wins."""
    names = {}
    for name, aliases in ALIASES.items():
        found = next((alias for alias in aliases if alias in frame.columns), None)
        if found is not None and found != name:
            names[found] = name
    return frame.rename(columns=names)


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

"""The one reader of tables: Parquet, CSV, TSV, JSONL, JSON; every line a row or set aside. No command.

Line numbers stay with the rows; what became no row is named with its line and the reason, and the numbers
agree or the reading fails. What columns mean is for `tasks.data.tables`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.data.manifest import read_table as read_parquet
from tasks.data.own.json_rows import is_json_list, read_json_lines, read_json_list
from tasks.data.own.lines import read_lines
from tasks.data.own.paths import is_recording
from tasks.data.own.reconciliation import BAD, Count, SetAside, counted
from tasks.data.own.separated import read_separated
from tasks.errors import DataError

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".json")
_NAMELESS = re.compile(r"(Unnamed: \d+(_level_\d+)?)?")  # an empty name, or what pandas makes of it
_SHOWN = 3  # lines named in a message
_RULES = (
    (
        "a CSV or TSV line has as many fields as the header",
        "look at these lines, and at the header; a field with a separator in it stands in double quotes",
    ),
    (
        "JSONL is one JSON object a line, without a comma behind it",
        "write it so, for example with `jq -c . OLD.json > NEW.jsonl`, or as one list: [{...}, {...}]",
    ),
)


@dataclass(frozen=True)
class Table:
    """A table as it is written: `frame` has a row per entry of `lines` (rows of a Parquet file count from 1).

    `aside` holds every line that became no row; `notes` what was decided, for readers.
    """

    path: Path
    frame: pd.DataFrame
    lines: Sequence[int]
    count: Count
    aside: Sequence[SetAside]
    notes: Sequence[str] = ()


def read(path: Path, header: Sequence[str] | None = None) -> Table:
    """The table as it is written; every value of a CSV or TSV file is text, empty fields are empty text.

    Args:
        header: names of the columns of a text file without a header, separated by bars (LJSpeech).

    Raises:
        DataError: another suffix or encoding, a column that stands twice, no line that can be read (the first
            are named), no rows.
        ArtifactError: the file is missing.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        table = _read_parquet(path)
    elif suffix in (".jsonl", ".json"):
        table = _read_json(path)
    elif suffix in SUFFIXES:
        table = _read_separated(path, suffix, header)
    else:
        raise _no_table(path, suffix)
    if table.frame.empty:
        raise _no_rows(table)
    return table


def _no_table(path: Path, suffix: str) -> DataError:
    if path.is_dir():
        return DataError(
            f"{path} is a folder",
            "corpus.manifest names a table",
            f"name the folder instead: -S corpus.source=folder -S corpus.folder={path}",
        )
    return DataError(
        f"{path} ends in {suffix or 'nothing'}",
        f"a table of recordings ends in {', '.join(SUFFIXES)}; a list of '<path> :: <text>' (or with a tab "
        "or | between) may end in .trn, .lst or .txt",
        "save it in one of these formats; a folder of audio files is corpus.source: folder",
    )


def read_whole(path: Path) -> Table:
    """As `read`, for tables of which every line counts. Raises DataError that names what is bad."""
    table = read(path)
    bad = [one for one in table.aside if one.reason in BAD]
    if bad:
        raise DataError(
            f"line {bad[0].line} of {path} cannot be read ({bad[0].why})"
            + (f", nor can {len(bad) - 1} more" if len(bad) > 1 else ""),
            "every line of this table is needed",
            "correct the line; in a CSV a field with a separator in it stands in double quotes",
        )
    return table


def _read_parquet(path: Path) -> Table:
    with contextlib.suppress(OSError, pa.ArrowException), path.open("rb") as stream:
        _refuse_twice(pq.read_schema(stream).names, path)
    frame = read_parquet(path)
    for name in frame.select_dtypes("object").columns:
        frame[name] = frame[name].map(_text_of_bytes)
    if isinstance(frame.index, pd.MultiIndex) or not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index(drop=frame.index.name is None or str(frame.index.name) in frame.columns)
    frame, notes = _without_nameless(frame, path)
    return _table(path, frame, list(range(1, len(frame) + 1)), [], notes, "row")


def _text_of_bytes(value: object) -> object:
    """A text that was written without saying that it is one, as Spark does; anything else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _read_json(path: Path) -> Table:
    lines = read_lines(path)
    read_rows = read_json_list if is_json_list(lines) else read_json_lines
    found = read_rows(lines, path.name)
    try:
        frame = pd.DataFrame(found.rows, dtype=object)  # 1 beside a null stays 1
    except (pa.ArrowException, OverflowError, ValueError) as error:  # values that no column holds together
        raise DataError(
            f"{path} cannot be made a table ({str(error).split(chr(10))[0][:200]})",
            "the values of a key need one kind",
            "write numbers or texts, one kind a key",
        ) from error
    frame, notes = _without_nameless(frame, path)
    unit = "line" if len(found.rows) + len(found.aside) == len(lines) else "row"
    return _table(path, frame, found.lines, found.aside, notes, unit, len(lines) if unit == "line" else None)


def _read_separated(path: Path, suffix: str, header: Sequence[str] | None) -> Table:
    lines = read_lines(path)
    found = read_separated(lines, path.name, suffix, header)
    if header is None and any(is_recording(name) for name in found.names):
        raise DataError(
            f"the first line of {path} names a recording, no columns: {', '.join(found.names):.200}",
            "a text table needs its column names in the first line",
            f"write a line above it with a name for each of its {len(found.names)} fields, `path` and "
            "`transcript` among them; a list of `<path> :: <text>` (or with a tab or |) needs none",
        )
    _refuse_twice(found.names, path)
    frame = pd.DataFrame(found.rows, columns=range(len(found.names)))
    frame.columns = pd.Index(found.names, dtype=object)
    frame, notes = _without_nameless(frame, path)
    return _table(path, frame, found.lines, found.aside, [*notes, *found.notes], "line", len(lines))


def _table(
    path: Path,
    frame: pd.DataFrame,
    lines: Sequence[int],
    aside: Sequence[SetAside],
    notes: Sequence[str],
    unit: str,
    entered: int | None = None,
) -> Table:
    entered = len(frame) if entered is None else entered
    return Table(path, frame, lines, counted("read", unit, entered, len(lines), aside), aside, notes)


def _without_nameless(frame: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The frame without columns that have no name, as the index that pandas writes into a CSV file."""
    nameless = [bool(_NAMELESS.fullmatch(str(name))) for name in frame.columns]
    if not any(nameless):
        return frame, []
    note = f"{sum(nameless)} columns of {path.name} have no name and were left out"
    return frame.loc[:, [not own for own in nameless]], [note]


def _refuse_twice(names: Sequence[str], path: Path) -> None:
    twice = sorted({name for name in names if names.count(name) > 1 and not _NAMELESS.fullmatch(name)})
    if twice:
        raise DataError(
            f"{path} has column {', '.join(twice)} twice",
            "a column stands once",
            f"rename or remove one of them; the columns are {', '.join(names)}",
        )


def _no_rows(table: Table) -> DataError:
    bad = [one for one in table.aside if one.reason in BAD]
    if bad:
        shown = ", ".join(f"line {one.line} ({one.why})" for one in bad[:_SHOWN])
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        return DataError(
            f"no line of {table.path} can be read: {shown}{more}",
            *_RULES[table.path.suffix.lower() in (".json", ".jsonl")],
        )
    return DataError(f"{table.path} has no rows", "a table needs one row per recording", "write the rows")

"""The manifest: one Parquet row per utterance. Its columns, its reading and its writing. No command.

Paths are POSIX and relative to the manifest's folder. The rules a row must satisfy are in the validation
stage; here only the shape of the table is held, so that every stage meets the same columns and types.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.artifacts import write_parquet
from tasks.errors import DataError, explain_os_error

SPLITS = ("train", "validation", "test_sentences", "test_voices")  # every corpus needs rows in each
OUT_OF_DOMAIN = "test_ood"  # a corpus may have rows in it
KNOWN_SPLITS = (*SPLITS, OUT_OF_DOMAIN)
OOD_KIND = "ood_kind"  # optional column: what is unusual about a row of OUT_OF_DOMAIN
COMMAND_SPLITS = ("train", "validation", "test")

COLUMNS: dict[str, str] = {
    "utterance_id": "string",
    "path": "string",
    "sha256": "string",
    "duration_s": "float64",
    "sample_rate_hz": "int64",
    "transcript": "string",
    "speaker": "string",
    "split": "string",
    "sentence_ids": "string",
    "joined": "int64",
    "snr_db": "float64",
    "tool_call": "string",
}
"""Column names and pandas types. `snr_db` is NaN for clean speech; `tool_call` is JSON, or "" without one."""

COMMAND_COLUMNS = ("sentence_id", "text", "written", "tool_call", "intent", "split")


def read_manifest(path: Path) -> pd.DataFrame:
    """The manifest with every column of `COLUMNS` in its type; other columns are kept behind them.

    Raises:
        DataError: the file is no Parquet file, or columns are missing (all of them are named).
        ArtifactError: the file is missing.
    """
    frame = read_table(path)
    require_columns(frame, tuple(COLUMNS), path)
    return with_types(frame, path)


def write_manifest(path: Path, frame: pd.DataFrame) -> None:
    """Write a manifest, columns in their order and types, atomically."""
    require_columns(frame, tuple(COLUMNS), path)
    write_parquet(path, with_types(frame, path))


def read_table(path: Path) -> pd.DataFrame:
    """Any Parquet file as a data frame. Raises DataError if it is none, ArtifactError if it is missing."""
    try:
        # pandas would look for a data set in a folder; an open file says plainly what is wrong with it
        with path.open("rb") as stream:
            frame: pd.DataFrame = pq.read_table(stream).to_pandas()
    except OSError as error:
        if isinstance(error, pa.ArrowException) or error.errno is None:
            raise _not_parquet(path, error) from error
        raise explain_os_error(error, path) from error
    except pa.ArrowException as error:
        raise _not_parquet(path, error) from error
    return frame


def require_columns(frame: pd.DataFrame, names: tuple[str, ...], path: Path) -> None:
    """Raise DataError naming every column of `names` that is missing, at once."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        found = ", ".join(str(name) for name in frame.columns) or "none"
        raise DataError(
            f"{path} has no column {', '.join(missing)}",
            f"a manifest needs {', '.join(names)}; found {found}",
            "add the missing columns and write the Parquet file again",
        )


def with_types(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Known columns first and in their types. Raises DataError naming a column that does not convert."""
    known = [name for name in COLUMNS if name in frame.columns]
    frame = frame[[*known, *(name for name in frame.columns if name not in COLUMNS)]].copy()
    for name in known:
        try:
            if COLUMNS[name] == "string":
                frame[name] = frame[name].fillna("").astype(str)
            else:
                frame[name] = frame[name].astype(np.dtype(COLUMNS[name]))
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(
                f"column {name} of {path} ({error})",
                f"its values must be {COLUMNS[name]}",
                "correct the column in the table",
            ) from error
    for name in frame.columns:
        if name not in COLUMNS and frame[name].dtype == object:
            frame[name] = _storable(frame[name])
    return frame.reset_index(drop=True)


def _storable(values: pd.Series) -> pd.Series:
    """A user's own column as it is; as text where Parquet could not hold its values together."""
    try:
        pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError):
        return values.map(lambda value: None if value is None or value != value else str(value))
    return values


def require_splits(splits: pd.Series, path: Path, names: tuple[str, ...] = SPLITS) -> None:
    """Raise DataError naming every split of `names` that has no row, at once."""
    counts = splits.value_counts()
    empty = [name for name in names if counts.get(name, 0) == 0]
    if empty:
        raise DataError(
            f"{path} has no row in {', '.join(empty)}",
            f"every split needs rows: {', '.join(names)} (column split)",
            "add rows to the empty split, or look into the quarantine why they were rejected",
        )


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries, column name to value."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _not_parquet(path: Path, error: BaseException) -> DataError:
    return DataError(
        f"{path} cannot be read as Parquet ({str(error).splitlines()[0]})",
        "the file must be one whole Parquet file",
        "write it again, for example with pandas.DataFrame.to_parquet",
    )

"""Vectors of recordings as a file: Parquet, row by row, or npz. No command.

Parquet has a row per recording: utterance_id, path, duration_s, model_sha256, layer, pooling, and `vector`, a
list of float32 of fixed size; frame-level files have `times_s` and `vectors`, a list of such lists, instead.
npz has arrays of the same names; frame-level vectors of all recordings lie one after another in `vectors`
(frames, hidden), those of recording `i` from `offsets[i]` to `offsets[i + 1]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.artifacts import new_file
from tasks.asr.embed import Embedded, Pooling
from tasks.errors import DataError

FORMATS = (".parquet", ".npz")
_ROWS = 1_000  # pooled rows written at once; a frame-level recording is written alone


class Made(NamedTuple):
    """What every vector of a file has in common."""

    model_sha256: str
    layer: int
    pooling: Pooling
    size: int  # of a vector


class Writer(Protocol):
    """Takes results one by one."""

    def add(self, utterance_id: str, path: str, embedded: Embedded) -> None:
        """One recording; its first layer is written."""


@contextmanager
def vectors_file(path: Path, made: Made) -> Iterator[Writer]:
    """A writer whose file stands under `path` when the block ends without an error, and else not at all.

    Raises:
        DataError: the suffix is no format.
    """
    if path.suffix not in FORMATS:
        raise DataError(f"--out {path}", f"must end in {' or '.join(FORMATS)}", "choose another name")
    with new_file(path) as temporary:
        writer = _Parquet(temporary, made) if path.suffix == ".parquet" else _Npz(temporary, made)
        try:
            yield writer
        finally:
            writer.close()


class _Parquet:
    def __init__(self, path: Path, made: Made) -> None:
        self.made, self.rows = made, []  # type: tuple[Made, list[dict[str, Any]]]
        vector = pa.list_(pa.float32(), made.size)
        framed = [("times_s", pa.list_(pa.float32())), ("vectors", pa.list_(vector))]
        self.schema = pa.schema(
            [
                ("utterance_id", pa.string()),
                ("path", pa.string()),
                ("duration_s", pa.float64()),
                ("model_sha256", pa.string()),
                ("layer", pa.int32()),
                ("pooling", pa.string()),
                *(framed if made.pooling == "frames" else [("vector", vector)]),
            ]
        )
        self.writer = pq.ParquetWriter(path, self.schema)

    def add(self, utterance_id: str, path: str, embedded: Embedded) -> None:
        (vectors, *_) = embedded.vectors
        row = {
            "utterance_id": utterance_id,
            "path": path,
            "duration_s": embedded.duration_s,
            "model_sha256": self.made.model_sha256,
            "layer": self.made.layer,
            "pooling": self.made.pooling,
        }
        if self.made.pooling == "frames":
            row |= {"times_s": embedded.times_s, "vectors": list(vectors)}
        else:
            row["vector"] = vectors
        self.rows.append(row)
        if self.made.pooling == "frames" or len(self.rows) == _ROWS:
            self._write()

    def _write(self) -> None:
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.rows = []

    def close(self) -> None:
        self._write()
        self.writer.close()


class _Npz:
    def __init__(self, path: Path, made: Made) -> None:
        self.path, self.made = path, made
        self.ids: list[str] = []
        self.paths: list[str] = []
        self.durations: list[float] = []
        self.vectors: list[Any] = []
        self.times: list[Any] = []

    def add(self, utterance_id: str, path: str, embedded: Embedded) -> None:
        self.ids.append(utterance_id)
        self.paths.append(path)
        self.durations.append(embedded.duration_s)
        self.vectors.append(embedded.vectors[0])
        self.times.append(embedded.times_s)

    def close(self) -> None:
        arrays: dict[str, Any] = {
            "utterance_id": np.array(self.ids, dtype=np.str_),
            "path": np.array(self.paths, dtype=np.str_),
            "duration_s": np.array(self.durations),
            "model_sha256": np.array(self.made.model_sha256),
            "layer": np.array(self.made.layer),
            "pooling": np.array(self.made.pooling),
        }
        none = np.zeros((0, self.made.size), np.float32)
        if self.made.pooling == "frames":
            arrays["vectors"] = np.concatenate([none, *self.vectors])
            arrays["times_s"] = np.concatenate([np.zeros(0, np.float32), *self.times])
            arrays["offsets"] = np.cumsum([0, *(len(vectors) for vectors in self.vectors)])
        else:
            arrays["vector"] = np.stack(self.vectors) if self.vectors else none
        with self.path.open("wb") as stream:
            np.savez(stream, **arrays)

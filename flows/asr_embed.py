"""The command `malgil asr embed`: vectors of recordings, from any layer of an encoder.

    malgil asr embed recordings/ --out vectors.parquet [--layer 3] [--pooling mean|statistics|frames]

The body is tasks/asr/embed.py; what is slow to import is imported by the command.
"""

from __future__ import annotations

import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.console import log_to_console
from flows.environment import take_every_core
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.asr.recordings.sources import Failure, Source

ENCODER = "models/malgil-xlsr-mini"


class PoolingName(StrEnum):
    """What is kept of a recording's frames."""

    mean = "mean"
    statistics = "statistics"
    frames = "frames"


def embed(
    out: Annotated[Path, typer.Option(help="file to write: .parquet or .npz")],
    paths: Annotated[list[str] | None, typer.Argument(help="audio files, folders, globs")] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="table instead (.parquet, .csv, .tsv, .jsonl, .json); paths relative to its folder"
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="wav2vec2-family encoder or recogniser: a folder, or a Hub id")
    ] = ENCODER,
    layer: Annotated[int, typer.Option(help="0: features after projection, 1 to n: blocks, -1: last")] = -1,
    pooling: Annotated[PoolingName, typer.Option(help="one vector per recording, or its frames")] = (
        PoolingName.mean
    ),
    batch_seconds: Annotated[
        float, typer.Option(min=1.0, max=3600.0, help="padded audio per batch, in seconds")
    ] = 15.0,
) -> None:
    """Vectors of recordings of any length, for search, clustering or another model's input."""
    log_to_console()
    take_every_core()
    if bool(paths) == (manifest is not None):
        raise DataError(
            "recordings are named " + ("twice" if paths else "nowhere"),
            "takes either PATHS or --manifest FILE",
            "name files, folders or globs, or one manifest",
        )
    with tempfile.TemporaryDirectory(prefix="malgil-") as scratch:
        if manifest:
            found, ids = _rows(manifest)
        else:
            from tasks.asr.recordings.sources import find_sources

            found = find_sources(paths or [], sys.stdin.buffer, Path(scratch))
            ids = [source.name for source in found]
        failures = _write(found, ids, out, model, layer, pooling, batch_seconds)
    for failure in failures:
        print(f"malgil: {type(failure.error).__name__}: {failure.told()}", file=sys.stderr)
    print(f"malgil: {len(found) - len(failures)} of {len(found)} recordings in {out}", file=sys.stderr)
    if failures:
        raise typer.Exit(DataError.exit_code)


def _rows(manifest: Path) -> tuple[list[Source | Failure], list[str]]:
    """The recordings of a table and their utterance ids; without a column of ids, their paths as written.

    Lines that cannot be read, and paths that lead nowhere, are failures that name their line.
    """
    from tasks.asr.recordings.sources import Failure, Source
    from tasks.data.own.manifests import has_column_names, rows_of_manifest
    from tasks.data.own.paths import Finder, told
    from tasks.data.own.reader import read
    from tasks.data.own.reconciliation import BAD, place
    from tasks.data.tables import ALIASES, with_manifest_names

    columns = read(manifest).frame if has_column_names(manifest) else None
    if columns is not None and "path" not in with_manifest_names(columns, where=manifest, needed=("path",)):
        raise DataError(
            f"{manifest} has no column of paths (found {', '.join(map(str, columns.columns))})",
            f"it is called {', '.join(ALIASES['path'])}",
            "rename the column; a text table needs its column names in the first line",
        )
    gathered = rows_of_manifest(manifest, None, manifest.name, needed=("path",))
    frame = gathered.frame
    found: list[Source | Failure] = []
    where = Finder(manifest.parent).find_all(frame["path"].tolist())
    rows = zip(frame["path"], frame["origin_line"], where, strict=True)
    for number, (path, line, one) in enumerate(rows, 1):
        row = place(manifest.name, line)
        if one.path is not None:
            found.append(Source(path, one.path, Path(path)))
        elif not path.strip():
            name = f"row {number} ({row})"
            error = DataError(f"{name} has no path", "every row names a recording", "fill it in or drop it")
            found.append(Failure(name, error))
        else:
            what = f"{path} ({row}) is missing ({one.how})"
            error = DataError(
                what, f"must be a file below {manifest.parent}", "correct the path, or restore it"
            )
            found.append(Failure(path, error))
    ids = frame["utterance_id"] if "utterance_id" in frame.columns else frame["path"]
    names = [str(name) for name in ids]
    for bad in (one for one in gathered.aside if one.reason in BAD):
        row = place(manifest.name, bad.line)
        error = DataError(f"{row} cannot be read ({bad.why})", "every line is a row", "correct the line")
        found.append(Failure(row, error))
        names.append(row)
    notes = [note for note in gathered.notes if not note.startswith(("transcript ", "speaker ", "split "))]
    for note in [*notes, *told(where)]:
        print(f"malgil: {note}", file=sys.stderr)
    return found, names


def _write(
    found: list[Source | Failure],
    ids: list[str],
    out: Path,
    model: str,
    layer: int,
    pooling: PoolingName,
    batch_seconds: float,
) -> list[Failure]:
    """Writes the vectors and returns what has none."""
    from tasks.asr.embed import embed as results
    from tasks.asr.embedding.encoder import load_encoder_layers
    from tasks.asr.embedding.vectors import Made, vectors_file
    from tasks.asr.engines.named import find_model
    from tasks.asr.recordings.sources import Failure
    from tasks.progress import Progress

    encoder = load_encoder_layers(find_model(model, "torch").folder, (layer,))
    size = encoder.hidden * (2 if pooling is PoolingName.statistics else 1)
    made = Made(encoder.sha256, encoder.layers[0], pooling.value, size)
    failures: list[Failure] = []
    with (
        vectors_file(out, made) as writer,
        Progress("embed", len(found), "recordings") as progress,
    ):
        for name, result in zip(
            ids, results(found, encoder, pooling.value, batch_seconds, progress=progress), strict=True
        ):
            if isinstance(result, Failure):
                failures.append(result)
            else:
                writer.add(name, result.name, result)
                for note in result.notes:
                    print(f"malgil: warning: {note}", file=sys.stderr)
    return failures

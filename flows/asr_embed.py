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
        typer.Option(help="table instead (.parquet, .csv, .tsv, .jsonl); paths relative to its folder"),
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
    """The recordings of a table and their utterance ids; without a column of ids, their paths."""
    from tasks.asr.recordings.sources import Failure, Source
    from tasks.data.tables import ALIASES, read_table, with_manifest_names

    table = read_table(manifest)
    frame = with_manifest_names(table)
    if "path" not in frame.columns:
        raise DataError(
            f"{manifest} has no column of paths (found {', '.join(map(str, table.columns))})",
            f"it is called {', '.join(ALIASES['path'])}",
            "rename the column",
        )
    found: list[Source | Failure] = []
    for number, path in enumerate(frame["path"], 1):
        if not isinstance(path, str) or not path.strip():
            name = f"row {number} of {manifest}"
            error = DataError(f"{name} has no path", "every row names a recording", "fill it in or drop it")
            found.append(Failure(name, error))
        elif (file := manifest.parent / path).is_file():
            found.append(Source(path, file, Path(path)))
        else:
            error = DataError(f"{path} is missing", f"must be a file below {manifest.parent}", "restore it")
            found.append(Failure(path, error))
    ids = frame["utterance_id"] if "utterance_id" in frame.columns else [source.name for source in found]
    return found, [str(name) for name in ids]


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
    return failures

"""A Hub data set with an audio column, as rows of a manifest. No command: `corpus.source: hub`.

The layout is that of kresnik/zeroth_korean: Parquet shards with `audio` ({bytes, path}), `text` and
`speaker_id`, one set of shards per split. A Hub id is downloaded once into the Hub's own cache (resumable)
and read from there through `datasets`; a local folder of that layout is read in place. Audio is taken
undecoded: libsndfile reads it like any other file.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.data.hub import fetch, hub_name
from tasks.data.own.gathered import Gathered
from tasks.data.own.paths import AUDIO_SUFFIXES
from tasks.data.own.reconciliation import ORIGIN, SetAside, counted, printable
from tasks.data.own.system_files import is_system_file
from tasks.data.tables import ALIASES, check_named, with_manifest_names
from tasks.errors import DataError, explain_os_error
from tasks.progress import track

AUDIO = "audio"  # the column of the audio, unless another is named
log = logging.getLogger("malgil.corpus")


def rows_of_hub(name: str, into: Path | None, named: Mapping[str, str] | None = None) -> tuple[Gathered, str]:
    """Write every recording to the folder `into`, undecoded, and return its rows and what was read.

    Args:
        name: a local folder, a Hub id, or `id@revision`.
        into: None reads the rows alone, not the audio.
        named: column of the manifest to the data set's own; those not named are looked for.

    Returns:
        The rows, with the path relative to `into` and the split and row of their origin, and "id at commit"
        or the folder's name.

    Raises:
        DataError: the data set is not there, cannot be read, or has no column of audio or of text.
    """
    folder, said = (Path(name), Path(name).name) if Path(name).is_dir() else _download(name)
    rows: list[dict[str, Any]] = []
    origins: list[tuple[str, int, str]] = []
    numbers: Counter[str] = Counter()
    named = {column: own for column, own in (named or {}).items() if own}
    sound = named.pop("path", AUDIO)
    found = _rows(folder, name, sound, named, silent=into is None)
    for split, row in track(found, "read data set", unit="recordings"):
        audio = row.pop(sound, None) or {}
        if "split" not in named:
            row["split"] = split
        stem = f"{len(rows):06d}"
        row["path"] = stem + _suffix(audio.get("path") or "")
        numbers[split] += 1
        origins.append((split, numbers[split], str(audio.get("path") or "")))
        if into is None:
            pass
        elif audio.get("bytes") is not None:
            (into / row["path"]).write_bytes(audio["bytes"])
        elif audio.get("path") and Path(audio["path"]).is_file():
            shutil.copyfile(audio["path"], into / row["path"])
        rows.append(row)
    notes: list[str] = []
    frame = with_manifest_names(pd.DataFrame(rows), {**named, "path": "path"}, name, notes)
    if "utterance_id" in frame:  # ids of data sets count per speaker or per split, or are numbers
        frame = frame.drop(columns="utterance_id")
    frame[list(ORIGIN[:3])] = pd.DataFrame(origins, columns=list(ORIGIN[:3]), index=frame.index)
    files, aside = _system_files(folder)
    counts = [counted("find", "file", files, files - len(aside), aside)]
    counts.append(counted("read", "row", sum(numbers.values()), len(frame), []))
    return Gathered(frame, counts, aside, notes), said


def _suffix(path: str) -> str:
    suffix = Path(path).suffix.lower()
    return suffix if suffix in AUDIO_SUFFIXES else ""


def _system_files(folder: Path) -> tuple[int, list[SetAside]]:
    """How many files there are, and those of operating systems, which `datasets` passes over too."""
    paths = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    left = [SetAside(printable(path), 0, "operating_system_file") for path in paths if is_system_file(path)]
    return len(paths), left


def _download(name: str) -> tuple[Path, str]:
    """The snapshot of a Hub data set in the Hub's cache, and "id at commit"."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    asked = hub_name(name)
    try:
        if asked is None:
            raise ValueError("no such folder")
        folder = fetch(asked, "dataset")
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"corpus.hub {name!r} is no local folder and cannot be downloaded ({reason})",
            "names a folder here, or a data set of the Hub that this machine reaches and may read",
            "correct the name or revision; for a private one set HF_TOKEN; offline, name a local copy",
        ) from error
    return folder, f"{asked.repository} at {folder.name}"


def _rows(
    folder: Path, name: str, sound: str, named: Mapping[str, str], *, silent: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(split, row) of every row, audio undecoded; without it if `silent`."""
    import datasets

    datasets.disable_progress_bars()
    try:
        splits = datasets.load_dataset(str(folder), streaming=True)
        for split, rows in splits.items():
            _require_columns(rows.column_names or list(rows.features or ()), name, sound, named)
            undecoded = rows.cast_column(sound, datasets.Audio(decode=False))
            for row in rows.remove_columns(sound) if silent else undecoded:
                yield str(split), dict(row)
    except OSError as error:
        if error.errno is not None:
            raise explain_os_error(error, folder) from error
        raise _unreadable(name, error) from error
    except (
        ValueError,
        datasets.exceptions.DatasetsError,
        datasets.exceptions.DatasetGenerationError,
    ) as error:
        raise _unreadable(name, error) from error


def _require_columns(columns: list[str], name: str, sound: str, named: Mapping[str, str]) -> None:
    asked = dict(named) if sound == AUDIO else {"path": sound, **named}
    check_named(columns, asked, f"data set {name}")
    missing = [AUDIO] if sound not in columns else []
    if "transcript" not in named and not set(ALIASES["transcript"]) & set(columns):
        missing.append("text")
    if missing:
        raise DataError(
            f"data set {name} has no column {', '.join(missing)}",
            f"it needs audio ({{bytes, path}}) and text; found {', '.join(columns) or 'none'}",
            "name its columns (corpus.audio_column, corpus.transcript_column), or name a speech data set",
        )


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(
        f"data set {name} cannot be read ({(str(error).strip().splitlines() or ['no reason given'])[0]})",
        "must be whole Parquet shards, as data/train-00000-of-00001.parquet",
        "download or write it again",
    )

"""A folder of recordings with their transcripts, as rows of a manifest. No command: `corpus.source: folder`.

Three layouts are understood, told by what lies in the folder:

    metadata.csv | metadata.jsonl   as Hugging Face's audiofolder: file_name, a transcript, other columns
    <any>/*.trans.txt               as LibriSpeech and Zeroth: lines "<id> <text>", audio <id>.flac beside it
    <name>.txt beside <name>.wav    one transcript per recording

The first folder below the top is the split when it has the name of one (train, dev, test ...).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.data.splits import SPLIT_NAMES
from tasks.data.tables import read_table, with_manifest_names
from tasks.errors import DataError, explain_os_error

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".oga")
_METADATA = ("metadata.jsonl", "metadata.csv")
_SPEAKER_IN_ID = re.compile(r"(?P<speaker>[^-_]+)[-_].+")


def rows_of_folder(folder: Path, named: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One row per recording: path (relative to the folder), transcript, speaker and split where known.

    A transcript without audio keeps its row, so that the validation stage names the missing file; audio
    without a transcript has an empty one. The speaker of the *.trans.txt layout is the first part of the id,
    or the folder's parent; in the sidecar layout it is the folder that the recording lies in, if there are
    several.

    Args:
        named: column of the manifest to the user's own in metadata.csv or metadata.jsonl.

    Raises:
        DataError: no recordings, no transcripts, a line of *.trans.txt without text, or a named column that
            is not there.
        ArtifactError: there is no such folder.
    """
    if not folder.is_dir():
        raise explain_os_error(FileNotFoundError(2, "missing", str(folder)))
    audio = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()
    )
    tables = [path for name in _METADATA for path in sorted(folder.rglob(name))]
    listings = sorted(folder.rglob("*.trans.txt"))
    if tables:
        frame = _from_metadata(folder, tables, named)
    elif any((named or {}).values()):
        raise DataError(
            f"{folder} has no {' or '.join(_METADATA)}",
            "only a table has columns that can be named",
            "leave corpus.audio_column, transcript_column, speaker_column and split_column empty",
        )
    elif listings:
        frame = _from_listings(folder, listings, audio)
    else:
        frame = _from_sidecars(folder, audio)
    if "split" not in frame:
        splits = frame["path"].map(_split_in_path)
        if splits.astype(bool).any():
            frame["split"] = splits
    return frame


def _from_metadata(folder: Path, tables: list[Path], named: Mapping[str, str] | None) -> pd.DataFrame:
    parts = []
    for table in tables:
        part = with_manifest_names(read_table(table), named, table)
        if "path" in part:
            beside = table.parent.relative_to(folder)
            part["path"] = [(beside / str(path)).as_posix() for path in part["path"]]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _from_listings(folder: Path, listings: list[Path], audio: list[Path]) -> pd.DataFrame:
    by_name = {(path.parent, path.stem): path for path in audio}
    rows: list[dict[str, Any]] = []
    for listing in listings:
        for number, line in enumerate(_lines(listing), 1):
            if not line.strip():
                continue
            name, _, text = line.strip().partition(" ")
            if not text.strip():
                raise DataError(
                    f"line {number} of {listing} is {line.strip()!r}",
                    'each line is "<id> <text>"',
                    "write the transcript behind the id, or remove the line",
                )
            path = by_name.get((listing.parent, name), listing.parent / f"{name}.flac")
            found = _SPEAKER_IN_ID.fullmatch(name)
            rows.append(
                {
                    "utterance_id": name,
                    "path": path.relative_to(folder).as_posix(),
                    "transcript": text.strip(),
                    "speaker": found["speaker"] if found else listing.parent.name,
                }
            )
    return pd.DataFrame(rows, columns=["utterance_id", "path", "transcript", "speaker"])


def _from_sidecars(folder: Path, audio: list[Path]) -> pd.DataFrame:
    if not audio:
        raise DataError(
            f"{folder} holds no recordings",
            f"a recording ends in {', '.join(AUDIO_SUFFIXES)}",
            "name the folder that holds them in corpus.folder",
        )
    texts = [
        "\n".join(_lines(sidecar)).strip() if (sidecar := path.with_suffix(".txt")).is_file() else ""
        for path in audio
    ]
    if not any(texts):
        raise DataError(
            f"{folder} holds {len(audio)} recordings and no transcript",
            "a recording has a .txt file of its name beside it, or stands in a *.trans.txt, metadata.csv or "
            "metadata.jsonl",
            "add the transcripts, or write a manifest (corpus.source: manifest)",
        )
    rows = pd.DataFrame(
        {"path": [path.relative_to(folder).as_posix() for path in audio], "transcript": texts}
    )
    places = [path.parent.relative_to(folder).as_posix() for path in audio]
    speakers = [place.split("/")[-1] if _split_name(place.split("/")[-1]) is None else "" for place in places]
    if len(set(speakers)) > 1:
        rows["speaker"] = speakers
    return rows


def _split_in_path(path: str) -> str:
    first = path.split("/")[0] if "/" in path else ""
    return _split_name(first) or ""


def _split_name(name: str) -> str | None:
    """The split that a folder's name says: train, train-clean-100, dev-other, test ..."""
    return SPLIT_NAMES.get(re.split(r"[-_]", name.lower())[0]) if name else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8",
            "a transcript is UTF-8 text",
            f"convert it, for example `iconv -f CP949 -t UTF-8 {path.name}`",
        ) from error
    except OSError as error:
        raise explain_os_error(error, path) from error

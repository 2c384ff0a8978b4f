"""A folder of recordings with their transcripts, as rows of a manifest. No command: `corpus.source: folder`.

The layouts that are understood, told by what lies in the folder:

    metadata.csv | .tsv | .jsonl    as Hugging Face's audiofolder: file_name, a transcript, other columns
    metadata.csv and wavs/          as LJSpeech: <id>|<text>|<normalised text>, no header, no quotes
    *.trn                           as KsponSpeech: lines "<path> :: <text>" (`tasks.data.own.listed`)
    wav.scp and text                as Kaldi and ESPnet (`tasks.data.own.kaldi`)
    <any>/*.trans.txt               as LibriSpeech and Zeroth: lines "<id> <text>", audio <id>.flac beside it
    <name>.txt beside <name>.wav    one transcript per recording

The first folder below the top is the split when it has the name of one (train, dev, test ...). Files of
operating systems are passed over; every file is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pandas as pd

from tasks.data.own.gathered import Gathered
from tasks.data.own.kaldi import SCRIPT, is_kaldis, rows_of_kaldi
from tasks.data.own.listed import is_listed
from tasks.data.own.listing import Listing, list_folder
from tasks.data.own.manifests import rows_of_manifest
from tasks.data.own.paths import AUDIO_SUFFIXES
from tasks.data.own.reconciliation import Count, SetAside, added
from tasks.data.own.transcripts import rows_of_listings, rows_of_sidecars
from tasks.data.splits import SPLIT_NAMES
from tasks.errors import DataError

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.tsv", "metadata.parquet")


def rows_of_folder(folder: Path, named: Mapping[str, str] | None = None) -> Gathered:
    """One row per recording: path (relative to the folder), transcript, speaker and split where known.

    A line of a table whose audio is missing keeps its row, so that the validation stage names the missing
    file; audio without a transcript has an empty one. The speaker of the *.trans.txt layout is the first part
    of the id, or the folder's parent; in the sidecar layout it is the folder that the recording lies in, if
    there are several.

    Args:
        named: column of the manifest to the user's own in metadata.csv or metadata.jsonl.

    Raises:
        DataError: no recordings, no transcripts, or a named column that is not there.
        ArtifactError: there is no such folder.
    """
    listing = list_folder(folder)
    tables = [file for name in _METADATA for file in listing.files if PurePosixPath(file).name == name]
    scripts = [file for file in listing.files if PurePosixPath(file).name == SCRIPT]
    listings = [file for file in listing.files if file.endswith(".trans.txt")]
    lists = [file for file in listing.files if file.endswith(".trn") and is_listed(folder / file)]
    if tables:
        gathered, used = _rows_of_tables(folder, _one_a_folder(folder, tables), named), tables
    elif any((named or {}).values()):
        raise DataError(
            f"{folder} has no {' or '.join(_METADATA)}",
            "only a table has columns that can be named",
            "leave corpus.audio_column, transcript_column, speaker_column and split_column empty",
        )
    elif scripts:
        places = {PurePosixPath(file).parent for file in scripts}
        used = [file for file in listing.files if PurePosixPath(file).parent in places and is_kaldis(file)]
        gathered = rows_of_kaldi(folder, scripts)
    elif lists:
        gathered, used = _rows_of_tables(folder, lists, named), lists
    elif listings:
        gathered, used = rows_of_listings(folder, listings, listing.audio), listings
    else:
        _require_recordings(folder, listing)
        gathered, used = with_speakers(rows_of_sidecars(folder, listing)), []
    gathered = _with_splits(gathered)
    count, others = _count_files(listing, gathered, used)
    aside = [*listing.aside, *(SetAside(file, 0, "other_file") for file in others), *gathered.aside]
    return Gathered(gathered.frame, [count, *gathered.counts], aside, gathered.notes)


def _one_a_folder(folder: Path, tables: list[str]) -> list[str]:
    """The tables. Raises DataError where two lie in one folder: they would name each recording twice."""
    twice = Counter(PurePosixPath(file).parent for file in tables).most_common(1)[0]
    if twice[1] > 1:
        names = [file for file in tables if PurePosixPath(file).parent == twice[0]]
        raise DataError(
            f"{folder} holds {' and '.join(names)}",
            "one table names the recordings of a folder",
            f"name the one that is meant: -S corpus.source=manifest -S corpus.manifest={folder / names[0]}",
        )
    return tables


def _rows_of_tables(folder: Path, tables: list[str], named: Mapping[str, str] | None) -> Gathered:
    parts = []
    for file in tables:
        path = folder / file
        part = rows_of_manifest(path, named, file)
        beside = PurePosixPath(file).parent
        part.frame["path"] = [(beside / name).as_posix() for name in part.frame["origin_path"]]
        parts.append(part)
    return Gathered(
        pd.concat([part.frame for part in parts], ignore_index=True),
        [added("read", [count for part in parts for count in part.counts])],
        [one for part in parts for one in part.aside],
        [note for part in parts for note in part.notes],
    )


def _require_recordings(folder: Path, listing: Listing) -> None:
    if not listing.audio:
        raise DataError(
            f"{folder} holds no recordings",
            f"a recording ends in {', '.join(AUDIO_SUFFIXES)}",
            "name the folder that holds them in corpus.folder",
        )


def _count_files(listing: Listing, gathered: Gathered, tables: Sequence[str]) -> tuple[Count, Sequence[str]]:
    """Every file of the folder: those that made rows or hold their lines, the others by what they are; and
    those that are nothing of a corpus."""
    reasons = Counter(one.reason for one in listing.aside)
    left = set(listing.files)
    if tables:
        left -= set(tables)
        made = len(tables)
        alone = {
            one.file for one in gathered.aside if one.reason == "audio_without_transcript" and not one.line
        }
        reasons["audio_without_transcript"] = len(alone)
        reasons["recording"] = len(set(listing.audio) - alone)
        left -= set(listing.audio)
    else:
        made = len(gathered.frame)
        left -= set(listing.audio)
        texts = {one for one in gathered.frame["origin_file"] if one in left}
        reasons["transcript"] = len(texts)
        left -= texts
        for one in gathered.aside:
            reasons[one.reason] += 1
            reasons["transcript"] += one.reason == "unreadable_line"  # a recording and its text
            left.discard(one.file)
    reasons["other_file"] = len(left)
    named = {reason: number for reason, number in reasons.items() if number}
    return Count("find", "file", listing.entered, made, named).check(), sorted(left)


def _with_splits(gathered: Gathered) -> Gathered:
    """The rows with the split that the first folder of their path names, where no column does."""
    if "split" in gathered.frame:
        return gathered
    splits = gathered.frame["path"].map(_split_in_path)
    frame = gathered.frame.assign(split=splits) if splits.astype(bool).any() else gathered.frame
    return replace(gathered, frame=frame)


def _split_in_path(path: str) -> str:
    first = path.split("/")[0] if "/" in path else ""
    return split_name(first) or ""


def split_name(name: str) -> str | None:
    """The split that a folder's name says: train, train-clean-100, dev-other, test ..."""
    return SPLIT_NAMES.get(re.split(r"[-_]", name.lower())[0]) if name else None


def with_speakers(gathered: Gathered) -> Gathered:
    """The rows of recordings with a text each: the speaker is the folder, if there are several."""
    places = [PurePosixPath(path).parent.name for path in gathered.frame["path"]]
    speakers = [place if split_name(place) is None else "" for place in places]
    frame = gathered.frame.assign(speaker=speakers) if len(set(speakers)) > 1 else gathered.frame
    return replace(gathered, frame=frame)

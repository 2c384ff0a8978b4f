"""What the columns of a user's table mean: the names that data sets use, and the settings that name others.

No command. The reading itself, line by line, is in `tasks.data.own.reader`; what the rows must hold is for
`tasks.data.source` and the validation stage.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tasks.data.own.reader import SUFFIXES, read_whole
from tasks.errors import DataError

__all__ = ["ALIASES", "SETTINGS", "SUFFIXES", "check_named", "read_table", "with_manifest_names"]

ALIASES: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "file", "file_name", "audio", "audio_path", "wav", "filename"),
        *("audio_filepath", "audio_file_path", "wav_path", "file_path", "filepath"),
        *("wav_filename", "audio_filename", "audio_file", "파일명", "파일", "파일경로"),
    ),
    "transcript": (
        *("transcript", "text", "sentence", "transcription", "normalized_text", "wrd"),
        *("전사", "전사문", "텍스트", "문장"),
    ),
    "speaker": ("speaker", "speaker_id", "client_id", "spk", "spk_id", "화자"),
    "split": ("split", "subset", "partition"),
    "utterance_id": ("utterance_id", "id", "utt_id", "utt"),
}
"""Column of the manifest to the names it is found under, the likeliest first: those of Hugging Face, NeMo
(`audio_filepath`), Common Voice (`sentence`, `client_id`), LJSpeech, ESPnet, DeepSpeech, SpeechBrain (`wrd`),
and Korean ones."""

SETTINGS = {
    "path": "corpus.audio_column",
    "transcript": "corpus.transcript_column",
    "speaker": "corpus.speaker_column",
    "split": "corpus.split_column",
}
"""Column of the manifest to the setting that names the user's own."""

_NEMO = "audio_filepath"  # where this is the path, `duration` is in seconds
_INVISIBLE = re.compile("[\ufeff\u200b-\u200d\u2060]")


def read_table(path: Path) -> pd.DataFrame:
    """A table of which every line counts, as it is written.

    Raises:
        DataError: another suffix or encoding, a line that cannot be read (with its number), no rows.
        ArtifactError: the file is missing.
    """
    return read_whole(path).frame


def with_manifest_names(
    frame: pd.DataFrame,
    named: Mapping[str, str] | None = None,
    where: Path | str = "the table",
    notes: list[str] | None = None,
    needed: Sequence[str] = ("path", "transcript"),
) -> pd.DataFrame:
    """The frame with the manifest's column names: those that are `named`, else the likeliest of `ALIASES`.

    Names that differ in case, spaces or hyphens alone are taken for one. A column that bears the manifest's
    name but is not the one named is left out.

    Args:
        named: column of the manifest to the user's own; those named "" are looked for.
        where: what the frame was read from, for the message.
        notes: gets a line for every decision that a user should know of.
        needed: columns for which doubt is refused (two that look alike, two of other paths).

    Raises:
        DataError: with every named column that is not there, and every one named twice; two columns could be
            the same one and differ.
    """
    notes = [] if notes is None else notes
    named = {name: own for name, own in (named or {}).items() if own}
    check_named([str(column) for column in frame.columns], named, where)
    names = {own: name for name, own in named.items()}
    for name, aliases in ALIASES.items():
        if name in named:
            continue
        found = [own for own in _candidates(frame, aliases) if own not in names]
        if not found:
            continue
        _refuse_collision(frame, name, found, where, notes, strict=name in needed)
        names[found[0]] = name
        if found[0] not in aliases:
            notes.append(f"column {found[0]!r} was taken for {name}")
    if names.get(_NEMO) == "path" and "duration" in frame.columns and "duration_s" not in frame.columns:
        names["duration"] = "duration_s"
    others = [name for name in names.values() if name in frame.columns and name not in names]
    return frame.drop(columns=others).rename(columns=names)


def require_named(frame: pd.DataFrame, columns: Sequence[str], names: Sequence[str], where: Path) -> None:
    """Raises DataError for columns of `names` that were not found, with what the table has and what helps.

    Args:
        columns: of the table as it is written.
    """
    missing = [name for name in names if name not in frame.columns]
    if missing:
        looked = "; ".join(f"{name} is looked for as {', '.join(ALIASES[name])}" for name in missing)
        settings = " ".join(f"-S {SETTINGS[name]}=…" for name in missing)
        raise DataError(
            f"{where} has no column {', '.join(missing)}",
            f"{looked}; its columns are {', '.join(columns) or 'none'}",
            f"name yours: {settings} ({' and '.join(SETTINGS[name] for name in missing)}); "
            "a text table needs its column names in the first line",
        )


def check_named(columns: Sequence[str], named: Mapping[str, str], where: Path | str) -> None:
    """Raises DataError with every named column that is not among `columns`, and every one named twice."""
    problems = [
        f"{SETTINGS[name]} names {own!r}, which is not there" + _near(own, columns)
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


def _near(name: str, columns: Sequence[str]) -> str:
    found = difflib.get_close_matches(_folded(name), [_folded(column) for column in columns], 1, 0.8)
    return f" (there is {next(c for c in columns if _folded(c) == found[0])!r})" if found else ""


def _candidates(frame: pd.DataFrame, aliases: Sequence[str]) -> list[str]:
    """Columns that could be the one, the likeliest first: exact names before those that look alike."""
    columns = [str(column) for column in frame.columns]
    exact = [alias for alias in aliases if alias in columns]
    alike = [own for own in columns if own not in exact and _folded(own) in aliases]
    return exact + sorted(alike, key=lambda own: aliases.index(_folded(own)))


def _folded(name: str) -> str:
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", name)).strip().casefold()
    return re.sub(r"[\s\-]+", "_", plain)


def _refuse_collision(
    frame: pd.DataFrame, name: str, found: Sequence[str], where: Path | str, notes: list[str], *, strict: bool
) -> None:
    """Of several candidates the first is taken, which is said where another holds other values (`text` beside
    `normalized_text`); two that look alike (`Text` and `text`) must hold the same, and two columns of paths
    name the same files."""
    for other in found[1:]:
        first, second = (frame[own].map(_comparable) for own in (found[0], other))
        if not (first != second).any():
            continue
        doubtful = _folded(found[0]) == _folded(other)
        if name == "path":
            doubtful = doubtful or bool((first.map(_file_name) != second.map(_file_name)).any())
        if strict and doubtful:
            raise DataError(
                f"{where} has columns {found[0]!r} and {other!r}, and either could be the {name}",
                f"one column is the {name}; these two hold different values",
                f"name the one that is meant: -S {SETTINGS[name]}={found[0]} or -S {SETTINGS[name]}={other}",
            )
        setting = f"; {SETTINGS[name]} takes another" if name in SETTINGS else ""
        notes.append(f"{name} is column {found[0]!r}, not {other!r}, which differs{setting}")


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _comparable(value: object) -> str:
    return "" if value is None or value != value else str(value)

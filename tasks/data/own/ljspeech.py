"""LJSpeech's metadata.csv: <id>|<text>|<normalised text>, without a header or quotes. No command."""

from __future__ import annotations

from pathlib import Path

from tasks.data.own.gathered import Gathered, rows_of_table
from tasks.data.own.lines import read_lines
from tasks.data.own.reader import read

_COLUMNS = ("id", "text", "normalized_text")
_FOLDERS = ("wavs", "wav", ".")
_LOOKED_AT = 5  # lines


def is_ljspeech(path: Path) -> bool:
    """Whether the lines of a file, the first one too, name recordings by their ids in front of a bar."""
    if path.suffix.lower() not in (".csv", ".txt") or not path.is_file():
        return False
    lines = [line.text for line in read_lines(path)[:_LOOKED_AT] if line.text.strip()]
    return bool(lines) and all(_names_a_recording(path, line) for line in lines)


def rows_of_ljspeech(path: Path, file: str) -> Gathered:
    """The rows; the transcript is the normalised text where there is one, the path wavs/<id>.wav.

    Args:
        file: the table's name for readers, relative to the folder that paths are relative to.
    """
    wide = any(line.text.count("|") == 2 for line in read_lines(path)[:_LOOKED_AT])
    table = read(path, _COLUMNS if wide else _COLUMNS[:2])
    named = {"path": "id", "transcript": "normalized_text" if wide else "text"}
    return rows_of_table(table, named, file)


def _names_a_recording(path: Path, line: str) -> bool:
    name, bar, _ = line.partition("|")
    if not bar or line.count("|") > 2 or not name.strip() or "\0" in name or len(name) > 200:
        return False
    return any((path.parent / folder / f"{name.strip()}.wav").is_file() for folder in _FOLDERS)

"""Lists of recordings without column names: `<path> :: <text>` of KsponSpeech, `<path>|<text>`. No command.

Told by what stands in the first lines: a path with a suffix of audio, the separator (`::`, a tab or a bar)
once, and a text. What is separated by commas needs a header: a transcript may hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tasks.data.own.gathered import Gathered, names_a_system_file, with_origin
from tasks.data.own.lines import Line, read_lines
from tasks.data.own.paths import is_recording
from tasks.data.own.reconciliation import SetAside, counted

LIST_SUFFIXES = (".trn", ".lst", ".list", ".txt")
_SEPARATORS = ("::", "\t", "|")
_LOOKED_AT = 20  # lines


def is_listed(path: Path) -> bool:
    """Whether the first line of a file, and most of those after it, are a recording and its text."""
    if path.suffix.lower() not in (*LIST_SUFFIXES, ".tsv", ".csv") or not path.is_file():
        return False
    return bool(_separator(read_lines(path)))


def rows_of_listed(path: Path, file: str) -> Gathered:
    """The rows of a list; lines without a path or a text are set aside by name.

    Args:
        file: the list's name for readers, relative to the folder that its paths are relative to.
    """
    lines = read_lines(path)
    separator = _separator(lines)
    rows: list[tuple[str, str]] = []
    numbers: list[int] = []
    aside: list[SetAside] = []
    for line in lines:
        name, _, text = line.text.partition(separator)
        if not line.text.strip():
            aside.append(SetAside(file, line.number, "blank_line", "", line.text))
        elif line.fault or not name.strip() or not text.strip():
            why = line.fault or f"each line is '<path> {separator.strip() or 'tab'} <text>'"
            aside.append(SetAside(file, line.number, "unreadable_line", why, line.text))
        elif names_a_system_file(name.strip()):
            aside.append(SetAside(file, line.number, "operating_system_file", "", line.text))
        else:
            rows.append((name.strip(), text.strip()))
            numbers.append(line.number)
    frame = pd.DataFrame(rows, columns=["path", "transcript"], dtype=object)
    frame = with_origin(frame, [file] * len(frame), numbers)
    note = f"{file} has no column names: each line was read as a recording and its text"
    return Gathered(frame, [counted("read", "line", len(lines), len(frame), aside)], aside, [note])


def _separator(lines: Sequence[Line]) -> str:
    """What separates a recording from its text in the first line and most of those after it; "" for none."""
    first = [line.text for line in lines if line.text.strip()][:_LOOKED_AT]
    for separator in _SEPARATORS:
        pairs = [_is_pair(line.split(separator)) for line in first]
        if pairs and pairs[0] and sum(pairs) * 2 > len(pairs):
            return separator
    return ""


def _is_pair(fields: Sequence[str]) -> bool:
    path, text = fields if len(fields) == 2 else ("", "")
    return is_recording(path) and bool(text.strip()) and not is_recording(text)

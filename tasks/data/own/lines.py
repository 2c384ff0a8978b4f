"""The lines of a text file, each with its number: one rule for every format, and no line is lost. No command.

Lines end at a line feed, with or without a carriage return before it; in a file without any line feed at a
carriage return (old Mac). Nothing else ends one: U+2028, U+2029, U+0085, a vertical tab or a form feed inside
a transcript belong to it (`str.splitlines` breaks there). The encoding is UTF-8; a byte order mark is passed
over. A line that cannot be read keeps its number and says why.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tasks.data.own.encodings import no_text, other_encoding, wrong_encoding
from tasks.errors import explain_os_error

MARK = "\ufeff"  # byte order mark


class Line(NamedTuple):
    """A line as written, without its end; `number` counts from 1. `fault` says why it cannot be read."""

    number: int
    text: str
    fault: str = ""


def split_lines(text: str) -> list[str]:
    """The lines of a text; none is empty at its end because of a last line break."""
    lines = text.split("\n") if "\n" in text else text.split("\r")
    if lines and not lines[-1]:
        lines.pop()
    return [line.rstrip("\r") for line in lines]  # \r\r\n too, as a text mode on Windows doubles it


def read_lines(path: Path) -> list[Line]:
    """Every line of a UTF-8 file. One that is not UTF-8 among others that are, or holds a NUL, has a `fault`.

    Raises:
        DataError: the file is in another encoding, which is named where it can be told, with a command.
        ArtifactError: the file is missing.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise explain_os_error(error, path) from error
    if (refused := no_text(path, data)) is not None:
        raise refused
    if (named := other_encoding(data)) is not None:
        raise wrong_encoding(path, data, named)
    try:
        lines = [Line(number, text) for number, text in enumerate(split_lines(data.decode("utf-8")), 1)]
    except UnicodeDecodeError:
        lines = _damaged(path, data)
    lines = [
        line._replace(fault="it holds NUL bytes") if "\0" in line.text and not line.fault else line
        for line in lines
    ]
    return [
        line._replace(text=line.text.lstrip(MARK)) if line.text.startswith(MARK) else line for line in lines
    ]


def read_text_lines(path: Path) -> list[str]:
    """The lines of a text that is UTF-8 throughout: hot words, sentences, sidecar transcripts.

    Raises:
        DataError: it is not (the line is named).
        ArtifactError: the file is missing.
    """
    lines = read_lines(path)
    if bad := next((line for line in lines if line.fault), None):
        raise wrong_encoding(path, path.read_bytes(), None, f"{bad.fault}, line {bad.number}")
    return [line.text for line in lines]


def _damaged(path: Path, data: bytes) -> list[Line]:
    """The lines of a file that is not UTF-8 throughout: it is UTF-8 if most lines beyond ASCII are."""
    parts = data.split(b"\n") if b"\n" in data else data.split(b"\r")
    if not parts[-1]:
        parts.pop()
    lines, good, bad = [], 0, []
    for number, part in enumerate(parts, 1):
        part = part.rstrip(b"\r")
        try:
            lines.append(Line(number, part.decode("utf-8")))
            good += not part.isascii()
        except UnicodeDecodeError:
            lines.append(Line(number, part.decode("utf-8", "backslashreplace"), "it is not UTF-8"))
            bad.append(number)
    if good < len(bad) or not good:
        raise wrong_encoding(path, data, None, f"is not UTF-8 (line {bad[0]})")
    return lines

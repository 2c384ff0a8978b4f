"""The files that a table of recordings names, found without knowing how its readers understand it.

More is taken than any one reader would: a cell counts in whatever column it stands; spelled with other
slashes, in another case or Unicode form; below the table's folder, this folder or as it stands; with or
without the suffix of audio (`wavs/LJ001-0001.wav` for "LJ001-0001"). What no row means can be among them, and
then costs a look too many; what a row means is never left out. A table that cannot be read names nothing:
its own content counts, and its reader says what is wrong with it.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

TABLES = (".parquet", ".csv", ".tsv", ".jsonl")
AUDIO = frozenset(
    (
        *(".wav", ".wave", ".w64", ".rf64", ".bwf", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2"),
        *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".m4a", ".m4b", ".mp4", ".aac", ".wma", ".webm"),
        *(".mka", ".mkv", ".amr", ".3gp", ".ac3", ".pcm", ".raw", ".sph", ".nist", ".voc", ".gsm", ".vox"),
    )
)
_LONGEST = 1024  # characters of a name; longer cells are text
_SEPARATORS = ",;\t|"
_QUOTED = re.compile(r'"((?:[^"\\]|""|\\.)*)"')
_SPLIT = re.compile(f"[{_SEPARATORS}]")
_LINE = re.compile(r"\r\n|\r|\n")


class _Listing(NamedTuple):
    """A folder's entries by their folded names."""

    files: dict[str, list[str]]
    folders: dict[str, list[str]]


def files_named_by(table: Path) -> list[str]:
    """The paths of the files that a table names and that are there, sorted.

    Args:
        table: Parquet, CSV, TSV, JSONL, JSON, or lines of names.
    """
    names: set[str] = set()
    parents: set[str] = set()
    for cell in set(_cells(table)):
        plain = cell.removeprefix("file://").replace("\\", "/")
        for spelled in {plain, unquote(plain)}:  # as it stands, and percent-decoded
            parent, slash, name = spelled.rpartition("/")
            names.add(_fold(name))
            if slash:
                parents.add(parent or "/")
    looked: dict[str, _Listing] = {}
    own = str(table.parent)
    beside = [name for group in _list(own, looked).folders.values() for name in group]
    folders = {own, *(f"{own}/{name}" for name in beside if not name.startswith("."))}
    for parent in parents:
        parts = parent.split("/")
        for at in range(len(parts)):  # of a path of another machine its end may be there
            folders.update(_folders(own, "/".join(parts[at:]), looked))
        folders.update(_folders(".", parent, looked))
    found: set[str] = set()
    for folder in folders:
        place = os.path.normpath(folder)
        for folded, spelled_so in _list(folder, looked).files.items():
            stem, dot, suffix = folded.rpartition(".")
            if folded in names or (stem in names and dot + suffix in AUDIO):
                found.update(f"{place}/{name}" for name in spelled_so)
    return sorted(found - {f"{os.path.normpath(own)}/{table.name}"})


def _fold(name: str) -> str:
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def _list(folder: str, looked: dict[str, _Listing]) -> _Listing:
    """What lies in a folder; nothing where it cannot be looked into."""
    if folder not in looked:
        files: dict[str, list[str]] = {}
        folders: dict[str, list[str]] = {}
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    group = folders if _is_folder(entry) else files
                    group.setdefault(_fold(entry.name), []).append(entry.name)
        except OSError:
            pass
        looked[folder] = _Listing(files, folders)
    return looked[folder]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _folders(base: str, parent: str, looked: dict[str, _Listing]) -> list[str]:
    """The folders that `parent`, taken from `base`, can mean."""
    if parent.startswith("/") and os.path.isdir(parent):  # noqa: PTH112  a text too long for a name is none
        return [parent]
    found = ["/" if parent.startswith("/") else base]
    for part in parent.split("/"):
        if part == "..":
            found = [f"{folder}/.." for folder in found]
        elif part not in ("", "."):
            wanted = _fold(part)
            found = [f"{f}/{name}" for f in found for name in _list(f, looked).folders.get(wanted, ())]
    return found


def _cells(table: Path) -> Iterator[str]:
    """Whatever stands in the table and can be a name."""
    found = _parquet_cells(table) if table.suffix.lower() == ".parquet" else _text_cells(table)
    stripped = map(str.strip, found)
    return (cell for cell in stripped if 0 < len(cell) <= _LONGEST and "\0" not in cell)


def _parquet_cells(table: Path) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table) as file:
            leaves = [file.schema.column(i) for i in range(len(file.schema))]
            texts = [leaf.path for leaf in leaves if str(leaf.logical_type) in ("String", "Enum", "JSON")]
            for batch in file.iter_batches(columns=texts):
                for column in batch.columns:
                    yield from _strings(column.unique() if pa.types.is_string(column.type) else column)
    except (OSError, ValueError, pa.ArrowException):
        return


def _strings(column: Any) -> Iterator[str]:
    for value in column.to_pylist():
        yield from _leaves(value)


def _text_cells(table: Path) -> Iterator[str]:
    try:
        data = table.read_bytes()
    except OSError:
        return
    for encoding in _encodings(data):
        text = data.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "replace")
        if table.suffix.lower() == ".json" or text.lstrip()[:1] == "[":
            yield from _json_cells(text)
        for line in _LINE.split(text):
            yield from _line_cells(line)


def _encodings(data: bytes) -> tuple[str, ...]:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ("utf-16",)
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return ("utf-8-sig", "cp949")  # as the bytes stand, and as a file from Korean Windows
    return ("utf-8-sig",)


def _line_cells(line: str) -> Iterable[str]:
    if line.lstrip().startswith("{") and (found := _json_cells(line)):
        return found
    signs = [sign for sign in _SEPARATORS if sign in line]
    if not signs:  # Kaldi's lists: an id, then a path
        return [line, *line.split(None, 1), *line.split()]
    cells = [part for sign in signs for part in line.split(sign)]  # a name may hold the other signs
    if len(signs) > 1:
        cells += _SPLIT.split(line)
    if '"' in line:
        cells += [part.strip().strip('"') for part in cells]
        cells += [part.replace('""', '"') for part in _QUOTED.findall(line)]
    return cells


def _json_cells(text: str) -> list[str]:
    try:
        return list(_leaves(json.loads(text)))
    except (ValueError, RecursionError):
        return []


def _leaves(value: Any) -> Iterator[str]:
    """Every text in nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)

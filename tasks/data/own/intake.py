"""The audio of a user's rows into the corpus folder, and the record of what was set aside. No command.

Files are copied, never linked: DVC makes the files of a corpus read-only, and a recording that its user
changes later must not change the corpus behind the manifest's back.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pandas as pd

from tasks.artifacts import read_json, write_json, write_parquet
from tasks.data.conversion import take
from tasks.data.own.paths import AUDIO_SUFFIXES, Finder, Found
from tasks.data.own.reconciliation import BAD, Count, SetAside, place, set_aside_table
from tasks.progress import track

RECONCILIATION = "reconciliation.json"
SET_ASIDE = "set_aside.parquet"
_SHOWN = 5
_NAMED = 3  # files of a note; the rows of all have it in `origin_detail`
_NUMBER = re.compile(r"\d+")
_CONVERTED = "converted to 16 kHz mono FLAC"
log = logging.getLogger("malgil.corpus")


class _Row(NamedTuple):
    """What taking a recording fills in; what the row states of it is kept."""

    path: str
    sha256: str
    duration_s: float
    sample_rate_hz: int
    origin_rate_hz: Any
    origin_detail: str


def find_recordings(frame: pd.DataFrame, origin: Path, *, is_hub: bool) -> list[Found]:
    """Where the path of every row leads, as it is written in its table or in another form without doubt.

    Args:
        frame: with `path` (relative to the origin), `origin_path` (as written) and `origin_file`.
        is_hub: the recordings were written to the origin under `path`.
    """
    paths = [str(path) for path in frame["path"]]
    if is_hub:
        nothing = Found(None, "the data set's row holds no audio")
        return [Found(origin / path) if (origin / path).is_file() else nothing for path in paths]
    written = [str(path) for path in frame["origin_path"]]
    tables = [str(PurePosixPath(file).parent) for file in frame["origin_file"]]
    bases = ["" if path == own else table for path, own, table in zip(paths, written, tables, strict=True)]
    return Finder(origin).find_all(written, bases)


def take_audio(frame: pd.DataFrame, found: Sequence[Found], folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Take what was found into folder/audio; fill in the hashes, durations and rates that the rows lack.

    What a row states of a file is checked later, never replaced, unless the file was converted. Returns the
    rows, with what was put right in their files in `origin_detail`, and what was done, with how many files.
    """
    (folder / "audio").mkdir()
    if "origin_rate_hz" not in frame:
        frame = frame.assign(origin_rate_hz=0)
    taken: list[_Row] = []
    said: dict[str, list[tuple[str, str]]] = {}
    written = [str(path) for path in frame["origin_path" if "origin_path" in frame else "path"]]
    columns = (frame[name].tolist() for name in _Row._fields)
    stated = (_Row(*values) for values in zip(*columns, strict=True))
    pairs = zip(stated, found, strict=True)
    for index, (row, where) in enumerate(track(pairs, "taking audio", len(frame), "files")):
        stem = f"{index:06d}"
        if where.path is None:
            row = row._replace(path=f"audio/{stem}{_suffix(row.path)}", origin_detail=where.how)
        else:
            row, notes = _taken(row, where.path, folder / "audio", stem)
            for note in notes:
                said.setdefault(_NUMBER.sub("N", note), []).append((written[index], note))
            notes = [note for note in notes if note != _CONVERTED]
            row = row._replace(
                origin_detail="; ".join([*([f"found {where.how}"] if where.how else []), *notes])
            )
        taken.append(row)
    filled = pd.DataFrame(taken, columns=list(_Row._fields), index=frame.index)
    told = [_told(kind, cases) for kind, cases in sorted(said.items(), key=lambda item: -len(item[1]))]
    return frame.assign(**{name: filled[name] for name in _Row._fields}), told


def _told(kind: str, cases: Sequence[tuple[str, str]]) -> str:
    """One sentence for a note of many files, whose numbers may differ; the first files are named."""
    if kind == _NUMBER.sub("N", _CONVERTED):
        return f"{len(cases)} files were {_CONVERTED}"
    same = len({note for _, note in cases}) == 1
    more = f" and {len(cases) - _NAMED} more" if len(cases) > _NAMED else ""
    names = ", ".join(name for name, _ in cases[:_NAMED])
    return f"{len(cases)} files: {cases[0][1] if same else kind} ({names}{more})"


def _taken(row: _Row, source: Path, folder: Path, stem: str) -> tuple[_Row, list[str]]:
    """The row after its recording was taken into the folder, and what was done."""
    taken = take(source, folder, stem, row.sha256, int(row.sample_rate_hz))
    notes = [*taken.notes, *([_CONVERTED] if taken.is_converted else [])]
    row = row._replace(
        path=f"audio/{taken.name}",
        sha256=taken.sha256 if taken.is_converted else row.sha256 or taken.sha256,
        origin_rate_hz=row.origin_rate_hz or taken.origin_rate_hz,
    )
    if taken.header is None:
        return row, notes
    keeps_rate = row.sample_rate_hz and not taken.is_converted
    row = row._replace(
        duration_s=row.duration_s or taken.header.duration_s,
        sample_rate_hz=row.sample_rate_hz if keeps_rate else taken.header.sample_rate_hz,
    )
    return row, notes


def tell(name: str, notes: Sequence[str], counts: Sequence[Count], aside: Sequence[SetAside]) -> None:
    """Log what was decided, the counts, and the first lines that were set aside as bad."""
    for note in notes:
        log.info("%s: %s", name, note)
    for count in counts:
        named = ", ".join(f"{number} {reason}" for reason, number in count.set_aside.items())
        log.info(
            "%s: %s: %d %ss in, %d out%s",
            *(
                name,
                count.step,
                count.entered,
                count.unit,
                count.made,
                f", set aside: {named}" if named else "",
            ),
        )
    bad = [one for one in aside if one.reason in BAD]
    for one in bad[:_SHOWN]:
        log.warning("%s: %s%s", place(one.file, one.line), one.reason, f" ({one.why})" if one.why else "")
    if len(bad) > _SHOWN:
        log.warning("%s: %d more are in %s", name, len(bad) - _SHOWN, SET_ASIDE)


def named_lines(aside: Sequence[SetAside]) -> str:
    """The first bad lines, for a message about rows that are too few; "" without any."""
    bad = [one for one in aside if one.reason in BAD]
    shown = ", ".join(f"{place(one.file, one.line)} ({one.why or one.reason})" for one in bad[:_SHOWN])
    return f"; {len(bad)} bad lines or files were set aside: {shown}" if bad else ""


def write_reconciliation(folder: Path, counts: Sequence[Count], aside: Sequence[SetAside]) -> None:
    """Write reconciliation.json and set_aside.parquet into a corpus folder."""
    write_json(folder / RECONCILIATION, {"steps": [count.as_json() for count in counts]})
    write_parquet(folder / SET_ASIDE, set_aside_table(aside))


def read_reconciliation(corpus: Path) -> tuple[list[Count], pd.DataFrame]:
    """The counts of a corpus's door and what it set aside; nothing for a corpus that was made without.

    Raises:
        DataError: the sums do not agree.
    """
    path = corpus / RECONCILIATION
    if not path.is_file():
        return [], set_aside_table([])
    counts = [
        Count(step["step"], step["unit"], step["in"], step["out"], step["set_aside"]).check()
        for step in read_json(path)["steps"]
    ]
    table = corpus / SET_ASIDE
    return counts, pd.read_parquet(table) if table.is_file() else set_aside_table([])


def _suffix(path: str) -> str:
    suffix = PurePosixPath(path.replace("\\", "/").strip()).suffix.lower()
    return suffix if suffix in AUDIO_SUFFIXES else ""

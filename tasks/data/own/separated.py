"""Text tables of separated fields: CSV, TSV and their kin, every line a row or named. Pure; no command.

Fields separated by commas or semicolons are quoted as RFC 4180 says. Those separated by tabs or bars have no
quotes (a `"` belongs to the text), unless the file declares them: every field of its header is quoted, or
every quoted field of the whole file is written just as a program quotes it (doubled inside, and only where
it must be). A quote that is not closed, or that would swallow the rows after it, costs its own line alone.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tasks.data.own.lines import Line
from tasks.data.own.reconciliation import SetAside
from tasks.errors import DataError

_SEPARATORS = ",;\t|"
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_SUFFIX = re.compile(r"\.\w{2,5}$")
_DECLARED_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # written by Excel
_MOST_LINES = 100  # of one quoted field
_SHAPED = 500  # lines that say what a row looks like
_RETURN = "\0"  # stands for a carriage return inside a line while the library reads it


class Separated(NamedTuple):
    """The header's names, the fields of every row with the line where it begins, and all other lines."""

    names: list[str]
    rows: list[list[str]]
    lines: list[int]
    aside: list[SetAside]
    notes: list[str]


class _Shape(NamedTuple):
    """What a row looks like: its number of fields, and the columns whose fields end in a suffix of files."""

    separator: str
    width: int
    least: int
    files: tuple[int, ...]

    def fits(self, line: str) -> bool:
        fields = line.split(self.separator)
        right = self.least <= len(fields) <= self.width
        return right and all(at < len(fields) and _SUFFIX.search(fields[at].strip(' "')) for at in self.files)


def read_separated(
    lines: Sequence[Line], file: str, suffix: str = ".csv", header: Sequence[str] | None = None
) -> Separated:
    """The rows of a text table.

    Args:
        file: its name, for what is set aside.
        suffix: of the file; a .tsv is separated by tabs where its header has one.
        header: names of the columns of a file that has no header (separated by bars, unquoted).

    Raises:
        DataError: the header cannot be read.
    """
    aside: list[SetAside] = []
    start, separator = 0, "|"
    if header is None:
        start, separator, header_line = _header(lines, file, suffix, aside)
        names = _fields_of_header(header_line, separator)
        said = header_line.split(separator)
    else:
        names, said = list(header), []
    least = max((at + 1 for at, name in enumerate(names) if name), default=len(names))
    shape = _shape(lines[start:], separator, len(names), least)
    is_declared = bool(said) and all(len(name) > 1 and name[0] == name[-1] == '"' for name in said)
    quoted = separator in ",;" or is_declared
    if not quoted and header is None:
        quoted = _is_quoted_as_programs_do(lines[start:], shape)
    rows: list[list[str]] = []
    numbers: list[int] = []
    plain = 0
    for record in _records(lines, start, shape, quoted):
        if record.reason:
            aside += [
                SetAside(
                    file, line.number, record.reason if not at else "continued_line", record.why, line.text
                )
                for at, line in enumerate(record.lines)
            ]
            continue
        if header is None and [field.strip() for field in record.fields] == names:
            aside.append(
                SetAside(file, record.lines[0].number, "header", "the header again", record.lines[0].text)
            )
            continue
        rows.append(record.fields)
        numbers.append(record.lines[0].number)
        plain += record.is_plain
        aside += [
            SetAside(file, line.number, "continued_line", f"belongs to line {numbers[-1]}", line.text)
            for line in record.lines[1:]
        ]
    notes = (
        [f"{plain} lines of {file} have quotes that quote nothing: read as they are written"] if plain else []
    )
    return Separated(names, rows, numbers, aside, notes)


def _header(lines: Sequence[Line], file: str, suffix: str, aside: list[SetAside]) -> tuple[int, str, str]:
    """The index after the header, the separator, and the header's text; lines before it are set aside."""
    given = ""
    for index, line in enumerate(lines):
        if line.fault:
            raise DataError(
                f"the header of {file} (line {line.number}) cannot be read: {line.fault}",
                "the first line names the columns",
                "write the header again",
            )
        if not line.text.strip():
            aside.append(SetAside(file, line.number, "blank_line", "", line.text))
        elif (found := _DECLARED_SEPARATOR.fullmatch(line.text.strip())) and not given:
            given = found[1]
            aside.append(SetAside(file, line.number, "header", "names the separator", line.text))
        else:
            aside.append(SetAside(file, line.number, "header", "", line.text))
            return index + 1, given or _separator(line.text, suffix), line.text
    return len(lines), given or ",", ""


def _separator(header: str, suffix: str) -> str:
    """Told from the header, outside of its quotes; a .tsv has tabs if there is one."""
    bare = _QUOTED.sub("", header)
    if suffix == ".tsv" and "\t" in bare:
        return "\t"
    found = max(_SEPARATORS, key=bare.count)
    return found if bare.count(found) else ("\t" if suffix == ".tsv" else ",")


def _fields_of_header(text: str, separator: str) -> list[str]:
    try:
        fields = next(csv.reader([text.replace("\r", " ")], delimiter=separator, strict=True), [])
    except csv.Error:
        fields = text.split(separator)
    return [field.strip() for field in fields]


def _shape(lines: Sequence[Line], separator: str, width: int, least: int) -> _Shape:
    rows = []
    for line in lines:
        if line.text.count(separator) == width - 1:
            rows.append(line.text.split(separator))
            if len(rows) == _SHAPED:
                break
    files = tuple(
        at
        for at in range(width)
        if rows and sum(bool(_SUFFIX.search(row[at].strip(' "'))) for row in rows) >= 0.9 * len(rows)
    )
    return _Shape(separator, width, least, files)


class _Record(NamedTuple):
    """One row's fields and lines, or the lines that are none with the reason."""

    fields: list[str]
    lines: Sequence[Line]
    reason: str = ""
    why: str = ""
    is_plain: bool = False


def _records(lines: Sequence[Line], start: int, shape: _Shape, quoted: bool) -> Iterator[_Record]:
    at = start
    while at < len(lines):
        line = lines[at]
        if line.fault:
            record = _Record([], [line], "unreadable_line", line.fault)
        elif not line.text.strip() or not line.text.replace(shape.separator, "").strip():
            record = _Record([], [line], "blank_line")
        elif quoted and '"' in line.text:
            record = _quoted_record(lines, at, shape)
        else:
            record = _Record(line.text.split(shape.separator), [line])
        at += len(record.lines)
        yield record if record.reason else _fitted(record, shape)


def _fitted(record: _Record, shape: _Shape) -> _Record:
    """The record with as many fields as the header; empty ones beyond it go, a nameless last one may lack."""
    fields = record.fields
    while len(fields) > shape.width and not fields[-1].strip():
        fields = fields[:-1]
    if shape.least <= len(fields) <= shape.width:
        return record._replace(fields=[*fields, *[""] * (shape.width - len(fields))])
    why = f"it has {len(record.fields)} fields, not {shape.width} as the header"
    return record._replace(reason="unreadable_line", why=why)


def _quoted_record(lines: Sequence[Line], at: int, shape: _Shape) -> _Record:
    """The record that begins in a line with a quote: one line, or several where a quoted field has breaks."""
    line = lines[at]
    try:
        fields, length = _parse(lines, at, shape.separator)
    except csv.Error as error:
        if "expected after" in str(error) and _is_closed(line.text, shape.separator):
            fields = line.text.split(shape.separator)  # "word" in front of other text: no quoting at all
            return _Record(fields, [line], is_plain=True)
        return _Record([], [line], "unclosed_quote", "a quote opens in this line and is not closed")
    if length == 1:
        return _Record(_spaced(line.text, shape) if len(fields) > shape.width else fields, [line])
    if row := _swallowed(lines[at : at + length], fields, shape):
        why = f"a quote opens in this line and would swallow line {row}, which is a row of its own"
        return _Record([], [line], "unclosed_quote", why)
    return _Record([field.replace("\n", " ") for field in fields], lines[at : at + length])


def _parse(lines: Sequence[Line], at: int, separator: str) -> tuple[list[str], int]:
    """The fields of the record that begins at an index, and how many lines it has. Raises csv.Error."""

    def ahead() -> Iterator[str]:
        for line in lines[at : at + _MOST_LINES]:
            if line.fault:
                return
            yield line.text.replace("\r", _RETURN) + "\n"

    reader = csv.reader(ahead(), delimiter=separator, strict=True)
    fields = next(reader)
    return [field.replace(_RETURN, "\r") for field in fields], reader.line_num


def _spaced(text: str, shape: _Shape) -> list[str]:
    """The fields of a line whose quotes stand behind a space, as in `a.wav, "one, two"`."""
    try:
        given = [text.replace("\r", _RETURN)]
        fields = next(csv.reader(given, delimiter=shape.separator, strict=True, skipinitialspace=True))
    except csv.Error:
        return text.split(shape.separator)
    return [field.replace(_RETURN, "\r") for field in fields]


def _is_closed(text: str, separator: str) -> bool:
    """Whether no quoted field is open at the end of the line."""
    return all(field.count('"') % 2 == 0 for field in text.split(separator) if field.startswith('"'))


def _swallowed(lines: Sequence[Line], fields: list[str], shape: _Shape) -> int:
    """The number of the first line that is a row of its own inside a field of several lines; 0 if none is."""
    first, *between, last = lines
    if not shape.files:  # nothing but the number of fields says what a row is
        alike = shape.least > 1 and all(shape.fits(line.text) for line in lines)
        return (between or [last])[0].number if alike else 0
    for line in between:
        if shape.fits(line.text):
            return line.number
    opened = next((at for at, field in enumerate(fields) if "\n" in field), 0)
    behind = min(shape.files) >= opened  # the last line of an honest field goes on with the fields behind it
    return last.number if shape.fits(last.text) and (not behind or shape.fits(first.text)) else 0


def _is_quoted_as_programs_do(lines: Sequence[Line], shape: _Shape) -> bool:
    """Whether every line with a quote is written as a program quotes: only where it must, doubled inside."""
    at = 0
    found = False
    while at < len(lines):
        if lines[at].fault or '"' not in lines[at].text:
            at += 1
            continue
        try:
            fields, length = _parse(lines, at, shape.separator)
        except csv.Error:
            return False
        record = [line.text for line in lines[at : at + length]]
        if not shape.least <= len(fields) <= shape.width:
            return False
        if any(shape.separator in field for field in fields if "\n" in field):
            return False
        again = io.StringIO()
        csv.writer(again, delimiter=shape.separator, lineterminator="\n").writerow(fields)
        if again.getvalue() != "\n".join(record) + "\n":
            return False
        found = True
        at += length
    return found

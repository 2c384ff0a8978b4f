"""JSON tables: one object a line, or one list of objects; every line a row or named. Pure; no command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from tasks.data.own.lines import Line
from tasks.data.own.reconciliation import SetAside
from tasks.errors import DataError

_SHOWN = 200


class JsonRows(NamedTuple):
    """The objects, the line where each begins, and every line that is none."""

    rows: list[dict[str, Any]]
    lines: list[int]
    aside: list[SetAside]


class _Twice(ValueError):
    """A key that stands twice in one object."""


def parse_object(text: str) -> dict[str, Any]:
    """One JSON object. Raises ValueError (with what is wrong) for anything else, whatever the text holds."""
    try:
        row = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError(f"it holds {text.strip():.40}, not an object")
    if "\\u" in text:
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("it holds half of a surrogate pair") from error
    return row


def read_json_lines(lines: Sequence[Line], file: str) -> JsonRows:
    """The objects of a JSONL file; lines that hold none are set aside by name."""
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    aside: list[SetAside] = []
    for line in lines:
        if line.fault:
            aside.append(SetAside(file, line.number, "unreadable_line", line.fault, line.text))
        elif not line.text.strip():
            aside.append(SetAside(file, line.number, "blank_line", "", line.text))
        else:
            try:
                rows.append(parse_object(line.text))
                numbers.append(line.number)
            except ValueError as error:
                aside.append(
                    SetAside(
                        file,
                        line.number,
                        "unreadable_line",
                        f"{str(error)[:_SHOWN]}: one JSON object a line",
                        line.text,
                    )
                )
    return JsonRows(rows, numbers, aside)


def is_json_list(lines: Sequence[Line]) -> bool:
    """Whether the text is one list, not an object a line."""
    first = next((line.text.strip() for line in lines if line.text.strip()), "")
    return first.startswith("[")


def read_json_list(lines: Sequence[Line], file: str) -> JsonRows:
    """The objects of one JSON list, over as many lines as it likes; lines where none begins are its frame.

    Raises:
        DataError: it is no whole list of objects (with the line).
    """
    text = "\n".join(line.text for line in lines)
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    at = _past(text, 0) + 1
    where = 1
    counted = 0
    try:
        while (at := _past(text, at)) < len(text) and text[at] != "]":
            if rows:
                if text[at] != ",":
                    raise ValueError("a comma is missing")
                at = _past(text, at + 1)
            where += text.count("\n", counted, at)
            counted = at
            _, end = decoder.raw_decode(text, at)
            rows.append(parse_object(text[at:end]))
            numbers.append(where)
            at = end
        if text[at : at + 1] != "]" or text[at + 1 :].strip():
            raise ValueError("the list does not end with the file")
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"line {where} of {file} cannot be read ({str(error)[:_SHOWN] or 'nested too deeply'})",
            "needs one JSON list of objects, or one object a line",
            "correct the line, or write the table as JSONL: then a broken line costs itself alone",
        ) from error
    begun = set(numbers)
    if len(begun) < len(numbers):  # several objects a line: rows are counted, not lines
        return JsonRows(rows, numbers, [])
    frame = [line for line in lines if line.number not in begun]
    return JsonRows(
        rows, numbers, [SetAside(file, line.number, "continued_line", "", line.text) for line in frame]
    )


def _past(text: str, at: int) -> int:
    """The index of the first character that is no space."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in pairs:
        if name in row:
            raise _Twice(f"key {name!r} stands twice")
        row[name] = value
    return row

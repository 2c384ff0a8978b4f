"""Reading a prepared split: one JSON object per line. Only reading and checking; no command."""

from pathlib import Path
from typing import Any

from tasks.artifacts import digest_json, read_json
from tasks.data.own.json_rows import parse_object
from tasks.data.own.lines import read_text_lines
from tasks.errors import DataError
from tasks.llm.chat import Tools


def read_rows(path: Path, tools: Tools) -> list[dict[str, Any]]:
    """The rows of a split: `id`, `written`, `tool_call` (checked against the tools' schemas), `intent`.

    Raises:
        DataError: the split is empty, a line is not JSON, lacks a key, or holds a tool call that breaks
            its schema; the message names file and line.
        ArtifactError: the file is missing.
    """
    rows = [
        _row(path, number, line, tools)
        for number, line in enumerate(read_text_lines(path), 1)
        if line.strip()
    ]
    if not rows:
        raise DataError(
            f"{path} is empty",
            "every split needs at least one command",
            "raise the split's size in params.yaml",
        )
    return rows


def answer_settings(prepared: Path, max_tokens: int) -> dict[str, Any]:
    """What decides an answer beside prompt and weights: the longest answer, and the tools that constrain it.

    An evaluation keeps them in its metrics.json, so that its answers can be told from others.
    """
    return {"max_new_tokens": max_tokens, "tools": digest_json(read_json(prepared / "tools.json"))}


def _row(path: Path, number: int, line: str, tools: Tools) -> dict[str, Any]:
    where = f"{path} line {number}"
    try:
        row = parse_object(line)
    except ValueError as error:
        raise _bad(f"{where} is not JSON ({error})") from error
    missing = {"id", "written", "tool_call", "intent"} - set(row)
    if missing:
        raise _bad(f"{where} lacks {', '.join(sorted(missing))}")
    mistake = tools.mistake(row["tool_call"])
    if mistake is not None:
        raise _bad(f"{where} ({row['id']}): {mistake}")
    return dict(row)


def _bad(what: str) -> DataError:
    return DataError(
        what,
        "each line is one command with a tool call that its schema allows",
        "correct the data, then `dvc repro`",
    )

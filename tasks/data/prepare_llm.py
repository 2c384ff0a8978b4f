"""Stage `prepare_llm`: checked commands to what the language model's training reads. No audio is needed.

    python -m tasks.data.prepare_llm [--commands build/commands]

<split>.jsonl holds one command a line with its spoken and written form and its tool call. This is the gate
before any training of the language model: a sentence in two splits, a tool call that its schema refuses or
an empty text stops it, each row named.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.artifacts import new_folder, write_json, write_text
from tasks.data.manifest import (
    COMMAND_COLUMNS,
    COMMAND_SPLITS,
    read_table,
    records,
    require_columns,
    require_splits,
)
from tasks.data.text import inverse_normalise, unspaced
from tasks.errors import DataError
from tasks.llm.chat import Tools, load_tools
from tasks.settings import Prepare
from tasks.stage import run_stage

NAMED = 5  # bad rows told at once
log = logging.getLogger("malgil.prepare_llm")


def prepare(params: Prepare, *, commands: Path, out_dir: Path) -> None:
    """Write prepared/llm, whole or not at all.

    Args:
        commands: folder of commands.parquet (no rows, where nothing has a tool call) and tools.json.

    Raises:
        DataError: a split has no command, or commands break a rule (`mistakes`).
        CapacityError: the disk is full or the folder read-only; earlier results stay as they were.
    """
    path = commands / "commands.parquet"
    table = read_table(path)
    require_columns(table, COMMAND_COLUMNS, path)
    if not table.empty:
        require_splits(table["split"], path, COMMAND_SPLITS)
        _refuse(list(mistakes(table, load_tools(commands / "tools.json"))), path)
    log.info("%d commands, inverse normaliser %s", len(table), params.inverse_normaliser)
    with new_folder(out_dir) as folder:
        for split in COMMAND_SPLITS:
            rows = records(table[table["split"] == split])
            lines = [json.dumps(_line(row), ensure_ascii=False) for row in rows]
            write_text(folder / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))
        write_json(folder / "tools.json", json.loads((commands / "tools.json").read_text(encoding="utf-8")))


def mistakes(table: pd.DataFrame, tools: Tools) -> Iterator[str]:
    """What is wrong with commands: a line for each mistake, beginning with the row's sentence_id.

    Every row needs a known split, text, a sentence that no other split holds (spaces aside), and a tool call
    of `tools`.
    """
    first: dict[str, tuple[str, str]] = {}  # words → split and id of the row that has them first
    for row in records(table):
        name, words = row["sentence_id"], unspaced(row["text"])
        split, other = first.setdefault(words, (row["split"], name))
        if row["split"] not in COMMAND_SPLITS:
            yield f"{name} is in the unknown split {row['split']!r}"
        if not words:
            yield f"{name} has no text"
        elif split != row["split"]:
            yield f"{name} ({row['split']}) is the sentence of {other} ({split}): {row['text']!r}"
        mistake = tools.mistake(json.loads(row["tool_call"]))
        if mistake is not None:
            yield f"{name}: tool call {row['tool_call']} ({mistake})"


def _refuse(found: list[str], path: Path) -> None:
    if found:
        more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise DataError(
            f"{len(found)} of the commands of {path}: {'; '.join(found[:NAMED])}{more}",
            "a command needs text, a tool call of tools.json, and a sentence that no other split holds",
            "correct the rows of the manifest, or tools.json, and start the same command again",
        )


def _line(row: dict[str, Any]) -> dict[str, Any]:
    call = json.loads(row["tool_call"])
    return {
        "id": row["sentence_id"],
        "text": row["text"],
        "written": inverse_normalise(row["text"]),
        # the name first: a model that writes from left to right then chooses the tool first
        "tool_call": {"name": call["name"], "arguments": call["arguments"]},
        "intent": row["intent"],
    }


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            __spec__.name,
            "prepare",
            prepare,
            inputs={"commands": Path("build/commands")},
            outputs={"out_dir": Path("build/prepared/llm")},
        )
    )

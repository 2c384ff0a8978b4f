"""Stage `commands`: sentences with the tool call each means, in one folder. No audio is needed.

    python -m tasks.data.commands [--params build/params.yaml] [--out-dir build/commands]

Built in: drawn from the grammar and split; `corpus` speaks the same sentences. With another `corpus.source`
they are the rows of the user's recordings that have a tool call. The folder holds commands.parquet and
tools.json; the language model's line starts from it while speech is still being rendered or read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tasks.artifacts import new_folder, write_json, write_parquet
from tasks.data.grammar import TOOLS, canonical_json
from tasks.data.manifest import COMMAND_COLUMNS
from tasks.data.plan import Sentence, draw_sentences
from tasks.data.source import take_commands
from tasks.data.text import NORMALISER_ID, inverse_normalise
from tasks.settings import Corpus
from tasks.stage import run_stage

log = logging.getLogger("malgil.commands")


def make_commands(params: Corpus, *, out_dir: Path, normaliser: str = NORMALISER_ID) -> None:
    """Write the folder of commands, whole or not at all.

    `normaliser` is the chain by which two transcripts of a user's recordings are the same sentence.

    Raises:
        DataError: more sentences asked for than there are, or the user's manifest is unusable.
        CapacityError: the disk is full or the folder read-only; earlier commands stay as they were.
    """
    with new_folder(out_dir) as folder:
        if params.source == "builtin":
            commands, tools = command_table(draw_sentences(params)), TOOLS
        else:
            commands, tools = take_commands(params, normaliser)
        write_parquet(folder / "commands.parquet", commands)
        write_json(folder / "tools.json", tools)
    log.info("%d commands written to %s", len(commands), out_dir)


def command_table(sentences: Sequence[Sentence]) -> pd.DataFrame:
    """Sentences with their tool calls, for the language model; both test splits become `test`."""
    rows = [
        (
            sentence.sentence_id,
            sentence.command.text,
            inverse_normalise(sentence.command.text),
            canonical_json(sentence.command.tool_call),
            sentence.command.intent,
            "test" if sentence.split.startswith("test") else sentence.split,
        )
        for sentence in sentences
    ]
    return pd.DataFrame(rows, columns=list(COMMAND_COLUMNS))


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            __spec__.name,
            "corpus",
            make_commands,
            inputs={},
            outputs={"out_dir": Path("build/commands")},
            borrowed={"normaliser": "prepare.normaliser"},
        )
    )

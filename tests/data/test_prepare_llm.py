"""Commands before any training of the language model: what is written, and what is refused."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tasks.data.prepare_llm import prepare
from tasks.data.text import inverse_normalise
from tasks.errors import DataError
from tasks.settings import Prepare

PARAMS = Prepare(normaliser="ko-1", inverse_normaliser="itn-ko-1")


@pytest.fixture
def commands(tiny_corpus: Path, tmp_path: Path) -> Path:
    """A copy of the built-in commands, to be spoiled."""
    return shutil.copytree(tiny_corpus.parent / "commands", tmp_path / "commands")


def change(commands: Path, row: int, **columns: str) -> None:
    table = pd.read_parquet(commands / "commands.parquet")
    for name, value in columns.items():
        table.loc[row, name] = value
    table.to_parquet(commands / "commands.parquet")


def test_commands_become_lines_with_name_before_arguments(tiny_corpus: Path, tiny_prepared: Path) -> None:
    lines = [json.loads(line) for line in (tiny_prepared / "llm" / "test.jsonl").read_text().splitlines()]
    assert len(lines) == 16
    for line in lines:
        assert line["written"] == inverse_normalise(line["text"])
        assert list(line["tool_call"]) == ["name", "arguments"]
    assert (tiny_prepared / "llm" / "tools.json").read_text() == (tiny_corpus / "tools.json").read_text()


def test_without_tool_calls_the_language_model_gets_empty_files(commands: Path, tmp_path: Path) -> None:
    pd.read_parquet(commands / "commands.parquet").iloc[:0].to_parquet(commands / "commands.parquet")
    prepare(PARAMS, commands=commands, out_dir=tmp_path / "llm")
    assert (tmp_path / "llm" / "train.jsonl").read_text() == ""


def test_a_sentence_in_two_splits_is_not_trained_on(commands: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(commands / "commands.parquet")
    tested, trained = (table[table["split"] == split].iloc[0] for split in ("test", "train"))
    change(commands, int(trained.name), text=tested["text"].replace(" ", ""))
    with pytest.raises(DataError) as caught:
        prepare(PARAMS, commands=commands, out_dir=tmp_path / "llm")
    assert {tested["sentence_id"], trained["sentence_id"]} <= set(str(caught.value).replace(":", " ").split())
    assert not (tmp_path / "llm").exists()


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"text": " "}, "has no text"),
        ({"tool_call": '{"name": "open_pod_bay", "arguments": {}}'}, "there is no tool 'open_pod_bay'"),
        ({"split": "dev"}, "dev"),
    ],
)
def test_a_bad_command_is_named_and_leaves_earlier_results(
    commands: Path, tmp_path: Path, columns: dict[str, str], says: str
) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm/train.jsonl").write_text("earlier")
    change(commands, 3, **columns)
    with pytest.raises(DataError, match=says):
        prepare(PARAMS, commands=commands, out_dir=tmp_path / "llm")
    assert (tmp_path / "llm/train.jsonl").read_text() == "earlier"


def test_many_bad_commands_are_counted_and_five_named(commands: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(commands / "commands.parquet")
    table.assign(tool_call="{}").to_parquet(commands / "commands.parquet")
    with pytest.raises(DataError, match=rf"{len(table)} of the commands .* and {len(table) - 5} more"):
        prepare(PARAMS, commands=commands, out_dir=tmp_path / "llm")

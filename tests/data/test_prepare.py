import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.asr.prepared import read_prepared
from tasks.data.audio import read_audio, to_int16
from tasks.data.manifest import read_manifest, write_manifest
from tasks.data.prepare import prepare
from tasks.data.text import inverse_normalise
from tasks.errors import DataError
from tasks.settings import Prepare

PARAMS = Prepare(normaliser="ko-1", inverse_normaliser="itn-ko-1")


def test_every_utterance_lies_where_the_table_says(tiny_corpus: Path, tiny_prepared: Path) -> None:
    audio = np.load(tiny_prepared / "asr" / "audio.npy", mmap_mode="r")
    table = pd.read_parquet(tiny_prepared / "asr" / "utterances.parquet")
    assert audio.dtype == np.int16
    assert len(audio) == table["samples"].sum()
    for row in table.itertuples():
        stored = audio[row.offset : row.offset + row.samples]
        assert np.array_equal(stored, to_int16(read_audio(tiny_corpus / row.path)))
    assert set(table["normaliser"]) == {"ko-1"}
    assert (
        table["text"].tolist() == table["transcript"].tolist()
    )  # the grammar's sentences are normal already


def test_commands_become_lines_with_name_before_arguments(tiny_corpus: Path, tiny_prepared: Path) -> None:
    lines = [json.loads(line) for line in (tiny_prepared / "llm" / "test.jsonl").read_text().splitlines()]
    assert len(lines) == 16
    for line in lines:
        assert line["written"] == inverse_normalise(line["text"])
        assert list(line["tool_call"]) == ["name", "arguments"]
    assert (tiny_prepared / "llm" / "tools.json").read_text() == (tiny_corpus / "tools.json").read_text()


def spoiled(tiny_corpus: Path, tmp_path: Path, **columns: object) -> Path:
    """A validated folder whose manifest has other values in some columns."""
    manifest = read_manifest(tiny_corpus / "manifest.parquet").assign(**columns)
    write_manifest(tmp_path / "validated" / "manifest.parquet", manifest)
    return tmp_path / "validated"


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"split": "train"}, "no row in validation, test_sentences, test_voices"),
        ({"transcript": "?!"}, "no text after normalisation"),
        ({"path": "audio/gone.flac"}, r"gone\.flac is missing"),
    ],
)
def test_unusable_rows_stop_it_and_leave_earlier_results(
    tiny_corpus: Path, tmp_path: Path, columns: dict[str, object], says: str
) -> None:
    earlier = tmp_path / "asr"
    earlier.mkdir()
    (earlier / "audio.npy").write_text("earlier")
    with pytest.raises(DataError, match=says):
        prepare(
            PARAMS,
            corpus=tiny_corpus,
            validated=spoiled(tiny_corpus, tmp_path, **columns),
            asr_dir=earlier,
            llm_dir=tmp_path / "llm",
        )
    assert (earlier / "audio.npy").read_text() == "earlier"
    assert not (tmp_path / "llm").exists()


def test_without_tool_calls_the_language_model_gets_empty_files(tiny_corpus: Path, tmp_path: Path) -> None:
    corpus = shutil.copytree(tiny_corpus, tmp_path / "corpus")
    pd.read_parquet(corpus / "commands.parquet").iloc[:0].to_parquet(corpus / "commands.parquet")
    prepare(PARAMS, corpus=corpus, validated=corpus, asr_dir=tmp_path / "asr", llm_dir=tmp_path / "llm")
    assert (tmp_path / "llm" / "train.jsonl").read_text() == ""


def test_the_command_fails_with_one_message_when_an_input_is_missing(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    done = subprocess.run(
        [sys.executable, "-m", "tasks.data.prepare", "--corpus", missing, "--validated", missing],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert str(missing) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_chosen_chain_is_applied_and_written(tiny_corpus: Path, tmp_path: Path) -> None:
    validated = spoiled(tiny_corpus, tmp_path, transcript="TV를 3시 30분에 켜 줘!")
    params = Prepare(normaliser="ko-2", inverse_normaliser="itn-ko-1")
    asr, llm = tmp_path / "asr", tmp_path / "llm"
    prepare(params, corpus=tiny_corpus, validated=validated, asr_dir=asr, llm_dir=llm)
    data = read_prepared(asr)
    assert set(data.rows["text"]) == {"티비를 세 시 삼십 분에 켜 줘"}
    assert data.normaliser == "ko-2"
    assert data.normaliser_steps == ["hanja-1", "nfc-1", "numbers-1", "latin-1", "punctuation-1"]

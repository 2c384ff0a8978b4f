import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.asr.prepared import read_prepared
from tasks.data.audio import read_audio, to_int16
from tasks.data.manifest import read_manifest, write_manifest
from tasks.data.prepare_asr import prepare
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
            out_dir=earlier,
        )
    assert (earlier / "audio.npy").read_text() == "earlier"


def test_the_command_fails_with_one_message_when_an_input_is_missing(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    done = subprocess.run(
        [sys.executable, "-m", "tasks.data.prepare_asr", "--corpus", missing, "--validated", missing],
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
    asr = tmp_path / "asr"
    prepare(params, corpus=tiny_corpus, validated=validated, out_dir=asr)
    data = read_prepared(asr)
    assert set(data.rows["text"]) == {"티비를 세 시 삼십 분에 켜 줘"}
    assert data.normaliser == "ko-2"
    assert data.normaliser_steps == ["hanja-1", "nfc-1", "numbers-1", "latin-1", "punctuation-1"]

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tasks.data.manifest import COLUMNS, read_manifest
from tasks.data.own.reconciliation import ORIGIN
from tasks.errors import ArtifactError, DataError
from tasks.settings import Corpus
from tests import corpora

SENTENCES = {
    "train": "거실 불 켜 줘",
    "validation": "안방 불 꺼 줘",
    "test_sentences": "주방 불 켜 줘",
    "test_voices": "서재 불 꺼 줘",
}


@pytest.fixture
def recordings(tmp_path: Path) -> pd.DataFrame:
    """A manifest with the four required columns and its files, in tmp_path/mine."""
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = []
    for number, (split, text) in enumerate(SENTENCES.items()):
        soundfile.write(folder / f"{number}.wav", 0.1 * np.sin(np.arange(16_000 + number) / 9), 16_000)
        rows.append({"path": f"{number}.wav", "transcript": text, "speaker": f"p{number}", "split": split})
    return pd.DataFrame(rows)


def ingest(frame: pd.DataFrame, params: Corpus, tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "mine.parquet"
    frame.to_parquet(path)
    settings = params.model_copy(update={"source": "manifest", "manifest": str(path)})
    return corpora.make(settings, out_dir=tmp_path / "corpus")


def test_four_columns_are_enough(recordings: pd.DataFrame, corpus_params: Corpus, tmp_path: Path) -> None:
    folder = ingest(recordings, corpus_params, tmp_path)
    manifest = read_manifest(folder / "manifest.parquet")
    assert list(manifest.columns) == [*COLUMNS, *ORIGIN, "origin_rate_hz"]
    assert manifest["origin_line"].tolist() == [1, 2, 3, 4] and set(manifest["origin_file"]) == {
        "mine.parquet"
    }
    assert manifest["origin_path"].tolist() == recordings["path"].tolist()
    assert manifest["duration_s"].iloc[3] == pytest.approx(16_003 / 16_000)
    assert set(manifest["sample_rate_hz"]) == {16_000}
    assert all((folder / path).is_file() for path in manifest["path"])
    assert manifest["sha256"].str.len().eq(64).all()
    assert len(pd.read_parquet(folder / "commands.parquet")) == 0


def test_own_tool_calls_and_tools_are_taken(
    recordings: pd.DataFrame, corpus_params: Corpus, tmp_path: Path
) -> None:
    call = {"name": "light", "arguments": {"room": "거실"}}
    tools = [{"type": "function", "function": {"name": "light", "parameters": {"type": "object"}}}]
    (tmp_path / "mine" / "tools.json").write_text(json.dumps(tools))
    folder = ingest(recordings.assign(tool_call=json.dumps(call)), corpus_params, tmp_path)
    commands = pd.read_parquet(folder / "commands.parquet")
    assert commands["split"].tolist() == ["train", "validation", "test", "test"]
    assert json.loads(commands["tool_call"].iloc[0]) == call
    assert json.loads((folder / "tools.json").read_text()) == tools


def test_a_command_said_in_two_splits_is_trained_on_and_not_tested(
    recordings: pd.DataFrame, corpus_params: Corpus, tmp_path: Path
) -> None:
    again = recordings.iloc[[0]].assign(split="test_voices", transcript="거실불 켜줘.")
    call = json.dumps({"name": "light", "arguments": {}})
    folder = ingest(pd.concat([again, recordings]).assign(tool_call=call), corpus_params, tmp_path)
    commands = pd.read_parquet(folder / "commands.parquet")
    assert commands["split"].tolist() == ["train", "validation", "test", "test"]
    assert commands["text"].tolist() == list(SENTENCES.values())


def test_bad_audio_keeps_its_row_for_the_validation(
    recordings: pd.DataFrame, corpus_params: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "0.wav").unlink()
    (tmp_path / "mine" / "1.wav").write_bytes(b"")
    soundfile.write(tmp_path / "mine" / "2.wav", np.zeros((4410, 2)), 44_100)
    folder = ingest(recordings.assign(sha256="f" * 64), corpus_params, tmp_path)
    manifest = read_manifest(folder / "manifest.parquet")
    assert len(manifest) == 4
    assert manifest["duration_s"].tolist()[:2] == [0.0, 0.0]
    assert manifest["sample_rate_hz"].tolist()[2] == 44_100
    assert set(manifest["sha256"]) == {"f" * 64}  # a stated hash is checked later, never replaced


def test_all_missing_columns_are_named_at_once(
    recordings: pd.DataFrame, corpus_params: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no column path, transcript"):
        ingest(recordings.drop(columns=["transcript", "path"]), corpus_params, tmp_path)


def test_an_out_of_domain_split_may_be_there_and_is_no_test_of_the_language_model(
    recordings: pd.DataFrame, corpus_params: Corpus, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "mine/4.wav", 0.1 * np.sin(np.arange(16_000) / 7), 16_000)
    more = {
        "path": "4.wav",
        "transcript": "꽃이 없어",
        "speaker": "p0",
        "split": "test_ood",
        "ood_kind": "street",
    }
    frame = pd.concat([recordings, pd.DataFrame([more])], ignore_index=True)
    folder = ingest(frame.assign(tool_call='{"name": "a", "arguments": {}}'), corpus_params, tmp_path)
    manifest = read_manifest(folder / "manifest.parquet")
    assert manifest.loc[manifest["split"] == "test_ood", "ood_kind"].tolist() == ["street"]
    assert "꽃이 없어" not in set(pd.read_parquet(folder / "commands.parquet")["text"])


def test_empty_splits_are_all_named(recordings: pd.DataFrame, corpus_params: Corpus, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row in validation, test_voices"):
        ingest(recordings.iloc[[0, 2]], corpus_params, tmp_path)


def test_unknown_splits_are_named(recordings: pd.DataFrame, corpus_params: Corpus, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 'holdout', 'probe'"):
        ingest(recordings.assign(split=["train", "probe", "holdout", "test"]), corpus_params, tmp_path)


def test_a_tool_call_that_is_not_json_is_refused(
    recordings: pd.DataFrame, corpus_params: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="tool_call of utterance u000000"):
        ingest(recordings.assign(tool_call="light on"), corpus_params, tmp_path)


def test_a_broken_or_missing_manifest_is_refused(corpus_params: Corpus, tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    for name, error in (("broken.parquet", DataError), ("none.parquet", ArtifactError)):
        params = corpus_params.model_copy(update={"source": "manifest", "manifest": str(tmp_path / name)})
        with pytest.raises(error, match=name):
            corpora.make(params, out_dir=tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_the_built_in_corpus_passes_through_as_a_manifest(
    tiny_corpus: Path, corpus_params: Corpus, tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_corpus, tmp_path / "mine")
    params = corpus_params.model_copy(
        update={"source": "manifest", "manifest": str(copy / "manifest.parquet")}
    )
    corpora.make(params, out_dir=tmp_path / "corpus")
    before, after = (
        read_manifest(folder / "manifest.parquet") for folder in (tiny_corpus, tmp_path / "corpus")
    )
    added = ["origin_rate_hz", *ORIGIN]
    pd.testing.assert_frame_equal(before.drop(columns="path"), after.drop(columns=["path", *added]))

import errno
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.data.audio import read_audio
from tasks.data.corpus import make_corpus
from tasks.data.manifest import COLUMNS, SPLITS, read_manifest
from tasks.data.plan import draw_sentences, plan_utterances
from tasks.data.text import inverse_normalise
from tasks.data.voices import TRAINING_VOICES, UNSEEN_VOICES
from tasks.errors import CapacityError, DataError
from tasks.settings import Corpus


@pytest.fixture(scope="module")
def manifest(tiny_corpus: Path) -> pd.DataFrame:
    return read_manifest(tiny_corpus / "manifest.parquet")


def test_every_row_has_its_file_hash_and_duration(tiny_corpus: Path, manifest: pd.DataFrame) -> None:
    assert list(manifest.columns) == list(COLUMNS)
    assert manifest["utterance_id"].is_unique
    assert set(manifest["split"]) == set(SPLITS)
    for row in manifest.itertuples():
        assert hashlib.sha256((tiny_corpus / row.path).read_bytes()).hexdigest() == row.sha256
        audio = read_audio(tiny_corpus / row.path)
        assert len(audio) / 16_000 == pytest.approx(row.duration_s)
        assert 0.1 < np.max(np.abs(audio)) < 1.0


def test_no_sentence_is_in_two_splits_and_unseen_voices_are_unseen(
    tiny_corpus: Path, manifest: pd.DataFrame
) -> None:
    splits: dict[str, set[str]] = {}
    for row in manifest.itertuples():
        for sentence in row.sentence_ids.split("+"):
            splits.setdefault(sentence, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    commands = pd.read_parquet(tiny_corpus / "commands.parquet")
    assert commands["text"].is_unique
    unseen = set(manifest.loc[manifest["split"] == "test_voices", "speaker"])
    assert unseen == set(UNSEEN_VOICES[:2])
    assert set(manifest.loc[manifest["split"] != "test_voices", "speaker"]) == set(TRAINING_VOICES[:5])


def test_only_training_utterances_are_joined_and_noise_is_moderate_elsewhere(manifest: pd.DataFrame) -> None:
    train = manifest["split"] == "train"
    assert set(manifest.loc[train, "joined"]) == {1, 2, 3, 4}
    assert set(manifest.loc[~train, "joined"]) == {1}
    assert ((manifest["tool_call"] == "") == (manifest["joined"] > 1)).all()
    assert set(manifest.loc[~train, "snr_db"].dropna()) <= {30.0, 20.0}
    assert 0 < manifest["snr_db"].isna().mean() < 1


def test_commands_hold_written_form_and_tools_name_every_intent(tiny_corpus: Path) -> None:
    commands = pd.read_parquet(tiny_corpus / "commands.parquet")
    assert commands["split"].value_counts().to_dict() == {"train": 40, "validation": 8, "test": 16}
    assert [inverse_normalise(text) for text in commands["text"]] == commands["written"].tolist()
    names = {tool["function"]["name"] for tool in json.loads((tiny_corpus / "tools.json").read_text())}
    for row in commands.itertuples():
        call = json.loads(row.tool_call)
        assert call["name"] == row.intent
        assert call["name"] in names
    assert "synthetic" in (tiny_corpus / "card.md").read_text()


def test_every_voice_gets_a_fair_share(corpus_params: Corpus) -> None:
    params = corpus_params.model_copy(update={"train_utterances": 203, "test_utterances": 11})
    planned = plan_utterances(params, draw_sentences(params), TRAINING_VOICES, UNSEEN_VOICES)
    for split in SPLITS:
        shares = pd.Series([u.speaker for u in planned if u.split == split]).value_counts()
        assert shares.max() - shares.min() <= 1
    assert planned == plan_utterances(params, draw_sentences(params), TRAINING_VOICES, UNSEEN_VOICES)


@pytest.mark.parametrize("setting", ["voices", "unseen_voices"])
def test_more_voices_than_there_are_is_refused(corpus_params: Corpus, setting: str) -> None:
    params = corpus_params.model_copy(update={setting: 1000})
    with pytest.raises(DataError, match=rf"corpus\.{setting} = 1000"):
        plan_utterances(params, draw_sentences(params), TRAINING_VOICES, UNSEEN_VOICES)


def test_a_full_disk_leaves_the_earlier_corpus(
    corpus_params: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "corpus"
    out.mkdir()
    (out / "card.md").write_text("earlier")
    written = 0
    really_write = Path.write_bytes

    def full_after_three(path: Path, data: bytes) -> int:
        nonlocal written
        written += 1
        if written > 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return really_write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_after_three)
    with pytest.raises(CapacityError, match="no space left"):
        make_corpus(corpus_params, out_dir=out)
    assert (out / "card.md").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]

import errno
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.data.audio import read_audio
from tasks.data.corpus import make_corpus
from tasks.data.manifest import COLUMNS, KNOWN_SPLITS, OOD_KIND, OUT_OF_DOMAIN, SPLITS, read_manifest
from tasks.data.plan import draw_sentences, plan_out_of_domain, plan_utterances
from tasks.data.surroundings import KINDS
from tasks.data.text import inverse_normalise
from tasks.data.voices import TRAINING_VOICES, UNSEEN_VOICES
from tasks.errors import CapacityError, DataError
from tasks.settings import Corpus


@pytest.fixture(scope="module")
def manifest(tiny_corpus: Path) -> pd.DataFrame:
    return read_manifest(tiny_corpus / "manifest.parquet")


def test_every_row_has_its_file_hash_and_duration(tiny_corpus: Path, manifest: pd.DataFrame) -> None:
    assert list(manifest.columns) == [*COLUMNS, OOD_KIND]
    assert manifest["utterance_id"].is_unique
    assert set(manifest["split"]) == set(KNOWN_SPLITS)
    for row in manifest.itertuples():
        assert hashlib.sha256((tiny_corpus / row.path).read_bytes()).hexdigest() == row.sha256
        audio = read_audio(tiny_corpus / row.path)
        assert len(audio) / 16_000 == pytest.approx(row.duration_s)
        assert (0.02 if row.ood_kind == "quiet" else 0.1) < np.max(np.abs(audio)) < 1.0


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
    speakers = {str(split): set(own) for split, own in manifest.groupby("split")["speaker"]}
    unseen, outside = speakers.pop("test_voices"), speakers.pop(OUT_OF_DOMAIN)
    assert unseen == set(UNSEEN_VOICES[:2])
    assert set.union(*speakers.values()) == set(TRAINING_VOICES[:5])
    assert outside & unseen and outside - unseen <= set(TRAINING_VOICES[:5])


def test_only_training_utterances_are_joined_and_noise_is_moderate_elsewhere(manifest: pd.DataFrame) -> None:
    manifest = manifest[manifest["split"] != OUT_OF_DOMAIN]
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


def test_what_is_said_is_what_the_commands_stage_wrote(tiny_corpus: Path, manifest: pd.DataFrame) -> None:
    folder = tiny_corpus.parent / "commands"
    for name in ("commands.parquet", "tools.json"):
        assert (folder / name).read_bytes() == (tiny_corpus / name).read_bytes()
    commands = pd.read_parquet(folder / "commands.parquet").set_index("sentence_id")
    for row in manifest[manifest["split"] != OUT_OF_DOMAIN].itertuples():
        said = [commands.loc[name] for name in row.sentence_ids.split("+")]
        assert row.transcript == " ".join(one["text"] for one in said)
        assert {one["split"] for one in said} == {row.split.partition("_")[0]}
        assert row.tool_call == (said[0]["tool_call"] if len(said) == 1 else "")


def test_every_voice_gets_a_fair_share(corpus_params: Corpus) -> None:
    params = corpus_params.model_copy(update={"train_utterances": 203, "test_utterances": 11})
    planned = plan_utterances(params, draw_sentences(params), TRAINING_VOICES, UNSEEN_VOICES)
    for split in SPLITS:
        shares = pd.Series([u.speaker for u in planned if u.split == split]).value_counts()
        assert shares.max() - shares.min() <= 1
    assert planned == plan_utterances(params, draw_sentences(params), TRAINING_VOICES, UNSEEN_VOICES)


def test_the_out_of_domain_slice_says_what_no_command_says_in_every_surrounding(
    tiny_corpus: Path, manifest: pd.DataFrame
) -> None:
    outside = manifest[manifest["split"] == OUT_OF_DOMAIN]
    assert outside[OOD_KIND].value_counts().to_dict() == dict.fromkeys(KINDS, 2)
    assert set(manifest.loc[manifest["split"] != OUT_OF_DOMAIN, OOD_KIND]) == {""}
    assert outside["transcript"].is_unique and (outside["tool_call"] == "").all()
    commands = pd.read_parquet(tiny_corpus / "commands.parquet")
    assert not set(outside["transcript"]) & set(commands["text"])
    peaks = {
        row.ood_kind: float(np.max(np.abs(read_audio(tiny_corpus / row.path))))
        for row in outside.itertuples()
    }
    assert 0.98 < peaks["loud"] < 0.999 and peaks["quiet"] < 0.1
    noisy = outside[OOD_KIND].isin(["babble", "hum"])
    assert outside.loc[noisy, "snr_db"].notna().all() and outside.loc[~noisy, "snr_db"].isna().all()


def test_the_other_splits_are_the_same_without_the_out_of_domain_slice(corpus_params: Corpus) -> None:
    without = corpus_params.model_copy(update={"ood_utterances": 0})
    assert plan_out_of_domain(without, TRAINING_VOICES, UNSEEN_VOICES) == []
    planned = [
        plan_utterances(params, draw_sentences(params), TRAINING_VOICES, UNSEEN_VOICES)
        for params in (corpus_params, without)
    ]
    assert planned[0] == planned[1]


@pytest.mark.parametrize("setting", ["voices", "unseen_voices"])
def test_more_voices_than_there_are_is_refused(corpus_params: Corpus, setting: str) -> None:
    params = corpus_params.model_copy(update={setting: 1000})
    with pytest.raises(DataError, match=rf"corpus\.{setting} = 1000"):
        plan_utterances(params, draw_sentences(params), TRAINING_VOICES, UNSEEN_VOICES)


def test_a_full_disk_leaves_the_earlier_corpus(
    corpus_params: Corpus, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        make_corpus(corpus_params, commands=tiny_corpus.parent / "commands", out_dir=out)
    assert (out / "card.md").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]

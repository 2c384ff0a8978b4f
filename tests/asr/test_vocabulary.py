"""The three vocabularies: where symbols come from, whose head is kept, and characters that are missing."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCTC, Wav2Vec2CTCTokenizer

from tasks.asr.checkpoints.checkpoint import (
    Vocabulary,
    keeps_head,
    load_checkpoint,
    load_encoder,
    own_vocabulary,
    read_vocabulary,
    save_checkpoint,
)
from tasks.asr.checkpoints.labels import choose_vocabulary
from tasks.asr.checkpoints.vocabulary import write_vocabulary
from tasks.asr.prepared import read_prepared
from tasks.asr.train import train
from tasks.errors import DataError, ModelError
from tasks.settings import TrainAsr
from tests.asr.conftest import SENTENCES
from tests.asr.tiny_models import SYLLABLES, foreign_checkpoint, foreign_vocabulary


def write(folder: Path, name: str, content: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def tune(settings: TrainAsr, prepared: Path, folder: Path, **changes: object) -> dict[str, object]:
    return train(
        settings.model_copy(update=changes),
        prepared=prepared,
        out_dir=folder / "checkpoint",
        training_dir=folder / "training",
        work_dir=folder / "work",
    )


def test_syllables_come_from_the_transcripts_in_one_order() -> None:
    found = Vocabulary.of_transcripts(["불 켜", "문 A1", "켜"])
    assert found.symbols == ("[PAD]", "|", "1", "A", "문", "불", "켜", "[UNK]")
    assert found == Vocabulary.of_transcripts(["켜 문", "1A 불"])
    decomposed = "\u1107\u116e\u11af"  # 불 in NFD is the same syllable
    assert Vocabulary.of_transcripts([decomposed]).symbols[2:-1] == ("불",)
    assert found.decode(found.encode("불 켜")) == "불 켜"
    assert found.missing(["불 꺼", "창"]) == ["꺼", "창"]


def test_a_foreign_vocabulary_keeps_its_ids_blank_and_names(tmp_path: Path) -> None:
    folder = foreign_checkpoint(tmp_path / "theirs")
    ids = foreign_vocabulary()
    loaded = load_checkpoint(folder)
    assert loaded.vocabulary.ids == ids
    assert loaded.vocabulary.blank_id == ids["[PAD]"] == len(ids) - 1
    save_checkpoint(tmp_path, loaded.model, loaded.vocabulary, {})
    assert json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8")) == ids
    assert load_checkpoint(tmp_path).vocabulary == loaded.vocabulary


def test_names_and_case_of_an_english_checkpoint(tmp_path: Path) -> None:
    ids = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, " ": 4, "A": 5, "B": 6}
    tokens = {
        "word_delimiter_token": " ",
        "do_lower_case": True,
        "bos_token": {"__type": "AddedToken", "content": "<s>"},
    }
    write(tmp_path, "vocab", ids)
    write(tmp_path, "tokenizer_config", tokens | {"pad_token": "<pad>", "unk_token": "<unk>"})
    found = read_vocabulary(tmp_path, 0)
    theirs = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    assert found.encode("ab a") == theirs("ab a").input_ids
    assert theirs.decode([5, 0, 6, 4, 4, 5]) == "ab a"
    assert found.decode([5, 6, 4, 1, 5]) == "ab a"  # of collapsed labels, with one that writes nothing
    write_vocabulary(tmp_path, found)
    assert json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8")) == ids
    assert read_vocabulary(tmp_path, 0) == found


def test_outputs_without_a_name_write_nothing(tmp_path: Path) -> None:
    write(tmp_path, "vocab", {"[PAD]": 0, "|": 1, "가": 2})
    write(tmp_path, "added_tokens", {"<s>": 3})
    found = read_vocabulary(tmp_path, 0, size=6)
    assert len(found.symbols) == 6 and found.symbols[3] == "<s>"
    assert found.decode([2, 3]) == "가"
    with pytest.raises(ModelError, match="pad_token_id 9"):
        read_vocabulary(tmp_path, 9)


def test_the_trained_head_is_kept_for_its_own_vocabulary_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = str(foreign_checkpoint(tmp_path / "theirs"))
    trained = AutoModelForCTC.from_pretrained(folder).lm_head.weight
    own = own_vocabulary(folder)
    assert own is not None and keeps_head(folder, own)
    with caplog.at_level(logging.INFO):
        assert torch.equal(load_encoder(folder, own, seed=1).lm_head.weight, trained)
        assert "trained head is kept" in caplog.text
        swapped = Vocabulary((own.symbols[1], own.symbols[0], *own.symbols[2:]), own.blank_id)
        other = load_encoder(folder, swapped, seed=1).lm_head.weight
    assert other.shape == trained.shape and not torch.equal(other, trained)
    assert "a new head" in caplog.text
    assert not keeps_head(folder, Vocabulary(own.symbols, 0))  # another blank is another head
    assert not torch.equal(load_encoder(folder, own, seed=1, from_scratch=True).lm_head.weight, trained)


def test_last_weeks_own_checkpoint_is_trained_on_with_its_head(
    settings: TrainAsr, prepared: Path, tmp_path: Path
) -> None:
    first = tune(settings, prepared, tmp_path / "one", steps=2, vocabulary="syllable")
    again = {"encoder": str(tmp_path / "one/checkpoint"), "steps": 1, "learning_rate": 1e-9}
    second = tune(settings, prepared, tmp_path / "two", vocabulary="syllable", **again)
    third = tune(settings, prepared, tmp_path / "three", vocabulary="jamo", **again)
    assert [run["head"] for run in (first, second, third)] == ["new", "kept", "new"]
    before, after = (load_checkpoint(tmp_path / name / "checkpoint").model for name in ("one", "two"))
    assert torch.allclose(before.lm_head.weight, after.lm_head.weight, atol=1e-6)
    assert choose_vocabulary("checkpoint", again["encoder"], []).symbols[2:-1] == tuple(  # type: ignore[arg-type]
        sorted(set("".join(SENTENCES)) - {" "})
    )


def test_transcripts_that_the_checkpoint_cannot_write_are_counted_and_named(
    settings: TrainAsr, prepared: Path, tmp_path: Path
) -> None:
    folder = foreign_checkpoint(tmp_path / "theirs")
    rows, _ = read_prepared(prepared).split("train")
    lacking = sorted(set("".join(rows["text"])) - set(SYLLABLES) - {" "})
    count = sum(bool(set(text) & set(lacking)) for text in rows["text"])
    assert lacking and 0 < count < len(rows)
    with pytest.raises(DataError, match=f"{count} of {len(rows)} transcripts") as caught:
        tune(settings, prepared, tmp_path, encoder=str(folder), vocabulary="checkpoint")
    assert all(repr(character) in caught.value.what for character in lacking)
    assert "syllable" in caught.value.next_step


def test_characters_of_the_validation_split_alone_are_errors_not_a_crash(
    settings: TrainAsr, prepared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "audio.npy").symlink_to(prepared / "audio.npy")
    rows = pd.read_parquet(prepared / "utterances.parquet")
    rows.loc[rows["split"] == "validation", "text"] = "뷁뷁"
    rows.to_parquet(data / "utterances.parquet", index=False)
    result = tune(settings, data, tmp_path, vocabulary="syllable", steps=2)
    assert float(str(result["best_validation_cer"])) >= 1.0
    assert "16 of 16 transcripts of validation" in caplog.text and "'뷁'" in caplog.text


def test_a_pre_trained_checkpoint_has_no_vocabulary_to_choose(encoder: Path, tmp_path: Path) -> None:
    folder = foreign_checkpoint(tmp_path / "theirs")
    (folder / "vocab.json").unlink()
    with pytest.raises(ModelError, match="pre-trained only") as caught:
        choose_vocabulary("checkpoint", str(folder), [])
    assert "jamo or syllable" in caught.value.next_step

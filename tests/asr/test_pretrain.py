"""Pre-training from every source: resumable to the same bytes, with provenance, and of use to a fine-tuning."""

import json
import os
import pkgutil
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tasks.artifacts import sha256_file
from tasks.asr.checkpoints.checkpoint import Vocabulary, check_provenance, load_encoder, read_vocabulary
from tasks.asr.pretrain import pretrain
from tasks.asr.pretraining.corpus import read_speech, symbols_of
from tasks.asr.pretraining.pseudo import SPELLINGS, pseudo_sentence
from tasks.asr.train import train
from tasks.data.voices import UNSEEN_VOICES
from tasks.errors import DataError, MalgilError, ModelError, SettingsError
from tasks.params import load
from tasks.settings import Pretrain
from tests.tiny_asr import tiny_settings

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "models" / "malgil-xlsr-mini"


def few_steps(**changes: object) -> Pretrain:
    shipped: Pretrain = load(ROOT / "params.yaml").pretrain
    return shipped.model_copy(
        update={"utterances": 40, "steps": 2, "checkpoint_every": 1, "batch_seconds": 4.0, **changes}
    )


@pytest.fixture(scope="module")
def recordings(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 20 files with transcripts in two languages; two are of a test split, one is broken."""
    folder = tmp_path_factory.mktemp("somebody")
    rows = pd.read_parquet(prepared / "utterances.parquet").head(20)
    flat = np.load(prepared / "audio.npy")
    listed: list[dict[str, Any]] = []
    for number, row in enumerate(rows.to_dict("records")):
        path = folder / f"{number}.flac"
        soundfile.write(path, flat[row["offset"] : row["offset"] + row["samples"]], 16_000)
        text = "Guten Tag, Élan" if number % 2 else str(row["text"])
        language, split = ("de" if number % 2 else "ko"), ("test_voices" if number < 2 else "train")
        listed.append({"path": path.name, "transcript": text, "language": language, "split": split})
    (folder / "5.flac").write_bytes(b"no audio")
    pd.DataFrame(listed).to_parquet(folder / "manifest.parquet")
    return folder / "manifest.parquet"


def read(folder: Path) -> dict[str, Any]:
    provenance: dict[str, Any] = json.loads((folder / "PROVENANCE.json").read_text(encoding="utf-8"))
    return provenance


def test_the_command_makes_an_encoder_with_provenance(tmp_path: Path) -> None:
    settings = few_steps()
    folder = pretrain(settings, out_dir=tmp_path / "mini", work_dir=tmp_path / "work")
    check_provenance(folder)
    provenance = read(folder)
    assert provenance["params"]["steps"] == provenance["training"]["steps"] == 2
    assert provenance["speech"]["languages"] == sorted(settings.languages)
    assert provenance["bytes"] <= 16 * 2**20
    model = load_encoder(str(folder), Vocabulary.of_jamo(), seed=0)
    assert model.lm_head.out_features == len(Vocabulary.of_jamo().symbols)
    with (
        safe_open(KEPT / "model.safetensors", "pt") as kept,
        safe_open(folder / "model.safetensors", "pt") as made,
    ):
        body = {name for name in kept.keys() if not name.startswith("lm_head")}  # noqa: SIM118  not a dict
        assert {name: kept.get_slice(name).get_shape() for name in body} == {
            name: made.get_slice(name).get_shape() for name in body
        }


def test_the_kept_encoder_is_the_one_its_provenance_names() -> None:
    provenance = read(KEPT)
    weights = KEPT / "model.safetensors"
    assert sha256_file(weights) == provenance["sha256"]
    assert weights.stat().st_size == provenance["bytes"] <= 16 * 2**20
    assert len(provenance["speech"]["languages"]) >= 10
    assert not [name for name in provenance["speech"]["languages"] if name.startswith("ko")]
    heard = set(provenance["speech"]["variants"])
    assert not heard & {voice.partition("+")[2] for voice in UNSEEN_VOICES}
    shipped = json.loads(json.dumps(load(ROOT / "params.yaml").pretrain.model_dump()))
    assert provenance["params"] == {name: shipped[name] for name in provenance["params"]}
    assert (shipped["source"], shipped["initial"]) == (
        "espeak",
        "",
    )  # as it was made, before it could be said


def test_transcripts_in_any_language_are_learned_by_their_characters(
    recordings: Path, encoder: Path, tmp_path: Path
) -> None:
    settings = few_steps(source="manifest", corpus=str(recordings), initial=str(encoder))
    folder = pretrain(settings, out_dir=tmp_path / "own", work_dir=tmp_path / "work")
    assert set("|gutena,elá".replace("á", "\u0301") + "ᄇ") <= set(read_vocabulary(folder).symbols)
    text = (folder / "PROVENANCE.json").read_text(encoding="utf-8")
    provenance = json.loads(text)
    assert provenance["speech"]["languages"] == ["de", "ko"]
    assert provenance["speech"]["utterances"] == 17
    assert provenance["speech"]["left_out"] == {"unreadable": 1, "not heard: rows of a test split": 2}
    assert provenance["initial"]["sha256"] == sha256_file(encoder / "model.safetensors")
    assert str(recordings.parent) not in text and str(encoder.parent) not in text
    load_encoder(str(folder), Vocabulary.of_jamo(), seed=0)


def test_an_encoder_pretrained_without_transcripts_is_fine_tuned(
    recordings: Path, encoder: Path, prepared: Path, tmp_path: Path
) -> None:
    """The folder has no transcript anywhere; what it teaches reaches the recogniser, and its masks do not."""
    settings = few_steps(source="audio", corpus=str(recordings.parent), initial=str(encoder))
    folder = pretrain(settings, out_dir=tmp_path / "heard", work_dir=tmp_path / "work")
    row = read(folder)["training"]["validation"][-1]
    assert row["chance"] == pytest.approx(1 / 21)
    assert 0 <= row["contrastive_accuracy"] <= 1
    model = load_encoder(str(folder), Vocabulary.of_jamo(), seed=0)
    with safe_open(folder / "model.safetensors", "pt") as made:
        name = "wav2vec2.encoder.layers.0.attention.q_proj.weight"
        assert model.state_dict()[name].equal(made.get_tensor(name))
        assert any(name.startswith("quantizer.") for name in made.keys())  # noqa: SIM118  not a dict
    assert not model.config.apply_spec_augment
    result = train(
        tiny_settings(folder, steps=2),
        prepared=prepared,
        out_dir=tmp_path / "checkpoint",
        training_dir=tmp_path / "training",
        work_dir=tmp_path / "fine-tuning",
    )
    assert result["steps"] == 2
    again = few_steps(source="audio", corpus=str(recordings.parent), initial=str(folder))
    pretrain(again, out_dir=tmp_path / "more", work_dir=tmp_path / "work")


class _Killed(BaseException):
    """Stands for the end of the process in the middle of a step."""


@pytest.mark.parametrize(
    ("source", "loss"),
    [
        ("manifest", "tasks.asr.training.loop.ctc_loss"),
        ("audio", "tasks.asr.pretraining.objective.contrastive_loss"),
    ],
)
def test_killed_in_the_middle_it_ends_in_the_same_bytes(
    source: str, loss: str, recordings: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = few_steps(source=source, corpus=str(recordings), initial=str(encoder), steps=5)
    whole = pretrain(settings, out_dir=tmp_path / "whole", work_dir=tmp_path / "whole-work")
    original, calls = pkgutil.resolve_name(loss), []

    def stop(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > 3:
            raise _Killed
        return original(*arguments, **named)

    places = {"out_dir": tmp_path / "out", "work_dir": tmp_path / "work"}
    with monkeypatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(loss, stop)
        pretrain(settings, **places)
    assert not (tmp_path / "out").exists()
    pretrain(settings, **places)
    assert read(tmp_path / "out")["training"]["resumed_from_step"] == 3
    assert sha256_file(tmp_path / "out" / "model.safetensors") == sha256_file(whole / "model.safetensors")


def test_two_processes_learn_what_one_with_twice_the_batches_does(
    recordings: Path, encoder: Path, tmp_path: Path
) -> None:
    settings = few_steps(source="audio", corpus=str(recordings), initial=str(encoder), batch_seconds=3.0)
    models = {}
    for processes in (1, 2):
        how = settings.model_copy(update={"processes": processes, "accumulation": 2 // processes})
        folder = pretrain(how, out_dir=tmp_path / f"{processes}", work_dir=tmp_path / f"work-{processes}")
        assert read(folder)["training"]["processes"] == processes
        models[processes] = load_file(folder / "model.safetensors")
    for name, weight in models[1].items():
        torch.testing.assert_close(models[2][name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("language", ["ko", "xx"])
def test_korean_and_unknown_languages_are_refused(language: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=language):
        pretrain(few_steps(languages=("es", language)), out_dir=tmp_path / "mini", work_dir=tmp_path / "work")


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"source": "manifest", "corpus": ""}, SettingsError, "pretrain.corpus is empty"),
        ({"source": "manifest", "corpus": "FOLDER"}, SettingsError, "is a folder"),
        ({"source": "audio", "corpus": "/no/such/place"}, MalgilError, "/no/such/place does not exist"),
        ({"source": "audio", "corpus": "FOLDER", "initial": "/no/encoder"}, ModelError, "pretrain.initial"),
        ({"source": "audio", "corpus": "FOLDER", "mask_frames": 100}, DataError, "mask_frames"),
        ({"source": "manifest", "corpus": "EMPTY"}, DataError, "0 usable utterances"),
    ],
)
def test_what_cannot_be_learned_from_is_named(
    changes: dict[str, Any], error: type[MalgilError], says: str, recordings: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.parquet"
    pd.DataFrame({"path": ["a.wav"], "transcript": ["a"]}).to_parquet(empty)
    places = {"FOLDER": str(recordings.parent), "EMPTY": str(empty)}
    changes["corpus"] = places.get(changes["corpus"], changes["corpus"])
    with pytest.raises(error, match=says):
        pretrain(few_steps(**changes), out_dir=tmp_path / "out", work_dir=tmp_path / "work")
    assert not (tmp_path / "out").exists()


def test_speech_is_read_again_when_a_file_changes(recordings: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(recordings.parent, tmp_path / "own"))
    settings = few_steps(source="audio", corpus=str(own / recordings.name))
    first = read_speech(settings, tmp_path / "speech")
    assert read_speech(settings, tmp_path / "speech").digest == first.digest
    changed = own / "3.flac"
    os.utime(changed, (1, 1))
    assert read_speech(settings, tmp_path / "speech").digest == first.digest, "touched, not changed"
    shutil.copyfile(own / "2.flac", changed)
    os.utime(changed, (1, 1))
    assert read_speech(settings, tmp_path / "speech").digest != first.digest


@pytest.mark.parametrize(
    ("transcript", "symbols"),
    [
        ("Guten  Tag", "guten|tag"),
        ("Straße", "strasse"),
        ("ÉLAN\u200b", "e\u0301lan"),
        ("각", "\u1100\u1161\u11a8"),
        (" a|b\n", "a|b"),
        ("", ""),
    ],
)
def test_symbols_of_a_transcript(transcript: str, symbols: str) -> None:
    assert "".join(symbols_of(transcript)) == symbols


@pytest.mark.parametrize("language", sorted(SPELLINGS))
def test_pseudo_sentences_are_words_and_repeatable(language: str) -> None:
    sentences = [pseudo_sentence(language, random.Random(seed)) for seed in range(30)]
    assert sentences == [pseudo_sentence(language, random.Random(seed)) for seed in range(30)]
    assert len(set(sentences)) > 25
    assert all(1 <= len(sentence.split()) <= 5 for sentence in sentences)
    assert not [c for sentence in sentences for c in sentence if "가" <= c <= "힣"]

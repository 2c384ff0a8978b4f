"""Pre-training: the command makes such a file in a few steps, without Korean, and what is kept is what was made."""

import json
import random
from pathlib import Path

import pytest
from safetensors import safe_open

from tasks.artifacts import sha256_file
from tasks.asr.checkpoint import Vocabulary, check_provenance, load_encoder
from tasks.asr.pretrain import pretrain
from tasks.asr.pseudo import SPELLINGS, pseudo_sentence
from tasks.data.voices import UNSEEN_VOICES
from tasks.errors import SettingsError
from tasks.params import load
from tasks.settings import Pretrain

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "models" / "malgil-xlsr-mini"


def few_steps(**changes: object) -> Pretrain:
    shipped: Pretrain = load(ROOT / "params.yaml").pretrain
    return shipped.model_copy(
        update={"utterances": 40, "steps": 2, "checkpoint_every": 1, "batch_seconds": 4.0, **changes}
    )


def test_the_command_makes_an_encoder_with_provenance(tmp_path: Path) -> None:
    settings = few_steps()
    folder = pretrain(settings, out_dir=tmp_path / "mini", work_dir=tmp_path / "work")
    check_provenance(folder)
    provenance = json.loads((folder / "PROVENANCE.json").read_text(encoding="utf-8"))
    assert provenance["params"]["steps"] == provenance["training"]["steps"] == 2
    assert provenance["speech"]["languages"] == sorted(settings.languages)
    assert provenance["bytes"] <= 16 * 2**20
    model = load_encoder(str(folder), Vocabulary.of_jamo(), seed=0)
    assert model.lm_head.out_features == len(Vocabulary.of_jamo().symbols)
    if KEPT.is_dir():
        with (
            safe_open(KEPT / "model.safetensors", "pt") as kept,
            safe_open(folder / "model.safetensors", "pt") as made,
        ):
            body = {name for name in kept.keys() if not name.startswith("lm_head")}  # noqa: SIM118  not a dict
            assert {name: kept.get_slice(name).get_shape() for name in body} == {
                name: made.get_slice(name).get_shape() for name in body
            }


def test_the_kept_encoder_is_the_one_its_provenance_names() -> None:
    provenance = json.loads((KEPT / "PROVENANCE.json").read_text(encoding="utf-8"))
    weights = KEPT / "model.safetensors"
    assert sha256_file(weights) == provenance["sha256"]
    assert weights.stat().st_size == provenance["bytes"] <= 16 * 2**20
    assert len(provenance["speech"]["languages"]) >= 10
    assert not [name for name in provenance["speech"]["languages"] if name.startswith("ko")]
    heard = set(provenance["speech"]["variants"])
    assert not heard & {voice.partition("+")[2] for voice in UNSEEN_VOICES}
    assert provenance["params"] == json.loads(json.dumps(load(ROOT / "params.yaml").pretrain.model_dump()))


@pytest.mark.parametrize("language", ["ko", "xx"])
def test_korean_and_unknown_languages_are_refused(language: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=language):
        pretrain(few_steps(languages=("es", language)), out_dir=tmp_path / "mini", work_dir=tmp_path / "work")


@pytest.mark.parametrize("language", sorted(SPELLINGS))
def test_pseudo_sentences_are_words_and_repeatable(language: str) -> None:
    sentences = [pseudo_sentence(language, random.Random(seed)) for seed in range(30)]
    assert sentences == [pseudo_sentence(language, random.Random(seed)) for seed in range(30)]
    assert len(set(sentences)) > 25
    assert all(1 <= len(sentence.split()) <= 5 for sentence in sentences)
    assert not [c for sentence in sentences for c in sentence if "가" <= c <= "힣"]

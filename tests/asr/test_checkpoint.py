"""Vocabulary, decoding, loading and saving of a recogniser's folder, and the messages for broken ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

from tasks.asr.checkpoints.checkpoint import (
    Vocabulary,
    check_provenance,
    load_checkpoint,
    load_encoder,
    mini_config,
    read_vocabulary,
    save_checkpoint,
)
from tasks.asr.decoding.decode import greedy, greedy_labels
from tasks.asr.engines.torch_model import TorchRecogniser, check_audio
from tasks.asr.training.augment import normalised
from tasks.asr.training.batching import pad
from tasks.errors import ArtifactError, DataError, ModelError

JAMO = Vocabulary.of_jamo()


@pytest.mark.parametrize("text", ["거실 불 좀 켜 줘", "값", "뷁", "일곱 시 반", ""])
def test_encode_and_decode_are_inverse(text: str) -> None:
    assert JAMO.decode(JAMO.encode(text)) == text


def test_every_hangul_syllable_can_be_learned() -> None:
    syllables = "".join(chr(code) for code in range(0xAC00, 0xD7A4))
    assert JAMO.decode(JAMO.encode(syllables)) == syllables


def test_foreign_characters_are_named() -> None:
    with pytest.raises(DataError, match=r"'2'.*'C'|'C'.*'2'") as caught:
        JAMO.encode("거실 2C")
    assert "normalise" in caught.value.next_step


def test_syllable_vocabularies_are_not_decomposed() -> None:
    syllables = Vocabulary(("[PAD]", "|", "불", "켜", "[UNK]"))
    assert syllables.encode("불 켜") == [2, 1, 3]


def test_greedy_collapses_repeats_and_drops_blanks() -> None:
    path = [0, 2, 2, 0, 2, 3, 3, 0, 1, 1, 4]
    logits = np.eye(6)[path]
    assert greedy_labels(logits) == [2, 2, 3, 1, 4]
    assert greedy_labels(logits[:0]) == []
    assert greedy(np.eye(3)[[0, 0, 0]], Vocabulary(("[PAD]", "|", "가"))) == ""


def test_mini_config_has_20_ms_frames_and_about_two_million_parameters() -> None:
    model = AutoModelForCTC.from_config(mini_config(70))
    assert int(np.prod(model.config.conv_stride)) == 320
    assert 1.5e6 < model.num_parameters() < 4e6


def test_a_folder_loads_with_plain_transformers(encoder: Path) -> None:
    folder = str(encoder)
    processor = Wav2Vec2Processor(
        feature_extractor=Wav2Vec2FeatureExtractor.from_pretrained(folder),
        tokenizer=Wav2Vec2CTCTokenizer.from_pretrained(folder),
    )
    audio = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    values = processor.feature_extractor(audio, sampling_rate=16_000, return_tensors="pt").input_values
    assert np.allclose(values[0].numpy(), normalised(audio), atol=1e-5)
    with torch.inference_mode():
        ours = load_checkpoint(encoder).model(values).logits
        theirs = AutoModelForCTC.from_pretrained(folder)(values).logits
    assert torch.equal(ours, theirs)


def test_padded_batches_equal_one_by_one(encoder: Path) -> None:
    model = load_checkpoint(encoder).model
    rng = np.random.default_rng(1)
    clips = [rng.standard_normal(n).astype(np.float32) for n in (5_000, 16_000, 23_456)]
    inputs, mask = pad(clips)
    with torch.inference_mode():
        together = model(inputs, attention_mask=mask).logits
        for row, clip in enumerate(clips):
            alone = model(torch.from_numpy(clip)[None]).logits[0]
            assert torch.allclose(together[row, : len(alone)], alone, atol=1e-4)


def test_a_new_head_starts_fresh_and_the_encoder_is_kept(encoder: Path) -> None:
    source = AutoModelForCTC.from_pretrained(str(encoder)).state_dict()
    tuned = load_encoder(str(encoder), JAMO, seed=1)
    for name, value in tuned.state_dict().items():
        if not name.startswith("lm_head"):
            assert torch.equal(value, source[name]), name
    assert tuned.lm_head.weight.shape[0] == len(JAMO.symbols)
    assert tuned.config.pad_token_id == JAMO.blank_id
    again = load_encoder(str(encoder), JAMO, seed=1)
    assert torch.equal(tuned.lm_head.weight, again.lm_head.weight)


def test_from_scratch_keeps_the_shape_alone(encoder: Path) -> None:
    source = AutoModelForCTC.from_pretrained(str(encoder)).state_dict()
    fresh = load_encoder(str(encoder), JAMO, seed=1, from_scratch=True).state_dict()
    name = "wav2vec2.encoder.layers.0.attention.q_proj.weight"
    assert fresh[name].shape == source[name].shape
    assert not torch.equal(fresh[name], source[name])


def test_other_bytes_than_the_provenance_names_are_refused(encoder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "mini"
    shutil.copytree(encoder, broken)
    weights = broken / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=r"PROVENANCE\.json names"):
        load_encoder(str(broken), JAMO, seed=0)
    check_provenance(encoder)


def test_broken_folders_get_a_message(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_checkpoint(tmp_path)
    cut = tmp_path / "cut"
    shutil.copytree(encoder, cut)
    (cut / "PROVENANCE.json").unlink()
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_checkpoint(cut)
    with pytest.raises(ModelError, match="wav2vec2-style"):
        load_encoder(str(tmp_path / "nothing-here"), JAMO, seed=0)


def test_a_vocabulary_must_fit(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"가": 0, "나": 2}), encoding="utf-8")
    with pytest.raises(ModelError, match="not a vocabulary"):
        read_vocabulary(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(encoder, other)
    (other / "vocab.json").write_text(json.dumps(JAMO.ids), encoding="utf-8")
    with pytest.raises(ModelError, match=r"the head has 6"):
        load_checkpoint(other)


def test_saving_and_loading_keeps_weights_and_facts(encoder: Path, tmp_path: Path) -> None:
    model = load_encoder(str(encoder), JAMO, seed=2)
    save_checkpoint(tmp_path, model, JAMO, {"units": "jamo"}, normalise=False)
    loaded = load_checkpoint(tmp_path)
    assert loaded.vocabulary == JAMO
    assert loaded.normalise is False
    assert loaded.about == {"units": "jamo"}
    assert torch.equal(loaded.model.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(0, np.float32),
        np.zeros((2, 16_000), np.float32),
        np.zeros(16_000, np.int16),
        np.full(16_000, np.nan, np.float32),
    ],
)
def test_audio_of_another_kind_is_refused(audio: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match="16 kHz"):
        check_audio(audio)


def test_very_short_audio_gives_text_not_an_error(encoder: Path) -> None:
    texts = TorchRecogniser(encoder).transcribe([np.ones(10, np.float32), np.ones(1_000, np.float32)])
    assert len(texts) == 2

"""Rows that CTC cannot align are quarantined by name, by the labels and frames of the training to come."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.asr.checkpoints.vocabulary import Vocabulary
from tasks.asr.decoding.align import align
from tasks.asr.training.paths import geometry_of
from tasks.data.ctc import WAV2VEC2, Geometry, LabelCount, geometry_in, label_count, needed_frames, repeats
from tasks.data.validate import validate
from tasks.errors import DataError
from tasks.params import load

EXAMPLES = int(os.environ.get("MALGIL_FUZZ_EXAMPLES", "200"))
FULL = "각난닫랄맘밥삿앙잦찿캌탙팦핳간날담랍맛방산알잡찬칼탄판한강낙"  # 30 syllables of three jamo


@pytest.mark.parametrize(
    ("labels", "needed"), [("", 0), ("a", 1), ("ab", 2), ("aa", 3), ("aabb", 6), ("aaa", 5)]
)
def test_equal_labels_need_a_frame_between_them(labels: str, needed: int) -> None:
    assert needed_frames(labels) == needed


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=8), st.integers(1, 16))
def test_the_count_is_that_of_the_alignment(labels: list[int], frames: int) -> None:
    log_p = np.log(np.full((frames, 4), 0.25))
    try:
        align(log_p, labels)
        aligned = True
    except DataError:
        aligned = False
    assert aligned == (needed_frames(labels) <= frames)


def test_frames_are_those_of_the_model() -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    for changes in (
        {},
        {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (10, 8)},
        {"add_adapter": True},
    ):
        config = Wav2Vec2Config(
            **(small | {"num_conv_pos_embedding_groups": 4, "conv_dim": (8,) * 7} | changes)
        )
        model = Wav2Vec2ForCTC(config)
        lengths = torch.tensor([400, 719, 720, 31_999, 32_000, 160_000])
        counted = model._get_feat_extract_output_lengths(lengths).tolist()
        for geometry in (geometry_of(config), geometry_in(json.loads(config.to_json_string(False)))):
            assert [geometry.frames(int(length)) for length in lengths] == counted


def test_labels_are_those_of_the_vocabularies() -> None:
    text = "각 낙 켜 줘"
    for choice, vocabulary in (
        ("jamo", Vocabulary.of_jamo()),
        ("syllable", Vocabulary.of_transcripts([text])),
    ):
        count = label_count(choice, "no/such")  # type: ignore[arg-type]
        labels = vocabulary.encode(text)
        exact = LabelCount(Geometry((1,), (16_000,)), count.decomposed)
        seconds = len(labels) + repeats(labels)
        assert exact.too_many(text, float(seconds)) is None
        assert exact.too_many(text, seconds - 1.0)


def test_a_row_says_what_it_needs_and_what_it_gets() -> None:
    count = LabelCount(WAV2VEC2, decomposed=False)
    assert (
        count.too_many(FULL + "가가", 0.64) == "32 labels and 1 repeat need 33 frames, the recording gives 31"
    )
    assert count.too_many("가가가", 0.06) == "3 labels and 2 repeats need 5 frames, the recording gives 2"
    count = LabelCount(WAV2VEC2, decomposed=True)
    assert count.too_many("가 " + FULL, 1.0) == "93 labels need 93 frames, the recording gives 49"
    assert count.too_many("가 나", 1.0) is None
    assert count.too_many("가 나", float("nan")) is None  # a file that cannot be read has its own reason
    assert count.too_many("가", 0.01) == "2 labels need 2 frames, the recording gives 0"


def test_geometry_and_symbols_come_from_the_encoder_and_nothing_is_fetched(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_text(json.dumps({"conv_kernel": [10, 3], "conv_stride": [5, 2]}))
    (own / "vocab.json").write_text(json.dumps({"[PAD]": 0, "\u1100": 1}))
    assert label_count("checkpoint", str(own)) == (Geometry((10, 3), (5, 2)), True)
    (own / "vocab.json").write_text(json.dumps({"[PAD]": 0, "가": 1}))
    assert label_count("checkpoint", str(own)) == (Geometry((10, 3), (5, 2)), False)
    assert label_count("jamo", str(own)).decomposed
    for broken in ("{", "[]", '{"conv_kernel": [10], "conv_stride": []}', '{"conv_kernel": 3}'):
        (own / "config.json").write_text(broken)
        assert label_count("jamo", str(own)).geometry == WAV2VEC2
    assert label_count("jamo", "kresnik/wav2vec2-large-xlsr-korean@main").geometry == WAV2VEC2


def test_a_hub_encoder_in_the_cache_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "a" * 40
    folder = tmp_path / "models--org--name"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    config = {"conv_kernel": [10], "conv_stride": [160]}
    (folder / "snapshots" / commit / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    assert label_count("syllable", "org/name").geometry == Geometry((10,), (160,))


def corpus(folder: Path, texts: list[str], seconds: float) -> Path:
    (folder / "audio").mkdir(parents=True)
    rows = []
    for number, text in enumerate(texts):
        path = f"audio/{number}.flac"
        samples = 0.1 * np.random.default_rng(number).standard_normal(int(seconds * 16_000))
        soundfile.write(folder / path, samples, 16_000)
        rows.append(
            {
                "utterance_id": f"u{number}",
                "path": path,
                "sha256": hashlib.sha256((folder / path).read_bytes()).hexdigest(),
                "duration_s": len(samples) / 16_000,
                "sample_rate_hz": 16_000,
                "transcript": text,
                "speaker": "unseen" if number % 4 == 3 else "known",
                "split": ("train", "validation", "test_sentences", "test_voices")[number % 4],
            }
        )
    pd.DataFrame(rows).to_parquet(folder / "manifest.parquet")
    return folder


def test_a_row_at_the_fastest_speech_allowed_is_quarantined_by_name(tmp_path: Path) -> None:
    """Fifteen characters a second pass the speech rate; their jamo and spaces do not fit the frames."""
    text = " ".join(FULL[at : at + 3] for at in range(0, 30, 3))  # 30 characters, 99 labels
    made = corpus(tmp_path / "corpus", ["가 줘", "나 줘", "다 줘", "라 줘", text], 1.999)
    params = load(Path("params.yaml")).validate_.model_copy(
        update={"max_bad_share": 0.5, "min_rows_per_split": 1, "max_characters_per_s": 15.1}
    )
    encoder = "models/malgil-xlsr-mini"
    result = validate(params, corpus=made, out=tmp_path / "out", vocabulary="jamo", encoder=encoder)
    assert result["reasons"] == {"too_many_labels": 1}
    quarantine = pd.read_parquet(tmp_path / "out" / "quarantine.parquet")
    assert quarantine["reasons"].tolist() == ["too_many_labels"]
    assert quarantine["details"][0] == "too_many_labels: 99 labels need 99 frames, the recording gives 98"
    syllables = validate(params, corpus=made, out=tmp_path / "again", vocabulary="syllable", encoder=encoder)
    assert syllables["reasons"] == {}

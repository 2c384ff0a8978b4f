"""Shared by the recogniser's tests: a little real speech in the prepared layout, and a tiny encoder."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from tasks.artifacts import sha256_file, write_json
from tasks.asr.checkpoints.checkpoint import (
    Vocabulary,
    fresh_model,
    load_encoder,
    mini_config,
    save_checkpoint,
)
from tasks.asr.decoding import language_model
from tasks.asr.export import export
from tasks.asr.ngrams import symbol_ngrams
from tasks.data.espeak import Synthesiser
from tasks.settings import ExportAsr, TrainAsr
from tests.tiny_asr import tiny_settings

SENTENCES = (
    "불 켜 줘",
    "문 닫아",
    "거실 불 꺼",
    "음악 틀어 줘",
    "커튼 열어",
    "창문 닫아 줘",
    "알람 맞춰",
    "노래 꺼 줘",
)
VOICES = {
    "train": ("ko+f1", "ko+m1"),
    "validation": ("ko+f1", "ko+m1"),
    "test_sentences": ("ko+f1", "ko+m1"),
    "test_voices": ("ko+f2", "ko+m3"),
}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """audio.npy and utterances.parquet with 8 sentences by 2 voices in every split (a test of code, not of quality)."""
    folder = tmp_path_factory.mktemp("prepared")
    clips: list[np.ndarray[Any, Any]] = []
    rows: list[dict[str, Any]] = []
    offset = 0
    with Synthesiser() as synthesiser:
        for split, voices in VOICES.items():
            for voice in voices:
                for number, text in enumerate(SENTENCES):
                    clip = (synthesiser.speak(text, voice, rate_wpm=220) * 32767).astype(np.int16)
                    row = {
                        "utterance_id": f"{split}-{voice}-{number}",
                        "speaker": voice,
                        "split": split,
                        "text": text,
                        "offset": offset,
                        "samples": len(clip),
                        "normaliser": "ko-1",
                    }
                    rows.append(row)
                    clips.append(clip)
                    offset += len(clip)
    np.save(folder / "audio.npy", np.concatenate(clips))
    pd.DataFrame(rows).to_parquet(folder / "utterances.parquet", index=False)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder of 40,000 parameters in the layout of malgil-xlsr-mini, with provenance."""
    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = Vocabulary.of_symbols(("a", "b", "ʃ"))
    config = mini_config(len(vocabulary.symbols))
    config.update(
        {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "conv_dim": [16, 16, 16, 32],
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 4,
        }
    )
    save_checkpoint(folder, fresh_model(config, seed=0), vocabulary, {"kind": "test"})
    write_json(folder / "PROVENANCE.json", {"sha256": sha256_file(folder / "model.safetensors")})
    return folder


@pytest.fixture(scope="session")
def checkpoint(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained recogniser that says something, and an n-gram model of the sentences."""
    folder = tmp_path_factory.mktemp("talking")
    vocabulary = Vocabulary.of_jamo()
    model = load_encoder(str(encoder), vocabulary, seed=4)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)  # so that it says something
    save_checkpoint(folder, model, vocabulary, {"units": "jamo"})
    language_model.save(symbol_ngrams(SENTENCES, vocabulary), folder)
    return folder


@pytest.fixture(scope="session")
def shipped(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`checkpoint` as the pipeline ships it."""
    folder = tmp_path_factory.mktemp("export") / "shipped"
    export(
        ExportAsr(opset=17, max_logit_difference=1e-3, max_relative_difference_int8=0.1),
        checkpoint=checkpoint,
        out_dir=folder,
    )
    return folder


@pytest.fixture
def settings(encoder: Path) -> TrainAsr:
    """A fine-tuning of a few steps."""
    return tiny_settings(
        encoder,
        steps=8,
        learning_rate=0.002,
        warmup_share=0.2,
        head_factor=1.0,
        batch_seconds=4.0,
        evaluate_every=4,
        checkpoint_every=2,
    )


@pytest.fixture(scope="session")
def noises(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Short recordings of several lengths, and one of 12 s."""
    folder = tmp_path_factory.mktemp("noises")
    rng = np.random.default_rng(1)
    for index, seconds in enumerate((0.7, 2.31, 1.1, 0.02, 12.0)):
        soundfile.write(folder / f"{index}.wav", rng.uniform(-0.3, 0.3, round(seconds * 16_000)), 16_000)
    return sorted(folder.iterdir())


@pytest.fixture
def odd(tmp_path: Path, noises: list[Path]) -> Path:
    """A folder of what people have in folders: the good ones say something, the others must be named."""
    folder = tmp_path / "odd"
    (folder / "deep").mkdir(parents=True)
    good = noises[1].read_bytes()
    (folder / "deep/good.wav").write_bytes(good)
    (folder / "wrong_suffix.mp3").write_bytes(good)
    soundfile.write(folder / "clipped.ogg", np.sign(np.sin(np.arange(16_000) / 20)), 16_000)
    soundfile.write(folder / "one_sample.wav", np.ones(1), 44_100)
    soundfile.write(folder / "silent.flac", np.zeros(16_000 * 50), 16_000)
    soundfile.write(
        folder / "bad_nan.wav", np.array([0, np.nan] * 9_000, np.float32), 16_000, subtype="FLOAT"
    )
    soundfile.write(folder / "bad_zero.wav", np.zeros(0), 16_000)
    (folder / "bad_cut.wav").write_bytes(good[: len(good) // 2])
    (folder / "bad_empty.wav").write_bytes(b"")
    (folder / "bad_text.wav").write_text("no audio")
    (folder / "bad_format.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    (folder / "notes.txt").write_text("not looked at")
    (folder / "._good.wav").write_bytes(b"of another system, not looked at")
    return folder

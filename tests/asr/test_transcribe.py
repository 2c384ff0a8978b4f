"""Recordings to text by the real engines: tiny ones, which say nonsense, but the same nonsense in any company."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.asr.checkpoints.checkpoint import Vocabulary, fresh_model, load_encoder, save_checkpoint
from tasks.asr.engines.acoustic import OnnxAcoustic, load_acoustic
from tasks.asr.engines.torch_acoustic import TorchAcoustic
from tasks.asr.engines.torch_model import OnnxRecogniser, TorchRecogniser
from tasks.data.audio import read_audio
from tasks.errors import ModelError
from tests.asr.audible_symbols import GRID, run

Array = np.ndarray[Any, Any]


def test_both_backends_lie_on_the_same_grid(checkpoint: Path, shipped: Path) -> None:
    assert TorchAcoustic(checkpoint, 60.0).grid == OnnxAcoustic(shipped).grid == GRID


def test_a_short_recording_says_what_the_recognisers_say(
    checkpoint: Path, shipped: Path, noises: list[Path]
) -> None:
    clips = [read_audio(path) for path in noises]
    recognisers = (
        (OnnxRecogniser(shipped), OnnxAcoustic(shipped)),
        (
            TorchRecogniser(checkpoint),
            TorchAcoustic(checkpoint, 60.0),
        ),
    )
    for recogniser, acoustic in recognisers:
        said = [(found.text, found.greedy) for found in run(noises, acoustic)]
        assert said == [tuple(transcript) for transcript in recogniser.transcripts(clips)]
        assert any(text for text, _ in said)


def test_a_batch_says_what_each_says_alone(
    checkpoint: Path, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    acoustic = TorchAcoustic(checkpoint, 10.0, use_search=False)
    batches: list[int] = []
    assert acoustic.packed
    inner = acoustic.packed.logits

    def counted(clips: Sequence[Array]) -> list[Array]:
        batches.append(len(clips))
        return inner(clips)

    monkeypatch.setattr(acoustic.packed, "logits", counted)
    together = run(noises, acoustic, window_s=3.0, overlap_s=1.0)
    assert max(batches) > 2
    alone = [run([path], acoustic, window_s=3.0, overlap_s=1.0)[0] for path in noises]
    for one, other in zip(together, alone, strict=True):
        assert (one.path, one.text, len(one.words)) == (other.path, other.text, len(other.words))
        assert one.confidence == pytest.approx(other.confidence, abs=1e-3)


def test_several_workers_say_what_one_says(
    checkpoint: Path, shipped: Path, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for threads in ("1", "3"):
        monkeypatch.setenv("MALGIL_THREADS", threads)
        for acoustic in (TorchAcoustic(checkpoint, 2.0), OnnxAcoustic(shipped)):
            assert acoustic.workers.count == int(threads)
            said.append([(r.path, r.text, r.characters) for r in run(noises, acoustic, 3.0, 1.0)])
    assert said[:2] == said[2:] and any(text for _, text, _ in said[0])


def test_group_norm_is_never_padded(encoder: Path, tmp_path: Path) -> None:
    """wav2vec2-base in a Hub-style folder: a batch of several lengths says what each says alone."""
    config = load_encoder(str(encoder), Vocabulary.of_jamo(), seed=4).config
    config.update({"feat_extract_norm": "group", "conv_bias": False, "do_stable_layer_norm": False})
    model = fresh_model(config, seed=5)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    save_checkpoint(tmp_path, model, Vocabulary.of_jamo(), {}, normalise=False)
    (tmp_path / "malgil.json").unlink()  # a folder from the Hub has none
    rng = np.random.default_rng(3)
    clips = [rng.uniform(-0.5, 0.5, length).astype(np.float32) for length in (9_000, 16_000, 9_000)]
    acoustic = load_acoustic(tmp_path, None, 60.0, use_search=True)
    together = acoustic.logits(clips)
    for clip, found in zip(clips, together, strict=True):
        (alone,) = acoustic.logits([clip])
        assert found.shape == alone.shape and np.abs(found - alone).max() < 1e-4


def test_a_folder_without_a_recogniser_is_named(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.int8\.onnx or config\.json"):
        load_acoustic(tmp_path, None, 60.0, use_search=True)
    with pytest.raises(ModelError, match="no recogniser for onnx"):
        load_acoustic(checkpoint, "onnx", 60.0, use_search=True)


def test_a_published_version_holds_both(checkpoint: Path, shipped: Path, tmp_path: Path) -> None:
    version = shutil.copytree(shipped, tmp_path / "version")
    shutil.copytree(checkpoint, version / "checkpoint")
    assert isinstance(load_acoustic(version, None, 60.0, use_search=True), OnnxAcoustic)
    assert isinstance(load_acoustic(version, "torch", 60.0, use_search=True), TorchAcoustic)

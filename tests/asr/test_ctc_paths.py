"""A training makes no example that CTC cannot align, and says how many there were all the same."""

import logging
import shutil
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from tasks.asr.train import train
from tasks.asr.training.augment import Augmentation, draw_example
from tasks.asr.training.batching import Batch, ctc_loss, plan_batches
from tasks.asr.training.paths import Paths
from tasks.data.ctc import WAV2VEC2
from tasks.tracking import read_history
from tests.asr.tiny_models import tiny_model
from tests.tiny_asr import tiny_settings

ALL = Augmentation(joined_share=0.5, max_joined=4, max_silence_s=0.5, noise_share=0.3, voice_share=1.0)
CONFIG = SimpleNamespace(conv_kernel=WAV2VEC2.kernels, conv_stride=WAV2VEC2.strides)
LENGTHS = np.array([16_000, 24_000, 32_000, 20_000, 16_080, 16_000], dtype=np.int64)
# As many labels as frames: nothing may be taken from the audio. The last has too many as it is.
LABELS = [list(range(WAV2VEC2.frames(int(n)))) for n in LENGTHS[:-1]] + [list(range(60))]


def labels_of(parts: tuple[int, ...]) -> list[int]:
    joined = list(LABELS[parts[0]])
    for part in parts[1:]:
        joined += [99, *LABELS[part]]
    return joined


PATHS = Paths(CONFIG, labels_of)


def test_faster_speech_and_joining_leave_what_can_be_aligned() -> None:
    rng, drawn = np.random.default_rng(0), []
    for seed in range(300):
        parts = tuple(int(part) for part in rng.integers(0, len(LENGTHS), size=1 + seed % 3))
        example = draw_example(parts, LENGTHS, ALL, np.random.default_rng(seed), PATHS.fit)
        free = draw_example(parts, LENGTHS, ALL, np.random.default_rng(seed))
        drawn.append((example, free))
        assert example.parts == free.parts[: len(example.parts)]
        assert len(example.silences) == len(example.parts) + 1
        assert example.seed == free.seed
        if example.parts[0] != 5:
            assert PATHS.fit(example.parts, example.samples)
    assert sum(not PATHS.fit(free.parts, free.samples) for _, free in drawn) > 50
    assert sum(example.speed > 1 for example, _ in drawn) > 20  # silence around them leaves room
    assert any(example.speed < 1 for example, _ in drawn)


def test_where_everything_fits_the_plans_are_the_same() -> None:
    roomy = Paths(CONFIG, lambda parts: [1, 2] * len(parts))
    plain = islice(plan_batches(LENGTHS, ALL, 8.0, seed=3), 60)
    assert list(islice(plan_batches(LENGTHS, ALL, 8.0, seed=3, fit=roomy.fit), 60)) == list(plain)


def test_the_count_is_that_of_infinite_losses() -> None:
    """PyTorch's own loss is the judge, of labels that repeat and of frames around the border."""
    model = tiny_model("wav2vec2")
    config = model.config
    kinds = [[1, 2, 3, 4] * 4, [1, 1, 2, 2] * 3, [5] * 6, [1, 2]]
    paths = Paths(config, lambda parts: kinds[parts[0]])
    found = []
    for number, labels in enumerate(kinds):
        for samples in range(1_600, 12_000, 480):
            inputs = torch.randn(1, samples)
            mask = torch.ones(1, samples, dtype=torch.long)
            batch = Batch(inputs, mask, torch.tensor(labels), torch.tensor([len(labels)]), ())
            loss = float(ctc_loss(model, batch))
            found.append((loss == 0.0, not paths.fit((number,), samples)))
    assert {impossible for _, impossible in found} == {True, False}
    assert all(zero == impossible for zero, impossible in found)


@pytest.fixture
def overfull(prepared: Path, tmp_path: Path) -> Path:
    """The prepared speech with a transcript for ten times its length in the first row."""
    folder = shutil.copytree(prepared, tmp_path / "prepared")
    rows = pd.read_parquet(folder / "utterances.parquet")
    rows.loc[rows.index[rows["split"] == "train"][0], "text"] = "거실 불 꺼 " * 40 + "줘"
    rows.to_parquet(folder / "utterances.parquet")
    return folder


def test_rows_that_teach_nothing_are_named_before_and_counted_after(
    overfull: Path, prepared: Path, encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = tiny_settings(encoder, steps=20, batch_seconds=4.0, evaluate_every=20)
    folders = {name: tmp_path / name for name in ("out_dir", "training_dir", "work_dir")}
    with caplog.at_level(logging.WARNING):
        result = train(settings, prepared=overfull, **folders)
    told = "\n".join(caplog.messages)
    assert "1 of 16 utterances have more labels and repeats than frames" in told
    assert "train-ko+f1-0" in told
    assert "examples had more labels than frames and taught nothing" in told
    count = result["examples_without_path"]
    assert 0 < count < 20
    assert read_history(folders["training_dir"] / "history.jsonl")[0]["without_path"] == count
    caplog.clear()
    folders = {name: tmp_path / "again" / name for name in ("out_dir", "training_dir", "work_dir")}
    assert train(settings, prepared=prepared, **folders)["examples_without_path"] == 0
    assert "frames" not in "\n".join(caplog.messages)

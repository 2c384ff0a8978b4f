"""The contrastive task: what is masked is repeatable and inside the speech, and a collapse is no success."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.asr.prepared import read_prepared
from tasks.asr.pretraining.contrastive import (
    Task,
    contrastive_accuracy,
    contrastive_loss,
    contrastive_model,
    shortest_samples,
)
from tasks.asr.training.augment import Example
from tasks.asr.training.batching import AudioStore, make_batch

TASK = Task(mask_share=0.5, mask_frames=4, negatives=9)


@pytest.fixture(scope="module")
def store(prepared: Path) -> AudioStore:
    return read_prepared(prepared).split("validation")[1]


def test_a_collapsed_codebook_scores_chance(store: AudioStore, encoder: Path) -> None:
    model = contrastive_model(str(encoder), TASK, 0.1, 2.0, seed=0).eval()
    with torch.inference_mode():
        model.quantizer.codevectors.fill_(0.5)
        rates = contrastive_accuracy(model, store, 4, TASK)
    assert rates["contrastive_accuracy"] == pytest.approx(TASK.chance)


def test_a_model_that_predicts_its_targets_scores_all(store: AudioStore, encoder: Path) -> None:
    """Every frame of a codebook of its own: predicting from the unmasked features is always right."""
    model = contrastive_model(str(encoder), TASK, 0.1, 2.0, seed=0).eval()
    model.quantizer.forward = lambda hidden, mask_time_indices=None: (hidden, torch.tensor(1.0))
    size = model.config.conv_dim[-1]
    model.project_q = model.project_hid = torch.nn.Linear(size, size, bias=False)
    torch.nn.init.eye_(model.project_q.weight)
    whole = model.wav2vec2.forward

    def peeking(*arguments: object, **named: object) -> object:
        output = whole(*arguments, **named)
        output.last_hidden_state = output.extract_features
        return output

    model.wav2vec2.forward = peeking
    with torch.inference_mode():
        assert contrastive_accuracy(model, store, 4, TASK)["contrastive_accuracy"] == 1.0


def test_the_loss_of_an_example_repeats_and_its_masks_matter(store: AudioStore, encoder: Path) -> None:
    model = contrastive_model(str(encoder), TASK, 0.1, 2.0, seed=0).eval()  # no Gumbel noise
    length = int(store.lengths[0])

    def loss(seed: int) -> float:
        batch = make_batch((Example((0,), (0, 0), length, seed=seed),), store, lambda _: [], True, True)
        with torch.inference_mode():
            return float(contrastive_loss(model, batch, TASK))

    np.random.seed(1)
    first = loss(5)
    np.random.seed(2)
    assert loss(5) == first
    assert loss(6) != first
    with torch.inference_mode():
        model.wav2vec2.masked_spec_embed.mul_(-3.0)
    assert loss(5) != first


def test_the_shortest_utterance_has_masks_and_one_shorter_is_too_short(encoder: Path) -> None:
    model = contrastive_model(str(encoder), TASK, 0.1, 2.0, seed=0)
    samples = shortest_samples(model.config, TASK)
    frames = TASK.mask_frames + 2
    assert model._get_feat_extract_output_lengths(samples) == frames
    assert model._get_feat_extract_output_lengths(samples - 1) == frames - 1

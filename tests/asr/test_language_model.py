"""The n-gram model sums to one, survives its file, and mends what the acoustics leave open."""

from pathlib import Path

import numpy as np
import pytest

from tasks.asr.language_model import FILE_NAME, LanguageModel, beam_labels
from tasks.errors import ModelError

LABELS = 6  # blank, space, four symbols


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel.of_transcripts([[2, 3, 4], [2, 3, 4, 1, 5], [5, 5]], boundary=1, labels=LABELS)


@pytest.mark.parametrize("context", [(), (1,), (2, 3), (9, 9), (1, 2, 3, 4)])
def test_probabilities_sum_to_one(model: LanguageModel, context: tuple[int, ...]) -> None:
    total = sum(np.exp(model.log_probability(context, label)) for label in range(LABELS))
    assert total == pytest.approx(1.0)


def test_it_is_read_back_as_written(model: LanguageModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = LanguageModel.load(tmp_path)
    assert again is not None
    assert again.counts == model.counts
    assert again.to_bytes() == model.to_bytes() == (tmp_path / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(b"cut")
    with pytest.raises(ModelError, match="cannot be read"):
        LanguageModel.load(tmp_path)


def test_it_decides_what_the_acoustics_leave_open(model: LanguageModel) -> None:
    probabilities = np.full((5, LABELS), 1e-4)
    for frame, label in enumerate((2, 0, 3, 0, 4)):
        probabilities[frame, label] = 1.0
    probabilities[4, 5] = 1.1  # a little likelier than the 4 that was always heard after 2 3
    logits = np.log(probabilities)
    assert beam_labels(logits, None, 0, 1) == [2, 3, 5]
    assert beam_labels(logits, model, 0, 1) == [2, 3, 4]


def test_nothing_heard_gives_nothing(model: LanguageModel) -> None:
    assert beam_labels(np.zeros((0, LABELS)), model, 0, 1) == []

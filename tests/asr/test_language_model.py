"""The n-gram model sums to one, survives its file, and mends what the acoustics leave open."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from flashlight.lib.text.decoder.kenlm import KenLM
from flashlight.lib.text.dictionary import Dictionary

from tasks.asr.checkpoints.checkpoint import BLANK, SPACE, UNKNOWN, Vocabulary
from tasks.asr.decoding.decode import BeamSearch, greedy_labels
from tasks.asr.decoding.language_model import END, FILE_NAME, OTHER, estimate, pack, read, save
from tasks.errors import ModelError

VOCABULARY = Vocabulary((BLANK, SPACE, "a", "b", "c", "d", UNKNOWN))
SAID = [SPACE, "a", "b", "c", "d"]


@pytest.fixture(scope="module")
def arpa() -> str:
    return estimate(["abc", "abc|d", "dd"], VOCABULARY.symbols, order=4)


@pytest.mark.parametrize("context", ["", "a", "ab", "ca", "dab", "abc", "|||", "abcd"])
def test_probabilities_sum_to_one(arpa: str, context: str, tmp_path: Path) -> None:
    path = tmp_path / "model.arpa"
    path.write_text(arpa)
    words = [*SAID, END, OTHER]
    model = KenLM(str(path), Dictionary(words))
    state = model.start(False)
    for symbol in context:
        state, _ = model.score(state, words.index(symbol))
    # KenLM scores the end by `finish`, everything else by `score`
    scores = [model.score(state, words.index(symbol))[1] for symbol in [*SAID, OTHER]]
    total = sum(10**score for score in [*scores, model.finish(state)[1]])
    assert total == pytest.approx(1.0, abs=1e-4)


def test_what_was_said_often_is_likelier(arpa: str) -> None:
    entries = (line.split("\t") for line in arpa.splitlines() if line.count("\t"))
    of = {gram: 10 ** float(score) for score, gram, *_ in entries}
    assert [gram for gram in of if gram.startswith("a b ") and gram.count(" ") == 2] == ["a b c"]
    # c is 2 of the 13 symbols said, of 6 kinds; 6 known symbols and the unknown share what is left over
    alone = (2 + 6 / 7) / (13 + 6)
    assert of["c"] == pytest.approx(alone, abs=1e-5)
    # both times c alone followed a b, and b: each context had one kind of follower
    assert of["a b c"] == pytest.approx((2 + (2 + alone) / 3) / 3, abs=1e-5)


def test_it_is_read_back_as_written(arpa: str, tmp_path: Path) -> None:
    assert read(tmp_path) is None
    save(arpa, tmp_path)
    assert read(tmp_path) == arpa
    assert (tmp_path / FILE_NAME).read_bytes() == pack(arpa) == pack(str(arpa))
    for damaged in (b"cut", pack(arpa)[:-20], pack(arpa[:-10])):
        (tmp_path / FILE_NAME).write_bytes(damaged)
        with pytest.raises(ModelError, match="cannot be read"):
            read(tmp_path)


def test_it_decides_what_the_acoustics_leave_open(arpa: str) -> None:
    probabilities = np.full((5, len(VOCABULARY.symbols)), 1e-4)
    for frame, label in enumerate((2, 0, 3, 0, 4)):
        probabilities[frame, label] = 1.0
    probabilities[4, 5] = 1.1  # a little likelier than the c that was always heard after a b
    logits = np.log(probabilities)
    assert VOCABULARY.decode(greedy_labels(logits)) == "abd"
    assert BeamSearch(arpa, VOCABULARY).text(logits) == "abc"


def test_what_was_never_said_can_still_be_heard(arpa: str) -> None:
    probabilities = np.full((7, len(VOCABULARY.symbols)), 1e-6)
    for frame, label in enumerate((4, 4, 0, 4, 1, 1, 2)):  # c c a, with a repeat and a doubled letter
        probabilities[frame, label] = 1.0
    assert BeamSearch(arpa, VOCABULARY).text(np.log(probabilities)) == "cc a"


def test_every_short_sequence_that_is_heard_clearly_is_written(arpa: str) -> None:
    search = BeamSearch(arpa, VOCABULARY)
    for labels in itertools.product(range(1, 6), repeat=3):
        logits = np.full((6, len(VOCABULARY.symbols)), -30.0)
        logits[range(6), [labels[0], 0, labels[1], 0, labels[2], 0]] = 0.0
        assert search.labels(logits) == list(labels)


def test_nothing_heard_gives_nothing(arpa: str) -> None:
    assert BeamSearch(arpa, VOCABULARY).labels(np.zeros((0, 7))) == []


def test_a_model_that_kenlm_refuses_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match="KenLM cannot read"):
        BeamSearch("\\data\\\nngram 1=2\n\n\\1-grams:\nnonsense\n\\end\\\n", VOCABULARY)
    assert capfd.readouterr().err == ""

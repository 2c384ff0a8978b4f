"""Forced alignment against hand-made posteriors and against every path there is; characters from jamo."""

from itertools import groupby, product

import numpy as np
import pytest

from tasks.asr.decoding.align import Span, Spoken, align, best_path, log_posteriors, spell
from tasks.errors import DataError


def surely(path: str, sure: float = 0.9) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Log posteriors of a frame-by-frame path over the symbols "-" (blank), "a", "b"."""
    p = np.full((len(path), 3), (1 - sure) / 2)
    for frame, symbol in enumerate(path):
        p[frame, "-ab".index(symbol)] = sure
    return np.log(p)


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a", "a", [(0, 1)]),
        ("--aab---b-", "abb", [(2, 4), (4, 5), (8, 9)]),
        ("ab", "ab", [(0, 1), (1, 2)]),  # no blank between different symbols
        ("a-a", "aa", [(0, 1), (2, 3)]),
        ("aaa", "aa", [(0, 1), (2, 3)]),  # equal symbols need a blank, be it an unlikely one
        ("aaab", "aab", [(0, 1), (2, 3), (3, 4)]),
        ("bbbbb", "b", [(0, 5)]),
        ("-----", "", []),
        ("", "", []),
    ],
)
def test_symbols_lie_where_the_posteriors_are(path: str, text: str, expected: list[tuple[int, int]]) -> None:
    found = align(surely(path), ["-ab".index(symbol) for symbol in text])
    assert [(span.start, span.end) for span in found] == expected


@pytest.mark.parametrize(("path", "text"), [("", "a"), ("a", "ab"), ("aa", "aa"), ("aba", "aab")])
def test_labels_that_do_not_fit_are_refused(path: str, text: str) -> None:
    with pytest.raises(DataError, match="a frame per label and one between equal ones"):
        align(surely(path), ["-ab".index(symbol) for symbol in text])


@pytest.mark.parametrize("labels", [[1], [1, 2], [1, 1], [2, 1, 1], [2, 2, 2]])
@pytest.mark.parametrize("blank", [0, 2])
def test_the_path_is_the_best_of_all(labels: list[int], blank: int) -> None:
    labels = [label if label != blank else 0 for label in labels]
    for seed in range(5):
        log_p = log_posteriors(np.random.default_rng(seed).standard_normal((6, 3)) * 2)
        spans = align(log_p, labels, blank)
        found = [blank] * 6
        for label, span in zip(labels, spans, strict=True):
            found[span.start : span.end] = [label] * (span.end - span.start)
        readings = (p for p in product(range(3), repeat=6) if collapsed(p, blank) == labels)
        best = max(sum(log_p[frame, label] for frame, label in enumerate(p)) for p in readings)
        assert collapsed(tuple(found), blank) == labels
        assert sum(log_p[frame, label] for frame, label in enumerate(found)) == pytest.approx(best)


def collapsed(path: tuple[int, ...], blank: int) -> list[int]:
    return [label for label, _ in groupby(path) if label != blank]


def test_a_posterior_is_the_mean_over_the_symbols_own_frames() -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.4, 0.6, 0.0], [0.7, 0.0, 0.3]])
    (span,) = align(np.log(p + 1e-12), [1])
    assert span == (1, 3, pytest.approx(0.7))


def test_log_posteriors_do_not_overflow() -> None:
    assert np.exp(log_posteriors(np.array([[5000.0, 4999.0]], np.float32))).sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("symbols", "sure", "words"),
    [
        ("ᄀ ᅡ ᆨ ᄂ ᅡ", [0.5, 0.4, 0.7, 0.6, 0.8], [[("각", 0, 3, 0.4), ("나", 3, 5, 0.6)]]),
        (
            "| ᄀ ᅡ | | ᄂ ᅡ |",
            [0.1, 0.9, 0.3, 0.1, 0.1, 0.3, 0.8, 0.1],
            [[("가", 1, 3, 0.3)], [("나", 5, 7, 0.3)]],
        ),
        ("각 나", [0.5, 0.4], [[("각", 0, 1, 0.5), ("나", 1, 2, 0.4)]]),  # a vocabulary of syllables
        ("ᄀ ᄂ ᅡ", [0.5, 0.4, 0.3], [[("ㄱ", 0, 1, 0.5), ("나", 1, 3, 0.3)]]),  # a jamo without its vowel
        ("_ ᄀ _ ᅡ", [0.1, 0.4, 0.1, 0.2], [[("가", 1, 4, 0.2)]]),  # an unknown symbol writes nothing
        ("e \u0301 x", [0.5, 0.4, 0.3], [[("é", 0, 2, 0.4), ("x", 2, 3, 0.3)]]),
        ("|", [0.5], []),
        ("", [], []),
    ],
)
def test_characters_lie_on_their_jamo(
    symbols: str, sure: list[float], words: list[list[tuple[str, int, int, float]]]
) -> None:
    texts = [{"|": " ", "_": ""}.get(symbol, symbol) for symbol in symbols.split()]
    spans = [Span(frame, frame + 1, posterior) for frame, posterior in enumerate(sure)]
    assert spell(texts, spans) == [[Spoken(*character) for character in word] for word in words]


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("frames", [0, 1, 7, 60])
def test_the_greedy_path_is_what_alignment_finds(frames: int, blank: int) -> None:
    for seed in range(5):
        logits = np.random.default_rng(seed).standard_normal((frames, 4)).astype(np.float32)
        labels, spans = best_path(logits, blank)
        expected = align(log_posteriors(logits), labels, blank)
        assert [(s.start, s.end) for s in spans] == [(s.start, s.end) for s in expected]
        assert [s.posterior for s in spans] == pytest.approx([s.posterior for s in expected])
        assert labels == [key for key, _ in groupby(logits.argmax(axis=-1).tolist()) if key != blank]

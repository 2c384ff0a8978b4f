"""Nearest neighbours, chance and shares of same-speaker retrieval, on vectors that can be checked by hand."""

import math

import numpy as np
import pytest

from tasks.asr.embedding.retrieval import (
    centred,
    chance_of_same_speaker,
    nearest_of_another_sentence,
    same_speaker_retrieval,
)

# angles in degrees: two speakers around 0 and 90, each saying sentences x, y, z
ANGLES = (0, 10, 25, 90, 95, 130)
SPEAKERS = ("a", "a", "a", "b", "b", "b")
SENTENCES = ("x", "y", "z", "x", "y", "z")


def at(*angles: float) -> np.ndarray:
    """Vectors of these angles; their lengths differ, which a cosine does not see."""
    turned = np.radians(angles)
    length = np.arange(1, len(angles) + 1)
    return (np.stack([np.cos(turned), np.sin(turned)], axis=1) * length[:, None]).astype(np.float32)


@pytest.mark.parametrize(
    ("angles", "sentences", "expected"),
    [
        (ANGLES, SENTENCES, [1, 0, 1, 4, 3, 4]),
        (ANGLES, ("x", "x", "z", "z", "y", "z"), [2, 2, 1, 4, 3, 4]),  # never the same sentence
        ((0, 1, 50), ("x", "x", "x"), [-1, -1, -1]),  # nothing can be found
        ((0, 180), ("x", "y"), [1, 0]),  # however far away
    ],
)
def test_the_nearest_is_by_angle_and_of_another_sentence(
    angles: tuple[float, ...], sentences: tuple[str, ...], expected: list[int]
) -> None:
    assert nearest_of_another_sentence(at(*angles), sentences).tolist() == expected


def test_chance_counts_the_speakers_among_the_utterances_that_can_be_found() -> None:
    assert chance_of_same_speaker(SPEAKERS, SENTENCES) == pytest.approx([2 / 4] * 6)
    # row 0 can find rows 2 and 3, of which only row 2 is by its speaker; row 3 is alone with its speaker
    found = chance_of_same_speaker(("a", "a", "a", "b"), ("x", "x", "y", "z"))
    assert found == pytest.approx([1 / 2, 1 / 2, 2 / 3, 0])
    assert math.isnan(chance_of_same_speaker(("a", "b"), ("x", "x"))[0])


def test_shares_are_of_the_queries_and_intervals_by_their_speakers() -> None:
    angles = (0, 10, 25, 90, 11, 12)
    found = same_speaker_retrieval(at(*angles), SPEAKERS, SENTENCES, confidence=0.9, resamples=2_000)
    assert (found.queries, found.speakers) == (6, 2)
    # a: 0 finds 10, 10 finds 12 of b, 25 finds 11 of b; b: 90 finds 25 of a, 11 and 12 find each other
    assert found.share == pytest.approx(1 / 2) and found.chance == pytest.approx(1 / 2)
    assert found.interval == pytest.approx((1 / 3, 2 / 3))  # one speaker drawn twice, or the other
    assert found.above_chance == pytest.approx((1 / 3 - 1 / 2, 2 / 3 - 1 / 2))


def test_one_speaker_has_no_interval_and_one_sentence_no_queries() -> None:
    alone = same_speaker_retrieval(at(0, 10), ("a", "a"), ("x", "y"), confidence=0.9, resamples=10)
    assert alone.share == alone.chance == 1.0 and alone.interval is None and alone.above_chance is None
    with pytest.raises(ValueError, match="at least two sentences"):
        same_speaker_retrieval(at(0, 10), ("a", "b"), ("x", "x"), confidence=0.9, resamples=10)


def test_what_all_vectors_share_is_removed() -> None:
    vectors = at(*ANGLES)
    moved = centred(vectors + np.float32([100, -300]))
    np.testing.assert_allclose(moved, vectors - vectors.mean(axis=0), atol=1e-4)

"""Paired differences with known answers, against hand counts and SciPy."""

import math

import numpy as np
import pytest

from tasks.release.significance import Difference, judge, paired_difference


def difference(challenger, champion, units=None, blocks=None, **options):
    units = units or [10] * len(challenger)
    blocks = blocks or [f"s{i}" for i in range(len(challenger))]
    return paired_difference(
        challenger, champion, units, blocks, **{"confidence": 0.95, "resamples": 2000, **options}
    )


# (challenger errors, champion errors, units, value, low, high, p): the exact method, counted by hand
EXACT = {
    "identical": ([1] * 6, [1] * 6, [10] * 6, 0.0, 0.0, 0.0, 1.0),
    # only the two uniform sign patterns of 2^6 are as extreme
    "every speaker one better": ([1] * 6, [2] * 6, [10] * 6, -0.1, -0.1, -0.1, 2 / 64),
    "every speaker one worse": ([2] * 6, [1] * 6, [10] * 6, 0.1, 0.1, 0.1, 2 / 64),
    # 5 blocks: 2^5 = 32 patterns, 32 · 0.025 < 1, so 95% cannot be bounded
    "five speakers": ([1] * 5, [2] * 5, [10] * 5, -0.1, -math.inf, math.inf, 2 / 32),
    "one speaker": ([0], [9], [10], -0.9, -math.inf, math.inf, 1.0),
    # ±1 cancelling: every pattern of (1, 1, 1, -1, -1, -1) has |sum| >= 0
    "three up, three down": ([2, 2, 2, 0, 0, 0], [1] * 6, [10] * 6, 0.0, -0.1, 0.1, 1.0),
    # pooled, not a mean of rates: (5 + 0) / 110 of the units
    "pooled": ([5, 0], [0, 0], [10, 100], 5 / 110, -math.inf, math.inf, 1.0),
}


@pytest.mark.parametrize("case", EXACT.values(), ids=EXACT)
def test_exact_sign_flip(case):
    challenger, champion, units, value, low, high, p = case
    found = difference(challenger, champion, units)
    assert found.method == "exact sign flip"
    assert (found.value, found.low, found.high, found.p) == pytest.approx((value, low, high, p))


def test_exact_p_is_that_of_scipy():
    from scipy.stats import permutation_test

    rng = np.random.default_rng(3)
    mine, theirs = rng.integers(0, 9, 9), rng.integers(2, 9, 9)
    oracle = permutation_test(
        (mine, theirs), lambda a, b: float(np.sum(a - b)), permutation_type="samples", n_resamples=np.inf
    )
    assert difference(list(mine), list(theirs)).p == pytest.approx(oracle.pvalue)


def test_exact_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        noise = rng.normal(0.5, 2.0, 8)
        found = difference(list(noise), [0.0] * 8, [1] * 8)
        inside += found.low <= 0.5 <= found.high
    assert 0.93 <= inside / 400 <= 0.99  # nominal 1 - 2 · 6 / 256 = 95.3%


def test_bootstrap_interval_is_the_normal_one_for_many_blocks():
    rng = np.random.default_rng(5)
    errors = rng.normal(1.0, 2.0, 400)
    found = difference(list(errors), [0.0] * 400, [1] * 400)
    half = 1.96 * errors.std() / math.sqrt(400)
    assert found.method == "paired block bootstrap"
    assert (found.low, found.high) == pytest.approx((errors.mean() - half, errors.mean() + half), abs=0.06)
    assert found.p < 0.01


def test_utterances_of_a_speaker_are_not_independent():
    """One bad speaker of twelve: significant if utterances were independent, not when speakers are drawn."""
    speakers = [f"v{i // 50}" for i in range(600)]
    mine = [1.0 if name == "v0" else 0.0 for name in speakers]
    theirs = [0.0] * 600
    by_speaker = difference(mine, theirs, [10] * 600, speakers)
    by_utterance = difference(mine, theirs, [10] * 600)
    assert by_utterance.low > 0
    assert by_speaker.low <= 0 < by_speaker.high
    assert by_speaker.blocks == 12


def test_the_same_input_gives_the_same_answer_in_any_order():
    rng = np.random.default_rng(2)
    mine, theirs = list(rng.integers(0, 4, 60)), list(rng.integers(0, 4, 60))
    blocks = [f"v{i % 15}" for i in range(60)]
    order = rng.permutation(60)
    again = difference(
        [mine[i] for i in order], [theirs[i] for i in order], blocks=[blocks[i] for i in order]
    )
    assert difference(mine, theirs, blocks=blocks) == again


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([], [], [], []), "non-zero number"),
        (([1], [1, 2], [1], ["a"]), "the same"),
        (([0], [0], [0], ["a"]), "no units"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        paired_difference(*arguments, confidence=0.95, resamples=200)


@pytest.mark.parametrize(
    ("value", "low", "high", "outcome"),
    [
        (-0.02, -0.03, -0.01, "better"),
        (-0.02, -0.05, 0.005, "equal"),
        (0.0, 0.0, 0.0, "equal"),
        (0.006, 0.002, 0.0099, "equal"),  # surely worse, but by less than the margin
        (0.006, 0.002, 0.02, "inconclusive"),
        (0.0, -0.02, 0.02, "inconclusive"),
        (0.0, -math.inf, math.inf, "inconclusive"),
        (0.03, 0.001, 0.06, "worse"),
        (0.03, 0.02, 0.04, "worse"),
    ],
)
def test_judge(value, low, high, outcome):
    assert judge(Difference(value, low, high, 0.5, 20, 0.95, "exact sign flip"), 0.01) == outcome

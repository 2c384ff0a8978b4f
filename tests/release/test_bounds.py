"""One-sided bounds: exact where trials are independent, and honest where voices differ (by simulation)."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from tasks.release.bounds import Estimate, Trials, alike, pooled
from tasks.release.floors import at_least, at_most, judge_floor

SURE = 0.95


def counted(wrong, n, voices=None):
    """Single answers, of which the first are wrong; `voices` take turns."""
    errors = [1.0] * wrong + [0.0] * (n - wrong)
    clusters = [[f"text {i}" for i in range(n)]]
    if voices:
        clusters.append([f"v{i % voices}" for i in range(n)])
    return Estimate(
        pooled(errors, [1.0] * n, trials=n, clusters=clusters, confidence=SURE), None, n, voices, SURE
    )


@pytest.mark.parametrize(("wrong", "n"), [(0, 1), (0, 300), (1, 12), (7, 300), (150, 300), (299, 300)])
def test_single_answers_are_bounded_exactly(wrong, n):
    """Two one-sided bounds of 95% are Clopper and Pearson's two-sided interval of 90%."""
    found, oracle = counted(wrong, n), binomtest(wrong, n).proportion_ci(0.9, method="exact")
    assert (found.low(), found.high()) == pytest.approx((oracle.low, oracle.high))
    assert found.losses.effective == pytest.approx(n)


def test_all_wrong_has_no_upper_bound_and_none_wrong_no_lower_one():
    assert counted(9, 9).high() == math.inf and counted(0, 9).low() == 0.0


@pytest.mark.parametrize("floor", [0.5, 0.85, 0.95, 0.99])
def test_the_answers_that_prove_a_floor_when_all_are_right(floor):
    """floor ** n <= 1 - confidence."""
    assert counted(0, 5).needed(1 - floor) == math.ceil(math.log(0.05) / math.log(floor))


def test_what_is_needed_proves_the_floor_and_one_less_does_not():
    found = counted(9, 300)
    needed = found.needed(0.05)
    assert Trials(0.03, needed).upper(SURE) <= 0.05 < Trials(0.03, needed - 1).upper(SURE)
    assert counted(15, 300).needed(0.05) is None  # the rate itself is on the limit
    assert counted(2, 100).needed(0.0200001) is None  # no number of answers that anyone has


def test_voices_that_differ_widen_the_bound_and_few_voices_do_too():
    spread = [1.0 if v < 1 and n < 30 else 0.0 for n in range(50) for v in range(6)]
    even = [1.0 if n < 5 else 0.0 for n in range(50) for _ in range(6)]
    voices = [f"v{v}" for _ in range(50) for v in range(6)]

    def upper(errors, names):
        return pooled(errors, [1.0] * 300, trials=300, clusters=[names], confidence=SURE).upper(SURE)

    many = [f"v{i % 60}" for i in range(300)]
    assert sum(spread) == sum(even)
    assert upper(spread, voices) > 1.5 * upper(even, voices) > 1.5 * upper(even, many)


def test_every_voice_counts_alike():
    units, voices = [10.0, 10.0, 80.0], ["a", "a", "b"]
    weights = alike(units, voices)
    errors = [5.0, 0.0, 8.0]
    pooled_rate = sum(e * w for e, w in zip(errors, weights, strict=True)) / sum(
        u * w for u, w in zip(units, weights, strict=True)
    )
    assert pooled_rate == pytest.approx((5 / 20 + 8 / 80) / 2)


def test_nothing_to_count_is_refused():
    for errors, units in (([], []), ([0.0], [0.0]), ([0.0, 1.0], [1.0])):
        with pytest.raises(ValueError, match="non-zero number"):
            pooled(errors, units, trials=1, clusters=[], confidence=SURE)


def spoken(rng, voices, each, mean, spread, words=4, letters=3, edits=2.5):
    """CER of a simulated test set: errors come in clusters of about `edits`, voices differ.

    Args:
        spread: coefficient of variation of the voices' rates (gamma); 0: all alike.
    """
    rate = rng.gamma(spread**-2, mean * spread**2, voices) if spread else np.full(voices, mean)
    events = rng.poisson(np.repeat(rate, each) * words * letters / edits)
    errors = np.where(events > 0, events + rng.negative_binomial(np.maximum(events, 1), 1 / edits), 0)
    names = [f"v{v}" for v in range(voices) for _ in range(each)]
    items = [f"u{i}" for i in range(len(names))]
    units = [float(words * letters)] * len(names)
    trials = words * len(names)
    return pooled(errors.tolist(), units, trials=trials, clusters=(items, names), confidence=SURE)


# (voices, utterances of each, true CER, spread of the voices). Nominal is 0.95. A bound may hold two points too
# rarely where the voices' spread is up to half of their mean, three where it is 0.7 (nearly one voice in ten then
# makes twice the mean's errors): what six voices did not show, nothing can bound.
COVERAGE = {
    (6, 50, 0.08, 0.0): 0.93,
    (6, 50, 0.08, 0.5): 0.93,
    (6, 50, 0.08, 0.7): 0.92,
    (6, 50, 0.003, 0.5): 0.93,
    (40, 8, 0.04, 0.0): 0.93,
    (40, 8, 0.04, 0.7): 0.92,
}


@pytest.mark.parametrize("case", COVERAGE, ids=str)
def test_the_bound_of_an_error_rate_by_voice_holds_the_truth_as_often_as_it_says(case):
    voices, each, mean, spread = case
    rng = np.random.default_rng(7)
    runs = 1000
    held = sum(spoken(rng, voices, each, mean, spread).upper(SURE) >= mean for _ in range(runs))
    assert held / runs >= COVERAGE[case]


def test_a_bootstrap_or_students_interval_of_six_voices_would_hold_it_too_rarely():
    """Why neither is used: the same simulation, bounded as they would."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(2000):
        rates = rng.poisson(rng.gamma(2, 0.01, 6) * 600) / 600
        half = 2.015 * rates.std(ddof=1) / math.sqrt(6)  # t of 5 degrees of freedom, one side of 95%
        held += rates.mean() + half >= 0.02
    assert held / 2000 < 0.91


def test_a_model_on_the_floor_is_kept_by_chance_no_more_often_than_allowed():
    """Six voices of 50 commands, truly right in 85%: kept in at most 5% of test sets, also where voices differ."""
    rng = np.random.default_rng(3)
    names = [f"v{i // 50}" for i in range(300)]
    texts = [f"t{i}" for i in range(300)]
    for spread in (0.0, 0.3):
        kept = 0
        for _ in range(800):
            wrong = rng.gamma(spread**-2, 0.15 * spread**2, 6) if spread else np.full(6, 0.15)
            errors = (rng.random(300) < np.repeat(wrong, 50)).astype(float).tolist()
            trials = pooled(errors, [1.0] * 300, trials=300, clusters=(texts, names), confidence=SURE)
            kept += at_least("road", Estimate(trials, None, 300, 6, SURE), 0.85, "x").outcome == "kept"
        assert kept / 800 <= 0.05


@pytest.mark.parametrize("n", [40, 120])
@pytest.mark.parametrize(
    ("lost", "mended"), [(0.03, 0.0), (0.03, 0.005), (0.04, 0.02), (0.06, 0.05), (0.01, 0.01)]
)
def test_the_bound_of_a_paired_loss_holds_the_truth_by_counting_every_outcome(n, lost, mended):
    """All (newly wrong, mended) counts with their exact probability: no simulation."""
    held = 0.0
    for b in range(n + 1):
        chance_b = binom.pmf(b, n, lost)
        if chance_b < 1e-9:
            continue
        for c in range(n - b + 1):
            chance = chance_b * binom.pmf(c, n - b, mended / (1 - lost))
            if chance < 1e-9:
                continue
            found = Estimate(Trials(b / n, n), Trials(c / n, n), n, None, SURE)
            held += chance * (found.high() >= lost - mended)
    assert held >= 0.945


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.0, 0.04, "kept"),
        (0.0, 0.0400001, "unproven"),
        (0.04, 0.09, "unproven"),
        (0.0400001, 0.09, "broken"),
        (0.9, math.inf, "broken"),
        (0.01, math.inf, "unproven"),
        (math.nan, math.nan, "broken"),
    ],
)
def test_three_outcomes(low, high, outcome):
    assert judge_floor(low, high, 0.04) == outcome


def test_a_floor_on_errors_and_its_mirror_on_right_answers_agree():
    for wrong in range(40):
        found = counted(wrong, 300)
        right, errors = at_least("a", found, 0.95, "x"), at_most("a", found, 0.05, "x")
        assert right.outcome == errors.outcome
        assert right.figures.low == pytest.approx(1 - errors.figures.high)
        assert right.figures.needed == errors.figures.needed

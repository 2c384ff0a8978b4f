"""How far a share or an error rate reaches, seen from a test set: one-sided bounds. Pure; no command.

A bound of 95% confidence lies on the wrong side of the truth in at most 5 of 100 test sets. Two bounds are
one-sided each: together they are an interval of 90%.

Everything is counted as errors in trials (a right answer is the lack of an error), and bounded exactly by
Clopper and Pearson (1934, "The use of confidence or fiducial limits illustrated in the case of the
binomial", Biometrika 26). What is exact for independent trials is made honest for those that are not as
survey statistics does it (Korn and Graubard 1998, "Confidence intervals for proportions with small expected
number of positive counts estimated from survey data", Survey Methodology 24): the number of trials is

- divided by the design effect, the variance seen between clusters (voices, utterances, texts) over that of
  as many independent trials, where it is more than 1;
- multiplied by (t of the trials / t of the clusters)², since a variance seen between six voices is itself
  hardly known.

So voices that differ widen the interval, few voices widen it, and independent single answers leave the exact
interval as it is. A bootstrap over six voices, or Student's interval of their means, holds the truth too
rarely: error rates are skewed, and most voices of a good recogniser have none (docs/reference/evaluation.md
has the simulation).

A change on the same items (with silence against without, quantised against merged) is bounded from its two
sides, new errors and mended ones, by the method of variance estimates recovery (Zou and Donner 2008,
"Construction of confidence limits about effect measures", Statistics in Medicine 27): exact when nothing
was mended, and never narrower than what was lost allows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, stdtrit

from tasks.asr.quality.intervals import sum_by_block

MOST_NEEDED = 2.0**12  # times the test set; beyond, no number is named


@dataclass(frozen=True)
class Trials:
    """An error rate, seen in what is worth so many independent trials (not a whole number)."""

    rate: float
    effective: float

    def upper(self, confidence: float, scale: float = 1.0) -> float:
        """The rate that as few errors as these, or fewer, hardly come from; infinite from a rate of 1.

        Args:
            confidence: of this one side.
            scale: as if so many times the trials had shown the same rate.
        """
        if self.rate >= 1:
            return math.inf
        wrong = self.rate * self.effective * scale
        return float(betaincinv(wrong + 1, self.effective * scale - wrong, confidence))

    def lower(self, confidence: float, scale: float = 1.0) -> float:
        """The rate that as many errors as these, or more, hardly come from."""
        if self.rate <= 0:
            return 0.0
        wrong = min(self.rate, 1.0) * self.effective * scale
        return float(betaincinv(wrong, self.effective * scale - wrong + 1, 1 - confidence))


@dataclass(frozen=True)
class Estimate:
    """An error rate, or a change of one, with what bounds it.

    Attributes:
        losses: the errors; of a change, those that are new.
        gains: of a change, the errors that are gone; None for a plain rate.
        n: items that were answered.
        voices: independent speakers among them; None where nobody speaks.
        confidence: of each bound.
    """

    losses: Trials
    gains: Trials | None
    n: int
    voices: int | None
    confidence: float

    @property
    def value(self) -> float:
        """The rate or change that was seen."""
        return self.losses.rate - (self.gains.rate if self.gains else 0.0)

    def high(self, scale: float = 1.0) -> float:
        """The upper bound; `scale`: as if so many times the items had shown the same."""
        lost = self.losses.upper(self.confidence, scale)
        if self.gains is None:
            return lost
        mended = self.gains.rate - self.gains.lower(self.confidence, scale)
        return self.value + math.hypot(lost - self.losses.rate, mended)

    def low(self, scale: float = 1.0) -> float:
        """The lower bound; `scale`: as for `high`."""
        lost = self.losses.lower(self.confidence, scale)
        if self.gains is None:
            return lost
        mended = self.gains.upper(self.confidence, scale) - self.gains.rate
        return self.value - math.hypot(self.losses.rate - lost, mended)

    def needed(self, limit: float) -> int | None:
        """About how many items would put the upper bound at `limit` or under it, at this rate.

        By this many more voices too, where there are voices. None where the rate itself is not under the
        limit, or where it is more than `MOST_NEEDED` times as many.
        """
        if not self.value < limit or self.high(MOST_NEEDED) > limit:
            return None
        under, over = 0.0, 1.0
        while self.high(over) > limit:
            under, over = over, 2 * over
        while over - under > 1e-6 * over:
            middle = (under + over) / 2
            under, over = (middle, over) if self.high(middle) > limit else (under, middle)
        return math.ceil(self.n * over - 1e-3)


def pooled(
    errors: Sequence[float],
    units: Sequence[float],
    *,
    trials: float,
    clusters: Sequence[Sequence[str]],
    confidence: float,
) -> Trials:
    """Errors over units, and how many independent trials they are worth.

    Args:
        errors: of every item.
        units: what its errors are counted against: reference characters, or 1 per answer.
        trials: the most that the items can be worth: words of the references, or different texts.
        clusters: ways in which items belong together, each the name of every item's cluster.
        confidence: that the bounds will have: the t quantiles depend on it.

    Raises:
        ValueError: there is no item or no unit, or lengths differ.
    """
    total = sum(units)
    if not len(errors) or len(errors) != len(units) or total <= 0:
        raise ValueError("the same, non-zero number of errors and units is needed")
    rate = sum(errors) / total
    effective = float(trials)
    for names in clusters:
        groups = len(set(names))
        if groups < 2 or trials < 2:
            continue  # one voice alone tells nothing of others
        design_effect = 1.0
        if 0 < rate < 1:
            residual = sum_by_block(names, errors) - rate * sum_by_block(names, units)
            variance = groups / (groups - 1) * float(np.square(residual).sum()) / total**2
            design_effect = max(1.0, variance * (trials - 1) / (rate * (1 - rate)))
        narrow, wide = stdtrit(trials - 1, confidence), stdtrit(groups - 1, confidence)
        effective = min(effective, trials / design_effect * min(1.0, float((narrow / wide) ** 2)))
    return Trials(rate, effective)


def alike(units: Sequence[float], blocks: Sequence[str]) -> list[float]:
    """Weights under which the pooled rate is the mean of the blocks' rates: every voice counts alike."""
    sizes = dict(zip(sorted(set(blocks)), sum_by_block(blocks, units).tolist(), strict=True))
    mean = sum(sizes.values()) / len(sizes)
    return [mean / sizes[block] for block in blocks]

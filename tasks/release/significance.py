"""Is a difference between two systems on the same utterances more than chance?

Pure functions of numbers: no files, no models. Both systems answered the same items, so each item gives a
pair; items of one speaker are not independent, so whole blocks (speakers) are drawn or flipped, never
single utterances. The rate is pooled: sum of errors over sum of units, as CER is.

Two methods, by the number of blocks:

- `EXACT_BLOCKS` or more: paired block bootstrap with a percentile interval (Efron and Tibshirani 1993,
  ch. 13; blocks as in Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR
  performance evaluation").
- fewer: all 2^k sign flips of the blocks' differences. The interval is read from the means of all
  non-empty sets of blocks (Hartigan 1969, "Using subsample values as typical values"): inverting the
  test, no resampling error, and honest about few speakers, whose interval may be infinite.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tasks.asr.quality.intervals import FEW_BLOCKS, Floats, resampled_rates, sum_by_block

EXACT_BLOCKS = FEW_BLOCKS  # below this all sign flips are enumerated: at most 2^11 = 2,048


@dataclass(frozen=True)
class Difference:
    """A paired difference of pooled rates, challenger minus champion.

    Attributes:
        value: the difference (negative: the challenger makes fewer errors).
        low, high: interval of the given confidence; infinite where the blocks are too few to bound it.
        p: two-sided p-value of "no difference".
        blocks: independent blocks (speakers, examples).
        confidence: of the interval.
        method: how it was computed.
    """

    value: float
    low: float
    high: float
    p: float
    blocks: int
    confidence: float
    method: Literal["paired block bootstrap", "exact sign flip"]


def paired_difference(
    challenger: Sequence[float],
    champion: Sequence[float],
    units: Sequence[float],
    blocks: Sequence[str],
    *,
    confidence: float,
    resamples: int,
    seed: int = 0,
) -> Difference:
    """Difference of pooled rates over the same items, with its interval and p-value.

    Args:
        challenger: errors of the challenger, one per item.
        champion: errors of the champion on the same items.
        units: what errors are counted against: reference characters, or 1 per example.
        blocks: the block of each item; items of a block stay together.
        confidence: of the interval, between 0.5 and 1.
        resamples: of the bootstrap; not used by the exact method.
        seed: of the bootstrap; the same input gives the same answer.

    Raises:
        ValueError: lengths differ, there is no item, or no unit at all.
    """
    if not len(challenger) == len(champion) == len(units) == len(blocks) or not len(blocks):
        raise ValueError("the same, non-zero number of errors, units and blocks is needed")
    difference = sum_by_block(
        blocks, [mine - other for mine, other in zip(challenger, champion, strict=True)]
    )
    size = sum_by_block(blocks, units)
    if size.sum() <= 0:
        raise ValueError("the references have no units at all")
    if len(size) < EXACT_BLOCKS:
        return sign_flip(difference, size, confidence=confidence)
    return block_bootstrap(difference, size, confidence=confidence, resamples=resamples, seed=seed)


def block_bootstrap(
    difference: Floats, size: Floats, *, confidence: float, resamples: int, seed: int = 0
) -> Difference:
    """Percentile interval from resampled blocks.

    Args:
        difference: summed error differences, (blocks,).
        size: summed units, (blocks,).
    """
    count = len(difference)
    means = resampled_rates(difference, size, resamples=resamples, seed=seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (resamples + 1))
    value = float(difference.sum() / size.sum())
    return Difference(value, float(low), float(high), p, count, confidence, "paired block bootstrap")


def sign_flip(difference: Floats, size: Floats, *, confidence: float) -> Difference:
    """Exact test and interval from all sign flips of the blocks.

    Of the 2^k - 1 means of non-empty sets of blocks, j lie outside each end of the interval, where
    j = floor(2^k · (1 - confidence) / 2); with j = 0 the data cannot bound the difference at all (fewer
    than six blocks at 95%).

    Args:
        difference: summed error differences, (blocks,).
        size: summed units, (blocks,).
    """
    count = len(difference)
    sets = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1  # (2^k, blocks)
    observed = abs(float(difference.sum()))
    flipped = np.abs((1 - 2 * sets) @ difference)
    p = float((flipped >= observed * (1 - 1e-9) - 1e-12).mean())
    totals = sets @ size
    means = np.sort((sets @ difference)[totals > 0] / totals[totals > 0])
    outside = math.floor(len(sets) * (1 - confidence) / 2 + 1e-9)
    bounded = 0 < outside <= len(means)
    low, high = (float(means[outside - 1]), float(means[-outside])) if bounded else (-math.inf, math.inf)
    value = float(difference.sum() / size.sum())
    return Difference(value, low, high, p, count, confidence, "exact sign flip")


def judge(difference: Difference, margin: float) -> Literal["better", "equal", "inconclusive", "worse"]:
    """What a difference of error rates (lower is better) says about the challenger.

    better: the whole interval lies below 0. equal: nothing in the interval is worse than the margin
    (non-inferior). worse: the whole interval lies above 0 and the difference is more than the margin.
    inconclusive: anything else.
    """
    if difference.high < 0:
        return "better"
    if difference.high <= margin:
        return "equal"
    if difference.low > 0 and difference.value > margin:
        return "worse"
    return "inconclusive"

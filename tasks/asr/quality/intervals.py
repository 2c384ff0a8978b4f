"""How far a rate can be trusted: resampling of whole blocks of errors and units. Pure; no command.

Utterances of one speaker are not independent, so whole speakers are drawn with replacement, never single
utterances (Efron and Tibshirani 1993, ch. 13; blocks as in Bisani and Ney 2004, "Bootstrap estimates for
confidence intervals in ASR performance evaluation").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FEW_BLOCKS = 12  # with fewer, a bootstrap interval tends to be too narrow: say so beside it
_DRAWN_AT_ONCE = 1 << 24  # counts of 8 bytes held in memory: 128 MiB

Floats = npt.NDArray[np.float64]


def resampled_rates(errors: Floats, units: Floats, *, resamples: int, seed: int = 0) -> Floats:
    """The pooled rate of every resample.

    Args:
        errors: summed errors, (blocks,), or of several rates, (blocks, rates); may be differences of errors.
        units: summed reference units, of the same shape.
        resamples: how often as many blocks as there are get drawn, with replacement.
        seed: the same input gives the same answer.

    Returns:
        (resamples,) or (resamples, rates); 0 where no unit was drawn.
    """
    count, generator = len(errors), np.random.default_rng(seed)
    even = np.full(count, 1 / count)
    at_once = max(1, _DRAWN_AT_ONCE // count)
    parts = []
    for start in range(0, resamples, at_once):
        draws = generator.multinomial(count, even, size=min(at_once, resamples - start))
        totals = draws @ units  # (resamples,) or (resamples, rates)
        parts.append(np.divide(draws @ errors, totals, out=np.zeros(totals.shape), where=totals > 0))
    return np.concatenate(parts)


def sum_by_block(blocks: Sequence[str], values: Sequence[float]) -> Floats:
    """The values summed block by block, blocks in the order of their names: (blocks,)."""
    names = {name: row for row, name in enumerate(sorted(set(blocks)))}
    rows = np.array([names[name] for name in blocks], dtype=np.intp)
    return np.bincount(rows, weights=np.asarray(values, dtype=np.float64), minlength=len(names)).astype(
        np.float64
    )


def rate_interval(
    errors: Sequence[float],
    units: Sequence[float],
    blocks: Sequence[str],
    *,
    confidence: float,
    resamples: int,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile interval of a pooled rate by the block bootstrap; None with one block, which tells nothing.

    Args:
        errors: per item, as `units` and `blocks` are.
        confidence: of the interval, between 0.5 and 1.

    Raises:
        ValueError: lengths differ or there is no item.
    """
    if not len(errors) == len(units) == len(blocks) or not len(blocks):
        raise ValueError("the same, non-zero number of errors, units and blocks is needed")
    if len(set(blocks)) < 2:
        return None
    rates = resampled_rates(
        sum_by_block(blocks, errors), sum_by_block(blocks, units), resamples=resamples, seed=seed
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(rates, [tail, 1 - tail])
    return float(low), float(high)


def rate_intervals(
    errors: Floats,
    units: Floats,
    blocks: Sequence[str],
    *,
    confidence: float,
    resamples: int,
    seed: int = 0,
) -> list[tuple[float, float]] | None:
    """`rate_interval` of several rates over the same items, by the same draws; None with one block.

    Args:
        errors: per item, (items, rates).
        units: the same.

    Raises:
        ValueError: lengths differ or there is no item.
    """
    if not len(errors) == len(units) == len(blocks) or not len(blocks):
        raise ValueError("the same, non-zero number of errors, units and blocks is needed")
    if len(set(blocks)) < 2:
        return None
    summed = [
        np.stack([sum_by_block(blocks, column) for column in table.T.tolist()], axis=1)
        for table in (errors, units)
    ]
    rates = resampled_rates(summed[0], summed[1], resamples=resamples, seed=seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(rates, [tail, 1 - tail], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]

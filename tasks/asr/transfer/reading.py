"""What a plot of error rate against amount of data says: how much data one method needs for the error rate
of another. Pure; no command.

Data needed is read by linear interpolation over the logarithm of the number of utterances, never by
extrapolation: beyond the ends of a curve only a bound is known, and the ratio of two amounts is then a
bound too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

LEARNED_CER = 0.9  # a recogniser that writes nothing has a CER of 1: above this nothing has been learned


class Needed(NamedTuple):
    """Utterances needed for an error rate, somewhere from `low` to `high`; equal where it was read."""

    low: float
    high: float


def data_needed(sizes: Sequence[int], rates: Sequence[float], level: float) -> Needed:
    """How many utterances a method needs to come down to `level`.

    Args:
        sizes: utterances, ascending.
        rates: mean error rate at each.
        level: the error rate to be reached.
    """
    for position, rate in enumerate(rates):
        if rate > level:
            continue
        if position == 0:
            return Needed(0.0, float(sizes[0]))
        before = rates[position - 1]
        share = (before - level) / (before - rate)
        low, high = math.log(sizes[position - 1]), math.log(sizes[position])
        found = math.exp(low + share * (high - low))
        return Needed(found, found)
    return Needed(float(sizes[-1]), math.inf)


def compare(
    sizes: Sequence[int], slow: Sequence[float], quick: Sequence[float], factor: float = 3.0
) -> list[dict[str, Any]]:
    """For every error rate on either curve: the data that `slow` and `quick` need, and whether `quick` gets
    by with 1/`factor` of it.

    Each entry has `level`, `slow` and `quick` (pairs of bounds; None is unbounded), `ratio` (bounds of
    slow / quick) and `verdict`: "holds", "fails" or "cannot be read".
    """
    entries = []
    for level in sorted({rate for rate in (*slow, *quick) if rate <= LEARNED_CER}):
        a, b = data_needed(sizes, slow, level), data_needed(sizes, quick, level)
        low = a.low / b.high
        high = a.high / b.low if b.low > 0 else math.inf
        verdict = "holds" if low >= factor else "fails" if high < factor else "cannot be read"
        entries.append(
            {
                "level": level,
                "slow": [a.low, _finite(a.high)],
                "quick": [b.low, _finite(b.high)],
                "ratio": [low, _finite(high)],
                "verdict": verdict,
            }
        )
    return entries


def overall(entries: Sequence[dict[str, Any]]) -> str:
    """One verdict: it fails if it fails anywhere, and holds if it holds wherever it can be read."""
    verdicts = {entry["verdict"] for entry in entries}
    return next((name for name in ("fails", "holds") if name in verdicts), "cannot be read")


def caveats(slow: Sequence[float], passes: float, done: int, planned: int) -> list[str]:
    """What a reader of the verdict must know.

    Args:
        slow: mean error rates from scratch.
        passes: how often the largest set was heard.
        done: runs finished, of `planned`.
    """
    said = []
    if slow and min(slow) > LEARNED_CER:
        said.append(
            "from scratch nothing was learned in these steps at any size (CTC still writes blanks): the "
            "ratios speak of this budget of steps, and more steps would lift that curve"
        )
    if 0 < passes < 3:
        said.append(
            f"the largest set was heard {passes:.1f} times: no method is near its end there, and its "
            "CER is too high"
        )
    if done < planned:
        said.append(f"only {done} of {planned} runs are done")
    return said


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""A floor is a claim about the model: kept, unproven or broken. Pure; no command.

    the interval lies within the limit     kept
    it reaches over the limit              unproven: the test set cannot tell
    it lies wholly beyond the limit        broken

The ends of the interval are one-sided bounds of the confidence `decide.floor_confidence`
(`tasks.release.bounds`): a model that truly lies beyond the limit seems kept in at most 1 - confidence of
all test sets, and one that truly keeps it seems broken no more often. A limit that every model keeps (a share
of 0, a rate of 100% and more) asks nothing and needs no proof.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tasks.release.bounds import Estimate

Outcome = Literal["kept", "unproven", "broken"]


@dataclass(frozen=True)
class Figures:
    """The numbers of a floor; shares and rates are fractions.

    Attributes:
        setting: the key of the section `decide`.
        limit: its value; `bound` says on which side of it the value must lie.
        low, high: one-sided bounds, each of `confidence`; None where there is none.
        n: items answered.
        voices: speakers among them; None where nobody speaks.
        needed: about how many items would prove it at this value; None unless unproven, or where none would.
    """

    setting: str
    bound: Literal["at least", "at most"]
    limit: float
    value: float
    low: float | None
    high: float | None
    confidence: float
    n: int
    voices: int | None
    needed: int | None


@dataclass(frozen=True)
class Floor:
    """A claim, what became of it, and a sentence that says so with every number."""

    name: str
    outcome: Outcome
    says: str
    figures: Figures | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"name": self.name, "outcome": self.outcome, "says": self.says} | (
            asdict(self.figures) if self.figures else {}
        )


def stated(name: str, says: str, *, holds: bool = True) -> Floor:
    """A floor without a number: it holds or it is broken."""
    return Floor(name, "kept" if holds else "broken", says)


def at_most(name: str, found: Estimate, limit: float, setting: str) -> Floor:
    """The claim that an error rate, or a change of one, is no higher than `limit`."""
    low, high, value = found.low(), found.high(), found.value
    if limit >= 1:
        outcome: Outcome = "kept" if value <= limit else "broken"
    else:
        outcome = judge_floor(low, high, limit)
    needed = found.needed(limit) if outcome == "unproven" else None
    figures = Figures(
        setting,
        "at most",
        limit,
        value,
        _finite(low),
        _finite(high),
        found.confidence,
        found.n,
        found.voices,
        needed,
    )
    return Floor(name, outcome, _say(name, figures, outcome), figures)


def at_least(name: str, wrong: Estimate, limit: float, setting: str) -> Floor:
    """The claim that a share of right answers is no lower than `limit`.

    Args:
        wrong: the share of wrong ones.
    """
    low, high, value = 1 - wrong.high(), 1 - wrong.low(), 1 - wrong.value
    outcome = judge_floor(-high, -low, -limit) if limit > 0 else "kept"
    needed = wrong.needed(1 - limit) if outcome == "unproven" else None
    figures = Figures(
        setting,
        "at least",
        limit,
        value,
        max(low, 0.0),
        high,
        wrong.confidence,
        wrong.n,
        wrong.voices,
        needed,
    )
    return Floor(name, outcome, _say(name, figures, outcome), figures)


def judge_floor(low: float, high: float, limit: float) -> Outcome:
    """What an interval says about a rate that may be as high as `limit`; not a number is broken."""
    if high <= limit:
        return "kept"
    return "unproven" if low <= limit else "broken"


def _say(name: str, f: Figures, outcome: Outcome) -> str:
    low, high = (f"{end:.2%}" if end is not None else "any rate" for end in (f.low, f.high))
    within = f"at least {low}" if f.bound == "at least" else f"at most {high}"
    beyond = f"at most {high}" if f.bound == "at least" else f"at least {low}"
    voices = "" if f.voices is None else ", one voice" if f.voices == 1 else f", {f.voices} voices"
    sign = "≥" if f.bound == "at least" else "≤"
    right = f.value >= f.limit if f.bound == "at least" else f.value <= f.limit
    limit = f"{sign} {f.limit:.2%} (decide.{f.setting})"
    seen = {"kept": within, "broken": beyond, "unproven": within if right else f"{low} to {high}"}[outcome]
    told = f"{name}: {f.value:.2%} (n {f.n:,}{voices}, {seen} with {100 * f.confidence:.4g}% confidence)"
    if outcome == "kept":
        return f"{told} {limit}"
    if outcome == "broken":
        return f"{told} is {'under' if f.bound == 'at least' else 'over'} {f.limit:.2%} (decide.{f.setting})"
    if not right:
        return f"{told} may or may not be {limit}"
    more = f"; at this rate about {f.needed:,} would prove it" if f.needed else ""
    return f"{told} is not proven to be {limit}{more}"


def _finite(end: float) -> float | None:
    return end if math.isfinite(end) else None

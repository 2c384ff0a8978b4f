"""The gate: promote, hold or reject a new version, with a reason for every rule.

Pure functions of evidence: no files, no clock, no registry. What is judged is the file that ships (the
ONNX int8, the GGUF that serves), never the checkpoint it came from.

    floors broken                                -> reject
    floors kept, nothing serves yet              -> promote
    significantly worse than the champion        -> reject
    significantly better, or within the margin   -> promote
    anything else (the data cannot tell)         -> hold

The comparison is paired: both versions on the same utterances (`tasks.release.significance`). All test
utterances together decide; each split alone can only veto. The out-of-domain slice has a floor and no part in
the comparison: its errors are so many that they would drown those of what the model is for.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from tasks.errors import ArtifactError
from tasks.release.significance import Difference, judge, paired_difference
from tasks.settings import Decide

Verdict = Literal["promote", "hold", "reject"]


class Answer(NamedTuple):
    """One system's answer to one test item.

    Attributes:
        split: the test split.
        id: utterance or example id.
        block: what is independent: the speaker, or the example itself.
        reference: the true text, to prove that two systems answered the same.
        errors: edits, or 1 for a wrong answer.
        units: reference characters, or 1.
    """

    split: str
    id: str
    block: str
    reference: str
    errors: float
    units: float


@dataclass(frozen=True)
class Road:
    """Spoken command to tool call through shipped files: shares of exact answers."""

    exact_match_unseen_sentences: float
    exact_match_unseen_voices: float


@dataclass(frozen=True)
class AsrEvidence:
    """What is known of a recogniser's shipped file; rates are fractions.

    Attributes:
        artifact: digest of the shipped files.
        normaliser: id of the text normaliser that the rates were counted under.
        answers: the shipped file's transcripts of the plain test utterances, those out of domain apart.
        road: None when the road was not measured through this file.
        cer_ood: None when the corpus has no out-of-domain slice.
    """

    artifact: str
    normaliser: str
    cer_unseen_sentences: float
    cer_unseen_voices: float
    cer_with_silence: float
    cer_joined: float
    answers: tuple[Answer, ...]
    road: Road | None = None
    cer_ood: float | None = None


@dataclass(frozen=True)
class LlmEvidence:
    """What is known of a language model's GGUF that serves; rates are fractions.

    Attributes:
        artifact: digest of the shipped files.
        quantisation: the type that serves, such as "Q8_0".
        exact_match: of the GGUF that serves, from true text.
        exact_match_merged: of the merged model it was made from.
        failed_checks: names and details of failed verifications; empty when the file answers like the model.
        answers: the GGUF's answers to the test examples.
        road: None when the road was not measured through this file.
    """

    artifact: str
    quantisation: str
    exact_match: float
    exact_match_merged: float
    failed_checks: tuple[str, ...]
    answers: tuple[Answer, ...]
    road: Road | None = None


@dataclass(frozen=True)
class Comparison:
    """Challenger against champion on one set of test items; the rate is an error rate."""

    name: str
    rate: str
    challenger: float
    champion: float
    difference: Difference
    outcome: Literal["better", "equal", "inconclusive", "worse"]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; an unbounded end of the interval is null."""
        values = asdict(self)
        for end in ("low", "high"):
            if not math.isfinite(values["difference"][end]):
                values["difference"][end] = None
        return values


@dataclass(frozen=True)
class Decision:
    """A verdict with its reasons (the first says why, the others give each rule and its number)."""

    verdict: Verdict
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "comparisons": [comparison.as_dict() for comparison in self.comparisons],
        }


class Floor(NamedTuple):
    """A number, its limit, and whether the limit holds."""

    holds: bool
    says: str


def decide_asr(challenger: AsrEvidence, champion: AsrEvidence | None, params: Decide) -> Decision:
    """The verdict on a recogniser.

    Raises:
        ArtifactError: the champion was measured on other utterances.
    """
    plain = challenger.cer_unseen_sentences
    rates = (
        ("CER, unseen sentences", plain, "max_cer_unseen_sentences"),
        ("CER, unseen voices", challenger.cer_unseen_voices, "max_cer_unseen_voices"),
        ("CER added by silence", challenger.cer_with_silence - plain, "max_cer_rise_silence"),
        ("CER added by joining", challenger.cer_joined - plain, "max_cer_rise_joined"),
    )
    floors = [at_most(name, value, getattr(params, key), key) for name, value, key in rates]
    floors += _out_of_domain_floor(challenger.cer_ood, params)
    floors += _road_floor(challenger.road, params)
    return _decide(floors, challenger.answers, champion.answers if champion else None, "CER", params)


def decide_llm(challenger: LlmEvidence, champion: LlmEvidence | None, params: Decide) -> Decision:
    """The verdict on a language model.

    Raises:
        ArtifactError: the champion was measured on other examples.
    """
    name = challenger.quantisation
    failed = challenger.failed_checks
    floors = [
        Floor(
            not failed,
            "the GGUF files answer like the merged model (verification)"
            if not failed
            else f"publishing refused: verification failed: {'; '.join(failed)}",
        ),
        at_least(f"exact match, {name}", challenger.exact_match, params.min_exact_match, "min_exact_match"),
        at_most(
            f"exact match lost by {name} against the merged model",
            challenger.exact_match_merged - challenger.exact_match,
            params.max_quantisation_loss,
            "max_quantisation_loss",
        ),
    ]
    floors += _road_floor(challenger.road, params)
    return _decide(
        floors, challenger.answers, champion.answers if champion else None, "wrong tool calls", params
    )


def at_most(name: str, value: float, limit: float, key: str) -> Floor:
    """`value` may be as high as `limit`; not a number never holds."""
    holds = value <= limit
    return Floor(holds, f"{name}: {value:.2%} {'≤' if holds else 'is over'} {limit:.2%} (decide.{key})")


def at_least(name: str, value: float, limit: float, key: str) -> Floor:
    """`value` may be as low as `limit`; not a number never holds."""
    holds = value >= limit
    return Floor(holds, f"{name}: {value:.2%} {'≥' if holds else 'is under'} {limit:.2%} (decide.{key})")


def _out_of_domain_floor(cer: float | None, params: Decide) -> list[Floor]:
    if cer is None:
        return [Floor(True, "CER, out of domain: the corpus has no split test_ood, so not judged")]
    return [at_most("CER, out of domain", cer, params.max_cer_ood, "max_cer_ood")]


def _road_floor(road: Road | None, params: Decide) -> list[Floor]:
    if road is None:
        return [Floor(True, "spoken command to tool call: not measured through these files, so not judged")]
    return [
        at_least(
            "spoken command to tool call, unseen voices",
            road.exact_match_unseen_voices,
            params.min_exact_match_road,
            "min_exact_match_road",
        )
    ]


def _decide(
    floors: Sequence[Floor],
    challenger: Sequence[Answer],
    champion: Sequence[Answer] | None,
    rate: str,
    params: Decide,
) -> Decision:
    broken = [floor.says for floor in floors if not floor.holds]
    kept = [floor.says for floor in floors if floor.holds]
    if broken:
        count = f"{len(broken)} of {len(floors)} floors {'is' if len(broken) == 1 else 'are'} broken"
        return Decision("reject", (count, *broken, *kept))
    if champion is None:
        return Decision("promote", ("every floor holds and no version serves yet", *kept))
    comparisons = compare(challenger, champion, rate, params)
    said = [_say(comparison, params) for comparison in comparisons]
    worse = [c.name for c in comparisons if c.outcome == "worse"]
    outcome = comparisons[0].outcome
    verdict: Verdict
    if worse:
        verdict, why = "reject", f"worse than the champion on {', '.join(worse)}"
    elif outcome == "inconclusive":
        verdict, why = "hold", "the test set cannot tell it from the champion within the margin"
    else:
        equal = "no worse than the champion, within the margin"
        verdict, why = "promote", "better than the champion" if outcome == "better" else equal
    return Decision(verdict, (why, *said, *kept), comparisons)


def compare(
    challenger: Sequence[Answer], champion: Sequence[Answer], rate: str, params: Decide
) -> tuple[Comparison, ...]:
    """Paired comparisons: all items first, then, if there are several splits, each of them.

    Raises:
        ArtifactError: the two did not answer the same items.
    """
    pairs = list(zip(sorted(challenger, key=_item), sorted(champion, key=_item), strict=False))
    same = len(challenger) == len(champion) and all(_item(a) == _item(b) for a, b in pairs)
    if not pairs or not same:
        raise ArtifactError(
            f"challenger and champion answered different items ({len(challenger)} and {len(champion)})",
            "a paired comparison needs the same utterances with the same references",
            "evaluate the champion on today's test set (`malgil run` does it by itself)",
        )
    splits = sorted({a.split for a, _ in pairs})
    sets = {"all test items": pairs}
    if len(splits) > 1:
        sets |= {split: [pair for pair in pairs if pair[0].split == split] for split in splits}
    return tuple(_compare(name, chosen, rate, params) for name, chosen in sets.items())


def _compare(name: str, pairs: Sequence[tuple[Answer, Answer]], rate: str, params: Decide) -> Comparison:
    units = [a.units for a, _ in pairs]
    mine, theirs = [a.errors for a, _ in pairs], [b.errors for _, b in pairs]
    blocks = [a.block for a, _ in pairs]
    difference = paired_difference(
        mine, theirs, units, blocks, confidence=params.confidence, resamples=params.resamples
    )
    total = sum(units)
    return Comparison(
        name, rate, sum(mine) / total, sum(theirs) / total, difference, judge(difference, params.margin)
    )


def _item(answer: Answer) -> tuple[str, str, str, float]:
    return answer.split, answer.id, answer.reference, answer.units


def _say(comparison: Comparison, params: Decide) -> str:
    d, margin = comparison.difference, f"decide.margin {params.margin:.2%}"
    outcome = "not worse by more than the margin" if comparison.outcome == "equal" else comparison.outcome
    return (
        f"{comparison.rate} on {comparison.name}: {comparison.challenger:.2%} against "
        f"{comparison.champion:.2%}, difference {100 * d.value:+.2f} points, {d.confidence:.0%} interval "
        f"[{100 * d.low:+.2f}, {100 * d.high:+.2f}], p = {d.p:.3f} ({d.method}, {d.blocks} blocks): "
        f"{outcome} ({margin})"
    )

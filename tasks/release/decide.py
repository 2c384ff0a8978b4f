"""The gate: promote, hold or reject a new version, with a reason for every rule.

Pure functions of evidence: no files, no clock, no registry. What is judged is the file that ships (the
ONNX int8, the GGUF that serves), never the checkpoint it came from.

    a floor broken                               -> reject
    a floor unproven                             -> hold
    floors kept, nothing serves yet              -> promote
    significantly worse than the champion        -> reject
    significantly better, or within the margin   -> promote
    anything else (the data cannot tell)         -> hold

A floor is judged with its interval, from the answers (`tasks.release.floors`, `tasks.release.bounds`). The
comparison is paired: both versions on the same utterances (`tasks.release.significance`). All test
utterances together decide; each split alone can only veto. The out-of-domain slice has a floor and no part in
the comparison: its errors are so many that they would drown those of what the model is for.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tasks.errors import ArtifactError
from tasks.release.answers import SENTENCES, VOICES, Answer, AsrEvidence, Change, LlmEvidence, Road
from tasks.release.bounds import Estimate, alike, pooled
from tasks.release.floors import Floor, at_least, at_most, stated
from tasks.release.significance import Difference, judge, paired_difference
from tasks.settings import Decide

Verdict = Literal["promote", "hold", "reject"]


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
    floors: tuple[Floor, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "floors": [floor.as_dict() for floor in self.floors],
            "comparisons": [comparison.as_dict() for comparison in self.comparisons],
        }


def decide_asr(challenger: AsrEvidence, champion: AsrEvidence | None, params: Decide) -> Decision:
    """The verdict on a recogniser.

    Raises:
        ArtifactError: the champion was measured on other utterances.
    """
    floors = asr_floors(challenger, params)
    return _decide(floors, challenger.answers, champion.answers if champion else None, "CER", params)


def decide_llm(challenger: LlmEvidence, champion: LlmEvidence | None, params: Decide) -> Decision:
    """The verdict on a language model.

    Raises:
        ArtifactError: the champion was measured on other examples.
    """
    floors = llm_floors(challenger, params)
    return _decide(
        floors, challenger.answers, champion.answers if champion else None, "wrong tool calls", params
    )


def floors_of(evidence: AsrEvidence | LlmEvidence, params: Decide) -> tuple[Floor, ...]:
    """What became of every floor of a line."""
    return asr_floors(evidence, params) if isinstance(evidence, AsrEvidence) else llm_floors(evidence, params)


def asr_floors(evidence: AsrEvidence, params: Decide) -> tuple[Floor, ...]:
    """The floors of a recogniser."""
    sure = params.floor_confidence
    sentences, voices = evidence.split(SENTENCES), evidence.split(VOICES)
    rates = (
        ("CER, unseen sentences", error_rate(sentences, sure), "max_cer_unseen_sentences"),
        ("CER, unseen voices", error_rate(voices, sure, each_voice=True), "max_cer_unseen_voices"),
        ("CER added by silence", change(evidence.silence, sure), "max_cer_rise_silence"),
        ("CER added by joining", change(evidence.joined, sure), "max_cer_rise_joined"),
    )
    floors = [at_most(name, found, getattr(params, key), key) for name, found, key in rates]
    if evidence.outside:
        outside = error_rate(evidence.outside, sure)
        floors.append(at_most("CER, out of domain", outside, params.max_cer_ood, "max_cer_ood"))
    else:
        said = "CER, out of domain: the corpus has no split test_ood, so not judged"
        floors.append(stated("CER, out of domain", said))
    return (*floors, _road_floor(evidence.road, params))


def llm_floors(evidence: LlmEvidence, params: Decide) -> tuple[Floor, ...]:
    """The floors of a language model."""
    name, failed, sure = evidence.quantisation, evidence.failed_checks, params.floor_confidence
    said = "the GGUF files answer like the merged model (verification)"
    if failed:
        said = f"publishing refused: verification failed: {'; '.join(failed)}"
    wrong = wrong_answers(evidence.answers, sure, spoken=False)
    return (
        stated("verification", said, holds=not failed),
        at_least(f"exact match, {name}", wrong, params.min_exact_match, "min_exact_match"),
        at_most(
            f"exact match lost by {name} against the merged model",
            change(evidence.quantised, sure, spoken=False),
            params.max_quantisation_loss,
            "max_quantisation_loss",
        ),
        _road_floor(evidence.road, params),
    )


def error_rate(answers: Sequence[Answer], confidence: float, *, each_voice: bool = False) -> Estimate:
    """The CER of spoken items, by speaker.

    Args:
        each_voice: the mean of the voices' rates instead of the pooled one.
    """
    voices = [answer.block for answer in answers]
    units = [answer.units for answer in answers]
    weights = alike(units, voices) if each_voice else [1.0] * len(units)
    losses = pooled(
        [answer.errors * weight for answer, weight in zip(answers, weights, strict=True)],
        [size * weight for size, weight in zip(units, weights, strict=True)],
        trials=_words(answers),
        clusters=(_each(answers), voices),
        confidence=confidence,
    )
    return Estimate(losses, None, len(answers), len(set(voices)), confidence)


def wrong_answers(answers: Sequence[Answer], confidence: float, *, spoken: bool) -> Estimate:
    """The share of wrong answers; the same text counts as one trial, however often it was said.

    Args:
        spoken: the block is the speaker and the reference the text; else the block is the text.
    """
    texts = [answer.reference if spoken else answer.block for answer in answers]
    voices = [answer.block for answer in answers]
    losses = pooled(
        [answer.errors for answer in answers],
        [answer.units for answer in answers],
        trials=len(set(texts)),
        clusters=(texts, voices) if spoken else (texts,),
        confidence=confidence,
    )
    return Estimate(losses, None, len(answers), len(set(voices)) if spoken else None, confidence)


def change(pairs: Sequence[Change], confidence: float, *, spoken: bool = True) -> Estimate:
    """The rise of an error rate on the same items: new errors less those that are gone.

    Args:
        spoken: errors are edits and the block is the speaker; else they are answers and it is the text.
    """
    blocks = [pair.block for pair in pairs]
    lost, mended = (
        pooled(
            [max(0.0, sign * (pair.after - pair.before)) for pair in pairs],
            [pair.units for pair in pairs],
            trials=_words(pairs) if spoken else len(set(blocks)),
            clusters=(_each(pairs), blocks) if spoken else (blocks,),
            confidence=confidence,
        )
        for sign in (1, -1)
    )
    return Estimate(lost, mended, len(pairs), len(set(blocks)) if spoken else None, confidence)


def _words(items: Sequence[Answer] | Sequence[Change]) -> float:
    """The words of the references: errors come by words, so that a word is one trial at most."""
    return float(sum(max(1, len(item.reference.split())) for item in items))


def _each(items: Sequence[object]) -> list[str]:
    return [str(number) for number in range(len(items))]


def _road_floor(road: Road | None, params: Decide) -> Floor:
    name = "spoken command to tool call, unseen voices"
    own = [answer for answer in road.answers if answer.split == VOICES] if road else []
    if not own:
        return stated(name, "spoken command to tool call: not measured through these files, so not judged")
    wrong = wrong_answers(own, params.floor_confidence, spoken=True)
    return at_least(name, wrong, params.min_exact_match_road, "min_exact_match_road")


def _decide(
    floors: Sequence[Floor],
    challenger: Sequence[Answer],
    champion: Sequence[Answer] | None,
    rate: str,
    params: Decide,
) -> Decision:
    told = {
        outcome: [floor.says for floor in floors if floor.outcome == outcome]
        for outcome in ("broken", "unproven", "kept")
    }
    judged = (*told["broken"], *told["unproven"], *told["kept"])
    broken, unproven = len(told["broken"]), len(told["unproven"])
    if broken:
        count = f"{broken} of {len(floors)} floors {'is' if broken == 1 else 'are'} broken"
        return Decision("reject", (count, *judged), floors=tuple(floors))
    comparisons = () if champion is None else compare(challenger, champion, rate, params)
    said = [_say(comparison, params) for comparison in comparisons]
    verdict, why = _against_champion(comparisons)
    if unproven:
        verdict = "hold"
        why = (
            f"{unproven} of {len(floors)} floors {'is' if unproven == 1 else 'are'} not proven: "
            "the test set cannot tell on which side of it the model lies"
        )
    return Decision(verdict, (why, *told["unproven"], *said, *told["kept"]), comparisons, tuple(floors))


def _against_champion(comparisons: Sequence[Comparison]) -> tuple[Verdict, str]:
    """The verdict on a version that keeps every floor, and why."""
    if not comparisons:
        return "promote", "every floor holds and no version serves yet"
    worse = [c.name for c in comparisons if c.outcome == "worse"]
    if worse:
        return "reject", f"worse than the champion on {', '.join(worse)}"
    if comparisons[0].outcome == "inconclusive":
        return "hold", "the test set cannot tell it from the champion within the margin"
    if comparisons[0].outcome == "better":
        return "promote", "better than the champion"
    return "promote", "no worse than the champion, within the margin"


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

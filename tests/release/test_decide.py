"""The gate as a table: evidence in, verdict and reasons out."""

import json
from dataclasses import replace

import pytest

from tasks.errors import ArtifactError
from tasks.params import load
from tasks.release.answers import Answer, AsrEvidence, Change, LlmEvidence, Road
from tasks.release.decide import decide_asr, decide_llm

PARAMS = load().decide.model_copy(update={"max_quantisation_loss": 0.03})
QUICK = load(quick=True).decide
# For the comparison with a champion: floors that the made-up error rates are far from.
LOOSE = PARAMS.model_copy(update={"max_cer_unseen_sentences": 0.5, "max_cer_unseen_voices": 0.5})
WORDS = "거실 불 좀 켜 줘"  # 5 words, 9 characters


def spoken(errors_of, speakers=20, each=10, units=20, unseen=8):
    """Answers of `speakers` known and `unseen` other voices; `errors_of(split, speaker, n)` gives the edits."""
    return tuple(
        Answer(split, f"{split}-{s}-{n}", f"{split}-{s}", WORDS, errors_of(split, s, n), units)
        for split, count in (("test_sentences", speakers), ("test_voices", unseen))
        for s in range(count)
        for n in range(each)
    )


def road(wrong, voices=6, each=50):
    """Commands by `voices`; each has `wrong` wrong ones, or the number for its place in `wrong`."""
    counts = [wrong] * voices if isinstance(wrong, int) else wrong
    return Road(
        tuple(
            Answer("test_voices", f"{v}-{n}", f"v{v}", f"{v}-{n}", float(n < counts[v]), 1)
            for v in range(voices)
            for n in range(each)
        )
    )


def rises(more=0, fewer=0, n=300, voices=40):
    """The same utterances twice: `more` have an edit more, `fewer` one less, the others as many as before."""
    return tuple(
        Change(f"v{i % voices}", WORDS, float(more <= i < more + fewer), float(i < more), 9) for i in range(n)
    )


def asr(errors_of=lambda split, s, n: n % 2, **changes):
    good = {
        "artifact": "a" * 64, "normaliser": "ko-1", "answers": spoken(errors_of), "silence": rises(),
        "joined": rises(), "road": road(2),
    }  # fmt: skip
    return AsrEvidence(**good | changes)


def llm(right=lambda n: n % 40 != 0, lost=0, mended=0, n=300, **changes):
    answers = tuple(Answer("test", f"e{i}", f"text {i}", "{}", 0 if right(i) else 1, 1) for i in range(n))
    pairs = tuple(
        Change(f"text {i}", "{}", float(lost <= i < lost + mended), float(i < lost), 1) for i in range(n)
    )
    good = {
        "artifact": "b" * 64, "quantisation": "Q8_0", "failed_checks": (), "answers": answers,
        "quantised": pairs, "road": road(2),
    }  # fmt: skip
    return LlmEvidence(**good | changes)


def calm(known=0, unseen=0):
    """300 utterances of 9 characters by each of 40 known and 6 unseen voices; so many have one edit, of voices
    in turn.
    """
    counts = {"test_sentences": (40, 8, known), "test_voices": (6, 50, unseen)}
    return tuple(
        Answer(split, f"{split}-{n}-{s}", f"{split}-{s}", WORDS, float(n * voices + s < wrong), 9)
        for split, (voices, each, wrong) in counts.items()
        for n in range(each)
        for s in range(voices)
    )


def outside(share):
    """126 utterances out of domain by 46 voices, all with the same share of their characters wrong."""
    return tuple(Answer("test_ood", f"o{i}", f"v{i % 46}", WORDS, 9 * share, 9) for i in range(126))


# what is changed in a good recogniser: (evidence, verdict, the floor that decides, its sentence in part)
ASR = {
    "kept": (
        {"answers": calm(6, 6)}, "promote", "CER, unseen sentences: 0.21% (n 320, 40 voices, at most 0.",
    ),
    "sentences unproven": (
        {"answers": calm(100)}, "hold", "CER, unseen sentences: 3.47% (n 320, 40 voices, at most 4.",
    ),
    "sentences over, but perhaps not": (
        {"answers": calm(120)}, "hold", "may or may not be ≤ 4.00% (decide.max_cer_unseen_sentences)",
    ),
    "sentences broken": (
        {"answers": calm(160)}, "reject", "is over 4.00% (decide.max_cer_unseen_sentences)",
    ),
    "voices kept": ({"answers": calm(0, 120)}, "promote", "CER, unseen voices: 4.44% (n 300, 6 voices, at most"),
    "voices unproven": ({"answers": calm(0, 180)}, "hold", "CER, unseen voices: 6.67% (n 300, 6 voices, at most"),
    "voices broken": ({"answers": calm(0, 290)}, "reject", "is over 8.00% (decide.max_cer_unseen_voices)"),
    "silence costs nothing": ({"silence": rises(0)}, "promote", "CER added by silence: 0.00% (n 300, 40 voices"),
    "silence kept": ({"silence": rises(6, 4)}, "promote", "CER added by silence: 0.07% (n 300, 40 voices, at most 0."),
    "silence unproven": ({"silence": rises(20)}, "hold", "is not proven to be ≤ 1.00% (decide.max_cer_rise_silence)"),
    "silence broken": ({"silence": rises(60)}, "reject", "is over 1.00% (decide.max_cer_rise_silence)"),
    "joining kept": ({"joined": rises(20)}, "promote", "CER added by joining: 0.74% (n 300, 40 voices, at most 1."),
    "joining unproven": ({"joined": rises(45)}, "hold", "is not proven to be ≤ 2.00% (decide.max_cer_rise_joined)"),
    "joining broken": ({"joined": rises(110)}, "reject", "is over 2.00% (decide.max_cer_rise_joined)"),
    "out of domain kept": ({"outside": outside(0.7)}, "promote", "CER, out of domain: 70.00% (n 126, 46 voices, at most 7"),
    "out of domain unproven": ({"outside": outside(0.79)}, "hold", "is not proven to be ≤ 80.00% (decide.max_cer_ood)"),
    "out of domain broken": ({"outside": outside(0.9)}, "reject", "is over 80.00% (decide.max_cer_ood)"),
    "out of domain, more errors than characters": (
        {"outside": outside(1.2)}, "reject", "120.00% (n 126, 46 voices, at least",
    ),
    "road kept at 93%": ({"road": road([3, 4, 3, 4, 3, 4])}, "promote", "unseen voices: 93.00% (n 300, 6 voices, at least 8"),
    "road unproven": ({"road": road(6)}, "hold", "88.00% (n 300, 6 voices, at least 8"),
    "road unproven where voices differ": ({"road": road([0, 0, 0, 0, 2, 19])}, "hold", "93.00% (n 300, 6 voices, at least"),
    "road broken": ({"road": road(16)}, "reject", "is under 85.00% (decide.min_exact_match_road)"),
    "road of other files": ({"road": None}, "promote", "not measured through these files, so not judged"),
}  # fmt: skip


@pytest.mark.parametrize("case", ASR)
def test_a_floor_of_the_recogniser(case):
    changes, verdict, says = ASR[case]
    decision = decide_asr(asr(**{"answers": calm(), **changes}), None, PARAMS)
    assert decision.verdict == verdict, decision.reasons
    if verdict != "promote":
        word = {"reject": "broken", "hold": "not proven"}[verdict]
        assert decision.reasons[0].startswith(f"1 of 6 floors is {word}")
        assert says in decision.reasons[1]
    assert any(says in reason for reason in decision.reasons[1:]), decision.reasons
    json.dumps(decision.as_dict(), allow_nan=False)


# Bounds of single counts: scipy.stats.binomtest(k, 300).proportion_ci(0.9, method="exact").
# (right answers of 300, lost by quantisation, mended by it), verdict, sentence
LLM = {
    "all right": ((300, 0, 0), "promote", "exact match, Q8_0: 100.00% (n 300, at least 99.01% with 95% confidence) ≥ 95.00% (decide.min_exact_match)"),
    "the last that is proven": ((292, 0, 0), "promote", "97.33% (n 300, at least 95."),
    "the first that is not": ((291, 0, 0), "hold", "97.00% (n 300, at least 94.82% with 95% confidence) is not proven to be ≥ 95.00% (decide.min_exact_match); at this rate about 343 would prove it"),
    "on the floor": ((285, 0, 0), "hold", "is not proven to be ≥ 95.00%"),
    "one under it": ((284, 0, 0), "hold", "94.67% (n 300, 92.01% to 96.63% with 95% confidence) may or may not be ≥ 95.00%"),
    "the last that is not broken": ((279, 0, 0), "hold", "may or may not be"),
    "the first that is": ((278, 0, 0), "reject", "92.67% (n 300, at most 94.98% with 95% confidence) is under 95.00%"),
    "nothing lost": ((300, 0, 0), "promote", "exact match lost by Q8_0 against the merged model: 0.00% (n 300, at most 0.99% with 95% confidence) ≤ 3.00%"),
    "three lost": ((300, 3, 0), "promote", "1.00% (n 300, at most 2.56%"),
    "four lost": ((300, 4, 0), "hold", "is not proven to be ≤ 3.00% (decide.max_quantisation_loss)"),
    "four lost, one mended": ((300, 4, 1), "promote", "1.00% (n 300, at most 2.7"),
    "twenty lost": ((300, 20, 0), "reject", "6.67% (n 300, at least 4.25% with 95% confidence) is over 3.00%"),  # 6.67 - hypot(6.67 - 4.46, 0.99)
    "as many mended as lost": ((300, 3, 3), "promote", "0.00% (n 300, at most"),
}  # fmt: skip


@pytest.mark.parametrize("case", LLM)
def test_a_floor_of_the_language_model(case):
    (right, lost, mended), verdict, says = LLM[case]
    decision = decide_llm(llm(lambda n: n < right, lost, mended), None, PARAMS)
    assert decision.verdict == verdict, decision.reasons
    assert any(says in reason for reason in decision.reasons[1:]), decision.reasons
    if verdict != "promote":
        assert says in decision.reasons[1]


def test_a_broken_road_rejects_the_language_model_too():
    decision = decide_llm(llm(road=road(16)), None, PARAMS)
    assert decision.verdict == "reject"
    assert "is under 85.00% (decide.min_exact_match_road)" in decision.reasons[1]


def test_a_failed_verification_rejects():
    decision = decide_llm(llm(failed_checks=("tokens differ",)), None, PARAMS)
    assert decision.verdict == "reject"
    assert decision.reasons[1] == "publishing refused: verification failed: tokens differ"


def test_a_broken_floor_outweighs_an_unproven_one():
    decision = decide_llm(llm(lambda n: n < 288, 20), None, PARAMS)
    assert decision.verdict == "reject" and decision.reasons[0] == "1 of 4 floors is broken"
    assert "is over 3.00%" in decision.reasons[1] and "is not proven" in decision.reasons[2]


def test_the_same_command_many_times_is_one_trial():
    """Thirty commands, each ten times: what proves a floor are thirty answers, not three hundred."""
    many = llm(lambda n: True)
    repeated = tuple(a._replace(block=f"text {n % 30}") for n, a in enumerate(many.answers))
    assert decide_llm(many, None, PARAMS).verdict == "promote"
    decision = decide_llm(replace(many, answers=repeated), None, PARAMS)
    assert decision.verdict == "hold"
    assert "100.00% (n 300, at least 90.50%" in decision.reasons[1]  # 0.05 ** (1 / 30)


def test_the_same_sentence_by_every_voice_is_one_trial():
    by_all = road(3)
    sentences = tuple(a._replace(reference=a.id.partition("-")[2]) for a in by_all.answers)
    assert decide_asr(asr(answers=calm(), road=by_all), None, PARAMS).verdict == "promote"
    assert decide_asr(asr(answers=calm(), road=Road(sentences)), None, PARAMS).verdict == "hold"


def test_one_voice_alone_is_said_to_be_one():
    alone = tuple(a._replace(block="me") for a in calm(2, 2))
    decision = decide_asr(asr(answers=alone), None, PARAMS)
    assert decision.verdict == "promote"
    assert any("CER, unseen voices: 0.07% (n 300, one voice, at most" in r for r in decision.reasons)


def test_more_confidence_asks_for_more_proof():
    sure = PARAMS.model_copy(update={"floor_confidence": 0.99})
    decision = decide_llm(llm(lambda n: n < 292), None, sure)
    assert decision.verdict == "hold" and "with 99% confidence" in decision.reasons[1]


def test_out_of_domain_is_judged_only_where_there_is_such_a_slice():
    decision = decide_asr(asr(answers=calm()), None, PARAMS)
    assert decision.verdict == "promote"
    assert "CER, out of domain: the corpus has no split test_ood, so not judged" in decision.reasons


def test_floors_that_ask_nothing_are_kept_by_any_model_on_any_test_set():
    """The quick road: twelve commands, four voices, models that know nothing."""
    bad = spoken(lambda split, s, n: 9 + s, speakers=8, each=2, units=9, unseen=4)
    silence = tuple(Change("v", WORDS, 0, 12, 9) for _ in range(12))
    poor = asr(
        answers=bad, silence=silence, joined=silence, outside=outside(1.4), road=road(2, voices=4, each=2)
    )
    assert decide_asr(poor, None, QUICK).verdict == "promote"
    assert decide_llm(llm(lambda n: False, lost=2, n=2), None, QUICK).verdict == "promote"
    assert decide_asr(replace(poor, outside=outside(2.1)), None, QUICK).verdict == "reject"


def test_a_broken_floor_rejects_even_a_challenger_better_than_the_champion():
    champion = asr(lambda split, s, n: 5)
    assert decide_asr(asr(road=road(30)), champion, LOOSE).verdict == "reject"


def test_an_unproven_floor_holds_even_a_challenger_better_than_the_champion_and_shows_both():
    decision = decide_asr(asr(road=road(6)), asr(lambda split, s, n: 5), LOOSE)
    assert decision.verdict == "hold" and "is not proven" in decision.reasons[1]
    assert any(reason.endswith("better (decide.margin 1.00%)") for reason in decision.reasons)
    assert len(decision.comparisons) == 3


@pytest.mark.parametrize(
    "decide, evidence", [(decide_asr, asr(answers=calm(), outside=outside(0.5))), (decide_llm, llm())]
)
def test_the_first_good_version_is_promoted_with_every_number(decide, evidence):
    decision = decide(evidence, None, PARAMS)
    assert decision.verdict == "promote"
    assert decision.reasons[0] == "every floor holds and no version serves yet"
    assert all(
        ("(n " in reason and "with 95% confidence" in reason) or "verification" in reason
        for reason in decision.reasons[1:]
    )


# challenger's edits per utterance against a champion's of n % 2
AGAINST_CHAMPION = {
    "the same": (lambda split, s, n: n % 2, "promote", "no worse"),
    "better everywhere": (lambda split, s, n: 0, "promote", "better than"),
    "worse everywhere": (lambda split, s, n: n % 2 + 1, "reject", "worse than the champion on all"),
    "noisy": (lambda split, s, n: 0 if s % 3 else 2, "hold", "cannot tell"),
    "worse for unseen voices alone": (
        lambda split, s, n: n % 2 if split == "test_sentences" else n % 2 + 1, "reject", "test_voices",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", AGAINST_CHAMPION)
def test_against_a_champion(case):
    errors_of, verdict, says = AGAINST_CHAMPION[case]
    decision = decide_asr(asr(errors_of), asr(), LOOSE)
    assert decision.verdict == verdict, decision.reasons
    assert says in decision.reasons[0]
    assert [c.name for c in decision.comparisons] == ["all test items", "test_sentences", "test_voices"]
    assert [c.difference.method for c in decision.comparisons][2] == "exact sign flip"
    json.dumps(decision.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("right", "verdict"),
    [
        (lambda n: True, "promote"),
        (lambda n: n % 40 != 0, "promote"),
        (lambda n: n % 40 != 1, "hold"),
        (lambda n: n % 20 != 0, "reject"),
    ],
)
def test_a_language_model_against_a_champion(right, verdict):
    low = PARAMS.model_copy(update={"min_exact_match": 0.8})
    assert decide_llm(llm(right), llm(), low).verdict == verdict


def test_other_utterances_cannot_be_compared():
    champion = asr()
    other = replace(champion, answers=tuple(a._replace(reference="다른 문장") for a in champion.answers))
    with pytest.raises(ArtifactError, match="different items"):
        decide_asr(champion, other, LOOSE)
    with pytest.raises(ArtifactError, match="different items"):
        decide_asr(champion, replace(champion, answers=champion.answers[1:]), LOOSE)

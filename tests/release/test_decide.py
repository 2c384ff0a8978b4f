"""The gate as a table: evidence in, verdict and reasons out."""

import json
from dataclasses import replace

import pytest

from tasks.errors import ArtifactError
from tasks.params import load
from tasks.release.decide import Answer, AsrEvidence, LlmEvidence, Road, decide_asr, decide_llm

PARAMS = load().decide


def spoken(errors_of, speakers=20, each=10):
    """Answers of `speakers` known and 8 unseen voices; `errors_of(split, speaker, n)` gives the edits."""
    return tuple(
        Answer(split, f"{split}-{s}-{n}", f"{split}-{s}", "참고 문장", errors_of(split, s, n), 20)
        for split, count in (("test_sentences", speakers), ("test_voices", 8))
        for s in range(count)
        for n in range(each)
    )


def asr(errors_of=lambda split, s, n: n % 2, **changes):
    good = {
        "artifact": "a" * 64, "normaliser": "ko-1", "cer_unseen_sentences": 0.03, "cer_unseen_voices": 0.06,
        "cer_with_silence": 0.035, "cer_joined": 0.04, "answers": spoken(errors_of), "road": Road(0.9, 0.9),
    }  # fmt: skip
    return AsrEvidence(**good | changes)


def llm(right=lambda n: n % 40 != 0, **changes):
    answers = tuple(Answer("test", f"e{n}", f"e{n}", "{}", 0 if right(n) else 1, 1) for n in range(300))
    good = {
        "artifact": "b" * 64, "quantisation": "Q8_0", "exact_match": 0.97, "exact_match_merged": 0.975,
        "failed_checks": (), "answers": answers, "road": Road(0.9, 0.9),
    }  # fmt: skip
    return LlmEvidence(**good | changes)


ASR_FLOORS = {
    "CER, unseen sentences: 5.00% is over 4.00%": {"cer_unseen_sentences": 0.05, "cer_with_silence": 0.05},
    "CER, unseen voices: 9.00% is over 8.00%": {"cer_unseen_voices": 0.09},
    "CER added by silence: 1.50% is over 1.00%": {"cer_with_silence": 0.045},
    "CER added by joining: 3.00% is over 2.00%": {"cer_joined": 0.06},
    "spoken command to tool call, unseen voices: 50.00% is under 85.00%": {"road": Road(0.9, 0.5)},
    "CER, out of domain: 85.00% is over 80.00%": {"cer_ood": 0.85},
    "CER, unseen voices: nan% is over 8.00%": {"cer_unseen_voices": float("nan")},
}


@pytest.mark.parametrize("says", ASR_FLOORS)
def test_a_broken_floor_of_the_recogniser_rejects(says):
    decision = decide_asr(asr(**ASR_FLOORS[says]), None, PARAMS)
    assert decision.verdict == "reject"
    assert decision.reasons[0] == "1 of 6 floors is broken"
    assert decision.reasons[1].startswith(says)
    assert "(decide." in decision.reasons[1]


def test_out_of_domain_is_judged_only_where_there_is_such_a_slice():
    without, within = decide_asr(asr(), None, PARAMS), decide_asr(asr(cer_ood=0.8), None, PARAMS)
    assert without.verdict == within.verdict == "promote"
    assert "CER, out of domain: the corpus has no split test_ood, so not judged" in without.reasons
    assert "CER, out of domain: 80.00% ≤ 80.00% (decide.max_cer_ood)" in within.reasons


LLM_FLOORS = {
    "publishing refused: verification failed: tokens differ": {"failed_checks": ("tokens differ",)},
    "exact match, Q8_0: 90.00% is under 95.00%": {"exact_match": 0.9, "exact_match_merged": 0.9},
    "exact match lost by Q8_0 against the merged model: 2.00% is over 1.00%": {
        "exact_match": 0.96, "exact_match_merged": 0.98,
    },
    "spoken command to tool call, unseen voices: 84.00% is under 85.00%": {"road": Road(0.9, 0.84)},
}  # fmt: skip


@pytest.mark.parametrize("says", LLM_FLOORS)
def test_a_broken_floor_of_the_language_model_rejects(says):
    decision = decide_llm(llm(**LLM_FLOORS[says]), None, PARAMS)
    assert decision.verdict == "reject"
    assert decision.reasons[1].startswith(says)


def test_a_floor_rejects_even_a_challenger_better_than_the_champion():
    champion = asr(lambda split, s, n: 5)
    assert decide_asr(asr(cer_unseen_voices=0.5), champion, PARAMS).verdict == "reject"


@pytest.mark.parametrize("decide, evidence", [(decide_asr, asr(cer_ood=0.5)), (decide_llm, llm())])
def test_the_first_good_version_is_promoted_with_every_number(decide, evidence):
    decision = decide(evidence, None, PARAMS)
    assert decision.verdict == "promote"
    assert decision.reasons[0] == "every floor holds and no version serves yet"
    assert all(
        any(c.isdigit() for c in reason) or "verification" in reason for reason in decision.reasons[1:]
    )


def test_a_road_that_was_not_measured_is_said_and_not_judged():
    decision = decide_asr(asr(road=None), None, PARAMS)
    assert decision.verdict == "promote"
    assert any("not measured" in reason for reason in decision.reasons)


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
    decision = decide_asr(asr(errors_of), asr(), PARAMS)
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
    assert decide_llm(llm(right), llm(), PARAMS).verdict == verdict


def test_other_utterances_cannot_be_compared():
    champion = asr()
    other = replace(champion, answers=tuple(a._replace(reference="다른 문장") for a in champion.answers))
    with pytest.raises(ArtifactError, match="different items"):
        decide_asr(champion, other, PARAMS)
    with pytest.raises(ArtifactError, match="different items"):
        decide_asr(champion, replace(champion, answers=champion.answers[1:]), PARAMS)

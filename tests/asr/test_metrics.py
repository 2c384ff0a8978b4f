"""Error rates and alignments, as tables."""

import pytest

from tasks.asr.quality.metrics import (
    EditCounts,
    align,
    cer,
    edit_counts,
    heard_words,
    respaced,
    space_normalised_wer,
    wer,
)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("거실 불", "거실 불", EditCounts(0, 0, 0, 4)),
        ("거실", "거실불", EditCounts(0, 0, 1, 2)),
        ("거실불", "실불", EditCounts(0, 1, 0, 3)),
        ("켜 줘", "꺼 줘", EditCounts(1, 0, 0, 3)),
        ("", "가", EditCounts(0, 0, 1, 0)),
    ],
)
def test_edit_counts(reference: str, hypothesis: str, expected: EditCounts) -> None:
    assert edit_counts(reference, hypothesis) == expected


def test_words_are_counted_as_words() -> None:
    assert edit_counts(["거실", "불", "켜"], ["거실", "불", "꺼", "줘"]) == EditCounts(1, 0, 1, 3)


def test_rates_are_pooled_not_averaged() -> None:
    # One of one wrong and none of nine wrong: 10% pooled, 50% if the rates were averaged.
    assert cer(["가", "나다라마바사아자차"], ["거", "나다라마바사아자차"]) == pytest.approx(0.1)


def test_spaces_count_only_on_request() -> None:
    assert cer(["불 켜 줘"], ["불켜줘"]) == 0.0
    assert cer(["불 켜 줘"], ["불켜줘"], spaces=True) == pytest.approx(2 / 5)
    assert wer(["불 켜 줘"], ["불켜줘"]) == pytest.approx(1.0)


def test_rates_can_exceed_one() -> None:
    assert cer(["가"], ["나다라"]) == pytest.approx(3.0)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        cer([""], ["가"])
    with pytest.raises(ValueError, match="references"):
        cer(["가"], [])


def test_alignment_runs() -> None:
    steps = [(step.operation, step.reference, step.hypothesis) for step in align("불 켜 줘", "불 꺼 줘요")]
    assert steps == [
        ("equal", "불 ", "불 "),
        ("replace", "켜", "꺼"),
        ("equal", " 줘", " 줘"),
        ("insert", "", "요"),
    ]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words"),
    [
        ("거실 불 켜 줘", "거실불 켜줘", ["거실", "불", "켜", "줘"]),
        ("거실 불 켜 줘", "거 실 불켜 줘", ["거실", "불", "켜", "줘"]),
        ("거실 불 켜 줘", "거실 불 꺼줘", ["거실", "불", "꺼", "줘"]),  # a substitution keeps its word
        ("거실 불 켜 줘", "거실 켜 줘", ["거실", "", "켜", "줘"]),  # a word that nobody heard
        ("거실 불 켜 줘", "음거실 불 켜 줘요", ["음거실", "불", "켜", "줘요"]),  # insertions at both ends
        ("불을 꺼", "불을좀 꺼", ["불을좀", "꺼"]),  # an insertion goes to the word before it
        ("불 꺼", "", ["", ""]),
    ],
)
def test_what_was_heard_for_each_word(reference: str, hypothesis: str, words: list[str]) -> None:
    assert heard_words(reference, hypothesis) == words
    assert respaced(reference, hypothesis) == " ".join(word for word in words if word)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "plain", "normalised"),
    [
        ("거실 불 켜 줘", "거실불 켜줘", 1.0, 0.0),  # spacing alone
        ("거실 불 켜 줘", "거실 불 꺼줘", 2 / 4, 1 / 4),  # one word misheard and glued to another
        ("거실 불 켜 줘", "거실 켜 줘", 1 / 4, 1 / 4),
        ("할 수 있어", "할수있어요", 1.0, 1 / 3),
    ],
)
def test_space_normalised_wer(reference: str, hypothesis: str, plain: float, normalised: float) -> None:
    assert wer([reference], [hypothesis]) == pytest.approx(plain)
    assert space_normalised_wer([reference], [hypothesis]) == pytest.approx(normalised)


def test_space_normalised_wer_is_pooled_and_never_changes_the_letters() -> None:
    references, hypotheses = ["불", "거실 등 꺼 줘"], ["물", "거실등꺼줘"]
    assert space_normalised_wer(references, hypotheses) == pytest.approx(1 / 5)
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        assert respaced(reference, hypothesis).replace(" ", "") == hypothesis.replace(" ", "")
    assert respaced("", "불 꺼") == "불 꺼"

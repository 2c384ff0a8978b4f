"""Error rates and alignments, as tables."""

import pytest

from tasks.asr.metrics import EditCounts, align, cer, edit_counts, wer


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

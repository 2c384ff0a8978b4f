"""Two recognisers on the same utterances: what the words of the verdict mean, and when none can be given."""

import numpy as np
import pandas as pd
import pytest

from tasks.asr.quality import intervals
from tasks.asr.quality.intervals import rate_interval, rate_intervals, resampled_rates
from tasks.release.paired import blocks_needed, compare_recognisers
from tasks.release.significance import paired_difference


def table(edits: list[int], speakers: int) -> pd.DataFrame:
    count = len(edits)
    return pd.DataFrame(
        {
            "row": range(1, count + 1),
            "reference": "가나다라마바사아자차",
            "characters": 10,
            "edits": edits,
            "block": [f"s{number % speakers}" for number in range(count)],
        }
    )


def compared(first: list[int], second: list[int], speakers: int) -> dict[str, object]:
    one, other = table(first, speakers), table(second, speakers)
    return compare_recognisers(one, other, block="speaker", confidence=0.95, resamples=2000)


def test_the_verdict_is_of_the_second_by_the_side_of_zero_that_the_interval_lies_on() -> None:
    twenty = [2, 3] * 20
    for speakers in (10, 20):  # the exact test, and the bootstrap
        assert compared(twenty, [0] * 40, speakers)["verdict"] == "better"
        assert compared([0] * 40, twenty, speakers)["verdict"] == "worse"
        mixed = [number % 5 for number in range(40)]
        assert compared(mixed, mixed[::-1], speakers)["verdict"] == "no difference shown"
        same = compared(twenty, twenty, speakers)
        assert (same["difference"], same["p"], same["verdict"]) == (0.0, 1.0, "no difference shown")


def test_the_numbers_are_those_of_the_gate() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.integers(0, 6, 60).tolist(), rng.integers(0, 5, 60).tolist()
    found = compared(first, second, 15)
    gate = paired_difference(
        second, first, [10] * 60, table(first, 15)["block"].tolist(), confidence=0.95, resamples=2000
    )
    assert (found["difference"], found["interval"], found["p"]) == (gate.value, [gate.low, gate.high], gate.p)
    assert found["second"] - found["first"] == pytest.approx(gate.value)  # type: ignore[operator]


@pytest.mark.parametrize(("confidence", "needed"), [(0.9, 5), (0.95, 6), (0.99, 8)])
def test_as_many_speakers_as_are_said_to_be_needed_can_show_a_difference(
    confidence: float, needed: int
) -> None:
    assert blocks_needed(confidence) == needed
    for speakers, verdict in ((needed - 1, "no difference shown"), (needed, "worse")):
        one, other = table([0] * 40, speakers), table([9] * 40, speakers)
        found = compare_recognisers(one, other, block="speaker", confidence=confidence, resamples=2000)
        assert found["verdict"] == verdict and bool(found["notes"]) == (speakers < needed)


def test_one_speaker_alone_is_said_to_be_one() -> None:
    assert "1 speaker can never show" in str(compared([0] * 4, [9] * 4, 1)["notes"])


def test_tables_of_other_items_are_not_compared() -> None:
    one, other = table([0] * 4, 2), table([0] * 4, 2).iloc[1:]
    with pytest.raises(ValueError, match="same items"):
        compare_recognisers(one, other, block="speaker", confidence=0.95, resamples=2000)


def test_several_rates_by_the_same_draws_are_each_what_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    errors, units = rng.integers(0, 5, (70, 3)).astype(float), rng.integers(5, 9, (70, 3)).astype(float)
    blocks = [f"s{number}" for number in rng.integers(0, 12, 70)]
    alone = [
        rate_interval(
            errors[:, rate].tolist(), units[:, rate].tolist(), blocks, confidence=0.9, resamples=500, seed=2
        )
        for rate in range(3)
    ]
    assert rate_intervals(errors, units, blocks, confidence=0.9, resamples=500, seed=2) == alone
    assert rate_intervals(errors, units, ["s"] * 70, confidence=0.9, resamples=500) is None
    whole = resampled_rates(errors[:, 0], units[:, 0], resamples=500, seed=2)
    monkeypatch.setattr(intervals, "_DRAWN_AT_ONCE", 7 * 70)  # drawn in pieces, as for many blocks
    assert np.array_equal(resampled_rates(errors[:, 0], units[:, 0], resamples=500, seed=2), whole)

"""Slices, their intervals, and jamo confusions, on tables small enough to count by hand."""

import numpy as np
import pandas as pd
import pytest

from tasks.asr.quality.intervals import rate_interval
from tasks.asr.quality.jamo import confusions, counts, place_and_letter
from tasks.asr.quality.slices import slices
from tasks.settings import EvaluateAsr

PARAMS = EvaluateAsr(
    silence_s=1.0,
    joined=3,
    batch_seconds=20.0,
    length_bounds_s=(2.0, 4.0),
    snr_bounds_db=(15.0, 25.0),
    confidence=0.95,
    resamples=1000,
)
NONE = float("nan")
# condition, split, speaker, snr, seconds, kind, said, heard
ROWS = (
    ("plain", "test_sentences", "a", NONE, 1.0, "", "가나 다라", "가나다라"),
    ("plain", "test_sentences", "b", 10.0, 2.0, "", "마바 사아", "마바 사"),
    ("plain", "test_voices", "c", 15.0, 3.9, "", "자차카타", "자차카하"),
    ("plain", "test_voices", "d", 30.0, 4.0, "", "파하", "파하"),
    ("silence", "test_sentences", "a", NONE, 3.0, "", "가나 다라", ""),
    ("joined", "test_voices", "c", NONE, 8.0, "", "자차 카타", "자차 카타"),
    ("plain", "test_ood", "a", 5.0, 2.0, "hum", "꽃이 없어", "곳이 업서"),
    ("plain", "test_ood", "c", NONE, 2.0, "quiet", "싫어", ""),
)


def table(rows: tuple = ROWS) -> pd.DataFrame:
    names = ["condition", "split", "speaker", "snr_db", "duration_s", "ood_kind", "reference", "hypothesis"]
    ids = [f"u{number}" for number in range(len(rows))]
    return pd.DataFrame(rows, columns=names).assign(greedy=lambda frame: frame["reference"], utterance_id=ids)


def test_every_utterance_is_in_the_slices_that_it_belongs_to() -> None:
    found = {(row["group"], row["slice"]): row for row in slices(table(), PARAMS)}
    assert {key: row["utterances"] for key, row in found.items() if key[0] != "speaker"} == {
        ("domain", "known voices"): 2,
        ("domain", "unseen voices"): 2,
        ("domain", "out of domain"): 2,
        ("noise", "clean"): 1,
        ("noise", "noise, under 15 dB"): 1,
        ("noise", "noise, 15 to 25 dB"): 1,
        ("noise", "noise, 25 dB and more"): 1,
        ("length", "under 2 s"): 1,
        ("length", "2 to 4 s"): 2,
        ("length", "4 s and more"): 1,
        ("condition", "silence"): 1,
        ("condition", "joined"): 1,
        ("out of domain", "hum"): 1,
        ("out of domain", "quiet"): 1,
        ("out of domain", "by known voices"): 1,
        ("out of domain", "by unseen voices"): 1,
    }
    assert {key[1] for key in found if key[0] == "speaker"} == {"a", "b", "c", "d"}
    known = found["domain", "known voices"]
    assert known["cer"] == pytest.approx(1 / 8) and known["cer_greedy"] == 0.0
    assert known["cer_with_spaces"] == pytest.approx(2 / 10)
    assert known["wer"] == pytest.approx(3 / 4)
    assert known["wer_space_normalised"] == pytest.approx(1 / 4)
    assert (known["speakers"], known["characters"], known["seconds"]) == (2, 8, 3.0)
    assert found["condition", "silence"]["cer"] == 1.0
    assert found["speaker", "a"]["cer"] == 0.0  # what a says out of domain is not in it
    assert found["speaker", "a"]["cer_interval"] is None  # one speaker tells nothing of others


def test_without_an_out_of_domain_split_there_is_no_such_slice() -> None:
    rows = tuple(row for row in ROWS if row[1] != "test_ood")
    assert not [row for row in slices(table(rows), PARAMS) if "domain" in row["slice"] + row["group"][:3]]


def test_speakers_are_drawn_not_utterances() -> None:
    # Two speakers, one all right and one all wrong, ten utterances each: drawing speakers gives 0, 1/2 or 1.
    errors, blocks = [0.0] * 10 + [4.0] * 10, ["a"] * 10 + ["b"] * 10
    options = {"confidence": 0.95, "resamples": 2000}
    assert rate_interval(errors, [4.0] * 20, blocks, **options) == (0.0, 1.0)
    low, high = rate_interval(errors, [4.0] * 20, [str(n) for n in range(20)], **options)
    assert 0.2 < low < 0.4 and 0.6 < high < 0.8
    assert rate_interval(errors, [4.0] * 20, blocks, **options) == rate_interval(
        errors[::-1], [4.0] * 20, blocks[::-1], **options
    )
    assert rate_interval(errors, [4.0] * 20, ["a"] * 20, **options) is None


def test_intervals_of_slices_draw_speakers() -> None:
    said = ("plain", "test_sentences")
    rows = tuple((*said, "a", NONE, 1.0, "", "가나", "가나") for _ in range(10))
    rows += tuple((*said, "b", NONE, 1.0, "", "가나", "") for _ in range(10))
    known = next(row for row in slices(table(rows), PARAMS) if row["slice"] == "known voices")
    assert (known["cer"], known["cer_interval"]) == (0.5, [0.0, 1.0])


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Forty speakers with rates of their own around 20%, many times: a 90% interval holds it in most of them."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        rates = rng.beta(4, 16, 40)
        errors = rng.binomial(50, rates).astype(float).tolist()
        low, high = rate_interval(
            errors, [50.0] * 40, [str(n) for n in range(40)], confidence=0.9, resamples=300
        )
        held += low <= 0.2 <= high
    assert 0.82 < held / 200 < 0.96


def test_slices_out_of_domain_are_wrong_as_counted() -> None:
    rows = {row["slice"]: row for row in slices(table(), PARAMS)}
    assert rows["hum"]["cer"] == pytest.approx(3 / 4)  # 꽃 as 곳, 없어 as 업서
    assert rows["out of domain"]["cer"] == pytest.approx(5 / 6)
    assert rows["out of domain"]["worst"] == ["u7", "u6"]  # the worst first
    assert rows["unseen voices"]["worst"] == ["u2"]  # no utterance that was heard right
    low, high = rows["out of domain"]["cer_interval"]
    assert (low, high) == (pytest.approx(3 / 4), 1.0)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("불 켜", "물 켜", [("substitution", "initial", "ㅂ", "ㅁ")]),
        ("불 켜", "벌 켜", [("substitution", "medial", "ㅜ", "ㅓ")]),
        ("불 켜", "분 켜", [("substitution", "final", "ㄹ", "ㄴ")]),
        ("불 켜", "부 켜", [("deletion", "final", "ㄹ", "")]),
        ("부 켜", "불 켜", [("insertion", "final", "", "ㄹ")]),
        ("값", "갑", [("substitution", "final", "ㅄ", "ㅂ")]),
        ("불 켜", "불켜", []),  # spaces are no jamo
        ("", "아", [("insertion", "initial", "", "ㅇ"), ("insertion", "medial", "", "ㅏ")]),
    ],
)
def test_jamo_confusions(reference: str, hypothesis: str, expected: list) -> None:
    found = confusions([reference], [hypothesis])
    assert sorted((row["kind"], row["place"], row["said"], row["heard"]) for row in found) == sorted(expected)


def test_confusions_are_counted_rated_and_shown_by_example() -> None:
    references = ["부엌 불 켜", "불 꺼", "각각"]
    found = confusions(references, ["부엌 물 켜", "물 꺼", "가각"])
    first, second = found
    assert (first["said"], first["heard"], first["n"]) == ("ㅂ", "ㅁ", 2)
    assert first["rate"] == pytest.approx(2 / 3)  # ㅂ was said three times at the start of a syllable
    assert first["example"] == {"said": "불", "heard": "물"}
    assert (second["kind"], second["place"], second["said"]) == ("deletion", "final", "ㄱ")
    assert second["rate"] == pytest.approx(1 / 2)  # two of the finals are ㄱ; ㄱ at the start is another jamo
    assert confusions(references, ["부엌 물 켜", "물 꺼", "가각"], limit=1) == [first]


def test_all_confusions_within_a_place_are_counted_for_the_picture() -> None:
    found = counts(["부엌 불 켜", "불 꺼", "각각"], ["부엌 물 켜", "물 꺼", "가각을"])
    assert [tuple(row.values()) for row in found] == [
        ("initial", "ㅂ", "ㅁ", 2, 3),
        ("final", "ㄱ", "", 1, 2),
    ]


@pytest.mark.parametrize(
    ("jamo", "expected"),
    [
        ("\u1100", ("initial", "ㄱ")),
        ("\u1112", ("initial", "ㅎ")),
        ("\u1161", ("medial", "ㅏ")),
        ("\u1175", ("medial", "ㅣ")),
        ("\u11a8", ("final", "ㄱ")),
        ("\u11b9", ("final", "ㅄ")),
        ("\u11c2", ("final", "ㅎ")),
        ("a", ("other", "a")),
    ],
)
def test_places_of_jamo(jamo: str, expected: tuple) -> None:
    assert place_and_letter(jamo) == expected

"""Tables for the pure parts of the report: alignment, confusion, charts."""

import json
import math
import re

import pytest

from tasks.asr.quality.metrics import edit_counts
from tasks.data.chart_parts import WIDTH, axis
from tasks.data.charts import Point, Series, heat_map, histogram, lines, scatter
from tasks.report.confusion import argument_errors, confuse, tool_called
from tasks.report.jamo_map import jamo_maps
from tasks.report.marks import Pair, aligned_words, summary

ALIGNED = [
    ("불 켜 줘", "불 켜 줘", [["불"], ["켜"], ["줘"]], "no errors"),
    ("불 켜 줘", "물 켜 줘", [["replace 불 물"], ["켜"], ["줘"]], "1 substitution"),
    ("거실 불 켜 줘", "거 불 켜 줘", [["거", "delete 실 "], ["불"], ["켜"], ["줘"]], "1 deletion"),
    ("불 켜 줘", "불을 켜 줘", [["불", "insert  을"], ["켜"], ["줘"]], "1 insertion"),
    ("불 켜 줘", "불켜줘", [["불"], ["켜"], ["줘"]], "no errors"),
    ("불 켜 줘", "", [["delete 불 "], ["delete 켜 "], ["delete 줘 "]], "3 deletions"),
    ("네", "아네", [["insert  아", "네"]], "1 insertion"),
]


@pytest.mark.parametrize(("reference", "hypothesis", "words", "told"), ALIGNED)
def test_alignment(reference: str, hypothesis: str, words: list, told: str) -> None:
    def pair(written: str) -> Pair:
        kind, *rest = written.split(" ")
        return Pair(kind, *rest) if rest else Pair("equal", kind, kind)

    assert aligned_words(reference, hypothesis) == [[pair(one) for one in word] for word in words]
    assert summary(aligned_words(reference, hypothesis)) == told


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("거실 불 좀 켜 줘", "거질 부를 켜줘요"),
        ("내일 아침 일곱 시에", "내이 라침 일고 씨에"),
        ("가 나 다 라", "라 다 나 가 마"),
    ],
)
def test_marks_are_as_many_as_the_edits_behind_the_rate(reference: str, hypothesis: str) -> None:
    columns = [pair for word in aligned_words(reference, hypothesis) for pair in word]
    counted = edit_counts(reference.replace(" ", ""), hypothesis.replace(" ", ""))
    assert sum(pair.kind != "equal" for pair in columns) == counted.edits
    assert "".join(pair.said for pair in columns) == reference.replace(" ", "")
    assert "".join(pair.heard for pair in columns) == hypothesis.replace(" ", "")


def sample(meant: dict, answer: str, exact: bool = False) -> dict:
    return {"reference": json.dumps(meant), "hypothesis": answer, "exact": exact}


LIGHT = {"name": "light", "arguments": {"room": "거실", "power": "on"}}
ALARM = {"name": "alarm", "arguments": {"hour": 7}}


@pytest.mark.parametrize(
    ("answer", "tool"),
    [
        (json.dumps(LIGHT), "light"),
        (f"  {json.dumps(ALARM)}\n", "alarm"),
        ("", "unparsable"),
        ("{", "unparsable"),
        ('{"name": "rocket", "arguments": {}}', "unparsable"),
        ('{"name": ["light"]}', "unparsable"),
        ("[1]", "unparsable"),
        ("null", "unparsable"),
        (json.dumps(LIGHT) + " and more", "unparsable"),
    ],
)
def test_tool_called(answer: str, tool: str) -> None:
    assert tool_called(answer, ["light", "alarm"]) == tool


def test_confusion_and_argument_errors() -> None:
    samples = [
        sample(LIGHT, json.dumps(LIGHT), exact=True),
        sample(LIGHT, json.dumps({"name": "light", "arguments": {"room": "안방", "power": "on"}})),
        sample(LIGHT, json.dumps({"name": "light", "arguments": {"room": "거실"}})),
        sample(LIGHT, json.dumps(ALARM)),
        sample(ALARM, "sorry"),
        sample(ALARM, json.dumps({"name": "alarm", "arguments": {"hour": "7"}})),
        sample(ALARM, json.dumps({"name": "alarm", "arguments": "7"})),
    ]
    assert confuse(samples) == {
        "tools": ["alarm", "light"],
        "rows": {"alarm": {"unparsable": 1, "alarm": 2}, "light": {"light": 3, "alarm": 1}},
        "exact": {"alarm": 0, "light": 1},
        "n": 7,
    }
    assert argument_errors(samples) == [
        {"tool": "alarm", "argument": "hour", "n": 2, "examples": ['7 → "7"', "7 → –"]},
        {"tool": "light", "argument": "power", "n": 1, "examples": ['"on" → –']},
        {"tool": "light", "argument": "room", "n": 1, "examples": ['"거실" → "안방"']},
    ]


@pytest.mark.parametrize(
    "values", [[0.0, 1.0], [0.003, 0.004], [5.0], [0.0], [-3.0, 12.0], [1e6, 5e6], [0.1 + 0.2]]
)
@pytest.mark.parametrize("zero", [True, False])
def test_axis_covers_its_values_with_few_round_ticks(values: list[float], zero: bool) -> None:
    scale = axis(values, zero=zero)
    assert scale.low <= min(values) + 1e-9 and scale.high >= max(values) - 1e-9
    assert 2 <= len(scale.ticks) <= 8
    assert all(0 <= scale.share(value) <= 1 + 1e-9 for value in values)
    assert all(math.isfinite(tick) for tick in scale.ticks)


def test_charts_of_nothing_say_so() -> None:
    for chart in (
        histogram([], [], label="x", x_name="x", unit="s"),
        scatter([], label="x", x_label="a", y_label="b"),
        lines([Series("one", [])], label="x", x_label="a", y_label="b"),
        heat_map([], [], label="x", x_label="a", y_label="b", share="of all"),
    ):
        assert "Nothing to show" in chart and "<svg" not in chart


@pytest.mark.parametrize("end", [10, 3_000, 250_000])
def test_no_number_of_the_axis_is_cut_at_the_edge(end: int) -> None:
    chart = lines([Series("one", [(0, 1.0), (end, 2.0)])], label="x", x_label="a", y_label="b")
    ticks = re.findall(r'class="tick" x="([\d.]+)" y="[\d.]+" text-anchor="(\w+)">([^<]+)<', chart)
    assert len(ticks) > 4
    for x, anchor, text in ticks:
        room = {"middle": WIDTH - float(x), "end": WIDTH - float(x) + 7 * len(text)}[anchor]
        assert room >= 3.5 * len(text), f"{text} at {x}"


def test_names_in_charts_are_escaped() -> None:
    chart = scatter([Point("<script>", 1, 2), Point("b", 1, 2)], label='"quoted"', x_label="<x>", y_label="&")
    assert "<script>" not in chart and "&lt;script&gt;" in chart
    assert "&#34;quoted&#34;" in chart


def test_a_heat_map_is_darkest_where_most_goes_wrong() -> None:
    rows = [("ㄱ", "ㅋ", 1, 10), ("ㄱ", "", 4, 10), ("ㅂ", "ㅍ", 9, 10)]
    counts = [
        {"place": "initial", "said": said, "heard": heard, "n": n, "of": of} for said, heard, n, of in rows
    ]
    ((caption, picture),) = jamo_maps({"in_domain": counts, "out_of_domain": []})
    assert caption == "Initial consonants, in domain"
    cells = re.findall(r'heat" x="([\d.]+)" y="([\d.]+)" .*?fill-opacity="([\d.]+)"><title>([^<]+)<', picture)
    assert [told for *_, told in cells] == [
        "ㄱ heard as ㅋ: 1 of 10 (10%)", "ㄱ left out: 4 of 10 (40%)", "ㅂ heard as ㅍ: 9 of 10 (90%)",
    ]  # fmt: skip
    assert [float(opacity) for *_, opacity, _ in cells] == sorted(float(opacity) for *_, opacity, _ in cells)
    across, down = [float(x) for x, *_ in cells], [float(y) for _, y, *_ in cells]
    assert across[0] < across[2] < across[1] and down[0] == down[1] < down[2]

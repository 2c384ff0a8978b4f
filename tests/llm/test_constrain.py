"""What a command can mean at all, and the tree of tokens that decoding walks."""

import json

import pytest

from tasks.data.grammar import TOOLS
from tasks.llm.chat import Tools, parse_tool_call, render_tool_call
from tasks.llm.constrain import Choices, possible_answers
from tests import tiny_llm

BUILTIN = Tools(TOOLS)


def named(written: str) -> dict[str, list[dict[str, object]]]:
    """Possible arguments by tool."""
    found: dict[str, list[dict[str, object]]] = {}
    for answer in possible_answers(written, BUILTIN) or []:
        call = json.loads(answer)
        found.setdefault(call["name"], []).append(call["arguments"])
    return found


def test_the_right_call_is_always_possible_and_all_are_valid() -> None:
    for row in tiny_llm.rows(400, seed=11):
        answers = possible_answers(row["written"], BUILTIN)
        assert answers is not None and render_tool_call(row["tool_call"]) in answers, row
        assert all(parse_tool_call(answer, BUILTIN) for answer in answers)
        assert len(set(answers)) == len(answers)


def test_arguments_copy_what_was_said() -> None:
    calls = named("거실 불 켜 줘")
    assert calls["set_light"] == [{"power": "on", "room": "거실"}, {"power": "off", "room": "거실"}]
    assert "set_channel" not in calls  # no number was said
    assert "query_weather" not in calls  # no city was said


def test_minutes_may_be_none_beside_an_hour() -> None:
    assert {"meridiem": "오후", "hour": 7, "minute": 0} in named("오후 7시에 알람 맞춰 줘")["set_alarm"]
    assert {"meridiem": "오후", "hour": 7, "minute": 30} in named("오후 7시 30분에 알람 맞춰 줘")["set_alarm"]


def test_what_was_named_is_not_ignored() -> None:
    assert all(call["room"] == "베란다" for call in named("베란다에서 재즈 들려 줘")["play_music"])
    assert any("room" not in call for call in named("재즈 들려 줘")["play_music"])


def test_a_misheard_value_is_still_found() -> None:
    calls = named("공긴청정기 꺼 줘")
    assert {"device": "공기청정기", "power": "off"} in calls["control_appliance"]


@pytest.mark.parametrize("kind", [{"type": "string"}, {"type": "object"}, {"type": "number"}])
def test_what_cannot_be_listed_is_left_free(kind: dict[str, str]) -> None:
    tools = Tools([{"name": "note", "parameters": {"type": "object", "properties": {"text": kind}}}])
    assert possible_answers("메모 남겨 줘", tools) is None


def test_choices_follow_forced_tokens_to_each_decision() -> None:
    choices = Choices([[1, 2, 3, 9], [1, 2, 4, 5, 9]])
    assert choices.forced() == [1, 2]
    assert sorted(choices.tokens) == [3, 4]
    choices.take(4)
    assert choices.forced() == [5, 9]
    assert choices.tokens == []
    with pytest.raises(KeyError):
        choices.take(7)

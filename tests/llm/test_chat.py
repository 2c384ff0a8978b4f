"""Prompts, answers and schemas."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.data.grammar import TOOLS
from tasks.errors import DataError
from tasks.inference.loading import load_tokenizer
from tasks.llm.chat import (
    SYSTEM,
    Tools,
    canonical,
    exact_match,
    parse_tool_call,
    render_prompt,
    render_tool_call,
)
from tasks.llm.metrics import judge, share_exact
from tasks.llm.rows import read_rows
from tests import tiny_llm

LIGHT = {"name": "set_light", "arguments": {"room": "거실", "power": "on"}}


@pytest.fixture(scope="module")
def tools() -> Tools:
    return Tools(TOOLS)


def test_prompt_is_the_chat_templates(base: Path) -> None:
    prompt = render_prompt(load_tokenizer(base), "거실 불 켜 줘")
    assert prompt == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n거실 불 켜 줘<|im_end|>\n<|im_start|>assistant\n"
    )


def test_answer_names_the_tool_first_and_reads_back(tools: Tools) -> None:
    text = render_tool_call(LIGHT)
    assert text == '{"name":"set_light","arguments":{"power":"on","room":"거실"}}'
    assert parse_tool_call(text, tools) == LIGHT


def test_every_call_of_the_grammar_survives_the_round_trip(tools: Tools) -> None:
    for row in tiny_llm.rows(300):
        assert exact_match(render_tool_call(row["tool_call"]), row["tool_call"], tools), row


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (canonical(LIGHT), True),
        ('  {"name": "set_light", "arguments": {"room": "거실", "power": "on"}}\n', True),
        ('{"name":"set_light","arguments":{"room":"안방","power":"on"}}', False),  # another room
        ('{"name":"set_light","arguments":{"room":"거실"}}', False),  # a required argument is missing
        ('{"name":"set_light","arguments":{"room":"거실","power":"maybe"}}', False),  # outside the enum
        ('{"name":"launch","arguments":{}}', False),  # no such tool
        ('{"name":"set_light","arguments":{"room":"거실","power":"on"},"why":1}', False),
        ('{"name":"set_light","arguments":{"room":"거실","power":"on"}} 네', False),
        ('["set_light"]', False),
        ("", False),
        ("거실 불을 켰어요", False),
    ],
)
def test_exact_match_is_strict(answer: str, right: bool, tools: Tools) -> None:
    assert exact_match(answer, LIGHT, tools) is right


def test_a_number_as_text_is_wrong(tools: Tools) -> None:
    call = {"name": "set_channel", "arguments": {"channel": 7}}
    assert exact_match('{"name":"set_channel","arguments":{"channel":7}}', call, tools)
    assert not exact_match('{"name":"set_channel","arguments":{"channel":"7"}}', call, tools)


@pytest.mark.parametrize(
    "definitions",
    [[], [{"type": "function"}], [{"name": "a", "parameters": {"type": "nonsense"}}], [TOOLS[0], TOOLS[0]]],
)
def test_bad_tools_are_refused(definitions: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match=r"tools\.json"):
        Tools(definitions)


def test_judging_counts_exact_answers(tools: Tools) -> None:
    row = {"id": "s1", "written": "거실 불 켜 줘", "intent": "set_light", "tool_call": LIGHT}
    judged = judge([row, row], [canonical(LIGHT), "?"], tools)
    assert [one.exact for one in judged] == [True, False]
    assert share_exact(judged) == 0.5


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "is empty"),
        ("{", "line 1 is not JSON"),
        ('{"id": "s1"}', "lacks intent, tool_call, written"),
        (
            json.dumps(
                {"id": "s1", "written": "a", "intent": "x", "tool_call": {"name": "x", "arguments": {}}}
            ),
            "there is no tool 'x'",
        ),
    ],
)
def test_a_bad_split_is_named_with_its_line(line: str, says: str, tools: Tools, tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        read_rows(path, tools)

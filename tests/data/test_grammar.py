import os
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import islice

import jsonschema
import pytest

from tasks.data.grammar import INTENTS, TOOLS, Command, canonical_json, commands, draw
from tasks.data.text import foreign_characters, normalise, unspaced

SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}


@pytest.fixture(scope="module")
def drawn() -> list[Command]:
    return draw(40_000, seed=1)


def test_forty_thousand_distinct_sentences_are_possible(drawn: list[Command]) -> None:
    assert len({unspaced(command.text) for command in drawn}) == 40_000


def test_a_sentence_means_one_tool_call_only(drawn: list[Command]) -> None:
    calls = defaultdict(set)
    for command in [*drawn, *draw(20_000, seed=2)]:
        calls[unspaced(command.text)].add(canonical_json(command.tool_call))
    assert [text for text, meant in calls.items() if len(meant) > 1] == []


def test_every_call_satisfies_its_schema(drawn: list[Command]) -> None:
    validators = {name: jsonschema.Draft202012Validator(schema) for name, schema in SCHEMAS.items()}
    for command in drawn[:6000]:
        assert set(command.tool_call) == {"name", "arguments"}
        validators[command.tool_call["name"]].validate(command.tool_call["arguments"])


def test_every_intent_and_every_enum_value_occurs(drawn: list[Command]) -> None:
    assert len(INTENTS) >= 8
    assert set(SCHEMAS) == set(INTENTS) == {command.intent for command in drawn}
    seen = defaultdict(set)
    for command in drawn:
        for key, value in command.tool_call["arguments"].items():
            seen[command.intent, key].add(value)
    for name, schema in SCHEMAS.items():
        for key, rule in schema["properties"].items():
            if "enum" in rule:
                assert seen[name, key] == set(rule["enum"]), (name, key)


def test_korean_values_are_copied_from_the_sentence(drawn: list[Command]) -> None:
    for command in drawn[:6000]:
        for value in command.tool_call["arguments"].values():
            if isinstance(value, str) and not value.isascii():
                assert value in command.text


def test_text_is_already_normal_and_only_hangul(drawn: list[Command]) -> None:
    for command in drawn[:6000]:
        assert normalise(command.text) == command.text
        assert foreign_characters(command.text) == []


def test_intents_are_balanced_and_manners_vary(drawn: list[Command]) -> None:
    counts = Counter(command.intent for command in drawn[:3000])
    assert min(counts.values()) >= 60
    for ending in ("줘", "주세요", "줄래", "주시겠어요", "줄 수 있어", "주십시오", "라"):
        assert any(
            command.text.endswith(" " + ending) or command.text.endswith(ending) for command in drawn[:3000]
        )
    assert any(command.text.startswith("음 ") for command in drawn[:3000])


def test_same_seed_same_sentences_whatever_the_hash_seed() -> None:
    program = "from tasks.data.grammar import draw; print([c.text for c in draw(200, 5)])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert outputs == {f"{[command.text for command in draw(200, 5)]}\n"}
    assert draw(200, 6) != draw(200, 5)


def test_drawing_is_lazy_and_a_longer_draw_begins_like_a_shorter_one() -> None:
    assert list(islice(commands(9), 5)) == draw(50, 9)[:5]

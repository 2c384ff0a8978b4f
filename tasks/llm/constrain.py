"""Which tool calls a command can mean at all: the choices that constrained decoding leaves to the model.

An answer must obey a tool's schema, and its arguments must be copied from the command: a number that was
not said, or a room that was not named, cannot be meant. The model still decides which tool is asked for,
which of the values said goes where, and what verbs mean (on or off, open or close). Pure; no command.

    string with an enum    the values that stand in the command; if none does, those that nearly do (a
                           recogniser misspells); a tool whose required value was not said is not meant.
                           Codes in Latin letters (on, off, open) are never said as they stand: all of them
    integer                the numbers that stand in the command and the schema allows; beside another
                           number also 0, for "nothing said" (seven o'clock: no minutes)
    optional argument      may be left out, unless a value of its enum stands in the command
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rapidfuzz import fuzz

from tasks.llm.chat import Tools, render_tool_call

MAX_CHOICES = 1_000
NEARLY_SAID = 80.0  # percent of a value's letters (jamo) found in order in one place of the command
_NUMBER = re.compile(r"\d+")
_ABSENT = object()


def possible_answers(written: str, tools: Tools) -> list[str] | None:
    """Every answer that the tools and the command allow, as the model writes it.

    Args:
        written: the command after the inverse normaliser.
        tools: definitions with their schemas.

    Returns:
        The answers, or None when they cannot be listed (a free string, a nested argument, too many): the
        model then answers freely.
    """
    numbers = sorted({int(found) for found in _NUMBER.findall(written)})
    answers: list[str] = []
    for name, schema in tools.schemas.items():
        calls = _calls(name, schema, written, numbers)
        if calls is None:
            return None
        answers += itertools.islice(calls, MAX_CHOICES + 1 - len(answers))
        if len(answers) > MAX_CHOICES:
            return None
    return answers or None


class Choices:
    """Token sequences as a tree that decoding walks down.

    Args:
        sequences: token ids of every allowed answer, each ending with the end-of-turn token.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self._here: dict[int, Any] = {}
        for sequence in sequences:
            node = self._here
            for token in sequence:
                node = node.setdefault(token, {})

    @property
    def tokens(self) -> list[int]:
        """What may come next; empty after the end."""
        return list(self._here)

    def take(self, token: int) -> None:
        """Goes on with one of `tokens`.

        Raises:
            KeyError: it is none of them.
        """
        self._here = self._here[token]

    def forced(self) -> list[int]:
        """Takes and returns the tokens that leave no choice, up to the next decision or the end."""
        taken = []
        while len(self._here) == 1:
            taken.append(next(iter(self._here)))
            self.take(taken[-1])
        return taken


def _calls(
    name: str, schema: Mapping[str, Any], written: str, numbers: Sequence[int]
) -> Iterator[str] | None:
    required = set(schema.get("required", ()))
    options: dict[str, list[Any]] = {}
    for key, kind in schema.get("properties", {}).items():
        values = _values(kind, written, numbers)
        if values is None:
            return None
        options[key] = values if key in required or _named(kind, written) else [_ABSENT, *values]
    return (
        render_tool_call({"name": name, "arguments": _arguments(tuple(options), values)})
        for values in itertools.product(*options.values())
    )


def _arguments(keys: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return {key: value for key, value in zip(keys, values, strict=True) if value is not _ABSENT}


def _values(kind: Mapping[str, Any], written: str, numbers: Sequence[int]) -> list[Any] | None:
    """What an argument can be; None if that cannot be listed."""
    if "enum" in kind:
        return _said([str(value) for value in kind["enum"]], written)
    if kind.get("type") == "integer":
        low, high = kind.get("minimum", 0), kind.get("maximum", float("inf"))
        said = sorted({0, *numbers}) if numbers else []
        return [number for number in said if low <= number <= high]
    if kind.get("type") == "boolean":
        return [False, True]
    return None


def _named(kind: Mapping[str, Any], written: str) -> bool:
    """Whether a value of the enum stands in the command as it is: what was said is not ignored."""
    return any(str(value) in written for value in kind.get("enum", ()))


def _said(values: Sequence[str], written: str) -> list[str]:
    if all(value.isascii() for value in values):
        return list(values)
    exact = [value for value in values if value in written]
    if exact:
        return exact
    letters = unicodedata.normalize("NFD", written)
    near = {value: fuzz.partial_ratio(unicodedata.normalize("NFD", value), letters) for value in values}
    return [value for value in values if near[value] >= NEARLY_SAID]

"""What the pre-training text must not share with the commands that the gate tests with. Pure.

A request is left out if it has three words in a row that a command of the built-in grammar has, or holds a
value of one of its tools or the name of a light. Counting words and units are everybody's.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import islice

from tasks.data.grammar import commands
from tasks.data.text import inverse_normalise
from tasks.data.vocabulary import COUNTERS, LIGHTS, TIMER_UNITS, TOOLS

WORDS_IN_A_ROW = 3
COMMANDS = 40_000  # far more than a corpus draws
_SEED = 20261101


def word_ngrams(text: str, length: int = WORDS_IN_A_ROW) -> set[tuple[str, ...]]:
    """Every `length` words in a row of a text."""
    parts = text.split()
    return {tuple(parts[start : start + length]) for start in range(len(parts) - length + 1)}


class KeptApart:
    """Commands' word n-grams and the built-in tools' values, and whether a text is free of them.

    Args:
        sentences: the commands as written.
    """

    def __init__(self, sentences: Iterable[str]) -> None:
        self.ngrams: set[tuple[str, ...]] = set()
        for sentence in sentences:
            self.ngrams |= word_ngrams(sentence)
        self.values = tool_values()

    def is_free(self, text: str) -> bool:
        """Whether the text shares nothing with them."""
        return not any(value in text for value in self.values) and self.ngrams.isdisjoint(word_ngrams(text))


@cache
def apart_from_builtin() -> KeptApart:
    """Apart from the commands of the built-in grammar, as spoken and as written."""
    drawn = islice(commands(_SEED), COMMANDS)
    return KeptApart({form for command in drawn for form in (command.text, inverse_normalise(command.text))})


def tool_values() -> tuple[str, ...]:
    """Every Korean value of the built-in tools of two syllables or more, counting words and units apart."""
    found = {*LIGHTS, *_enums()} - set(TIMER_UNITS) - set(COUNTERS)
    return tuple(sorted(value for value in found if len(value) > 1 and not value.isascii()))


def _enums() -> set[str]:
    properties = (tool["function"]["parameters"]["properties"].values() for tool in TOOLS)
    return {value for kinds in properties for kind in kinds for value in kind.get("enum", ())}

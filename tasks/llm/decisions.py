"""Where a model decides in its answer: under constrained decoding the rest of a completion is forced.

A command leaves few tool calls possible (`constrain.py`), so of thirty tokens one or two are decided. A
training's effort should go to those: `curriculum.py` judges by them what is hard, the loss can weigh them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tasks.llm.chat import Tools
from tasks.llm.constrain import Choices, possible_answers
from tasks.llm.packing import Example
from tasks.progress import Progress


def with_decisions(
    examples: Sequence[Example], rows: Sequence[dict[str, Any]], tools: Tools, tokenizer: Any
) -> list[Example]:
    """The examples with their `decisions`; where the possible answers cannot be listed, every place is one.

    Args:
        examples: with their `rows` of the prepared split, one for one.
    """
    found = []
    with Progress("find decisions", len(examples), "examples") as progress:
        for example, row in zip(examples, rows, strict=True):
            answers = possible_answers(row["written"], tools)
            if answers is None:
                places = tuple(range(len(example.completion)))
            else:
                said = [answer + tokenizer.eos_token for answer in answers]
                places = decisions(example.completion, tokenizer(said, add_special_tokens=False)["input_ids"])
            found.append(replace(example, decisions=places))
            progress.advance(1)
    return found


def decisions(completion: Sequence[int], answers: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The places in a completion at which the possible answers leave a choice.

    Args:
        completion: token ids of the right answer with its end-of-turn token.
        answers: the same of every possible answer; the right one counts as possible.
    """
    choices = Choices([completion, *answers])
    places = []
    for place, token in enumerate(completion):
        if len(choices.tokens) > 1:
            places.append(place)
        choices.take(token)
    return tuple(places)

"""Character alignment of a reference and a hypothesis, ready to be shown column by column. Pure.

Spaces are laid out as in the reference and never counted, as in the CER that the project reports first.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from tasks.asr.quality.metrics import align
from tasks.data.text import unspaced


class Pair(NamedTuple):
    """One column: the characters said and heard ("" for none); `kind` as in `tasks.asr.quality.metrics`."""

    kind: str
    said: str
    heard: str


def aligned_words(reference: str, hypothesis: str) -> list[list[Pair]]:
    """The words of the reference as lists of columns; an insertion stands in the word that it follows.

    The number of columns that are not "equal" is the number of edits behind the CER without spaces.
    """
    ends = set()
    length = 0
    for word in reference.split():
        length += len(word)
        ends.add(length)
    words: list[list[Pair]] = [[]]
    said = 0
    for pair in _pairs(unspaced(reference), unspaced(hypothesis)):
        if said in ends and pair.said and words[-1]:
            words.append([])
        words[-1].append(pair)
        said += bool(pair.said)
    return [word for word in words if word]


def summary(words: list[list[Pair]]) -> str:
    """The edits in words: "2 substitutions, 1 deletion"."""
    kinds = [pair.kind for word in words for pair in word]
    names = (("replace", "substitution"), ("delete", "deletion"), ("insert", "insertion"))
    told = [
        f"{kinds.count(kind)} {name}{'s' if kinds.count(kind) > 1 else ''}"
        for kind, name in names
        if kind in kinds
    ]
    return ", ".join(told) or "no errors"


def _pairs(reference: str, hypothesis: str) -> Iterator[Pair]:
    for run in align(reference, hypothesis):
        for said, heard in zip_longest(run.reference, run.hypothesis, fillvalue=""):
            kind = run.operation
            if kind == "replace" and not (said and heard):
                kind = "delete" if said else "insert"
            yield Pair(kind, said, heard)

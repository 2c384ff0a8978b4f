"""Error rates of recognition: CER and WER pooled over a corpus, and the alignment behind them. Pure; no
command.

Rates are (substitutions + deletions + insertions) / reference length, summed over utterances before
dividing. Texts are compared as given: normalise them first (`tasks.data.text.normalise`) and name the
normaliser beside every number.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple, cast

from rapidfuzz.distance import Levenshtein

Operation = Literal["equal", "replace", "delete", "insert"]


class EditCounts(NamedTuple):
    """Substitutions, deletions, insertions, and the number of reference symbols."""

    substitutions: int
    deletions: int
    insertions: int
    reference: int

    @property
    def edits(self) -> int:
        """All errors together."""
        return self.substitutions + self.deletions + self.insertions


class Aligned(NamedTuple):
    """One step of an alignment: what was said and what was heard ("" where one of them has nothing)."""

    operation: Operation
    reference: str
    hypothesis: str


def edit_counts(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> EditCounts:
    """Edits of a minimal alignment; the arguments are strings (characters) or lists of words."""
    kinds = [operation.tag for operation in Levenshtein.editops(reference, hypothesis)]
    return EditCounts(kinds.count("replace"), kinds.count("delete"), kinds.count("insert"), len(reference))


def cer(references: Sequence[str], hypotheses: Sequence[str], spaces: bool = False) -> float:
    """Character error rate, a fraction; without spaces unless `spaces`, since Korean spacing is a
    convention.
    """
    if spaces:
        return error_rate(references, hypotheses)
    return error_rate([_unspaced(text) for text in references], [_unspaced(text) for text in hypotheses])


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word error rate, a fraction; words are what spaces separate."""
    return error_rate([text.split() for text in references], [text.split() for text in hypotheses])


def error_rate(references: Sequence[Sequence[Hashable]], hypotheses: Sequence[Sequence[Hashable]]) -> float:
    """Edits over reference symbols, pooled. Raises `ValueError` for lists of different length or no
    reference at all.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    counts = [edit_counts(r, h) for r, h in zip(references, hypotheses, strict=True)]
    total = sum(count.reference for count in counts)
    if total == 0:
        raise ValueError("an error rate needs at least one reference symbol")
    return sum(count.edits for count in counts) / total


def align(reference: str, hypothesis: str) -> list[Aligned]:
    """The alignment in runs: consecutive characters of the same operation are one entry."""
    runs: list[Aligned] = []
    for step in Levenshtein.opcodes(reference, hypothesis):
        said, heard = reference[step.src_start : step.src_end], hypothesis[step.dest_start : step.dest_end]
        runs.append(Aligned(cast(Operation, step.tag), said, heard))
    return runs


def _unspaced(text: str) -> str:
    return "".join(text.split())

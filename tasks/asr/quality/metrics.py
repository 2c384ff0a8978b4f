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


def space_normalised_wer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word error rate after every hypothesis was given its reference's spacing (`respaced`), a fraction.

    What is left are words that were heard wrong; words that were only spaced otherwise do not count. After
    the space-normalised WER of Bang et al. 2020, "KsponSpeech: Korean Spontaneous Speech Corpus for
    Automatic Speech Recognition" (Applied Sciences 10, 6936); the exact rule is that of `heard_words`.
    """
    return wer(references, [respaced(r, h) for r, h in zip(references, hypotheses, strict=True)])


def respaced(reference: str, hypothesis: str) -> str:
    """The hypothesis's characters, spaced at the reference's word boundaries (`heard_words`); a reference
    without words leaves the hypothesis as it is.
    """
    if not reference.split():
        return hypothesis
    return " ".join(word for word in heard_words(reference, hypothesis) if word)


def heard_words(reference: str, hypothesis: str) -> list[str]:
    """What was heard for each word of the reference, "" where nothing was.

    Both texts are compared without spaces in a minimal alignment. A character that stands for a reference
    character goes into that one's word, an inserted one into the word of the reference character before it
    (at the start: into the first word).
    """
    words = reference.split()
    word_of = [number for number, word in enumerate(words) for _ in word]
    heard = _unspaced(hypothesis)
    found = [""] * len(words)
    for step in Levenshtein.opcodes(_unspaced(reference), heard) if words else ():
        for offset, character in enumerate(heard[step.dest_start : step.dest_end]):
            said = step.src_start - 1 if step.tag == "insert" else step.src_start + offset
            found[word_of[max(said, 0)]] += character
    return found


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

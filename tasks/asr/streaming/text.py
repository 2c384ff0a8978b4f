"""Greedy CTC text that grows frame by frame, and how much of it can no longer change. Pure; no command.

Jamo are composed to syllables, so the last syllable stays open until something follows that cannot belong
to it: 가 may yet become 각, and ㄱ, whose vowel was not heard yet, 가.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np

from tasks.asr.checkpoints.checkpoint import SPACE, SPECIAL, Vocabulary

_MEDIAL_AND_FINAL_JAMO = range(0x1160, 0x1200)


class GrowingText:
    """The greedy text of a segment.

    Attributes:
        first, last: frames of the stream with the first and the last character; None before any.
        quiet: frames since the last character.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._silent = {vocabulary.blank_id} | {
            label for label, symbol in enumerate(vocabulary.symbols) if symbol == SPACE or symbol in SPECIAL
        }
        self._starts = [opens(symbol) for symbol in vocabulary.symbols]
        self._before = vocabulary.blank_id
        self.labels: list[int] = []
        self.first: int | None = None
        self.last: int | None = None
        self.quiet = 0

    def add(self, label: int, frame: int) -> None:
        """The most likely label of the next frame."""
        if label in self._silent:
            self.quiet += 1
        else:
            self.quiet = 0
            self.first = frame if self.first is None else self.first
            self.last = frame
        if label not in (self._before, self._vocabulary.blank_id):
            self.labels.append(label)
        self._before = label

    @property
    def settled(self) -> int:
        """Of `labels`, how many make text that stays, whatever follows."""
        return next((i for i in range(len(self.labels) - 1, 0, -1) if self._starts[self.labels[i]]), 0)

    def split(self) -> tuple[str, str]:
        """The text that stays and the text after it that may change; together the whole."""
        whole = self._vocabulary.decode(self.labels)
        stays = self._vocabulary.decode(self.labels[: self.settled])
        return stays, whole[len(stays) :]

    def drop_settled(self) -> None:
        """Forgets the labels that stay (their segment has been closed)."""
        del self.labels[: self.settled]


def opens(symbol: str) -> bool:
    """Whether a symbol begins a syllable or a word, so that nothing before it can change any more."""
    if symbol == SPACE:
        return True
    if symbol in SPECIAL:  # leaves no character: what follows it may still join what is before it
        return False
    return ord(symbol[0]) not in _MEDIAL_AND_FINAL_JAMO and not unicodedata.combining(symbol[0])


def best_labels(logits: np.ndarray[Any, Any]) -> list[int]:
    """The most likely label of every frame of logits (frames, vocabulary)."""
    labels: list[int] = logits.argmax(axis=-1).tolist()
    return labels

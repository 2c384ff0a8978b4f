"""Greedy CTC decoding: best symbol per frame, repeats collapsed, blanks dropped. Pure; no command.

Beam search with a language model is another matter and not here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.asr.checkpoint import Vocabulary


def greedy_labels(logits: np.ndarray[Any, Any], blank_id: int = 0) -> list[int]:
    """Label ids of one utterance from logits (frames, vocabulary)."""
    best = logits.argmax(axis=-1)
    changed = np.ones(len(best), dtype=bool)
    changed[1:] = best[1:] != best[:-1]
    return [int(label) for label in best[changed & (best != blank_id)]]


def greedy(logits: np.ndarray[Any, Any], vocabulary: Vocabulary) -> str:
    """Text of one utterance from logits (frames, vocabulary), composed to NFC."""
    return vocabulary.decode(greedy_labels(logits, vocabulary.blank_id))

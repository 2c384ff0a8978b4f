"""Same-speaker retrieval: is the nearest utterance of another sentence by the same speaker? Pure; no command.

What vectors know of the speaker, without any training on speakers. The measurement on the built-in corpus is
`benchmarks/asr_retrieval.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tasks.asr.quality.intervals import rate_interval

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Rows = np.ndarray[Any, np.dtype[np.int64]]
Shares = np.ndarray[Any, np.dtype[np.float64]]
_NONE = -1


class Retrieval(NamedTuple):
    """Shares are of the queries, 0 to 1. A query is an utterance beside which another sentence exists.

    Attributes:
        queries: how many there are.
        speakers: of the queries; the blocks of the intervals.
        share: whose neighbour is by the same speaker.
        interval: of the share; None with one speaker.
        chance: expectation of the share if the neighbour were any utterance of another sentence.
        above_chance: interval of share minus chance; None with one speaker.
    """

    queries: int
    speakers: int
    share: float
    interval: tuple[float, float] | None
    chance: float
    above_chance: tuple[float, float] | None


def centred(vectors: Vectors) -> Vectors:
    """The vectors (n, size) without their mean, which is what all of a corpus has in common."""
    moved: Vectors = (vectors - vectors.mean(axis=0, dtype=np.float64)).astype(np.float32)
    return moved


def nearest_of_another_sentence(vectors: Vectors, sentences: Sequence[str]) -> Rows:
    """For every row the row of the largest cosine among those of another sentence, or -1; shape (n,).

    The matrix of cosines is held whole: 4 n^2 bytes. Of equal cosines the first row wins.
    """
    _, numbers = np.unique(np.asarray(sentences, dtype=np.str_), return_inverse=True)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(length, 1e-12)
    cosines = np.where(numbers[:, None] == numbers, -np.inf, unit @ unit.T)
    nearest = np.argmax(cosines, axis=1)
    return np.where(np.isfinite(cosines.max(axis=1)), nearest, _NONE).astype(np.int64)


def chance_of_same_speaker(speakers: Sequence[str], sentences: Sequence[str]) -> Shares:
    """For every row the share of the rows of another sentence that are by its speaker; NaN where there are
    none; shape (n,).
    """
    _, voices = np.unique(np.asarray(speakers, dtype=np.str_), return_inverse=True)
    _, numbers = np.unique(np.asarray(sentences, dtype=np.str_), return_inverse=True)
    others = numbers[:, None] != numbers
    same = (voices[:, None] == voices) & others
    count = others.sum(axis=1)
    shares = np.full(len(count), np.nan)
    np.divide(same.sum(axis=1), count, out=shares, where=count > 0)
    return shares


def same_speaker_retrieval(
    vectors: Vectors,
    speakers: Sequence[str],
    sentences: Sequence[str],
    *,
    confidence: float,
    resamples: int,
) -> Retrieval:
    """The share of utterances whose nearest neighbour of another sentence is by the same speaker.

    Intervals come from the block bootstrap by the query's speaker (`tasks.asr.quality.intervals`). The
    utterances that can be found stay the same in all resamples: they say nothing of a larger or smaller
    corpus.

    Args:
        vectors: (n, size), as the speakers and sentences are.

    Raises:
        ValueError: lengths differ, or no utterance has another sentence beside it.
    """
    if not len(vectors) == len(speakers) == len(sentences):
        raise ValueError("as many vectors as speakers and sentences are needed")
    nearest = nearest_of_another_sentence(vectors, sentences)
    queries = np.flatnonzero(nearest != _NONE)
    if not len(queries):
        raise ValueError("utterances of at least two sentences are needed")
    names = np.asarray(speakers, dtype=np.str_)
    hits = (names[nearest[queries]] == names[queries]).astype(np.float64)
    chance = chance_of_same_speaker(speakers, sentences)[queries]
    blocks = names[queries].tolist()
    shares, above = (
        rate_interval(
            values.tolist(), [1.0] * len(queries), blocks, confidence=confidence, resamples=resamples
        )
        for values in (hits, hits - chance)
    )
    return Retrieval(len(queries), len(set(blocks)), float(hits.mean()), shares, float(chance.mean()), above)

"""Which frames say which symbol: forced alignment of labels by CTC's own paths. NumPy alone, no command.

The best path through blank, label 1, blank, label 2, ... blank that reads the labels (Viterbi over the
lattice of Graves et al. 2006, "Connectionist Temporal Classification", section 4.1). Between two equal
labels a blank has to stand, or they would be read as one. CTC is peaky: a symbol often holds one or two
frames, near the middle of its sound or a little after it; what lies between belongs to the blank.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tasks.data.transcripts.jamo import visible
from tasks.errors import DataError

Array = np.ndarray[Any, Any]
_STAY, _STEP, _SKIP = 0, 1, 2  # from the same state, from the one before, over a blank


class Span(NamedTuple):
    """Frames `start` to `end` (exclusive) of one label, and its `posterior`, averaged over them (0 to 1)."""

    start: int
    end: int
    posterior: float


class Spoken(NamedTuple):
    """A character of the text, on frames `start` to `end` (exclusive), with a `confidence` from 0 to 1."""

    text: str
    start: int
    end: int
    confidence: float


def log_posteriors(logits: Array) -> Array:
    """Log-softmax over the last axis, float64, same shape."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def align(log_p: Array, labels: Sequence[int], blank_id: int = 0) -> list[Span]:
    """The frames of each label on the most probable path that reads `labels`.

    Args:
        log_p: log posteriors (frames, vocabulary).
        labels: label ids without blanks.

    Raises:
        DataError: no path of so few frames reads the labels.
    """
    if not len(labels):
        return []
    frames, states = len(log_p), 2 * len(labels) + 1
    lattice = np.full(states, blank_id)
    lattice[1::2] = labels
    skips = np.zeros(states, dtype=bool)  # state may be entered over the blank before it
    skips[3::2] = lattice[3::2] != lattice[1:-2:2]
    emissions = log_p[:, lattice]  # (frames, states)
    came = np.zeros((frames, states), dtype=np.int8)
    score = np.full(states, -np.inf)
    if frames:
        score[:2] = emissions[0, :2]
    choices = np.full((3, states), -np.inf)
    for frame in range(1, frames):
        choices[_STAY] = score
        choices[_STEP, 1:] = score[:-1]
        choices[_SKIP, 2:] = np.where(skips[2:], score[:-2], -np.inf)
        came[frame] = choices.argmax(axis=0)
        score = choices.max(axis=0) + emissions[frame]
    state = states - 1 if score[-1] >= score[-2] else states - 2
    if not np.isfinite(score[state]):
        repeats = sum(a == b for a, b in pairwise(labels))
        raise DataError(
            f"{len(labels)} labels on {frames} frames",
            f"CTC needs a frame per label and one between equal ones, here {len(labels) + repeats}",
            "align the text that was decoded from these very logits",
        )
    return _spans(_path(came, state), np.exp(emissions), len(labels))


def best_path(logits: Array, blank_id: int = 0) -> tuple[list[int], list[Span]]:
    """Labels of the best symbol of every frame, collapsed (greedy decoding), and their frames.

    The best of all paths reads these labels, so it is also their best path: what `align` would find, for a
    hundredth of its time.
    """
    best = logits.argmax(axis=-1)
    edges = np.flatnonzero(np.diff(best, prepend=-1, append=-1))
    said = np.flatnonzero(best[edges[:-1]] != blank_id)
    starts, ends = edges[said], edges[said + 1]
    spoken = logits[best != blank_id].astype(np.float64)  # the runs, one after the other
    if not len(spoken):
        return [], []
    posteriors = 1.0 / np.exp(spoken - spoken.max(axis=-1, keepdims=True)).sum(axis=-1)
    lengths = ends - starts
    means = np.add.reduceat(posteriors, np.cumsum(lengths) - lengths) / lengths
    spans = map(Span, starts.tolist(), ends.tolist(), means.tolist())
    return best[starts].tolist(), list(spans)


def _path(came: Array, last: int) -> Array:
    """The state at every frame, followed back from the `last`."""
    path = np.empty(len(came), dtype=np.int64)
    state = last
    for frame in range(len(came) - 1, -1, -1):
        path[frame] = state
        state -= int(came[frame, state])
    return path


def _spans(path: Array, posteriors: Array, count: int) -> list[Span]:
    spans = []
    for index in range(count):
        state = 2 * index + 1
        start, end = (int(np.searchsorted(path, state, side=side)) for side in ("left", "right"))
        spans.append(Span(start, end, float(posteriors[start:end, state].mean())))
    return spans


def spell(texts: Sequence[str], spans: Sequence[Span]) -> list[list[Spoken]]:
    """Words, each as its characters in NFC: a Hangul syllable lies on the frames of its jamo, and a jamo that
    composes to none is a letter of its own.

    Args:
        texts: what each label writes: a jamo, a syllable, a letter; " " between words; "" for nothing.
        spans: their frames.

    A character is as sure as the least sure of its symbols.
    """
    words: list[list[tuple[str, Span]]] = [[]]
    for text, span in zip(texts, spans, strict=True):
        if text.isspace():
            words.append([])
        elif text:
            words[-1].append((text, span))
    return [characters for word in words if (characters := _characters(word))]


def _characters(word: Sequence[tuple[str, Span]]) -> list[Spoken]:
    # Composed text and symbols meet in the decomposed characters: each owns a stretch of them.
    owners = [span for text, span in word for _ in unicodedata.normalize("NFD", text)]
    found, at = [], 0
    for character in unicodedata.normalize("NFC", "".join(text for text, _ in word)):
        own = owners[at : at + len(unicodedata.normalize("NFD", character))]
        at += len(own)
        if shown := visible(character):
            found.append(Spoken(shown, own[0].start, own[-1].end, min(span.posterior for span in own)))
    return found

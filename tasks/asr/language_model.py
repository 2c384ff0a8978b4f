"""An n-gram model of the training transcripts, and the beam search that listens to it.

The acoustic model writes what it hears, jamo by jamo; the n-gram model knows which sequences people say.
It is counted from the transcripts of the *train* split alone, at the end of the fine-tuning, and ships
beside the weights (`language_model.json.gz`). Interpolated Witten-Bell smoothing (Witten and Bell 1991);
prefix beam search with shallow fusion (Hannun et al. 2014). Pure but for reading and writing the file; no
command.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.artifacts import new_file
from tasks.asr.decode import greedy_labels
from tasks.errors import ModelError

FILE_NAME = "language_model.json.gz"
ORDER = 10  # labels: about four syllables, so that a particle sees the word before it
WEIGHT = 0.6  # of the n-gram model's log probability
BONUS = 0.8  # per label, against the n-gram model's liking for short texts
BEAM = 12  # prefixes kept per frame
_WITHIN = 8.0  # symbols less likely than the frame's best by more than this (nats) are not tried
_SURE_BLANK = math.log(0.998)  # frames where every prefix just waits
_NEVER = -1e30


class LanguageModel:
    """Counts of label sequences up to `order`, as context → {label: count}; contexts are tuples of label
    ids.
    """

    def __init__(self, order: int, counts: dict[tuple[int, ...], dict[int, int]], labels: int) -> None:
        self.order, self.counts, self.labels = order, counts, labels
        self._totals = {context: (sum(after.values()), len(after)) for context, after in counts.items()}
        self._cache: dict[tuple[tuple[int, ...], int], float] = {}

    @classmethod
    def of_transcripts(
        cls, transcripts: Iterable[Sequence[int]], boundary: int, labels: int
    ) -> LanguageModel:
        """Counts every n-gram of the label sequences; each is preceded and followed by `boundary` (the
        space).
        """
        counts: dict[tuple[int, ...], dict[int, int]] = {}
        for transcript in transcripts:
            sequence = (boundary, *transcript, boundary)
            for end in range(1, len(sequence)):
                for start in range(max(0, end - ORDER + 1), end + 1):
                    after = counts.setdefault(sequence[start:end], {})
                    after[sequence[end]] = after.get(sequence[end], 0) + 1
        return cls(ORDER, counts, labels)

    def log_probability(self, context: tuple[int, ...], label: int) -> float:
        """Natural log of P(label | the last `order` - 1 labels of `context`)."""
        key = (context[-(self.order - 1) :], label)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = math.log(self._probability(*key))
        return found

    def _probability(self, context: tuple[int, ...], label: int) -> float:
        probability = 1.0 / self.labels
        for start in range(len(context), -1, -1):
            total = self._totals.get(context[start:])
            if total is None:
                break
            count, kinds = total
            probability = (self.counts[context[start:]].get(label, 0) + kinds * probability) / (count + kinds)
        return probability

    def to_bytes(self) -> bytes:
        """Gzipped JSON; the same counts give the same bytes."""
        table = {
            " ".join(map(str, context)): {str(label): n for label, n in sorted(after.items())}
            for context, after in sorted(self.counts.items())
        }
        text = json.dumps(
            {"order": self.order, "labels": self.labels, "counts": table}, separators=(",", ":")
        )
        return gzip.compress(text.encode(), mtime=0)

    def save(self, folder: Path) -> None:
        """Writes the file into `folder`."""
        with new_file(folder / FILE_NAME) as temporary:
            temporary.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, folder: Path) -> LanguageModel | None:
        """The model of `folder`, None when it has none. Raises `ModelError` when the file is broken."""
        path = folder / FILE_NAME
        return cls.from_bytes(path.read_bytes(), str(path)) if path.is_file() else None

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> LanguageModel:
        """The inverse of `to_bytes`. Raises `ModelError`, naming `where`, when the content is broken."""
        try:
            stored = json.loads(gzip.decompress(content))
            counts = {
                tuple(int(label) for label in context.split()): {int(label): n for label, n in after.items()}
                for context, after in stored["counts"].items()
            }
            return cls(stored["order"], counts, stored["labels"])
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise ModelError(
                f"{where} cannot be read ({error})",
                "must be the n-gram model that train_asr wrote",
                "make it again: `dvc repro -f train_asr`",
            ) from error


def beam_labels(
    logits: np.ndarray[Any, Any], model: LanguageModel | None, blank_id: int, boundary: int
) -> list[int]:
    """Label ids of one utterance from logits (frames, vocabulary); greedy without a model."""
    if model is None or not len(logits):
        return greedy_labels(logits, blank_id)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    start = (boundary,)
    # prefix → (log probability ending in blank, ending in its last label, language score)
    beams: dict[tuple[int, ...], tuple[float, float, float]] = {start: (0.0, _NEVER, 0.0)}
    for frame in log_p:
        blank = float(frame[blank_id])
        if blank > _SURE_BLANK:
            beams = {p: (_add(b, n) + blank, _NEVER, s) for p, (b, n, s) in beams.items()}
            continue
        tried = [int(label) for label in np.flatnonzero(frame > frame.max() - _WITHIN) if label != blank_id]
        beams = _step(beams, [(label, float(frame[label])) for label in tried], blank, model)
    best = max(beams, key=lambda prefix: _add(*beams[prefix][:2]) + beams[prefix][2])
    return list(best[1:])


def _step(
    beams: dict[tuple[int, ...], tuple[float, float, float]],
    tried: list[tuple[int, float]],
    blank: float,
    model: LanguageModel,
) -> dict[tuple[int, ...], tuple[float, float, float]]:
    """One frame of prefix beam search."""
    following: dict[tuple[int, ...], tuple[float, float, float]] = {}

    def put(prefix: tuple[int, ...], in_blank: float, in_label: float, score: float) -> None:
        old = following.get(prefix)
        if old is not None:
            in_blank, in_label = _add(in_blank, old[0]), _add(in_label, old[1])
        following[prefix] = (in_blank, in_label, score)

    for prefix, (in_blank, in_label, score) in beams.items():
        whole = _add(in_blank, in_label)
        put(prefix, whole + blank, _NEVER, score)
        for label, probability in tried:
            repeats = len(prefix) > 1 and label == prefix[-1]
            if repeats:
                put(prefix, _NEVER, in_label + probability, score)
            came_from = in_blank if repeats else whole
            if came_from > _NEVER / 2:
                gained = WEIGHT * model.log_probability(prefix, label) + BONUS
                put((*prefix, label), _NEVER, came_from + probability, score + gained)
    ranked = sorted(following.items(), key=lambda item: -(_add(item[1][0], item[1][1]) + item[1][2]))
    return dict(ranked[:BEAM])


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    high, low = (a, b) if a > b else (b, a)
    return high if low < high - 40.0 else high + math.log1p(math.exp(low - high))

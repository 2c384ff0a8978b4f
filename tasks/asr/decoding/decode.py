"""CTC decoding: logits to label ids, greedily or by a beam search that listens to an n-gram model.

The search is flashlight's lexicon-free decoder with KenLM (flashlight-text): any sequence of symbols can
come out, the n-gram model only makes some likelier. No command.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tasks.asr.checkpoints.vocabulary import SPACE, Vocabulary
from tasks.errors import ModelError


@dataclass(frozen=True)
class SearchOptions:
    """Of flashlight's search, by its own names; chosen on the validation split of the built-in corpus.

    They ship in the ONNX file, so that what was measured is what is served.

    Attributes:
        beam_size: hypotheses kept per frame.
        beam_size_token: symbols tried per frame.
        beam_threshold: hypotheses worse than the best by more than this (nats) are dropped.
        lm_weight: of KenLM's log10 probability against the acoustic model's natural logarithm.
        sil_score: added per space.
        log_add: paths of the same text add up, rather than the best one counting.
    """

    beam_size: int = 20
    beam_size_token: int = 8
    beam_threshold: float = 12.0
    lm_weight: float = 1.5
    sil_score: float = 0.0
    log_add: bool = True


def greedy_labels(logits: np.ndarray[Any, Any], blank_id: int = 0) -> list[int]:
    """Label ids of one utterance from logits (frames, vocabulary): best per frame, collapsed."""
    return _collapsed(logits.argmax(axis=-1).tolist(), blank_id)


def greedy(logits: np.ndarray[Any, Any], vocabulary: Vocabulary) -> str:
    """Text of one utterance from logits (frames, vocabulary), composed to NFC."""
    return vocabulary.decode(greedy_labels(logits, vocabulary.blank_id))


class BeamSearch:
    """Beam search over the symbols of a vocabulary, with an n-gram model of them.

    Args:
        arpa: text of the n-gram model (`language_model.estimate`); None: the acoustics alone.
        options: how far it looks and how much it listens.
        boost: wraps the language model (`hot_words.Boosted`).

    Raises:
        ModelError: KenLM cannot read it.
    """

    def __init__(
        self,
        arpa: str | None,
        vocabulary: Vocabulary,
        options: SearchOptions = SearchOptions(),
        boost: Callable[[Any], Any] | None = None,
    ) -> None:
        from flashlight.lib.text.decoder import (
            CriterionType,
            LexiconFreeDecoder,
            LexiconFreeDecoderOptions,
            ZeroLM,
        )

        self.vocabulary, self.arpa, self.options = vocabulary, arpa, options
        chosen = LexiconFreeDecoderOptions(**asdict(options), criterion_type=CriterionType.CTC)
        self._language_model = ZeroLM() if arpa is None else kenlm(arpa, vocabulary.symbols)
        if boost is not None:
            self._language_model = boost(self._language_model)
        space = vocabulary.ids.get(SPACE, vocabulary.blank_id)
        self._decoder = LexiconFreeDecoder(chosen, self._language_model, space, vocabulary.blank_id, [])

    def labels(self, logits: np.ndarray[Any, Any]) -> list[int]:
        """Label ids of one utterance from logits (frames, vocabulary)."""
        if not len(logits):
            return []
        shifted = logits - logits.max(axis=-1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        emissions = np.ascontiguousarray(log_p, dtype=np.float32)
        (best, *_) = self._decoder.decode(emissions.ctypes.data, *emissions.shape)
        return _collapsed(best.tokens[1:-1], self.vocabulary.blank_id)  # flashlight puts a space at both ends

    def text(self, logits: np.ndarray[Any, Any]) -> str:
        """Text of one utterance from logits (frames, vocabulary), composed to NFC."""
        return self.vocabulary.decode(self.labels(logits))


def kenlm(arpa: str, words: Sequence[str]) -> Any:
    """The n-gram model for flashlight, with labels by the place in `words`. Raises `ModelError`."""
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    with tempfile.TemporaryDirectory() as folder, _native_stderr_off():
        path = Path(folder) / "model.arpa"
        path.write_text(arpa, encoding="utf-8")
        try:
            return KenLM(str(path), Dictionary(list(words)))
        except RuntimeError as error:
            raise ModelError(
                f"KenLM cannot read the n-gram model ({error})",
                "must be an ARPA text as language_model_asr writes it",
                "make it again: `dvc repro -f language_model_asr export_asr`",
            ) from error


def _collapsed(path: list[int], blank_id: int) -> list[int]:
    """A frame-by-frame path without repeats and blanks."""
    return [label for label, _ in groupby(path) if label != blank_id]


@contextmanager
def _native_stderr_off() -> Iterator[None]:
    """KenLM draws a progress bar on file descriptor 2 while it reads an ARPA text."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

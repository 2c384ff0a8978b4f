"""Which vocabulary a fine-tuning writes, and the labels of its transcripts. No command."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

from tasks.asr.checkpoints.checkpoint import own_vocabulary
from tasks.asr.checkpoints.vocabulary import Vocabulary
from tasks.errors import DataError, ModelError

log = logging.getLogger("malgil.asr.labels")
Choice = Literal["jamo", "syllable", "checkpoint"]
_SHOWN = 40  # characters named in a message


def choose_vocabulary(choice: Choice, encoder: str, texts: Sequence[str]) -> Vocabulary:
    """The vocabulary of `train_asr.vocabulary`.

    Args:
        encoder: folder or Hub id of the checkpoint, whose own vocabulary can be chosen.
        texts: the transcripts of the train split, which syllables are taken from.

    Raises:
        ModelError: the checkpoint's own is chosen, and it has none.
    """
    if choice == "jamo":
        return Vocabulary.of_jamo()
    if choice == "syllable":
        return Vocabulary.of_transcripts(texts)
    own = own_vocabulary(encoder)
    if own is None:
        raise ModelError(
            f"{encoder} has no vocab.json: it is pre-trained only, without a vocabulary of its own",
            "train_asr.vocabulary: checkpoint needs one",
            "set train_asr.vocabulary to jamo or syllable in params.yaml",
        )
    return own


def encode_all(ids: Sequence[str], texts: Sequence[str], vocabulary: Vocabulary) -> list[list[int]]:
    """Labels of every transcript.

    Args:
        ids: names of the utterances, for the message.

    Raises:
        DataError: transcripts have characters without a symbol; it names them, and how many rows.
    """
    encoded, problems = [], []
    for utterance_id, text in zip(ids, texts, strict=True):
        try:
            encoded.append(vocabulary.encode(text))
        except DataError as error:
            problems.append(f"{utterance_id}: {error.what}")
    if problems:
        missing = vocabulary.missing(texts)
        raise DataError(
            f"{len(problems)} of {len(texts)} transcripts have characters outside the vocabulary: "
            f"{_named(missing)}; {'; '.join(problems[:5])}",
            "every character of a train transcript must have a symbol",
            "spell out digits and Latin letters in the manifest, remove the rows, or set "
            "train_asr.vocabulary to syllable, which takes every character of the transcripts",
        )
    return encoded


def warn_of_missing(split: str, texts: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    """Characters of a split that is only compared with, and that cannot come out: each counts as an error."""
    missing = vocabulary.missing(texts)
    if missing:
        known = set(vocabulary.symbols)
        rows = sum(not known.issuperset(vocabulary.split(text)) for text in texts)
        log.warning(
            "%d of %d transcripts of %s have characters that the vocabulary lacks, which count as errors: %s",
            rows,
            len(texts),
            split,
            _named(missing),
        )
    return missing


def _named(characters: Sequence[str]) -> str:
    more = len(characters) - _SHOWN
    return " ".join(repr(c) for c in characters[:_SHOWN]) + (f" and {more} more" if more > 0 else "")

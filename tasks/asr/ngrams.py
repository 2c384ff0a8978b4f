"""The recogniser with its language model: an n-gram model of the transcripts, beside the trained weights.

    python -m tasks.asr.ngrams

Takes the sentences of the *train* split, and those of a text file of the user's own
(`language_model_asr.text`), each distinct one once, and estimates a model of symbols or of words in the
vocabulary of the checkpoint. Writes the checkpoint that everything else reads: the trained one and the
model. Not here: the estimation (`language_model.py`), the searches (`decode.py`, `word_search.py`).

A model of words is a flat hybrid one (Bisani and Ney 2005): words said once are replaced by their symbols,
and every word is spelled once more by itself, so that the model also knows how likely an unknown word is,
and how words are spelled.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.artifacts import files_in, new_folder, read_json
from tasks.asr.checkpoints.vocabulary import SPACE, Vocabulary, read_vocabulary
from tasks.asr.decoding import language_model
from tasks.asr.decoding.word_search import piece
from tasks.asr.prepared import PreparedSpeech, read_prepared
from tasks.data.normalisers import normalise
from tasks.data.own.lines import read_text_lines
from tasks.errors import DataError
from tasks.settings import LanguageModelAsr
from tasks.stage import run_stage

log = logging.getLogger("malgil.asr.ngrams")


def add_language_model(params: LanguageModelAsr, *, trained: Path, prepared: Path, out_dir: Path) -> None:
    """Writes the files of `trained` and the language model to `out_dir`; without a model for `none`.

    Raises `DataError` (an empty train split; a text that cannot be read, or has characters outside the
    vocabulary), `ModelError` (no vocabulary).
    """
    blank = read_json(trained / "config.json").get("pad_token_id") or 0
    vocabulary = read_vocabulary(trained, blank)
    arpa = None
    if params.unit != "none":
        data = read_prepared(prepared)
        sentences = said(data, Path(params.text) if params.text else None, vocabulary)
        of = symbol_ngrams if params.unit == "symbols" else word_ngrams
        arpa = of(sentences, vocabulary, params.order)
        log.info("%d-gram model of %s from %d sentences", params.order, params.unit, len(sentences))
    with new_folder(out_dir) as folder:
        for path in files_in(trained):
            target = folder / path.relative_to(trained)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (folder / language_model.FILE_NAME).unlink(missing_ok=True)
        if arpa is not None:
            language_model.save(arpa, folder)


def said(data: PreparedSpeech, text: Path | None, vocabulary: Vocabulary) -> list[str]:
    """The distinct sentences to learn from, transcripts first: how often a voice repeated one says nothing
    about the language.

    Raises `DataError` naming the line of `text` that has characters outside the vocabulary.
    """
    rows, _ = data.split("train")
    sentences = dict.fromkeys(rows["text"])
    for number, line in enumerate(read_text_lines(text) if text else [], 1):
        sentence = normalise(line, data.normaliser)
        missing = vocabulary.missing([sentence])
        if missing:
            raise DataError(
                f"{text}, line {number}: {sentence!r} has {' '.join(map(repr, missing))}",
                "its characters must be in the recogniser's vocabulary",
                "write it as it is spoken (digits and Latin letters in Hangul, or prepare.normaliser ko-3)",
            )
        if sentence:
            sentences[sentence] = None
    return list(sentences)


def symbol_ngrams(sentences: Iterable[str], vocabulary: Vocabulary, order: int = language_model.ORDER) -> str:
    """ARPA text of a model of the vocabulary's symbols, from distinct normalised sentences."""
    spelled = [[vocabulary.symbols[label] for label in vocabulary.encode(text)] for text in sentences]
    return language_model.estimate(spelled, vocabulary.symbols, order)


def word_ngrams(sentences: Sequence[str], vocabulary: Vocabulary, order: int) -> str:
    """ARPA text of a model of words and pieces, from distinct normalised sentences.

    Words said twice or more stay whole; the others are spelled in pieces, with that of the space after
    them. Where no word was said twice, all do: there is nothing to tell the rare ones by. Each distinct
    word is also a sentence of its own, in pieces: a corpus of few words would not teach spelling otherwise.
    """

    def spelled(word: str) -> list[str]:
        return [*map(piece, vocabulary.split(word)), piece(SPACE)]

    counts = Counter(word for sentence in sentences for word in sentence.split())
    known = {word for word, count in counts.items() if count > 1} or set(counts)
    units = [
        [unit for word in sentence.split() for unit in ([word] if word in known else spelled(word))]
        for sentence in sentences
    ]
    units += [spelled(word) for word in sorted(counts)]
    symbols = [piece(s) for s in vocabulary.symbols if s not in vocabulary.special]
    return language_model.estimate(units, [*sorted(known), *symbols], order)


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            __spec__.name,
            "language_model_asr",
            add_language_model,
            inputs={"trained": Path("build/asr/trained"), "prepared": Path("build/prepared/asr")},
            outputs={"out_dir": Path("build/asr/checkpoint")},
        )
    )

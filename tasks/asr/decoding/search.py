"""Which search decodes: what the user asks for, and what the recogniser carries. No command.

Three decoders: `greedy` (the best symbol of every frame), `beam` (the likeliest text by the acoustics
alone) and `lm` (with an n-gram model of the vocabulary's symbols or of words: the recogniser's, or the
user's own).
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tasks.asr.checkpoints.vocabulary import Vocabulary
from tasks.asr.decoding.decode import BeamSearch, SearchOptions
from tasks.asr.decoding.hot_words import WEIGHT, Boosted, HotWords
from tasks.asr.decoding.word_search import WordSearchOptions, make_search, unigrams, unit_of
from tasks.data.own.lines import read_text_lines
from tasks.errors import DataError, MalgilError, ModelError, explain_os_error

DECODERS = ("greedy", "beam", "lm")


@dataclass(frozen=True)
class Wanted:
    """What the user asks for; nothing: what the recogniser ships with.

    Attributes:
        decoder: one of `DECODERS`.
        beam_size: hypotheses kept per frame.
        arpa: an n-gram model of symbols or words instead of the recogniser's, ARPA text or gzipped.
        hot_words: words and phrases to expect.
        hot_word_weight: nats per symbol of them.
    """

    decoder: str | None = None
    beam_size: int | None = None
    arpa: Path | None = None
    hot_words: tuple[str, ...] = ()
    hot_word_weight: float = WEIGHT


def choose_search(shipped: BeamSearch | None, vocabulary: Vocabulary, wanted: Wanted) -> BeamSearch | None:
    """The search to decode with; None is greedy.

    Raises:
        DataError: options that exclude each other, a hot word or an n-gram model that does not fit the
            vocabulary.
        ModelError: an n-gram model is asked for and there is none, or KenLM cannot read it.
    """
    if wanted == Wanted():
        return shipped
    asked = wanted.beam_size is not None or wanted.hot_words
    decoder = wanted.decoder or ("lm" if wanted.arpa or shipped else "beam" if asked else "greedy")
    if wanted.arpa and decoder != "lm":
        raise _excluded("--lm", decoder, "lm")
    if asked and decoder == "greedy":
        raise _excluded("--hot-word" if wanted.hot_words else "--beam-size", decoder, "beam or lm")
    if decoder == "greedy":
        return None
    arpa = _model(shipped, wanted) if decoder == "lm" else None
    of_words = arpa is not None and unit_of(arpa, vocabulary) == "words"
    if of_words and wanted.hot_words:
        raise DataError(
            "hot words with an n-gram model of words",
            "they are spelled in symbols, and need a model of symbols or none",
            "add --decoder beam",
        )
    kind: type[SearchOptions] = WordSearchOptions if of_words else SearchOptions
    # what ships beside a model of one unit says nothing about a search with the other
    options = shipped.options if shipped and type(shipped.options) is kind else kind()
    if wanted.beam_size is not None:
        options = replace(options, beam_size=wanted.beam_size)
    if arpa is not None and not wanted.hot_words:
        return make_search(arpa, vocabulary, asdict(options))
    if not wanted.hot_words:
        return BeamSearch(None, vocabulary, options)
    hot = HotWords.spelled(wanted.hot_words, vocabulary, wanted.hot_word_weight)
    # What a listed word is given before it proves to be another must not drop the others meanwhile.
    options = replace(options, beam_threshold=options.beam_threshold + hot.most)
    return BeamSearch(
        arpa, vocabulary, options, lambda model: Boosted(model, hot, lm_weight=options.lm_weight)
    )


def _model(shipped: BeamSearch | None, wanted: Wanted) -> str:
    arpa = read_arpa(wanted.arpa) if wanted.arpa else shipped.arpa if shipped else None
    if arpa is None:
        raise ModelError(
            "this recogniser has no n-gram model",
            "--decoder lm needs one",
            "name your own with --lm PATH.arpa, or use --decoder beam",
        )
    return arpa


def _excluded(option: str, decoder: str, needed: str) -> MalgilError:
    return DataError(
        f"{option} with --decoder {decoder}", f"needs --decoder {needed}", "leave one of them out"
    )


def read_arpa(path: Path) -> str:
    """The ARPA text of a user's file.

    Raises:
        DataError: it cannot be read, or predicts nothing.
    """
    try:
        content = path.read_bytes()
        arpa = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode()
    except FileNotFoundError as error:
        raise explain_os_error(error, path) from error
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error})", "must be an ARPA text, gzipped or not", "make it again"
        ) from error
    if not unigrams(arpa):
        raise DataError(
            f"{path} predicts nothing",
            "must be an ARPA model of the recogniser's symbols (vocab.json) or of words",
            "make it of transcripts as they are spoken (docs/how-to/language-models.md)",
        )
    return arpa


def read_hot_words(path: Path) -> Sequence[str]:
    """A word or phrase per line, UTF-8; empty lines are passed over. Raises `DataError`."""
    return [line.strip() for line in read_text_lines(path) if line.strip()]

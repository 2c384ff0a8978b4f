"""Beam search with an n-gram model of words, and the choice between it and one of symbols. No command.

flashlight's lexicon decoder with KenLM. Every word of the model is spelled in the symbols of the
vocabulary, with a space after it. What is no word of the model is spelled symbol by symbol, so that any
text can still come out: at the price that the model gives to its *pieces*, which are symbols that stand for
themselves (`tasks.asr.ngrams` estimates them from the words that were said once), or at that of its
unknown word where it has no pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from tasks.asr.checkpoints.vocabulary import SPACE, Vocabulary
from tasks.asr.decoding.decode import BeamSearch, SearchOptions, kenlm
from tasks.asr.decoding.language_model import BEGIN, END, OTHER
from tasks.errors import DataError, ModelError

Unit = Literal["symbols", "words"]
_LOW = -1e4  # nats; what a frame that says one symbol leaves for the others


@dataclass(frozen=True)
class WordSearchOptions(SearchOptions):
    """Of flashlight's lexicon search, by its own names; chosen on the validation split of the built-in
    corpus.

    Attributes:
        word_score: added per word or piece, in nats.
        unk_score: of flashlight's own way out of the lexicon, which pieces replace: never taken.
    """

    beam_size: int = 50
    beam_size_token: int = 8
    beam_threshold: float = 25.0
    lm_weight: float = 1.5
    word_score: float = 0.0
    unk_score: float = -1e9


def piece(symbol: str) -> str:
    """The name of a symbol among the words of a model. No word can have it: none holds a space."""
    return SPACE + symbol


def unigrams(arpa: str) -> list[str]:
    """What a model predicts: the entries of its section of 1-grams."""
    section = arpa.partition("\\1-grams:")[2].partition("\\")[0]
    rows = (line.split() for line in section.split("\n"))
    return [row[1] for row in rows if len(row) > 1]


def unit_of(arpa: str, vocabulary: Vocabulary) -> Unit:
    """What a model is of: of the vocabulary's symbols where it predicts nothing else, else of words."""
    return "symbols" if set(unigrams(arpa)) <= {*vocabulary.symbols, BEGIN, END, OTHER} else "words"


def make_search(arpa: str, vocabulary: Vocabulary, options: Mapping[str, Any] | None = None) -> BeamSearch:
    """The search for a model of either unit; `options` as it ships beside the model.

    Raises `DataError` for a model of words of which none can be spelled, `ModelError` where KenLM cannot
    read it.
    """
    if unit_of(arpa, vocabulary) == "words":
        return WordSearch(arpa, vocabulary, WordSearchOptions(**(options or {})))
    return BeamSearch(arpa, vocabulary, SearchOptions(**(options or {})))


class WordSearch(BeamSearch):
    """Beam search over the words of an n-gram model, and over symbols where none fits.

    Args:
        arpa: an n-gram model of words, with pieces or without.

    Raises:
        DataError: the vocabulary has no space, or can spell none of the words.
        ModelError: KenLM cannot read the model.
    """

    options: WordSearchOptions

    def __init__(
        self, arpa: str, vocabulary: Vocabulary, options: WordSearchOptions = WordSearchOptions()
    ) -> None:
        from flashlight.lib.text.decoder import CriterionType, LexiconDecoder, LexiconDecoderOptions

        self.vocabulary, self.arpa, self.options = vocabulary, arpa, options
        chosen = LexiconDecoderOptions(**asdict(options), criterion_type=CriterionType.CTC)
        words = [word for word in unigrams(arpa) if word not in (BEGIN, END, OTHER)]
        self._language_model = kenlm(arpa, [*words, OTHER])
        trie = _lexicon(words, vocabulary, self._language_model)
        space = vocabulary.ids[SPACE]
        self._decoder = LexiconDecoder(
            chosen, trie, self._language_model, space, vocabulary.blank_id, len(words), [], False
        )

    def labels(self, logits: np.ndarray[Any, Any]) -> list[int]:
        """See `BeamSearch`."""
        if not len(logits):
            return []
        # Words end in a space, and nobody says the last one.
        end = np.full((1, logits.shape[1]), _LOW, logits.dtype)
        end[0, self.vocabulary.ids[SPACE]] = 0.0
        labels = super().labels(np.concatenate([logits, end]))
        while labels and labels[-1] == self.vocabulary.ids[SPACE]:
            labels.pop()
        return labels


def _lexicon(words: Sequence[str], vocabulary: Vocabulary, language_model: Any) -> Any:
    """flashlight's tree of spellings, each node with the best score of the words below it."""
    from flashlight.lib.text.decoder import SmearingMode, Trie

    ids = vocabulary.ids
    if SPACE not in ids:
        raise ModelError(
            "this recogniser writes no spaces", "a model of words needs them", "use a model of its symbols"
        )
    trie = Trie(len(vocabulary.symbols), ids[SPACE])
    start = language_model.start(False)
    order = {word: index for index, word in enumerate(words)}
    spelled = 0
    for word, index in order.items():
        symbols = [] if word.startswith(SPACE) else vocabulary.split(word)
        if symbols and all(symbol in ids for symbol in symbols):
            _, score = language_model.score(start, index)
            trie.insert([*(ids[symbol] for symbol in symbols), ids[SPACE]], index, score)
            spelled += 1
    if not spelled:
        raise DataError(
            f"an n-gram model that predicts {', '.join(map(repr, words[:5])) or 'nothing'}",
            "must be of the recogniser's symbols, or of words that it can write",
            "make it of transcripts as they are spoken (docs/how-to/language-models.md)",
        )
    for symbol, label in ids.items():
        if symbol not in vocabulary.special:
            index = order.get(piece(symbol), len(words))
            _, score = language_model.score(start, index)
            trie.insert([label], index, score)
    trie.smear(SmearingMode.MAX)
    return trie

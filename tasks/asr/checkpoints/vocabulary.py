"""What a CTC head writes: symbols in label order, and their files as transformers' tokenizer reads them.

Three kinds: jamo, syllables of the transcripts, or a checkpoint's own. In memory the word delimiter is
always `SPACE`, whatever the checkpoint calls it; its files keep its own names. No torch, no command.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tasks.artifacts import read_json, write_json
from tasks.data.espeak import SAMPLE_RATE_HZ
from tasks.data.transcripts.jamo import visible
from tasks.errors import DataError, ModelError

BLANK, SPACE, UNKNOWN = "[PAD]", "|", "[UNK]"
SPECIAL = frozenset({BLANK, UNKNOWN, "<s>", "</s>", "<pad>", "<unk>"})  # symbols that stand for no character
VOCABULARY, TOKENIZER, EXTRACTOR = "vocab.json", "tokenizer_config.json", "preprocessor_config.json"
# Every modern Hangul jamo in canonical decomposition (NFD): 19 initials, 21 vowels, 27 finals.
JAMO = tuple(
    chr(code)
    for first, count in ((0x1100, 19), (0x1161, 21), (0x11A8, 27))
    for code in range(first, first + count)
)


@dataclass(frozen=True)
class Names:
    """What a checkpoint's tokenizer calls its special tokens, and whether its symbols are capitals.

    Attributes:
        delimiter: the symbol between words.
        upper: text is written in capitals as labels, and read back in small letters (the tokenizer's
            `do_lower_case`, which does that).
    """

    pad: str = BLANK
    unknown: str = UNKNOWN
    begin: str | None = None
    end: str | None = None
    delimiter: str = SPACE
    upper: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """Symbols in label order; index 0 is the CTC blank in the project's own models."""

    symbols: tuple[str, ...]
    blank_id: int = 0
    names: Names = field(default=Names())

    @classmethod
    def of_jamo(cls) -> Vocabulary:
        """The Korean head: blank, space, 67 jamo, unknown."""
        return cls((BLANK, SPACE, *JAMO, UNKNOWN))

    @classmethod
    def of_symbols(cls, symbols: tuple[str, ...]) -> Vocabulary:
        """Blank, space, the symbols in order, unknown."""
        return cls((BLANK, SPACE, *symbols, UNKNOWN))

    @classmethod
    def of_transcripts(cls, texts: Iterable[str]) -> Vocabulary:
        """Every character of the texts (NFC; syllables, in Korean), sorted: the same texts give the same
        ids.
        """
        characters = {c for text in texts for c in unicodedata.normalize("NFC", text) if not c.isspace()}
        return cls.of_symbols(tuple(sorted(characters - {SPACE})))

    @property
    def ids(self) -> dict[str, int]:
        """Symbol to label id."""
        return {symbol: index for index, symbol in enumerate(self.symbols)}

    @property
    def special(self) -> frozenset[str]:
        """Symbols that stand for no character."""
        own = (self.names.pad, self.names.unknown, self.names.begin, self.names.end)
        return SPECIAL | {name for name in own if name} | {self.symbols[self.blank_id]}

    def split(self, text: str) -> list[str]:
        """The text as symbols, known or not: decomposed where the vocabulary holds jamo."""
        form: Literal["NFD", "NFC"] = "NFD" if JAMO[0] in self.symbols else "NFC"
        text = unicodedata.normalize(form, text.upper() if self.names.upper else text)
        return [SPACE if c == " " else c for c in text]

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Characters of the texts that have no symbol, sorted."""
        used = {symbol for text in texts for symbol in self.split(text)}
        return sorted(used - set(self.symbols))

    def encode(self, text: str) -> list[int]:
        """Label ids of normalised text, spaces as the space symbol.

        Raises `DataError` naming every character that is not in the vocabulary.
        """
        ids = self.ids
        symbols = self.split(text)
        missing = sorted({symbol for symbol in symbols if symbol not in ids})
        if missing:
            raise DataError(
                f"transcript {text!r} has {' '.join(repr(symbol) for symbol in missing)}",
                "its characters must be in the recogniser's vocabulary",
                "normalise the transcript (digits and Latin letters spelled out in Hangul) or remove the row",
            )
        return [ids[symbol] for symbol in symbols]

    def decode(self, labels: list[int]) -> str:
        """Text of collapsed label ids: NFC, jamo without a syllable as letters (ㅏ), spaces single."""
        special = self.special
        symbols = [self.symbols[label] for label in labels]
        text = "".join(" " if s == SPACE else s for s in symbols if s not in special)
        text = " ".join(visible(text).split())
        return text.lower() if self.names.upper else text


def write_vocabulary(folder: Path, vocabulary: Vocabulary, normalise: bool = True) -> None:
    """vocab.json, tokenizer_config.json and preprocessor_config.json as transformers' Wav2Vec2Processor
    reads them.
    """
    names = vocabulary.names
    written = {names.delimiter if s == SPACE else s: index for s, index in vocabulary.ids.items()}
    write_json(folder / VOCABULARY, written)
    tokenizer = {
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "pad_token": names.pad,
        "unk_token": names.unknown,
        "bos_token": names.begin,
        "eos_token": names.end,
        "word_delimiter_token": names.delimiter,
        "do_lower_case": names.upper,
    }
    write_json(folder / TOKENIZER, tokenizer)
    extractor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": SAMPLE_RATE_HZ,
        "padding_value": 0.0,
        "padding_side": "right",
        "do_normalize": normalise,
        "return_attention_mask": True,
    }
    write_json(folder / EXTRACTOR, extractor)


def read_vocabulary(folder: Path, blank_id: int = 0, size: int = 0) -> Vocabulary:
    """The vocabulary of a checkpoint's folder: vocab.json, tokens that were added to it, and their names.

    Args:
        blank_id: label of the CTC blank (`pad_token_id` of the model's config).
        size: outputs of the head; those that no file names get a special symbol each.

    Raises:
        ModelError: it is not a vocabulary, or the blank is not in it.
    """
    path = folder / VOCABULARY
    ids = read_json(path)
    if not isinstance(ids, dict) or not all(type(index) is int for index in ids.values()):
        raise _no_vocabulary(path)
    tokenizer = read_json(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else {}
    added = _added(folder, tokenizer)
    taken = set(ids.values())
    ids = ids | {symbol: index for symbol, index in added.items() if index not in taken and symbol not in ids}
    taken = set(ids.values())
    ids |= {f"<{index}>": index for index in range(max(taken, default=-1) + 1, size)}
    names = _names(folder, tokenizer, ids)
    symbols = [SPACE if symbol == names.delimiter else symbol for symbol in sorted(ids, key=lambda s: ids[s])]
    if sorted(ids.values()) != list(range(len(ids))) or len(set(symbols)) != len(symbols):
        raise _no_vocabulary(path)
    if not 0 <= blank_id < len(symbols):
        raise ModelError(
            f"{folder}/config.json has pad_token_id {blank_id}",
            f"the CTC blank must be one of the {len(symbols)} symbols of vocab.json",
            "restore the files that belong together, from where the checkpoint came",
        )
    return Vocabulary(tuple(symbols), blank_id, names)


def _added(folder: Path, tokenizer: dict[str, Any]) -> dict[str, int]:
    """Tokens that the tokenizer adds to vocab.json, in either of the two places they are written."""
    path = folder / "added_tokens.json"
    found: dict[str, int] = dict(read_json(path)) if path.is_file() else {}
    for index, token in (tokenizer.get("added_tokens_decoder") or {}).items():
        if name := _content(token):
            found[name] = int(index)
    return found


def _names(folder: Path, tokenizer: dict[str, Any], ids: dict[str, int]) -> Names:
    path = folder / "special_tokens_map.json"
    said = {**(read_json(path) if path.is_file() else {}), **tokenizer}

    def name(key: str, *usual: str) -> str | None:
        found = _content(said[key]) if key in said else None
        return found if found in ids else next((other for other in usual if other in ids), found)

    return Names(
        pad=name("pad_token", BLANK, "<pad>") or BLANK,
        unknown=name("unk_token", UNKNOWN, "<unk>") or UNKNOWN,
        begin=name("bos_token"),
        end=name("eos_token"),
        delimiter=name("word_delimiter_token", SPACE, " ") or SPACE,
        upper=bool(said.get("do_lower_case", False)),
    )


def _content(token: Any) -> str | None:
    """The text of a token, which is written plainly or as a mapping with its flags."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _no_vocabulary(path: Path) -> ModelError:
    return ModelError(
        f"{path} is not a vocabulary", "maps each symbol to an id from 0 on, once", "restore the file"
    )

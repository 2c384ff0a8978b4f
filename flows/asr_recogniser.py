"""The options that choose a recogniser and how it decodes, for the commands that have them. No command."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.asr.decoding.decode import BeamSearch
    from tasks.asr.engines.acoustic import Acoustic

DEFAULT_MODEL = {"onnx": "build/asr/shipped", "torch": "build/asr/checkpoint"}


class Decoder(StrEnum):
    """How logits become text."""

    greedy = "greedy"
    beam = "beam"
    lm = "lm"


class Backend(StrEnum):
    """What computes the logits."""

    onnx = "onnx"
    torch = "torch"


def load_recogniser(model: str | None, backend: Backend | None, batch_seconds: float) -> tuple[Acoustic, str]:
    """The recogniser that the options name, and what it is called: its folder, or "org/name@commit"."""
    from tasks.asr.engines.acoustic import load_acoustic
    from tasks.asr.engines.named import find_model

    chosen = backend.value if backend else None if model else "onnx"
    found = find_model(model or DEFAULT_MODEL[chosen or "onnx"], chosen)
    return load_acoustic(found.folder, found.backend, batch_seconds, use_search=True), found.name


def choose_search(
    acoustic: Acoustic,
    decoder: Decoder | None,
    beam_size: int | None,
    lm: Path | None,
    hot_word: list[str] | None = None,
    hot_words: Path | None = None,
    hot_word_weight: float | None = None,
) -> BeamSearch | None:
    """The search that the options ask for."""
    from tasks.asr.decoding import search
    from tasks.asr.decoding.hot_words import WEIGHT

    words = (*(hot_word or ()), *(search.read_hot_words(hot_words) if hot_words else ()))
    weight = WEIGHT if hot_word_weight is None else hot_word_weight
    wanted = search.Wanted(decoder.value if decoder else None, beam_size, lm, words, weight)
    return search.choose_search(acoustic.search, acoustic.vocabulary, wanted)


def decoder_of(acoustic: Acoustic) -> Decoder:
    """How its logits become text now."""
    if acoustic.search is None:
        return Decoder.greedy
    return Decoder.lm if acoustic.search.arpa else Decoder.beam

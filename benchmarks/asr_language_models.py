"""What the language model is worth: CER greedily, with an n-gram model of symbols, and with one of words.

    python benchmarks/asr_language_models.py     # after `malgil run --line asr`; about a minute of one core

The shipped ONNX file, its logits once, three decoders; the models are estimated here from the train split
as the stage `language_model_asr` does. The built-in corpus hardly says a word in its test splits that its
train split does not. So a third row takes words away: every tenth of the alphabet, and with it all sentences
that hold one, and the utterances with such a word are judged. To the models they are unknown, not to the
acoustic model, which learned from all of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.artifacts import write_json
from tasks.asr.checkpoints.vocabulary import Vocabulary
from tasks.asr.decoding.decode import BeamSearch, greedy
from tasks.asr.decoding.word_search import make_search
from tasks.asr.engines.onnx_model import OnnxRecogniser
from tasks.asr.ngrams import said, symbol_ngrams, word_ngrams
from tasks.asr.prepared import read_prepared
from tasks.asr.quality.metrics import cer, wer
from tasks.progress import Progress

HELD_OUT = 10  # every so many words, by the alphabet
WORD_ORDER = 6


@dataclass(frozen=True)
class Heard:
    """Utterances that are judged together: references, speakers and logits (frames, vocabulary)."""

    references: list[str]
    speakers: list[str]
    logits: list[Any]
    seconds: float

    def of(self, chosen: Sequence[int]) -> Heard:
        """Those of the chosen places; their share of the seconds by frames."""
        frames = sum(map(len, self.logits))
        kept = [self.logits[index] for index in chosen]
        share = sum(map(len, kept)) / max(frames, 1)
        texts = [self.references[index] for index in chosen]
        return Heard(texts, [self.speakers[index] for index in chosen], kept, self.seconds * share)


def hear(recogniser: OnnxRecogniser, prepared: Path, split: str) -> Heard:
    """The logits of a split."""
    rows, store = read_prepared(prepared).split(split)
    logits = []
    with Progress(f"logits of {split}", len(rows), "utterances") as progress:
        for index in range(len(rows)):
            logits.append(recogniser.logits(store.clip(index)))
            progress.advance(1)
    seconds = float(store.lengths.sum()) / 16_000
    return Heard(rows["text"].tolist(), rows["speaker"].tolist(), logits, seconds)


def compare(
    name: str, heard: Heard, sentences: Sequence[str], vocabulary: Vocabulary
) -> list[dict[str, Any]]:
    """A row per decoder, with models of the sentences."""
    searches: dict[str, BeamSearch | None] = {
        "greedy": None,
        "symbols, order 6": make_search(symbol_ngrams(sentences, vocabulary), vocabulary),
        f"words, order {WORD_ORDER}": make_search(word_ngrams(sentences, vocabulary, WORD_ORDER), vocabulary),
    }
    known = {word for sentence in sentences for word in sentence.split()}
    words = [word for reference in heard.references for word in reference.split()]
    rows = []
    for decoder, search in searches.items():
        began = time.perf_counter()
        texts = [search.text(row) if search else greedy(row, vocabulary) for row in heard.logits]
        took = time.perf_counter() - began
        voices = {
            voice: [index for index, own in enumerate(heard.speakers) if own == voice]
            for voice in set(heard.speakers)
        }
        by_voice = [
            cer([heard.references[index] for index in own], [texts[index] for index in own])
            for own in voices.values()
        ]
        rows.append(
            {
                "judged": name,
                "decoder": decoder,
                "cer": cer(heard.references, texts),
                "cer_mean_over_voices": float(np.mean(by_voice)),
                "cer_with_spaces": cer(heard.references, texts, spaces=True),
                "wer": wer(heard.references, texts),
                "utterances": len(texts),
                "words_unknown_to_the_models": sum(word not in known for word in words) / len(words),
                "decoding_ms_per_second_of_audio": 1000 * took / heard.seconds,
            }
        )
    return rows


def measure(model: Path, prepared: Path) -> list[dict[str, Any]]:
    """The rows of all three comparisons."""
    recogniser = OnnxRecogniser(model, threads=1)
    vocabulary = recogniser.vocabulary
    sentences = said(read_prepared(prepared), None, vocabulary)
    splits = {split: hear(recogniser, prepared, split) for split in ("test_sentences", "test_voices")}
    rows = compare("unseen sentences", splits["test_sentences"], sentences, vocabulary)
    rows += compare("unseen voices", splits["test_voices"], sentences, vocabulary)
    words = sorted({word for sentence in sentences for word in sentence.split()})
    held = set(words[::HELD_OUT])
    left = [sentence for sentence in sentences if held.isdisjoint(sentence.split())]
    both = splits["test_sentences"]
    chosen = [index for index, text in enumerate(both.references) if not held.isdisjoint(text.split())]
    return rows + compare("sentences with an unknown word", both.of(chosen), left, vocabulary)


def main() -> int:
    """Measures, prints the table and writes it as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("build/asr/shipped"))
    parser.add_argument("--prepared", type=Path, default=Path("build/prepared/asr"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.model, arguments.prepared)
    for row in rows:
        print(" | ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()))
    if arguments.out:
        write_json(arguments.out, {"what": "decoders on the prepared test splits", "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

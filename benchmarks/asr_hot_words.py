"""Hot words: rare names that are heard right with and without them, what they do to other speech, the cost.

    python benchmarks/asr_hot_words.py     # after `malgil run --line asr`; about a minute of one core

Eight names that no training transcript holds, in a sentence each, spoken by four synthetic voices; then
test utterances without any of them. The names are not those on which the default weight was chosen.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from tasks.artifacts import write_json
from tasks.asr.decoding.hot_words import WEIGHT
from tasks.asr.decoding.search import Wanted, choose_search
from tasks.asr.engines.onnx_model import OnnxRecogniser
from tasks.asr.ngrams import said
from tasks.asr.prepared import read_prepared
from tasks.asr.quality.metrics import cer
from tasks.data.espeak import Synthesiser
from tasks.errors import DataError

NAMES = ("도깨비", "까치네", "뚜벅이", "하늬바람", "꼼지락", "번개돌이", "은하수", "달무리")
SENTENCES = ("{} 불 켜 줘", "거실 {} 꺼 줘")
VOICES = ("ko+f2", "ko+m3", "ko+f4", "ko+m7")
WEIGHTS = (0.0, 1.0, 2.0, WEIGHT, 4.0, 5.0)
OTHERS = 80  # utterances without a name, spread over the split


def measure(model: Path, prepared: Path) -> list[dict[str, Any]]:
    """A row per weight; 0 is the search without hot words."""
    recogniser = OnnxRecogniser(model, threads=1)
    vocabulary = recogniser.vocabulary
    data = read_prepared(prepared)
    known = {word for sentence in said(data, None, vocabulary) for word in sentence.split()}
    if known.intersection(NAMES):
        raise DataError("a name is in the train split", "must be new to the recogniser", "choose another")
    references = [SENTENCES[index % 2].format(name) for index, name in enumerate(NAMES)]
    with Synthesiser() as synthesiser:
        spoken = [
            (name, text, recogniser.logits(synthesiser.speak(text, voice)))
            for name, text in zip(NAMES, references, strict=True)
            for voice in VOICES
        ]
    rows, store = data.split("test_sentences")
    chosen = range(0, len(rows), max(1, len(rows) // OTHERS))
    clips = [store.clip(index) for index in chosen]
    others = [recogniser.logits(clip) for clip in clips]
    seconds = sum(map(len, clips)) / 16_000
    found: list[dict[str, Any]] = []
    plain: list[str] = []
    for weight in WEIGHTS:
        wanted = Wanted(hot_words=NAMES, hot_word_weight=weight) if weight else Wanted()
        search = choose_search(recogniser.search, vocabulary, wanted)
        if search is None:
            raise DataError("the recogniser decodes greedily", "needs an n-gram model", "take another")
        texts = [search.text(logits) for _, _, logits in spoken]
        began = time.perf_counter()
        unnamed = [search.text(logits) for logits in others]
        took = time.perf_counter() - began
        plain = plain or unnamed
        found.append(
            {
                "weight": weight,
                "names_right": sum(own[0] in text for own, text in zip(spoken, texts, strict=True)),
                "names": len(spoken),
                "cer": cer([own[1] for own in spoken], texts),
                "other_texts_changed": sum(a != b for a, b in zip(plain, unnamed, strict=True)),
                "others": len(others),
                "decoding_ms_per_second_of_audio": 1000 * took / seconds,
            }
        )
        print(
            " | ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in found[-1].values()), flush=True
        )
    return found


def main() -> int:
    """Measures, prints the table and writes it as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("build/asr/shipped"))
    parser.add_argument("--prepared", type=Path, default=Path("build/prepared/asr"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.model, arguments.prepared)
    if arguments.out:
        write_json(arguments.out, {"what": "hot words, synthetic speech", "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

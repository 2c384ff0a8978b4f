"""What the vectors of `malgil asr embed` know of the speaker: same-speaker retrieval, against chance.

    python benchmarks/asr_retrieval.py        # after `dvc repro corpus`

Writes benchmarks/results/asr_retrieval.json. Every utterance of a test split asks for its nearest neighbour
by cosine among the utterances of another sentence in its split. All layers and both poolings are shown, with
the vectors as they are and with the split's mean removed. The speech of the built-in corpus is synthetic:
"speakers" are voices of a synthesiser.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks.artifacts import write_json
from tasks.asr.embed import Embedded, embed
from tasks.asr.embedding.encoder import load_encoder_layers
from tasks.asr.embedding.retrieval import Retrieval, centred, same_speaker_retrieval
from tasks.asr.provenance import git_commit, machine, versions
from tasks.asr.quality.intervals import FEW_BLOCKS
from tasks.asr.recordings.sources import Source
from tasks.data.manifest import read_manifest
from tasks.progress import Progress

ROOT = Path(__file__).parents[1]
SPLITS = ("test_voices", "test_sentences")  # voices that the encoder never heard; voices that it did
CONFIDENCE = 0.95
RESAMPLES = 10_000
Vectors = np.ndarray[Any, np.dtype[np.float32]]


def measure(model: Path, corpus: Path) -> tuple[list[dict[str, Any]], str]:
    """A row per split, layer, pooling and removal of the mean; and the SHA-256 of the encoder's weights."""
    manifest = read_manifest(corpus / "manifest.parquet")
    encoder = load_encoder_layers(model, None)
    rows = []
    for split in SPLITS:
        utterances = manifest[manifest["split"] == split]
        sources = [Source(path, corpus / path, Path(path)) for path in map(str, utterances["path"])]
        with Progress(f"embed {split}", len(sources), "recordings") as progress:
            found = list(embed(sources, encoder, "statistics", progress=progress))
        failed = [result.name for result in found if not isinstance(result, Embedded)]
        if failed:
            raise SystemExit(f"{len(failed)} recordings cannot be read, {failed[0]} first")
        for place, layer in enumerate(encoder.layers):
            vectors = np.stack([result.vectors[place] for result in found if isinstance(result, Embedded)])
            rows += _rows_of_layer(split, layer, vectors, encoder.hidden, utterances)
    return rows, encoder.sha256


def _rows_of_layer(
    split: str, layer: int, vectors: Vectors, hidden: int, utterances: pd.DataFrame
) -> list[dict[str, Any]]:
    rows = []
    # the first half of statistics pooling is mean pooling
    for pooling, pooled in (("mean", vectors[:, :hidden]), ("statistics", vectors)):
        for mean_removed, compared in ((False, pooled), (True, centred(pooled))):
            found = same_speaker_retrieval(
                compared,
                utterances["speaker"].tolist(),
                utterances["transcript"].tolist(),
                confidence=CONFIDENCE,
                resamples=RESAMPLES,
            )
            rows.append(_row(split, layer, pooling, mean_removed, found))
    return rows


def _row(split: str, layer: int, pooling: str, mean_removed: bool, found: Retrieval) -> dict[str, Any]:
    above = found.above_chance
    return {
        "split": split,
        "layer": layer,
        "pooling": pooling,
        "mean_removed": mean_removed,
        **found._asdict(),
        "better_than_chance": above is not None and above[0] > 0,
        "few_speakers": found.speakers < FEW_BLOCKS,
    }


def main() -> int:
    """Measures, prints the table and writes it as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models/malgil-xlsr-mini")
    parser.add_argument("--corpus", type=Path, default=ROOT / "build/corpus")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/asr_retrieval.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, sha256 = measure(arguments.model, arguments.corpus)
    print("| split | layer | pooling | mean removed | same speaker | 95% interval | chance |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        low, high = row["interval"] or (float("nan"), float("nan"))
        removed = "yes" if row["mean_removed"] else "no"
        print(
            f"| {row['split']} | {row['layer']} | {row['pooling']} | {removed} | {row['share']:.3f} "
            f"| {low:.3f} to {high:.3f} | {row['chance']:.3f} |"
        )
    write_json(
        arguments.out,
        {
            "what": "share of utterances whose nearest neighbour of another sentence is by the same speaker",
            "synthetic": True,
            "encoder": arguments.model.name,
            "model_sha256": sha256,
            "confidence": CONFIDENCE,
            "interval": f"block bootstrap by speaker, {RESAMPLES} resamples",
            "rows": rows,
            "machine": machine(),
            "versions": versions(),
            "commit": git_commit(),
        },
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Evaluation of the recogniser on the test splits: the checkpoint, and the ONNX file that ships.

    python -m tasks.asr.evaluate

Three conditions: `plain`; `silence` (digital silence added on both sides); `joined` (utterances of one
speaker put one after the other, without a pause). The split `test_ood`, where the corpus has one, is measured
in the plain condition and enters no other rate than its own. The checkpoint hears plain speech only: what
ships is judged under every condition, and plain speech shows what the export cost. The rates are made by
`tasks.asr.quality.rates`, slices with intervals by `tasks.asr.quality.slices`, jamo confusions by
`tasks.asr.quality.jamo`. The speech of the built-in corpus is synthetic: so are these numbers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.artifacts import new_folder, sha256_file, write_json, write_parquet
from tasks.asr.checkpoints.checkpoint import use_threads
from tasks.asr.engines.torch_model import OnnxRecogniser, Recogniser, TorchRecogniser, Transcript
from tasks.asr.joining import joined_groups
from tasks.asr.prepared import PreparedSpeech, read_prepared
from tasks.asr.quality.metrics import edit_counts
from tasks.asr.quality.rates import SPLITS, jamo_confusions, jamo_counts, rates
from tasks.asr.quality.slices import slices
from tasks.asr.training.augment import Audio
from tasks.cpu import measured_on
from tasks.data.espeak import SAMPLE_RATE_HZ
from tasks.data.manifest import OOD_KIND, OUT_OF_DOMAIN
from tasks.data.normalisers import normalise
from tasks.progress import Progress
from tasks.settings import EvaluateAsr
from tasks.stage import run_stage

log = logging.getLogger("malgil.asr.evaluate")
_CHUNK = 32  # utterances between two words of progress


@dataclass(frozen=True)
class Item:
    """One utterance under a condition, and the text it should give; `snr_db` is NaN for clean speech."""

    condition: str
    split: str
    utterance_id: str
    speaker: str
    reference: str
    audio: Audio
    snr_db: float = float("nan")
    ood_kind: str = ""


def evaluate(
    params: EvaluateAsr, *, checkpoint: Path, shipped: Path, prepared: Path, out_dir: Path
) -> dict[str, Any]:
    """Writes metrics.json and utterances.parquet to `out_dir`; returns the metrics.

    Raises `DataError` for an empty test split, `ModelError` or `ArtifactError` for a recogniser that
    cannot be read.
    """
    use_threads()
    data = read_prepared(prepared)
    items = [item for split in SPLITS for item in items_of(data, split, params)]
    if data.has(OUT_OF_DOMAIN):
        items += plain_items(data, OUT_OF_DOMAIN)
    else:
        log.info("no out-of-domain slice: no utterance has the split %s", OUT_OF_DOMAIN)
    onnx = OnnxRecogniser(shipped)
    systems: dict[str, tuple[Recogniser, str]] = {
        "checkpoint": (
            TorchRecogniser(checkpoint, params.batch_seconds),
            sha256_file(checkpoint / "model.safetensors"),
        ),
        "onnx_int8": (onnx, onnx.sha256),
    }
    metrics: dict[str, Any] = {
        "normaliser": data.normaliser,
        "normaliser_steps": data.normaliser_steps,
        "measured_on": measured_on(),
    }
    tables = []
    plain = [item for item in items if item.condition == "plain"]
    for name, (recogniser, sha256) in systems.items():
        began = time.monotonic()
        asked = plain if name == "checkpoint" else items
        table = run_system(name, recogniser, asked, data.normaliser)
        seconds = time.monotonic() - began
        table["sha256"] = sha256
        tables.append(table)
        speech_s = sum(len(item.audio) for item in asked) / SAMPLE_RATE_HZ
        metrics[name] = {
            **rates(table, params),
            "slices": slices(table, params),
            "confusions": jamo_confusions(table),
            "jamo_counts": jamo_counts(table),
            "times_real_time": round(speech_s / max(seconds, 1e-9), 1),
            "sha256": sha256,
        }
    with new_folder(out_dir) as folder:
        write_json(folder / "metrics.json", metrics)
        write_parquet(folder / "utterances.parquet", pd.concat(tables, ignore_index=True))
    return metrics


def plain_items(data: PreparedSpeech, split: str) -> list[Item]:
    """The utterances of a split as they are."""
    rows, store = data.split(split)
    count = len(rows)
    noise = rows["snr_db"].tolist() if "snr_db" in rows else [float("nan")] * count
    kinds = rows[OOD_KIND].fillna("").tolist() if OOD_KIND in rows else [""] * count
    columns = (rows["utterance_id"], rows["speaker"], rows["text"], noise, kinds)
    return [
        Item("plain", split, name, speaker, text, store.clip(index), snr_db, str(kind))
        for index, (name, speaker, text, snr_db, kind) in enumerate(zip(*columns, strict=True))
    ]


def items_of(data: PreparedSpeech, split: str, params: EvaluateAsr) -> list[Item]:
    """The utterances of a test split under the three conditions."""
    plain = plain_items(data, split)
    silence = np.zeros(int(params.silence_s * SAMPLE_RATE_HZ), dtype=np.float32)
    items = []
    for item in plain:
        padded = np.concatenate([silence, item.audio, silence])
        items += [item, replace(item, condition="silence", audio=padded)]
    for group in joined_groups([item.speaker for item in plain], params.joined):
        own = [plain[index] for index in group]
        items.append(
            Item(
                "joined",
                split,
                "+".join(item.utterance_id for item in own),
                own[0].speaker,
                " ".join(item.reference for item in own),
                np.concatenate([item.audio for item in own]),
            )
        )
    return items


def run_system(name: str, recogniser: Recogniser, items: Sequence[Item], normaliser: str) -> pd.DataFrame:
    """One row per item with the hypothesis, its edits and characters (both without spaces).

    Hypotheses pass the chain `normaliser` as the references did: a recogniser that writes digits or
    punctuation is scored on what it heard, not on how it writes.
    """
    # By length, so that a chunk pads little; the rows come back in the items' order.
    order = sorted(range(len(items)), key=lambda i: len(items[i].audio))
    heard = [Transcript("", "")] * len(items)
    with Progress(f"evaluate asr {name}", len(items), "utterances") as progress:
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            said = recogniser.transcripts([items[i].audio for i in chunk])
            for index, transcript in zip(chunk, said, strict=True):
                heard[index] = Transcript(*(normalise(text, normaliser) for text in transcript))
            progress.advance(len(chunk))
    rows = []
    for item, (hypothesis, greedy) in zip(items, heard, strict=True):
        counts = edit_counts("".join(item.reference.split()), "".join(hypothesis.split()))
        rows.append(
            {
                "system": name,
                "condition": item.condition,
                "split": item.split,
                "utterance_id": item.utterance_id,
                "speaker": item.speaker,
                "reference": item.reference,
                "hypothesis": hypothesis,
                "greedy": greedy,
                "edits": counts.edits,
                "characters": counts.reference,
                "duration_s": len(item.audio) / SAMPLE_RATE_HZ,
                "snr_db": item.snr_db,
                OOD_KIND: item.ood_kind,
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            __spec__.name,
            "evaluate_asr",
            evaluate,
            inputs={
                "checkpoint": Path("build/asr/checkpoint"),
                "shipped": Path("build/asr/shipped"),
                "prepared": Path("build/prepared/asr"),
            },
            outputs={"out_dir": Path("build/asr/evaluation")},
        )
    )

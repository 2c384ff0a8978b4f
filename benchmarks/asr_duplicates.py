"""Recall of the duplicate finder: copies planted by kind in a corpus, and the pairs that are none.

    python benchmarks/asr_duplicates.py       # after `dvc repro corpus`

Writes benchmarks/results/asr_duplicates.json. The settings are those of params.yaml (section embed_asr).
Originals come from the validation split and from the training rows from `FIRST_ROW` on, which no setting of
the finder was chosen by; one copy of each. They lie among other utterances of the same part. The speech of
the built-in corpus is synthetic.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import soundfile
import soxr
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks.artifacts import write_json
from tasks.asr.duplicates import find_duplicates
from tasks.asr.embedding.same_recording import outline, same_recording
from tasks.asr.provenance import git_commit, machine, versions
from tasks.data.audio import SAMPLE_RATE_HZ, read_audio
from tasks.data.manifest import read_manifest
from tasks.params import load
from tasks.progress import track

ROOT = Path(__file__).parents[1]
FIRST_ROW = 2_000
ORIGINALS = 1_100  # utterances beside the copies
PER_KIND = 40
SEED = 0
HALF_SECOND = SAMPLE_RATE_HZ // 2
STUDIO_HZ = 44_100
QUIET = 0.02  # of the peak; quieter samples at the ends are cut by `quiet_cut`
SPEECH = 0.1  # of the peak; a cut that took louder samples took speech

Audio = np.ndarray[Any, np.dtype[np.float32]]


class Kind(NamedTuple):
    """How a copy is made: from samples at 16 kHz to samples of `rate_hz`, in a file of `suffix`."""

    change: Callable[[Audio], Audio]
    suffix: str = "flac"
    subtype: str | None = None
    rate_hz: int = SAMPLE_RATE_HZ
    lost: slice = slice(0)  # samples that the copy lacks


def with_noise(audio: Audio) -> Audio:
    """White noise 20 dB below the clip."""
    noise = np.random.default_rng(len(audio)).standard_normal(len(audio), np.float32)
    return audio + noise * np.float32(np.sqrt(np.mean(np.square(audio)) / 100))


def at_44_1_khz(audio: Audio) -> Audio:
    """The clip at 44.1 kHz; reading it resamples it back."""
    return soxr.resample(audio, SAMPLE_RATE_HZ, STUDIO_HZ, quality="HQ").astype(np.float32)


def quiet_cut(audio: Audio) -> Audio:
    """The clip without the quiet at its ends."""
    loud = np.flatnonzero(np.abs(audio) > QUIET * np.abs(audio).max())
    return audio[loud[0] : loud[-1] + 1]


def combined(audio: Audio) -> Audio:
    """0.5 s of silence before it, noise, 6 dB less, at 44.1 kHz."""
    return at_44_1_khz(np.float32(0.5) * with_noise(np.pad(audio, (HALF_SECOND, 0))))


# Codecs at libsndfile's default quality.
KINDS = {
    "mp3": Kind(lambda audio: audio, "mp3"),
    "ogg": Kind(lambda audio: audio, "ogg", "VORBIS"),
    "opus": Kind(lambda audio: audio, "opus", "OPUS"),
    "gain -6 dB": Kind(lambda audio: audio * np.float32(0.5)),
    "44.1 kHz and back": Kind(at_44_1_khz, rate_hz=STUDIO_HZ),
    "0.5 s padded at the start": Kind(lambda audio: np.pad(audio, (HALF_SECOND, 0))),
    "0.5 s padded at the end": Kind(lambda audio: np.pad(audio, (0, HALF_SECOND))),
    "0.5 s cut at the start": Kind(lambda audio: audio[HALF_SECOND:], lost=slice(HALF_SECOND)),
    "0.5 s cut at the end": Kind(lambda audio: audio[:-HALF_SECOND], lost=slice(-HALF_SECOND, None)),
    "quiet cut at both ends": Kind(quiet_cut),
    "noise at 20 dB": Kind(with_noise),
    "padded, noise, -6 dB, 44.1 kHz, mp3": Kind(combined, "mp3", rate_hz=STUDIO_HZ),
}


def plant(corpus: Path, folder: Path, originals: int, per_kind: int) -> pd.DataFrame:
    """Makes a corpus of originals and copies in `folder`.

    Returns:
        A row per copy: `kind`, `original` and `copy` (utterance ids), the paths of both, and `lost`: the
        peak of the samples that were cut off, against the clip's.
    """
    manifest = read_manifest(corpus / "manifest.parquet")
    train = manifest[manifest["split"] == "train"].iloc[FIRST_ROW:]
    unused = pd.concat([manifest[manifest["split"] == "validation"], train])
    unused = unused[unused["duration_s"] > 1.5]  # 0.5 s less must leave something
    chosen = unused.sample(min(originals, len(unused)), random_state=SEED)
    if len(chosen) < per_kind * len(KINDS):
        raise SystemExit(f"{corpus} has {len(chosen)} unused utterances, {per_kind * len(KINDS)} are needed")
    (folder / "audio").mkdir(parents=True)
    for path in map(str, chosen["path"]):
        shutil.copyfile(corpus / path, folder / "audio" / Path(path).name)
    rows = [
        {"utterance_id": r.utterance_id, "path": f"audio/{Path(r.path).name}"} for r in chosen.itertuples()
    ]
    planted = []
    kinds = [name for name in KINDS for _ in range(per_kind)]
    for number, name in enumerate(track(kinds, "plant", unit="copies")):
        original, kind = rows[number], KINDS[name]
        path = f"audio/copy-{number:04d}.{kind.suffix}"
        whole = read_audio(folder / original["path"])
        audio = np.clip(kind.change(whole), -1.0, 1.0)
        form = "OGG" if kind.suffix == "opus" else None
        soundfile.write(folder / path, audio, kind.rate_hz, subtype=kind.subtype, format=form)
        planted.append(
            {"kind": name, "original": original["utterance_id"], "copy": f"copy-{number:04d}"}
            | {"original_path": original["path"], "copy_path": path}
            | {"lost": float(np.abs(whole[kind.lost]).max(initial=0.0) / np.abs(whole).max())}
        )
    rows += [{"utterance_id": row["copy"], "path": row["copy_path"]} for row in planted]
    mixed = pd.DataFrame(rows).sample(frac=1.0, random_state=SEED)
    mixed.to_parquet(folder / "manifest.parquet", index=False)
    return pd.DataFrame(planted)


def measure(corpus: Path, originals: int, per_kind: int) -> dict[str, Any]:
    """Recall per kind, why each miss was missed, and the false pairs."""
    settings = load(ROOT / "params.yaml").embed_asr
    with tempfile.TemporaryDirectory(prefix="malgil-") as scratch:
        folder, out = Path(scratch) / "corpus", Path(scratch) / "embeddings"
        planted = plant(corpus, folder, originals, per_kind)
        counts = find_duplicates(
            settings.model_copy(update={"model": str(ROOT / settings.model)}), corpus=folder, out=out
        )
        pairs = pd.read_parquet(out / "duplicates.parquet")
        found = {
            frozenset(pair) for pair in zip(pairs["utterance_id"], pairs["other_utterance_id"], strict=True)
        }
        planted["found"] = [
            frozenset(pair) in found for pair in zip(planted["original"], planted["copy"], strict=True)
        ]
        rows = [
            _row(name, planted[planted["kind"] == name], folder, settings.min_correlation) for name in KINDS
        ]
    return {
        "settings": settings.model_dump(),
        "counts": counts,
        "rows": rows,
        "planted": len(planted),
        "found": int(planted["found"].sum()),
        "false_pairs": len(found) - int(planted["found"].sum()),
    }


def _row(name: str, planted: pd.DataFrame, folder: Path, min_correlation: float) -> dict[str, Any]:
    """A miss lies with the comparison if the waveforms do not agree, else with the proposal of pairs."""
    missed = planted[~planted["found"]]
    agreed = [
        same_recording(outline(read_audio(folder / one)), outline(read_audio(folder / other)))
        for one, other in zip(missed["original_path"], missed["copy_path"], strict=True)
    ]
    not_the_same = sum(correlation < min_correlation for correlation in agreed)
    return {
        "kind": name,
        "planted": len(planted),
        "found": len(planted) - len(missed),
        "recall": 1 - len(missed) / len(planted),
        "cut_into_speech": int((planted["lost"] > SPEECH).sum()),
        "missed_and_cut_into_speech": int((missed["lost"] > SPEECH).sum()),
        "missed_by_comparison": not_the_same,
        "missed_by_proposal": len(missed) - not_the_same,
    }


def main() -> int:
    """Measures, prints the table and writes it as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=ROOT / "build/corpus")
    parser.add_argument("--originals", type=int, default=ORIGINALS)
    parser.add_argument("--per-kind", type=int, default=PER_KIND)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/asr_duplicates.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(arguments.corpus, arguments.originals, arguments.per_kind)
    print("| copy | found | cut into speech | missed: no pair proposed | missed: waveforms differ |")
    print("|---|---|---|---|---|")
    for row in found["rows"]:
        numbers = f"{row['cut_into_speech']} | {row['missed_by_proposal']} | {row['missed_by_comparison']}"
        print(f"| {row['kind']} | {row['found']} of {row['planted']} | {numbers} |")
    compared = found["counts"]["compared"]
    print(
        f"{found['found']} of {found['planted']} copies, {found['false_pairs']} false pairs, "
        f"{compared} recordings"
    )
    write_json(
        arguments.out,
        {
            "what": "copies found by tasks.asr.duplicates, one per original, among the built-in corpus",
            "synthetic": True,
            **found,
            "machine": machine(),
            "versions": versions(),
            "commit": git_commit(),
        },
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Cross-lingual pre-training of `malgil-xlsr-mini`: a small wav2vec2 encoder that has heard twenty
languages, no Korean.

    python -m tasks.asr.pretrain      # section `pretrain` of params.yaml; about 75 minutes of one core

Pseudo-words are rendered by espeak-ng in the training voices (never the held-out ones), at random rate
and pitch, and the encoder learns by CTC to write down espeak-ng's own IPA. Examples carry silence, noise
and joined utterances, because those are what a recogniser fine-tuned from it has to bear. A killed run
continues from its last checkpoint; the rendered speech is kept in the work folder until the end. Run by
hand: it is not a stage of the road.
"""

from __future__ import annotations

import logging
import os
import platform
import random
import subprocess
import time
import unicodedata
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rapidfuzz.distance import Levenshtein

from tasks.artifacts import digest_json, new_folder, read_json, sha256_file, write_json, write_parquet
from tasks.asr.augment import Augmentation, normalised
from tasks.asr.batching import AudioStore, buckets, pad, plan_batches
from tasks.asr.checkpoint import Vocabulary, describe, fresh_model, mini_config, save_checkpoint, use_threads
from tasks.asr.decode import greedy_labels
from tasks.asr.loop import Outcome, Schedule, train_steps
from tasks.asr.pseudo import check_languages, pseudo_sentence
from tasks.data.espeak import SAMPLE_RATE_HZ, Synthesiser
from tasks.data.voices import PRETRAINING_VARIANTS, UNSEEN_VOICES
from tasks.progress import track
from tasks.resume import ResumableState
from tasks.settings import Pretrain
from tasks.stage import run_stage
from tasks.tracking import JsonlTracker, read_history

log = logging.getLogger("malgil.asr.pretrain")
_VALIDATION = 160  # utterances, at most a tenth of the pool
_RATES_WPM = (120, 230)
_PITCHES = (20, 80)
_RAMP_EXAMPLES = 5000  # examples without augmentation, then as many over which it grows to all of it
_LONGEST_S = 7.0


def pretrain(params: Pretrain, *, out_dir: Path, work_dir: Path) -> Path:
    """Pre-trains the encoder and writes it with its provenance to `out_dir` (a Hugging Face folder);
    returns that.

    Raises `SettingsError` for Korean or an unknown language.
    """
    check_languages(params.languages)
    use_threads()
    commit = _git_commit()
    pool, store = _pool(params, work_dir)
    vocabulary = Vocabulary.of_symbols(tuple(sorted({symbol for ipa in pool["ipa"] for symbol in ipa})))
    ids = vocabulary.ids
    labels = [[ids[symbol] for symbol in ipa] for ipa in pool["ipa"]]
    held = min(_VALIDATION, len(labels) // 10)
    model = fresh_model(mini_config(len(vocabulary.symbols)), params.seed)
    log.info(
        "%d training utterances, %d symbols, %d parameters",
        len(labels) - held,
        len(ids),
        model.num_parameters(),
    )
    training = AudioStore(store.flat, store.offsets[held:], store.lengths[held:])
    how = Augmentation(params.joined_share, params.max_joined, params.max_silence_s, params.noise_share)
    # `steps` is left out of the key: a run may be shortened or lengthened while it is under way.
    key = digest_json([params.model_dump(exclude={"steps", "checkpoint_every"}), vocabulary.symbols])
    state = ResumableState(work_dir / "checkpoints", key)
    history = work_dir / "history.jsonl"
    every = params.checkpoint_every
    outcome = train_steps(
        model,
        plan_batches(training.lengths, how, params.batch_seconds, params.seed, ramp_examples=_RAMP_EXAMPLES),
        training,
        lambda parts: [label for part in parts for label in labels[held + part]],
        Schedule(params.steps, params.learning_rate, params.warmup_share, every, every),
        state,
        lambda resume_step: JsonlTracker(history, resume_step),
        lambda current: _symbol_error_rate(current, store, labels[:held], vocabulary.blank_id),
        "pre-train malgil-xlsr-mini",
    )
    _write(out_dir, model, vocabulary, _provenance(params, pool, store, outcome, model, commit, history))
    state.clear()
    return out_dir


def _pool(params: Pretrain, work_dir: Path) -> tuple[pd.DataFrame, AudioStore]:
    """The rendered pseudo-speech of these settings: made once, kept in the work folder."""
    folder = work_dir / "speech"
    key = digest_json([params.languages, params.seed, params.utterances, PRETRAINING_VARIANTS])
    if not (folder / "key.json").is_file() or read_json(folder / "key.json") != key:
        with new_folder(folder) as temporary:
            _render_pool(params, temporary)
            write_json(temporary / "key.json", key)
    pool = pd.read_parquet(folder / "utterances.parquet")
    lengths = pool["samples"].to_numpy(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    return pool, AudioStore(np.memmap(folder / "audio.i16", dtype=np.int16, mode="r"), offsets, lengths)


def _render_pool(params: Pretrain, folder: Path) -> None:
    rng = random.Random(params.seed)
    rows: list[dict[str, Any]] = []
    with Synthesiser() as synthesiser, (folder / "audio.i16").open("wb") as stream:
        for number in track(range(params.utterances), "render pseudo-speech", unit="utterances"):
            language = params.languages[number % len(params.languages)]
            variant = rng.choice(PRETRAINING_VARIANTS)
            text = pseudo_sentence(language, rng)
            rate, pitch = rng.randint(*_RATES_WPM), rng.randint(*_PITCHES)
            words = synthesiser.phonemes(text, language)
            ipa = [c for word in words for symbol in word for c in unicodedata.normalize("NFD", symbol)]
            audio = synthesiser.speak(text, f"{language}+{variant}", rate_wpm=rate, pitch=pitch)
            if not ipa or len(audio) > _LONGEST_S * SAMPLE_RATE_HZ:
                continue
            (audio * 32767).astype(np.int16).tofile(stream)
            rows.append(
                {"language": language, "variant": variant, "text": text, "ipa": ipa, "samples": len(audio)}
            )
    write_parquet(folder / "utterances.parquet", pd.DataFrame(rows))


def _symbol_error_rate(
    model: Any, store: AudioStore, references: list[list[int]], blank_id: int
) -> dict[str, float]:
    """IPA symbol error rate of held-out pseudo-sentences, without augmentation."""
    lengths = [int(length) for length in store.lengths[: len(references)]]
    edits = 0
    for group in buckets(lengths, 40.0):
        inputs, mask = pad([normalised(store.clip(index)) for index in group])
        logits = model(inputs, attention_mask=mask).logits.numpy()
        frames = model._get_feat_extract_output_lengths(mask.sum(-1)).tolist()
        for row, index in enumerate(group):
            edits += Levenshtein.distance(
                references[index], greedy_labels(logits[row, : int(frames[row])], blank_id)
            )
    rate = edits / max(1, sum(len(reference) for reference in references))
    return {"symbol_error_rate": rate, "score": rate}


def _provenance(
    params: Pretrain,
    pool: pd.DataFrame,
    store: AudioStore,
    outcome: Outcome,
    model: Any,
    commit: str,
    history: Path,
) -> dict[str, Any]:
    rows = [row for row in read_history(history) if "symbol_error_rate" in row]
    return {
        "name": "malgil-xlsr-mini",
        "command": "python -m tasks.asr.pretrain",
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "git_commit_at_start": commit,
        "params": params.model_dump(),
        "speech": {
            "synthetic": "pseudo-words rendered by espeak-ng; no recording, no text of anybody, no Korean",
            "utterances": len(pool),
            "hours": round(float(store.lengths.sum()) / SAMPLE_RATE_HZ / 3600, 2),
            "languages": sorted(set(pool["language"])),
            "variants": sorted(set(pool["variant"])),
            "variants_never_used": [voice.partition("+")[2] for voice in UNSEEN_VOICES],
        },
        "training": {
            "steps": outcome.step,
            "hours_heard_with_repeats": round(outcome.audio_s / 3600, 2),
            "resumed_from_step": outcome.resumed_from,
            "seconds": round(outcome.seconds),
            "final_loss": outcome.loss,
            "validation": rows,
        },
        "model": {"parameters": describe(model)["parameters"]},
        "machine": {"cpu": _cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "numpy", "espeakng-loader", "soxr")},
        },
    }


def _write(out_dir: Path, model: Any, vocabulary: Vocabulary, provenance: dict[str, Any]) -> None:
    with new_folder(out_dir) as folder:
        about = {"kind": "pre-trained encoder with an IPA head", "sample_rate_hz": SAMPLE_RATE_HZ}
        save_checkpoint(folder, model, vocabulary, about)
        weights = folder / "model.safetensors"
        size = {"sha256": sha256_file(weights), "bytes": weights.stat().st_size}
        write_json(folder / "PROVENANCE.json", {**provenance, **size})


def _git_commit() -> str:
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.info("no git commit is recorded: %s", error)
        return ""
    return answer.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            __spec__.name,
            "pretrain",
            pretrain,
            inputs={},
            outputs={"out_dir": Path("models/malgil-xlsr-mini"), "work_dir": Path("build/work/pretrain")},
        )
    )

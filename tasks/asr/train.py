"""Fine-tuning of the recogniser: a pre-trained wav2vec2 encoder under a Korean head, with CTC.

    python -m tasks.asr.train
    torchrun --nproc_per_node 2 -m tasks.asr.train      # or train_asr.processes: 2 in params.yaml

Works from any wav2vec2-style encoder (folder or Hub id), as one fine-tunes XLSR; the head writes jamo,
syllables or the checkpoint's own symbols. Examples are joined, surrounded by silence and mixed with noise
on the fly. The checkpoint is the one with the best validation CER; the last one lies beside the history. A
killed run continues from `build/work/train_asr` to the same result. Not here: the language model, which
`ngrams.py` puts beside the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tasks.artifacts import digest_folder, digest_json, new_folder, sha256_file, write_json
from tasks.asr.checkpoints.checkpoint import (
    Checkpoint,
    Vocabulary,
    describe,
    keeps_head,
    load_encoder,
    local_folder,
    normalises,
    save_checkpoint,
    use_threads,
)
from tasks.asr.checkpoints.labels import choose_vocabulary, encode_all, warn_of_missing
from tasks.asr.checkpoints.layout import pinned
from tasks.asr.engines.torch_model import recognise
from tasks.asr.prepared import PreparedSpeech, read_prepared
from tasks.asr.quality.metrics import cer, wer
from tasks.asr.streaming.training import alternating, both_ways, prepare_encoder
from tasks.asr.training.augment import Augmentation
from tasks.asr.training.batching import AudioStore, plan_batches
from tasks.asr.training.freeze import Trainable
from tasks.asr.training.loop import Outcome, Schedule, train_steps
from tasks.asr.training.paths import Paths
from tasks.asr.training.processes import World, join, launch, launched
from tasks.asr.training.specaugment import Masking
from tasks.asr.training.update import Method
from tasks.data.espeak import SAMPLE_RATE_HZ
from tasks.data.normalisers import normalise
from tasks.resume import ResumableState
from tasks.settings import TrainAsr
from tasks.stage import run_stage
from tasks.tracking import JsonlTracker
from tasks.weights.pickled import weights_of

log = logging.getLogger("malgil.asr.train")
_EVALUATION_BATCH_S = 40.0


def train(
    params: TrainAsr, *, prepared: Path, out_dir: Path, training_dir: Path, work_dir: Path
) -> dict[str, Any]:
    """Fine-tunes and writes `out_dir` (best checkpoint) and `training_dir` (history.jsonl, result.json,
    last/).

    Returns the content of result.json. Raises `DataError` (an empty split, characters outside the
    vocabulary), `ModelError` (no usable encoder), `ArtifactError` (the encoder is not the one its
    provenance names; divergence), `SettingsError` (a precision or a number of layers that is not there),
    `CapacityError` (one utterance does not fit into memory).
    """
    if params.processes > 1 and not launched():
        paths = {"out_dir": out_dir, "training_dir": training_dir, "work_dir": work_dir}
        result: dict[str, Any] = launch(params.processes, partial(train, params, prepared=prepared, **paths))
        return result
    use_threads()
    with join() as world:
        return _fine_tune(params, read_prepared(prepared), out_dir, training_dir, work_dir, world)


def _fine_tune(
    params: TrainAsr, data: PreparedSpeech, out_dir: Path, training_dir: Path, work_dir: Path, world: World
) -> dict[str, Any]:
    rows, store = data.split("train")
    heard, heard_store = data.split("validation")
    texts = rows["text"].tolist()
    params = params.model_copy(update={"encoder": pinned(params.encoder)})  # one commit from here on
    vocabulary = choose_vocabulary(params.vocabulary, params.encoder, texts)
    labels = encode_all(rows["utterance_id"].tolist(), texts, vocabulary)
    warn_of_missing("validation", heard["text"].tolist(), vocabulary)
    key = _digest(params, data, world)
    model = load_encoder(params.encoder, vocabulary, params.seed, params.from_scratch)
    kept = not params.from_scratch and keeps_head(params.encoder, vocabulary)
    model.to(world.device)
    streams = prepare_encoder(model, params)
    normalised = normalises(params.encoder) and not streams
    log.info("%d utterances, %.2f hours, %d parameters", len(rows), _hours(store), model.num_parameters())
    state = ResumableState(work_dir / "checkpoints", key)
    history = work_dir / "history.jsonl"
    labels_of = _joined(labels, vocabulary.encode(" "))
    paths = Paths(model.config, labels_of)
    _tell_without_path(rows["utterance_id"].tolist(), store, paths)
    plans = plan_batches(
        store.lengths, _augmentation(params), params.batch_seconds, params.seed, fit=paths.fit
    )
    if streams:
        per_step = params.accumulation * world.size
        plans = alternating(plans, model, params.full_context_share, params.seed, per_step)

    def rates(current: Any) -> dict[str, float]:
        return validation_rates(
            Checkpoint(current, vocabulary, normalised, {}), heard, heard_store, data.normaliser
        )

    outcome = train_steps(
        model,
        plans,
        store,
        labels_of,
        _schedule(params),
        state,
        lambda resume_step: JsonlTracker(history, resume_step),
        lambda current: both_ways(current, lambda: rates(current)) if streams else rates(current),
        "train asr",
        normalised,
        _method(params, kept),
        world,
    )
    about = {
        "kind": "ctc recogniser",
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "units": params.vocabulary,
        "head": "kept" if kept else "new",
        "do_normalize": normalised,
        "normaliser": data.normaliser,
        "normaliser_steps": data.normaliser_steps,
        "encoder": params.encoder,
        "encoder_weights": {} if params.from_scratch else weights_of(local_folder(params.encoder)),
        "from_scratch": params.from_scratch,
        "training_digest": key,
        "best_step": outcome.best_step,
    }
    result = _result(outcome, model, store, about, world)
    if world.leads:
        _write(out_dir, training_dir, model, vocabulary, outcome, about, result, history)
        state.clear()
    return result


def _augmentation(params: TrainAsr) -> Augmentation:
    return Augmentation(
        params.joined_share,
        params.max_joined,
        params.max_silence_s,
        params.noise_share,
        voice_share=params.speed_share,
    )


def _schedule(params: TrainAsr) -> Schedule:
    return Schedule(
        params.steps,
        params.learning_rate,
        params.warmup_share,
        params.checkpoint_every,
        params.evaluate_every,
        params.early_stopping_patience,
    )


def _method(params: TrainAsr, kept: bool) -> Method:
    return Method(
        head_factor=1.0 if kept else params.head_factor,
        accumulation=params.accumulation,
        precision=params.precision,
        gradient_checkpointing=params.gradient_checkpointing,
        trainable=Trainable(params.trainable, params.top_layers, params.unfreeze_share),
        masking=Masking(
            params.mask_time_prob,
            params.mask_time_length,
            params.mask_feature_prob,
            params.mask_feature_length,
        ),
    )


def _joined(labels: list[list[int]], space: list[int]) -> Callable[[tuple[int, ...]], list[int]]:
    """Labels of joined utterances, with a space between them."""

    def labels_of(parts: tuple[int, ...]) -> list[int]:
        joined = list(labels[parts[0]])
        for part in parts[1:]:
            joined += space + labels[part]
        return joined

    return labels_of


def _tell_without_path(ids: list[str], store: AudioStore, paths: Paths) -> None:
    """Warns of utterances that teach nothing, whatever augmentation does; validation quarantines them."""
    lost = [
        f"{name} ({paths.needed((row,))} frames needed, {paths.geometry.frames(int(samples))} given)"
        for row, (name, samples) in enumerate(zip(ids, store.lengths, strict=True))
        if not paths.fit((row,), int(samples))
    ]
    if lost:
        log.warning(
            "%d of %d utterances have more labels and repeats than frames, and CTC cannot align them: %s",
            len(lost),
            len(ids),
            "; ".join(lost[:5]) + (" and more" if len(lost) > 5 else ""),
        )


def validation_rates(
    checkpoint: Checkpoint, rows: pd.DataFrame, store: AudioStore, normaliser: str
) -> dict[str, float]:
    """Greedy CER without spaces (also the score that chooses the best checkpoint), CER with spaces and
    WER, of hypotheses after the chain `normaliser`, as the references are.
    """
    audio = [store.clip(index) for index in range(len(rows))]
    heard = recognise(checkpoint, audio, _EVALUATION_BATCH_S)
    hypotheses = [normalise(transcript.greedy, normaliser) for transcript in heard]
    references = rows["text"].tolist()
    rate = cer(references, hypotheses)
    return {
        "validation_cer": rate,
        "validation_cer_with_spaces": cer(references, hypotheses, spaces=True),
        "validation_wer": wer(references, hypotheses),
        "score": rate,
    }


def _digest(params: TrainAsr, data: PreparedSpeech, world: World) -> str:
    """Names the training: its settings, its processes, its data and its encoder."""
    encoder = local_folder(params.encoder, weights=not params.from_scratch)
    return digest_json(
        {
            "params": params.model_dump(exclude={"checkpoint_every", "processes"}),
            "processes": world.size,
            "rows": sha256_file(data.folder / "utterances.parquet"),
            "audio": sha256_file(data.folder / "audio.npy"),
            "encoder": digest_folder(encoder),
        }
    )


def _result(
    outcome: Outcome, model: Any, store: AudioStore, about: dict[str, Any], world: World
) -> dict[str, Any]:
    return {
        "steps": outcome.step,
        "stopped_early": outcome.stopped_early,
        "best_step": outcome.best_step,
        "best_validation_cer": outcome.best_score,
        "final_loss": outcome.loss,
        "seconds": round(outcome.seconds, 1),
        "resumed_from_step": outcome.resumed_from,
        "training_hours": round(_hours(store), 3),
        "examples_without_path": outcome.without_path,
        "hours_heard": round(outcome.audio_s / 3600, 3),
        "times_real_time": round(outcome.audio_s / max(outcome.seconds, 1e-9), 1),
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "processes": world.size,
        "parameters": describe(model)["parameters"],
        **about,
    }


def _write(
    out_dir: Path,
    training_dir: Path,
    model: Any,
    vocabulary: Vocabulary,
    outcome: Outcome,
    about: dict[str, Any],
    result: dict[str, Any],
    history: Path,
) -> None:
    """The last weights first, then the best; each folder appears whole or not at all."""
    with new_folder(training_dir) as folder:
        (folder / "history.jsonl").write_bytes(history.read_bytes())
        write_json(folder / "result.json", result)
        last = folder / "last"
        last.mkdir()
        save_checkpoint(last, model, vocabulary, {**about, "step": outcome.step}, about["do_normalize"])
        if outcome.best_weights:
            model.load_state_dict(outcome.best_weights)
        with new_folder(out_dir) as best:
            save_checkpoint(
                best, model, vocabulary, {**about, "step": outcome.best_step}, about["do_normalize"]
            )


def _hours(store: AudioStore) -> float:
    return float(store.lengths.sum()) / SAMPLE_RATE_HZ / 3600


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            __spec__.name,
            "train_asr",
            train,
            inputs={"prepared": Path("build/prepared/asr")},
            outputs={
                "out_dir": Path("build/asr/trained"),
                "training_dir": Path("build/asr/training"),
                "work_dir": Path("build/work/train_asr"),
            },
        )
    )

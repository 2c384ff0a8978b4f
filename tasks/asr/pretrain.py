"""Pre-training of an encoder: on pseudo-speech of many languages, on users' audio with transcripts, or on
audio alone.

    python -m tasks.asr.pretrain      # section `pretrain` of params.yaml; makes malgil-xlsr-mini
                                      # as shipped: about 75 minutes of one core
    torchrun --nproc_per_node 2 -m tasks.asr.pretrain      # or pretrain.processes: 2

`pretrain.source` says what is heard. `espeak` (as shipped): pseudo-words rendered in the training voices,
never the held-out ones, at random rate and pitch, written down in espeak-ng's own IPA. `manifest`: users'
audio in any languages, written down in the characters of its transcripts. Both learn by CTC. `audio`: no
transcripts, wav2vec2's contrastive task. Examples carry silence, noise and joined utterances, because
those are what a recogniser fine-tuned from it has to bear. A killed run continues from its last checkpoint
to the same weights; the speech is kept in the work folder until the end. Run by hand: it is not a stage of
the road.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tasks.artifacts import digest_json, new_folder, sha256_file, write_json
from tasks.asr import provenance
from tasks.asr.checkpoints.checkpoint import (
    describe,
    save_checkpoint,
    use_threads,
)
from tasks.asr.checkpoints.layout import local_folder, pinned
from tasks.asr.pretraining.corpus import PretrainingSpeech, read_speech
from tasks.asr.pretraining.objective import Objective, contrastive, supervised
from tasks.asr.pretraining.pseudo import check_languages
from tasks.asr.training.augment import Augmentation
from tasks.asr.training.batching import AudioStore, plan_batches
from tasks.asr.training.loop import Outcome, Schedule, train_steps
from tasks.asr.training.processes import World, join, launch, launched
from tasks.asr.training.update import Method
from tasks.data.espeak import SAMPLE_RATE_HZ
from tasks.errors import ModelError
from tasks.freshness import Digests, digest_named
from tasks.resume import ResumableState
from tasks.settings import Pretrain
from tasks.stage import run_stage
from tasks.tracking import JsonlTracker, read_history

log = logging.getLogger("malgil.asr.pretrain")
_VALIDATION = 160  # utterances, at most a tenth of the speech
_RAMP_EXAMPLES = 5000  # examples without augmentation, then as many over which it grows to all of it


def pretrain(params: Pretrain, *, out_dir: Path, work_dir: Path) -> Path:
    """Pre-trains the encoder and writes it with its provenance to `out_dir` (a Hugging Face folder);
    returns that.

    Raises `SettingsError` (Korean or an unknown language among the pseudo-languages, a source without its
    corpus), `DataError` (a corpus that is none, or too small), `ModelError` and `ArtifactError` (nothing
    usable in `pretrain.initial`; divergence).
    """
    if params.source == "espeak":
        check_languages(params.languages)
    if params.initial:
        params = params.model_copy(update={"initial": _checked(params.initial)})
    use_threads()
    if params.processes > 1 and not launched():
        read_speech(params, work_dir / "speech")  # before there is anybody to wait for it
        made: Path = launch(params.processes, partial(pretrain, params, out_dir=out_dir, work_dir=work_dir))
        return made
    with join() as world:
        if world.leads:
            read_speech(params, work_dir / "speech")
        world.told(True)  # the others wait until it is there
        return _pretrain(params, out_dir, work_dir, world)


def _pretrain(params: Pretrain, out_dir: Path, work_dir: Path, world: World) -> Path:
    commit = provenance.git_commit()
    speech = read_speech(params, work_dir / "speech")
    held = max(1, min(_VALIDATION, len(speech.symbols) // 10))
    with _naming_the_setting():
        objective = (contrastive if params.source == "audio" else supervised)(params, speech, held)
    log.info(
        "%d training utterances, %.2f hours, %d parameters",
        len(speech.symbols) - held,
        float(speech.store.lengths.sum()) / SAMPLE_RATE_HZ / 3600,
        objective.model.num_parameters(),
    )
    history = work_dir / "history.jsonl"
    state = ResumableState(work_dir / "checkpoints", _digest(params, speech, objective, world, work_dir))
    outcome = _train(params, speech, held, objective, state, history, world)
    if world.leads:
        about = _provenance(params, speech, objective, outcome, commit, history, out_dir.name, world)
        _write(out_dir, objective, about)
        state.clear()
    return out_dir


def _checked(initial: str) -> str:
    """The checkpoint with its commit, one for all processes; looked at before hours of speech are made."""
    with _naming_the_setting():
        found = pinned(initial)
        local_folder(found)
        return found


@contextmanager
def _naming_the_setting() -> Iterator[None]:
    """Says of a checkpoint that cannot be used which setting names it."""
    try:
        yield
    except ModelError as error:
        raise ModelError(
            error.what, error.rule, f"{error.next_step} (pretrain.initial in params.yaml)"
        ) from error


def _train(
    params: Pretrain,
    speech: PretrainingSpeech,
    held: int,
    objective: Objective,
    state: ResumableState,
    history: Path,
    world: World,
) -> Outcome:
    """All steps, from the last checkpoint on; the first `held` utterances are only judged by."""
    store = speech.store
    training = AudioStore(store.flat, store.offsets[held:], store.lengths[held:])
    how = Augmentation(params.joined_share, params.max_joined, params.max_silence_s, params.noise_share)
    every = params.checkpoint_every
    objective.model.to(world.device)
    return train_steps(
        objective.model,
        plan_batches(training.lengths, how, params.batch_seconds, params.seed, ramp_examples=_RAMP_EXAMPLES),
        training,
        lambda parts: [label for part in parts for label in objective.labels[held + part]],
        Schedule(params.steps, params.learning_rate, params.warmup_share, every, every),
        state,
        lambda resume_step: JsonlTracker(history, resume_step),
        objective.evaluate,
        "pre-train",
        objective.normalise,
        Method(accumulation=params.accumulation),
        world,
        loss_of=objective.loss_of,
    )


def _digest(
    params: Pretrain, speech: PretrainingSpeech, objective: Objective, world: World, work_dir: Path
) -> str:
    """Names the training. `steps` is left out: a run may be shortened or lengthened while it is under way."""
    digests = Digests(work_dir / "initial.digests.json")
    initial = digest_named(params.initial, digests) or params.initial
    digests.save()
    return digest_json(
        [
            params.model_dump(exclude={"steps", "checkpoint_every", "corpus", "initial", "processes"}),
            world.size,
            speech.digest,
            objective.vocabulary.symbols,
            initial,
        ]
    )


def _provenance(
    params: Pretrain,
    speech: PretrainingSpeech,
    objective: Objective,
    outcome: Outcome,
    commit: str,
    history: Path,
    name: str,
    world: World,
) -> dict[str, Any]:
    """Where the weights come from: names, hashes and hours, never a path of somebody's machine."""
    initial = provenance.checkpoint(params.initial) if params.initial else {}
    named = {"corpus": Path(params.corpus).name, "initial": initial.get("name", "")}
    return {
        "name": name,
        "command": "python -m tasks.asr.pretrain",
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "git_commit_at_start": commit,
        "params": params.model_dump() | named,
        "initial": initial,
        "speech": speech.about,
        "training": {
            "objective": "contrastive" if objective.loss_of else "ctc",
            "steps": outcome.step,
            "hours_heard_with_repeats": round(outcome.audio_s / 3600, 2),
            "resumed_from_step": outcome.resumed_from,
            "seconds": round(outcome.seconds),
            "processes": world.size,
            "final_loss": outcome.loss,
            "validation": [row for row in read_history(history) if "loss" not in row],
        },
        "model": {"parameters": describe(objective.model)["parameters"]},
        "machine": provenance.machine(),
        "versions": provenance.versions(),
    }


def _write(out_dir: Path, objective: Objective, about: dict[str, Any]) -> None:
    with new_folder(out_dir) as folder:
        kind = {"kind": objective.kind, "sample_rate_hz": SAMPLE_RATE_HZ}
        save_checkpoint(folder, objective.model, objective.vocabulary, kind, objective.normalise)
        weights = folder / "model.safetensors"
        size = {"sha256": sha256_file(weights), "bytes": weights.stat().st_size}
        write_json(folder / "PROVENANCE.json", {**about, **size})


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

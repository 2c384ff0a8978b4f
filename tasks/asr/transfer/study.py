"""The transfer study: Korean CER by amount of data, from scratch and on the pre-trained encoder.

    malgil asr study      # sections `study_asr` and `train_asr` of params.yaml; about 40 minutes of one core

Every number of utterances in `study_asr.sizes` is learned from in three ways: all layers from random
weights (`scratch`), the pre-trained encoder with only its new head trained (`head`), and with all layers
trained (`full`); each for every seed. A seed draws one order of the training sentences, so its smaller
sets lie inside its larger ones. At one size all three ways take the same number of steps. Afterwards the
largest size is learned once more in twice the steps, which shows how far from its end a training was
stopped. CER is that of the last weights, greedy, on the split `test_voices` (voices and sentences that
no training heard); nothing is chosen by it.

A finished run is a small file in the work folder: a study that is killed goes on with the runs not yet
done. Not a stage of the road, and no judgement of the shipped model: it trains for minutes, not to the end.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.artifacts import digest_folder, digest_json, read_json, sha256_file, write_json
from tasks.asr import provenance
from tasks.asr.checkpoints.checkpoint import Checkpoint, Vocabulary, load_encoder, normalises, use_threads
from tasks.asr.checkpoints.labels import encode_all
from tasks.asr.checkpoints.layout import pinned
from tasks.asr.prepared import PreparedSpeech, read_prepared
from tasks.asr.train import validation_rates
from tasks.asr.training.augment import Augmentation
from tasks.asr.training.batching import AudioStore, plan_batches
from tasks.asr.training.freeze import Trainable
from tasks.asr.training.loop import Schedule, train_steps
from tasks.asr.training.update import Method
from tasks.asr.transfer import plot as study_plot
from tasks.asr.transfer.reading import caveats, compare, overall
from tasks.errors import DataError
from tasks.progress import Progress
from tasks.resume import ResumableState
from tasks.settings import StudyAsr, TrainAsr
from tasks.tracking import JsonlTracker

log = logging.getLogger("malgil.asr.study")
METHODS = ("scratch", "head", "full")
NAME = "asr_transfer"
_TEST = "test_voices"


@dataclass(frozen=True)
class Run:
    """One training of the study; `stretch` 2 is the same in twice the steps."""

    method: str
    utterances: int
    seed: int
    steps: int
    stretch: int = 1

    @property
    def name(self) -> str:
        """Names the run's file."""
        longer = "-longer" if self.stretch > 1 else ""
        return f"{self.method}-{self.utterances}-seed{self.seed}{longer}"


def runs_of(params: StudyAsr) -> list[Run]:
    """Every run, seed by seed, so that an early stop leaves whole comparisons; the longer ones at the end."""
    runs = [
        Run(method, size, seed, steps)
        for seed in params.seeds
        for size, steps in zip(params.sizes, params.steps, strict=True)
        for method in METHODS
    ]
    size, steps, seed = params.sizes[-1], params.steps[-1], params.seeds[0]
    return [*runs, *(Run(method, size, seed, 2 * steps, stretch=2) for method in METHODS)]


def study(
    params: StudyAsr,
    training: TrainAsr,
    *,
    prepared: Path,
    out_dir: Path,
    work_dir: Path,
    so_far: bool = False,
) -> dict[str, Any]:
    """Runs what is not done yet and writes `out_dir`/asr_transfer.json and .svg; returns the JSON's content.

    `so_far` writes from the runs that are done and starts none. Raises `DataError` (too few utterances, or
    no run done yet with `so_far`) and what a training raises.
    """
    use_threads()
    data = read_prepared(prepared)
    asked = training.encoder
    training = training.model_copy(update={"encoder": pinned(asked)})  # one commit from here on
    key = _digest(params, training, data)
    runs = runs_of(params)
    files = {run: work_dir / f"{run.name}.json" for run in runs}
    results = {run: found for run, path in files.items() if (found := _finished(path, run, key))}
    missing = [run for run in runs if run not in results]
    if missing and not so_far:
        bench = _Bench(params, training, data, work_dir)
        done = sum(run.steps for run in results)
        with Progress("transfer study", sum(run.steps for run in runs), "steps", start=done) as progress:
            for run in missing:
                log.info("run %d of %d: %s", len(results) + 1, len(runs), run.name)
                results[run] = {"key": key, **asdict(run), **bench.train(run)}
                write_json(files[run], results[run])
                progress.advance(run.steps, cer=results[run]["cer"])
    if not results:
        raise DataError(
            f"{work_dir} has no finished run of these settings",
            "a study is written from its runs",
            "start it without --so-far",
        )
    report = _report(params, training, data, [results[run] for run in runs if run in results], len(runs))
    report["encoder"] = {"asked": asked, **provenance.checkpoint(training.encoder)}
    write_json(out_dir / f"{NAME}.json", report)
    study_plot.plot(_points(report["runs"]), _title(params), out_dir / f"{NAME}.svg")
    return report


class _Bench:
    """Holds what all runs share: data, vocabulary, the judged utterances."""

    def __init__(self, params: StudyAsr, training: TrainAsr, data: PreparedSpeech, work_dir: Path) -> None:
        self.params, self.training, self.work_dir = params, training, work_dir
        self.vocabulary = Vocabulary.of_jamo()
        self.commit = provenance.git_commit()
        self.normalise = normalises(training.encoder)
        self.normaliser = data.normaliser
        rows, self.store = data.split("train")
        single = rows["joined"] == 1 if "joined" in rows else np.full(len(rows), True)
        self.pool = np.flatnonzero(single)
        if len(self.pool) < params.sizes[-1]:
            raise DataError(
                f"the train split has {len(self.pool)} utterances of one sentence",
                f"study_asr.sizes asks for {params.sizes[-1]}",
                "lower study_asr.sizes or raise corpus.train_utterances in params.yaml",
            )
        self.rows = rows
        judged, self.judged_store = data.split(_TEST)
        self.judged = judged.iloc[: params.test_utterances]

    def train(self, run: Run) -> dict[str, Any]:
        """Trains one run and returns its error rates and costs."""
        chosen = self.pool[np.random.default_rng(run.seed).permutation(len(self.pool))][: run.utterances]
        rows = self.rows.iloc[chosen]
        labels = encode_all(rows["utterance_id"].tolist(), rows["text"].tolist(), self.vocabulary)
        store = AudioStore(self.store.flat, self.store.offsets[chosen], self.store.lengths[chosen])
        scratch = run.method == "scratch"
        model = load_encoder(self.training.encoder, self.vocabulary, run.seed, scratch)
        # Joining is left out, so that a number of utterances is what it says.
        how = Augmentation(0.0, 1, self.training.max_silence_s, self.training.noise_share)
        batch_seconds, rate = self.params.batch_seconds, self.training.learning_rate
        outcome = train_steps(
            model,
            plan_batches(store.lengths, how, batch_seconds, run.seed),
            store,
            lambda parts: labels[parts[0]],
            Schedule(run.steps, rate, self.training.warmup_share, run.steps, run.steps),
            ResumableState(self.work_dir / "checkpoints", run.name),
            lambda step: JsonlTracker(self.work_dir / "history" / f"{run.name}.jsonl", step),
            lambda _: {"score": 0.0},
            run.name,
            self.normalise,
            Method(
                # A fresh head is behind a pre-trained encoder, not behind one as random as itself.
                head_factor=1.0 if scratch else self.training.head_factor,
                trainable=Trainable("head" if run.method == "head" else "all"),
            ),
        )
        seconds = float(store.lengths.sum()) / 16_000
        rates = self._judge(model)
        return {
            "cer": rates["validation_cer"],
            "wer": rates["validation_wer"],
            "training_audio_s": round(seconds, 1),
            "passes_over_the_data": round(outcome.audio_s / seconds, 2),
            "final_loss": outcome.loss,
            "seconds": round(outcome.seconds, 1),
            "git_commit": self.commit,
        }

    def _judge(self, model: Any) -> dict[str, float]:
        model.eval()
        with torch.inference_mode():
            heard = Checkpoint(model, self.vocabulary, self.normalise, {})
            return validation_rates(heard, self.judged, self.judged_store, self.normaliser)


def _digest(params: StudyAsr, training: TrainAsr, data: PreparedSpeech) -> str:
    """Names what a run's number depends on, besides the run itself."""
    encoder = Path(training.encoder)
    return digest_json(
        [
            [params.batch_seconds, params.test_utterances],
            training.model_dump(include=set(_used(training))),
            sha256_file(data.folder / "utterances.parquet"),
            digest_folder(encoder) if encoder.is_dir() else training.encoder,
        ]
    )


def _used(training: TrainAsr) -> dict[str, Any]:
    names = ("encoder", "learning_rate", "head_factor", "warmup_share", "max_silence_s", "noise_share")
    return {name: getattr(training, name) for name in names}


def _finished(path: Path, run: Run, key: str) -> dict[str, Any] | None:
    found = read_json(path) if path.is_file() else {}
    return found if {**found, **asdict(run), "key": key} == found else None


def _report(
    params: StudyAsr, training: TrainAsr, data: PreparedSpeech, results: list[dict[str, Any]], planned: int
) -> dict[str, Any]:
    points = _points(results)
    means = {
        method: {size: statistics.fmean(p) for size, p in curve.items()} for method, curve in points.items()
    }
    common = sorted(set.intersection(*(set(means.get(method, {})) for method in METHODS)))
    curves = {method: [means[method][size] for size in common] for method in METHODS}
    reading = {
        method: compare(common, curves["scratch"], curves[method]) if common else []
        for method in ("full", "head")
    }
    return {
        "what": "Korean CER without spaces, greedy, last weights, on unseen sentences by unseen voices",
        "synthetic": True,
        "speech": "built-in corpus, rendered by espeak-ng: says nothing about recordings of people",
        "claim": "transfer needs at most a third of the data for the same CER",
        "caveats": caveats(
            curves["scratch"],
            max((r["passes_over_the_data"] for r in results if _is_largest(r, params)), default=0.0),
            len(results),
            planned,
        ),
        "verdict": {method: overall(entries) for method, entries in reading.items()},
        "reading": reading,
        "table": _table(points),
        "runs_done": len(results),
        "runs_planned": planned,
        "runs": [{name: value for name, value in result.items() if name != "key"} for result in results],
        "params": {"study_asr": params.model_dump(), "train_asr": _used(training)},
        "normaliser": data.normaliser,
        "utterances_sha256": sha256_file(data.folder / "utterances.parquet"),
        "written_at_commit": provenance.git_commit(),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
    }


def _is_largest(result: dict[str, Any], params: StudyAsr) -> bool:
    return bool(result["utterances"] == params.sizes[-1] and result["stretch"] == 1)


def _points(results: Sequence[dict[str, Any]]) -> dict[str, dict[int, list[float]]]:
    """CER of every seed by method and size; the longer runs stand apart."""
    points: dict[str, dict[int, list[float]]] = {method: {} for method in METHODS}
    for result in results:
        if result["stretch"] == 1:
            points[result["method"]].setdefault(result["utterances"], []).append(result["cer"])
    return points


def _table(points: dict[str, dict[int, list[float]]]) -> list[dict[str, Any]]:
    return [
        {
            "method": method,
            "utterances": size,
            "seeds": len(rates),
            "mean_cer": statistics.fmean(rates),
            "sd_cer": statistics.stdev(rates) if len(rates) > 1 else None,
            "lowest_cer": min(rates),
            "highest_cer": max(rates),
        }
        for method, curve in points.items()
        for size, rates in sorted(curve.items())
    ]


def _title(params: StudyAsr) -> str:
    steps = ", ".join(f"{steps:,}" for steps in params.steps)
    return (
        "Synthetic speech, unseen sentences and voices; a point is a run, lines join means\n"
        f"steps at each size: {steps}; batches of {params.batch_seconds:g} s"
    )

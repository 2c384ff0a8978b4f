"""Fine-tuning throughput: this project's loop against Hugging Face `Trainer`, side by side in one process.

    python benchmarks/asr_finetuning.py --out benchmarks/results/asr_finetuning.json

Same encoder and head, same recordings (synthetic speech), fp32, AdamW, one thread count, the same mean
seconds of real audio per update: at the shipped recipe (8 s of padded audio on our side; the headline), and
at two and four times that. The peer is `Trainer` as its users run it for CTC: audio normalised
beforehand, padding collator with an attention mask, no evaluation, no saving; once with its default sampler
and once with `group_by_length`, its best. Ours renders its batches on the fly; augmentation is off on both
sides. All three take turns, and the ratio is that of the medians of seconds of real audio learned from per
second. The same per second of processor time stands beside it: on a machine that others use it is the
steadier of the two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from tasks.artifacts import write_json
from tasks.asr.checkpoints.checkpoint import Vocabulary, load_encoder, normalises, use_threads
from tasks.asr.checkpoints.labels import encode_all
from tasks.asr.prepared import read_prepared
from tasks.asr.provenance import git_commit, machine, versions
from tasks.asr.training.augment import NO_AUGMENTATION, Example, normalised
from tasks.asr.training.batching import AudioStore, Batch, ctc_loss, make_batch, plan_batches
from tasks.asr.training.processes import World
from tasks.asr.training.update import Method, Updater
from tasks.data.espeak import SAMPLE_RATE_HZ

ASKED = 1.5
# Seconds of padded audio per update on our side; the first is train_asr.batch_seconds, the shipped recipe.
BATCH_SECONDS = (8.0, 16.0, 32.0)
_RATE = 1e-4


def measure(
    encoder: Path, prepared: Path, quick: bool, batch_seconds: float = BATCH_SECONDS[0]
) -> list[dict[str, Any]]:
    """Rows of the figure at one size of update: one against each configuration of the peer. `quick` takes a
    few updates only.
    """
    use_threads()
    rounds, updates, warm_up = (2, 4, 4) if quick else (5, 12, 30)
    if batch_seconds > BATCH_SECONDS[0]:  # as much audio in fewer updates
        updates, warm_up = max(4, updates // 2), max(4, warm_up // 2)
    vocabulary = Vocabulary.of_jamo()
    rows, store = read_prepared(prepared).split("train")
    labels = encode_all(rows["utterance_id"].tolist(), rows["text"].tolist(), vocabulary)
    normalise = normalises(str(encoder))

    def model() -> Any:
        return load_encoder(str(encoder), vocabulary, seed=1)

    ours = _Ours(model(), store, labels, normalise, batch_seconds)
    # The mean real audio of an update of ours, in utterances: what both peers get.
    plans = list(islice(plan_batches(store.lengths, NO_AUGMENTATION, batch_seconds, seed=2), 200))
    seconds = sum(example.samples for plan in plans for example in plan) / SAMPLE_RATE_HZ / len(plans)
    size = max(1, round(seconds / (float(store.lengths.mean()) / SAMPLE_RATE_HZ)))
    data = _Recordings(store, labels, normalise)
    runs: dict[str, Callable[[int], _Speed]] = {"ours": ours}
    for sampler in ("random", "group_by_length"):
        runs[sampler] = _Peer(model(), data, size, sampler)
    for run in runs.values():
        run(warm_up)  # oneDNN compiles its kernels for the shapes it meets
    speeds: dict[str, list[_Speed]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            speeds[name].append(run(updates))
    medians = {name: statistics.median(speed.wall for speed in found) for name, found in speeds.items()}
    cpu = {name: statistics.median(speed.cpu for speed in found) for name, found in speeds.items()}
    return [
        {
            "figure": f"fine-tuning against Hugging Face Trainer ({sampler}), {batch_seconds:g} s per update",
            "asked": ASKED,
            "ours": round(medians["ours"], 2),
            "peer": round(medians[sampler], 2),
            "ratio": round(medians["ours"] / medians[sampler], 2),
            "unit": "seconds of real audio per second",
            "detail": {
                "load": [round(load, 1) for load in os.getloadavg()],
                "audio_s_per_update": round(seconds, 2),
                "peer_batch_size": size,
                "updates_per_round": updates,
                "warm_up_updates": warm_up,
                "ratio_of_processor_time": round(cpu["ours"] / cpu[sampler], 2),
                "rounds": {name: [round(s.wall, 2) for s in found] for name, found in speeds.items()},
                "rounds_per_processor_second": {
                    name: [round(s.cpu, 2) for s in found] for name, found in speeds.items()
                },
                "precision": "fp32",
                "threads": torch.get_num_threads(),
                "speech": "synthetic",
            },
        }
        for sampler in ("random", "group_by_length")
    ]


class _Speed(NamedTuple):
    """Seconds of real audio per second of wall clock and of processor time."""

    wall: float
    cpu: float


class _Ours:
    """Updates of `tasks.asr.training.update` on batches of similar length."""

    def __init__(
        self, model: Any, store: AudioStore, labels: list[list[int]], normalise: bool, batch_seconds: float
    ) -> None:
        def batch_of(plan: tuple[Example, ...]) -> Batch:
            return make_batch(plan, store, lambda parts: labels[parts[0]], normalise, True)

        self.plans: Iterator[tuple[Example, ...]] = plan_batches(
            store.lengths, NO_AUGMENTATION, batch_seconds, seed=1
        )
        self.updater = Updater(model.train(), Method(), 10**6, batch_of, ctc_loss, World())
        self.step = 0

    def __call__(self, updates: int) -> _Speed:
        began, used, audio_s = time.perf_counter(), time.process_time(), 0.0
        for plan in islice(self.plans, updates):
            audio_s += self.updater.update([plan], self.step, _RATE)[1]
            self.step += 1
        return _Speed(audio_s / (time.perf_counter() - began), audio_s / (time.process_time() - used))


class _Recordings(torch.utils.data.Dataset[dict[str, Any]]):
    """What the peer's users hold: normalised audio and label ids."""

    def __init__(self, store: AudioStore, labels: list[list[int]], normalise: bool) -> None:
        self.store, self.labels, self.normalise = store, labels, normalise

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = self.store.clip(index)
        return {"input_values": normalised(clip) if self.normalise else clip, "labels": self.labels[index]}


class _Clock(TrainerCallback):
    """Seconds between the first and the last update of a `train()`: its set-up is not counted."""

    wall_s = cpu_s = 0.0

    def on_train_begin(self, *arguments: Any, **rest: Any) -> None:
        self.began, self.used = time.perf_counter(), time.process_time()

    def on_step_end(self, *arguments: Any, **rest: Any) -> None:
        self.wall_s, self.cpu_s = time.perf_counter() - self.began, time.process_time() - self.used


class _Peer:
    """`Trainer` with the padding collator of its CTC examples; every call goes on with the same model."""

    def __init__(self, model: Any, data: _Recordings, size: int, sampler: str) -> None:
        model.config.ctc_loss_reduction = "mean"
        self.model, self.data, self.size, self.sampler = model, data, size, sampler
        self.calls, self.audio_s = 0, 0.0
        self.sorted_by = [int(length) for length in data.store.lengths]

    def __call__(self, updates: int) -> _Speed:
        self.calls += 1
        self.audio_s = 0.0
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=updates,
                per_device_train_batch_size=self.size,
                train_sampling_strategy=self.sampler,
                length_column_name="length",
                learning_rate=_RATE,
                optim="adamw_torch_fused",
                max_grad_norm=1.0,
                seed=self.calls,
                use_cpu=not torch.cuda.is_available(),
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
                dataloader_pin_memory=False,
            )
            clock = _Clock()
            trainer = _Grouping(
                model=self.model,
                args=arguments,
                train_dataset=self.data,
                data_collator=self._collate,
                callbacks=[clock],
            )
            trainer.sample_lengths = self.sorted_by
            trainer.train()
        return _Speed(self.audio_s / clock.wall_s, self.audio_s / clock.cpu_s)

    def _collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(feature["input_values"]) for feature in features)
        widest = max(len(feature["labels"]) for feature in features)
        batch = {
            "input_values": torch.zeros(len(features), longest),
            "attention_mask": torch.zeros(len(features), longest, dtype=torch.long),
            "labels": torch.full((len(features), widest), -100),
        }
        for row, feature in enumerate(features):
            audio = feature["input_values"]
            batch["input_values"][row, : len(audio)] = torch.from_numpy(audio)
            batch["attention_mask"][row, : len(audio)] = 1
            batch["labels"][row, : len(feature["labels"])] = torch.tensor(feature["labels"])
            self.audio_s += len(audio) / SAMPLE_RATE_HZ
        return batch


class _Grouping(Trainer):
    """`Trainer` that is told the lengths, which it would otherwise find by reading every recording."""

    sample_lengths: list[int]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        from transformers.trainer_pt_utils import LengthGroupedSampler

        return LengthGroupedSampler(self.args.train_batch_size, lengths=self.sample_lengths)


def main() -> int:
    """Measures, prints a line per row and writes the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", type=Path, default=Path("models/malgil-xlsr-mini"))
    parser.add_argument("--prepared", type=Path, default=Path("build/prepared/asr"))
    parser.add_argument("--batch-seconds", type=float, nargs="+", default=BATCH_SECONDS)
    parser.add_argument("--quick", action="store_true", help="a few updates: shows that it runs")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    rows = [
        row
        for batch_seconds in arguments.batch_seconds
        for row in measure(arguments.encoder, arguments.prepared, arguments.quick, batch_seconds)
    ]
    for row in rows:
        print(
            f"{row['figure']}: {row['ours']} against {row['peer']} {row['unit']}: {row['ratio']}x "
            f"(asked: {row['asked']}x; {row['detail']['ratio_of_processor_time']}x per processor second)"
        )
    if arguments.out:
        made = {"git_commit": git_commit(), "machine": machine(), "versions": versions()}
        write_json(arguments.out, {"synthetic": True, **made, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

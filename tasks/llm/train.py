"""LoRA fine-tuning of the base model: written command → tool call.

    python -m tasks.llm.train

One packed row per step (`packing.py`), loss on the tool call and its end-of-turn token alone, AdamW with
linear warm-up and decay, float32 (a CPU without bf16 units multiplies bf16 ten times slower), on the GPU
where there is one (`hardware.py`). The run can be killed at any time: started again it goes on from its last
checkpoint to the same weights.
"""

import itertools
import logging
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from tasks.artifacts import digest_folder, digest_json, new_folder, sha256_file, write_json
from tasks.inference.loading import load_model, load_tokenizer
from tasks.llm.attention import PACKED, completion_loss, packed_logits
from tasks.llm.chat import load_tools
from tasks.llm.hardware import Kernels, choose_kernels, device, kernels_used, use_kernels
from tasks.llm.lora import add_lora
from tasks.llm.packing import Example, Pack, encode, pack, shared_prefix
from tasks.llm.rows import read_rows
from tasks.progress import Progress
from tasks.resume import ResumableState
from tasks.settings import TrainLlm
from tasks.stage import run_stage
from tasks.tracking import JsonlTracker

CLIP_NORM = 1.0
BETAS = (0.9, 0.99)
B_FACTOR = 4.0
log = logging.getLogger("malgil.train_llm")


@dataclass(frozen=True)
class TrainLlmResult:
    """What a training run ends with; `training/result.json` holds the same."""

    steps: int
    tokens: int
    completion_tokens: int
    examples: int
    epochs: float
    loss: float
    validation_loss: float
    validation_exact: float
    seconds: float
    tokens_per_s: float
    trainable_parameters: int
    device: str
    kernels: str
    kernels_used: dict[str, list[str]]


def train(
    params: TrainLlm, *, base: Path, prepared: Path, adapter: Path, training: Path, work: Path
) -> TrainLlmResult:
    """Tunes an adapter for the model in `base` on `prepared`/train.jsonl.

    Args:
        base: Hugging Face folder of the base model.
        prepared: folder with train.jsonl, validation.jsonl and tools.json.
        adapter: written: PEFT adapter (safetensors).
        training: written: history.jsonl and result.json.
        work: resumable state, kept while the run is unfinished.

    Raises:
        ModelError: the base model cannot be read.
        DataError: a split is empty or holds a tool call outside its schema.
        ArtifactError: training diverged.
        SettingsError: params.kernels is on and the kernels cannot run here.
    """
    tools = load_tools(prepared / "tools.json")
    splits = {name: read_rows(prepared / f"{name}.jsonl", tools) for name in ("train", "validation")}
    tokenizer = load_tokenizer(base)
    examples = {name: encode(tokenizer, rows) for name, rows in splits.items()}
    prefix = shared_prefix([*examples["train"], *examples["validation"]])
    rows = plan(examples["train"], params, prefix)
    looks = pack(examples["validation"][: params.validation_examples], params.pack_length, prefix)
    place = device()
    model, kernels = _load(base, params, place)
    inputs = {name: sha256_file(prepared / f"{name}.jsonl") for name in splits}
    key = digest_json({"params": params.model_dump(), "base": digest_folder(base), **inputs})
    on_device = ([row.to(place) for row in part] for part in (rows, looks))
    run = _Run(params, model, kernels, *on_device, work=work, key=key)
    result = run.finish(len(examples["train"]))
    with new_folder(training) as folder:
        shutil.copyfile(work / "history.jsonl", folder / "history.jsonl")
        write_json(folder / "result.json", asdict(result))
    with new_folder(adapter) as folder:
        model.save_pretrained(folder, safe_serialization=True)
    run.state.clear()
    return result


def _load(base: Path, params: TrainLlm, place: torch.device) -> tuple[Any, Kernels]:
    """The base model on `place` with a fresh adapter, and the kernels in it where they are on."""
    model = load_model(base, attention=PACKED)
    family = model.config.model_type
    kernels = choose_kernels(params.kernels, model_type=family, place=place, dtype=model.dtype)
    log.info("training on %s, kernels %s", place, kernels)
    model = add_lora(
        model,
        rank=params.rank,
        alpha=params.alpha,
        dropout=params.dropout,
        seed=params.seed,
        plain=kernels.on,
    ).to(place)  # drawn on the CPU: one seed, one adapter on every machine
    if kernels.on:
        use_kernels(model)
    return model, kernels


def plan(examples: Sequence[Example], params: TrainLlm, prefix: int) -> list[Pack]:
    """The rows of the whole run: shuffled passes over the examples, cut where the token budget is met.

    What the budget leaves out is said in a log line; nothing is dropped silently.
    """
    rows: list[Pack] = []
    left = params.max_tokens
    for row in _passes(examples, params, prefix):
        rows.append(row)
        left -= len(row.ids)
        if left <= 0:
            break
    used = sum(len(row.segments) for row in rows)
    tokens = sum(len(row.ids) for row in rows)
    log.info("%d steps, %d tokens, %d examples (%.2f passes)", len(rows), tokens, used, used / len(examples))
    if used < len(examples):
        log.warning(
            "train_llm.max_tokens = %d ends before %d of %d examples are seen",
            params.max_tokens,
            len(examples) - used,
            len(examples),
        )
    return rows


def _passes(examples: Sequence[Example], params: TrainLlm, prefix: int) -> Iterator[Pack]:
    for number in itertools.count():
        order = list(examples)
        random.Random(f"{params.seed}-{number}").shuffle(order)
        yield from pack(order, params.pack_length, prefix)


def learning_rate(step: int, steps: int, params: TrainLlm) -> float:
    """The rate of step 0..steps-1: linear warm-up over `warmup_share` of them, then linear to zero."""
    warmup = max(1, round(params.warmup_share * steps))
    if step < warmup:
        return params.learning_rate * (step + 1) / warmup
    return params.learning_rate * (steps - step) / max(1, steps - warmup)


def _groups(model: Any) -> list[dict[str, Any]]:
    """Parameter groups: B learns faster than A (LoRA+, Hayou et al. 2024)."""
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return [
        {"params": [weight for name, weight in named if "lora_B" not in name], "factor": 1.0},
        {"params": [weight for name, weight in named if "lora_B" in name], "factor": B_FACTOR},
    ]


class _Run:
    """The loop with its optimizer and checkpoints."""

    def __init__(
        self,
        params: TrainLlm,
        model: Any,
        kernels: Kernels,
        rows: list[Pack],
        looks: list[Pack],
        *,
        work: Path,
        key: str,
    ) -> None:
        self.params, self.model, self.rows, self.looks = params, model, rows, looks
        self.kernels = kernels
        self.causal = model.get_base_model()
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(_groups(model), betas=BETAS, weight_decay=0.0, fused=True)
        self.state = ResumableState(work / "checkpoints", key)
        self.step, self.seconds, self.loss = 0, 0.0, 0.0
        self._resume()
        self.tracker = JsonlTracker(work / "history.jsonl", self.step if self.step else None)

    def finish(self, examples: int) -> TrainLlmResult:
        """Runs the remaining steps and returns the figures of the whole run."""
        steps = len(self.rows)
        tokens = sum(len(row.ids) for row in self.rows)
        with Progress("train llm", steps, "steps", start=self.step) as progress:
            while self.step < steps:
                began = time.monotonic()
                self._update(self.rows[self.step])
                self.seconds += time.monotonic() - began
                self.step += 1
                progress.advance(loss=self.loss)
                last = self.step == steps
                if self.step % self.params.evaluate_every == 0 or last:
                    validation_loss, exact = self._look()
                    self.tracker.log(self.step, validation_loss=validation_loss, validation_exact=exact)
                if self.step % self.params.checkpoint_every == 0 and not last:
                    self._save()
        used = sum(len(row.segments) for row in self.rows)
        return TrainLlmResult(
            steps=steps,
            tokens=tokens,
            completion_tokens=sum(len(row.targets) for row in self.rows),
            examples=used,
            epochs=used / examples,
            loss=self.loss,
            validation_loss=validation_loss,
            validation_exact=exact,
            seconds=self.seconds,
            tokens_per_s=tokens / self.seconds,
            trainable_parameters=sum(weight.numel() for weight in self.weights),
            device=self.rows[0].ids.device.type,
            kernels=str(self.kernels),
            kernels_used=kernels_used() if self.kernels.on else {},
        )

    def _update(self, row: Pack) -> None:
        rate = learning_rate(self.step, len(self.rows), self.params)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        torch.manual_seed(
            self.params.seed * 1_000_003 + self.step
        )  # dropout resumes without a stored generator
        self.model.train()
        loss: Tensor = completion_loss(self.causal, row, kernels=self.kernels.on) / len(row.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.weights, CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss = loss.item()
        self.tracker.log(self.step + 1, loss=self.loss, learning_rate=rate, gradient_norm=norm.item())

    def _look(self) -> tuple[float, float]:
        """Mean loss per completion token, and the share of answers right token by token.

        With the right answer given so far, the most likely token is right at every place exactly when
        greedy decoding gives that answer; one pass replaces generating it.
        """
        self.model.eval()
        loss, tokens, right, answers = 0.0, 0, 0, 0
        with torch.inference_mode():
            for row in self.looks:
                logits = packed_logits(self.causal, row)
                loss += torch.nn.functional.cross_entropy(logits, row.targets, reduction="sum").item()
                tokens += len(row.targets)
                hit = logits.argmax(-1) == row.targets
                for start, end in row.segments:
                    right += bool(hit[(row.predicting >= start) & (row.predicting < end)].all())
                answers += len(row.segments)
        return loss / tokens, right / answers

    def _save(self) -> None:
        state = {
            "adapter": get_peft_model_state_dict(self.model),
            "optimizer": self.optimizer.state_dict(),
            "seconds": self.seconds,
            "loss": self.loss,
        }
        self.state.save(self.step, state)

    def _resume(self) -> None:
        found = self.state.load()
        if found is None:
            return
        self.step, state = found
        set_peft_model_state_dict(self.model, state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seconds, self.loss = state["seconds"], state["loss"]


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            "tasks.llm.train",
            "train_llm",
            train,
            inputs={"base": Path("build/llm/base"), "prepared": Path("build/prepared/llm")},
            outputs={
                "adapter": Path("build/llm/adapter"),
                "training": Path("build/llm/training"),
                "work": Path("build/work/train_llm"),
            },
        )
    )

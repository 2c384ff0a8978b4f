"""LoRA fine-tuning of the base model: written command → tool call.

    python -m tasks.llm.train

The loss is on the tool call and its end-of-turn token alone. `train_llm.initial` names the adapter to start
from: one that was pre-trained (`pretrain.py`), or that of the version that serves. The run can be killed at
any time: started again it goes on from its last checkpoint to the same weights.
"""

import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.artifacts import digest_folder, digest_json, new_folder, sha256_file, write_json
from tasks.inference.loading import load_tokenizer
from tasks.llm.adapters import adapted_model
from tasks.llm.chat import load_tools
from tasks.llm.curriculum import Curriculum
from tasks.llm.decisions import with_decisions
from tasks.llm.feed import Feed, Planned
from tasks.llm.hardware import device
from tasks.llm.packing import Example, encode, pack, shared_prefix
from tasks.llm.rows import read_rows
from tasks.llm.training import Group, Run, TrainingResult, plan
from tasks.settings import TrainLlm
from tasks.stage import run_stage

log = logging.getLogger("malgil.train_llm")


def train(
    params: TrainLlm, *, base: Path, prepared: Path, adapter: Path, training: Path, work: Path
) -> TrainingResult:
    """Tunes an adapter for the model in `base` on `prepared`/train.jsonl.

    Args:
        base: Hugging Face folder of the base model.
        prepared: folder with train.jsonl, validation.jsonl and tools.json.
        adapter: written: PEFT adapter (safetensors).
        training: written: history.jsonl and result.json.
        work: resumable state, kept while the run is unfinished.

    Raises:
        ModelError: the base model or `params.initial` cannot be read, or they do not fit each other.
        DataError: a split is empty or holds a tool call outside its schema.
        ArtifactError: training diverged.
        SettingsError: params.kernels is on and the kernels cannot run here.
    """
    tools = load_tools(prepared / "tools.json")
    splits = {name: read_rows(prepared / f"{name}.jsonl", tools) for name in ("train", "validation")}
    tokenizer = load_tokenizer(base)
    examples = {name: encode(tokenizer, rows) for name, rows in splits.items()}
    prefix = shared_prefix([*examples["train"], *examples["validation"]])
    if params.order == "hardest" or params.decision_weight != 1.0:
        examples["train"] = with_decisions(examples["train"], splits["train"], tools, tokenizer)
    feed = _feed(params, examples["train"], splits["train"], prefix)
    looks = pack(examples["validation"][: params.validation_examples], params.pack_length, prefix)
    place = device()
    model, kernels = adapted_model(base, params, place, initial=params.initial, blocks=params.blocks)
    inputs = {name: sha256_file(prepared / f"{name}.jsonl") for name in splits}
    if params.initial:
        inputs["initial"] = digest_folder(Path(params.initial))
    key = digest_json({"params": params.model_dump(), "base": digest_folder(base), **inputs})
    run = Run(
        params,
        model,
        kernels,
        feed,
        [row.to(place) for row in looks],
        work=work,
        key=key,
        decision_weight=params.decision_weight,
    )
    result = run.finish(len(examples["train"]))
    with new_folder(training) as folder:
        shutil.copyfile(work / "history.jsonl", folder / "history.jsonl")
        write_json(folder / "result.json", asdict(result))
    with new_folder(adapter) as folder:
        model.save_pretrained(folder, safe_serialization=True)
    run.state.clear()
    return result


def _feed(params: TrainLlm, examples: list[Example], rows: list[dict[str, Any]], prefix: int) -> Feed:
    """How the training goes over its examples: by chance, or the hardest first."""
    if params.order == "random":
        return Planned(plan([Group(examples, prefix)], params))
    return Curriculum(
        examples,
        rows,
        prefix=prefix,
        length=params.pack_length,
        max_tokens=params.max_tokens,
        seed=params.seed,
    )


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

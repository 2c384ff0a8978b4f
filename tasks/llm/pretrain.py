"""Continued pre-training of a language model: an adapter that knows more of a language, to fine-tune from.

    python -m tasks.llm.pretrain      # section `pretrain_llm` of params.yaml; makes models/malgil-ko-requests
    malgil llm pretrain               # the same

As shipped it learns from requests of everyday Korean beside their calls, their English and other ways to say
them (`pretraining/requests.py`), which share no three words in a row and no value with the commands that the
built-in example is tested with (`pretraining/overlap.py`). With `pretrain_llm.source: text` it learns from
documents of the user's own. The weights are kept as float16, with their provenance beside them. A killed run
continues from its last checkpoint to the same weights. Run by hand: it is not a stage of the road.
"""

import logging
import platform
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tasks.artifacts import digest_folder, digest_json, new_folder, read_json, sha256_file, write_json
from tasks.asr.provenance import git_commit, machine
from tasks.errors import SettingsError
from tasks.inference.loading import load_tokenizer
from tasks.llm.adapters import WEIGHTS, adapted_model
from tasks.llm.feed import Planned
from tasks.llm.hardware import device
from tasks.llm.packing import Pack, pack
from tasks.llm.pretraining.documents import Document, builtin_documents, read_documents
from tasks.llm.pretraining.examples import group_documents
from tasks.llm.training import Group, Run, plan
from tasks.settings import PretrainLlm
from tasks.stage import run_stage

_PACKAGES = ("torch", "transformers", "peft")
log = logging.getLogger("malgil.pretrain_llm")


def pretrain(params: PretrainLlm, *, base: Path, out_dir: Path, work: Path) -> Path:
    """Trains an adapter for the model in `base` and writes it with its provenance to `out_dir`; returns that.

    Args:
        base: Hugging Face folder of the base model.
        out_dir: written: PEFT adapter (float16 safetensors), history.jsonl and PROVENANCE.json.
        work: resumable state, kept while the run is unfinished.

    Raises:
        SettingsError: `params.source` is text and no text is named, there are too few documents, or kernels
            are asked for and cannot run.
        DataError: the text holds no document. ModelError: the base model cannot be read.
        ArtifactError: training diverged.
    """
    commit = git_commit()
    documents = _documents(params)
    tokenizer = load_tokenizer(base)
    held_out, learned = documents[: params.validation_examples], documents[params.validation_examples :]
    rows = plan(group_documents(tokenizer, learned), params)
    looks = [pack_ for group in group_documents(tokenizer, held_out) for pack_ in _packed(group, params)]
    place = device()
    model, kernels = adapted_model(base, params, place)
    text = digest_json([asdict(document) for document in documents])
    base_digest = digest_folder(base)
    key = digest_json({"params": params.model_dump(), "base": base_digest, "documents": text})
    looks = [row.to(place) for row in looks]
    run = Run(params, model, kernels, Planned(rows), looks, work=work, key=key, name="pretrain llm")
    result = run.finish(len(learned))
    with new_folder(out_dir) as folder:
        model.save_pretrained(folder, safe_serialization=True)
        _halve(folder / WEIGHTS)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card
        shutil.copyfile(work / "history.jsonl", folder / "history.jsonl")
        about = {
            "name": out_dir.name,
            "command": "malgil llm pretrain",
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "git_commit_at_start": commit,
            "params": params.model_dump(mode="json"),
            "base_model": read_json(base / "malgil.json") if (base / "malgil.json").is_file() else {},
            "base_model_sha256": base_digest,
            "documents": {"n": len(documents), "held_out": len(held_out), "sha256": text},
            "result": asdict(result),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
            "machine": machine(),
            "sha256": {WEIGHTS: sha256_file(folder / WEIGHTS)},
            "licence": "Apache-2.0",
        }
        write_json(folder / "PROVENANCE.json", about)
    run.state.clear()
    return out_dir


def _documents(params: PretrainLlm) -> list[Document]:
    if params.source == "text" and not params.text:
        raise SettingsError(
            "params.yaml", ["pretrain_llm.source: 'text' needs pretrain_llm.text: a path"], "name your file"
        )
    builtin = params.source == "builtin"
    found = builtin_documents(params.documents, params.seed) if builtin else read_documents(Path(params.text))
    if len(found) <= params.validation_examples:
        source = "pretrain_llm.documents draws" if builtin else f"{params.text} holds"
        raise SettingsError(
            "params.yaml",
            [
                f"pretrain_llm.validation_examples: {params.validation_examples}, but {source} "
                f"{len(found)} documents"
            ],
            "lower it, so that documents are left to learn from",
        )
    return found


def _packed(group: Group, params: PretrainLlm) -> list[Pack]:
    return pack(group.examples, params.pack_length, group.prefix)


def _halve(path: Path) -> None:
    """Rewrites an adapter's weights as float16: half the bytes, and finer than what training leaves open."""
    weights: dict[str, Any] = {name: weight.to(torch.float16) for name, weight in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            "tasks.llm.pretrain",
            "pretrain_llm",
            pretrain,
            inputs={"base": Path("build/llm/base")},
            outputs={"out_dir": Path("models/malgil-ko-requests"), "work": Path("build/work/pretrain_llm")},
        )
    )

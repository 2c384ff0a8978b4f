"""A base model with the adapter that a training starts from: fresh, or an earlier one that it goes on from.

Only the model; the loop is `training.py`.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict

from tasks.errors import SettingsError
from tasks.inference.loading import load_model
from tasks.llm.attention import PACKED
from tasks.llm.hardware import Kernels, choose_kernels, use_kernels
from tasks.llm.lora import add_lora, block_of, blocks_of
from tasks.settings import LlmTraining
from tasks.weights.adapters import WEIGHTS, read_initial

__all__ = ["WEIGHTS", "adapted_model"]
log = logging.getLogger("malgil.train_llm")


def adapted_model(
    base: Path, params: LlmTraining, place: torch.device, *, initial: str = "", blocks: int = 0
) -> tuple[Any, Kernels]:
    """The model of `base` on `place` with its adapter, and the kernels in it where they are on.

    Args:
        initial: folder of a PEFT adapter of the same base model to go on from; empty: a fresh adapter.
        blocks: blocks that learn, counted from the output; 0: all of them. What `initial` knows in the others
            stays as it is.

    Raises:
        ModelError: the base model or `initial` cannot be read, or one does not fit the other.
        SettingsError: `params.kernels` is on and they cannot run, or the model has fewer than `blocks`.
    """
    model = load_model(base, attention=PACKED)
    family = model.config.model_type
    kernels = choose_kernels(params.kernels, model_type=family, place=place, dtype=model.dtype)
    log.info("training on %s, kernels %s", place, kernels)
    learning = _learning(blocks, blocks_of(model))
    model = add_lora(
        model,
        rank=params.rank,
        alpha=params.alpha,
        dropout=params.dropout,
        seed=params.seed,
        plain=kernels.on,
        blocks=None if initial else learning,
    )  # drawn on the CPU: one seed, one adapter on every machine
    if initial:
        _go_on_from(model, Path(initial), params)
        for name, weight in model.named_parameters():
            if weight.requires_grad and block_of(name) not in learning:
                weight.requires_grad_(False)
    model = model.to(place)
    if kernels.on:
        use_kernels(model)
    return model, kernels


def _learning(blocks: int, total: int) -> range:
    """The numbers of the blocks that learn."""
    if blocks > total:
        raise SettingsError(
            "params.yaml",
            [f"train_llm.blocks: {blocks}, but the model has {total}"],
            f"set it to at most {total}, or to 0 for all of them",
        )
    return range(total - blocks if blocks else 0, total)


def _go_on_from(model: Any, folder: Path, params: LlmTraining) -> None:
    """Puts the weights of the adapter in `folder` into the model's own.

    One that was trained on some blocks says so in its configuration; the others stay fresh.
    """
    own = {
        name.replace(".default.weight", ".weight"): tuple(weight.shape)
        for name, weight in model.state_dict().items()
        if ".lora_" in name
    }
    weights = read_initial(folder, own, rank=params.rank, alpha=params.alpha)
    set_peft_model_state_dict(model, {name: weight.float() for name, weight in weights.items()})
    log.info("going on from the adapter in %s", folder)

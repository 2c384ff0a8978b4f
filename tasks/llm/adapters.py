"""A base model with the adapter that a training starts from: fresh, or an earlier one that it goes on from.

Only the model; the loop is `training.py`.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from tasks.errors import ModelError, SettingsError
from tasks.inference.loading import load_model
from tasks.llm.attention import PACKED
from tasks.llm.hardware import Kernels, choose_kernels, use_kernels
from tasks.llm.lora import add_lora, block_of, blocks_of
from tasks.settings import LlmTraining
from tasks.weights.adapters import WEIGHTS, read_adapter
from tasks.weights.whole import require_finite, require_whole

__all__ = ["WEIGHTS", "adapted_model"]
# settings of PEFT by which an adapter computes something else than rank and alpha say
_OTHER_KINDS = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "bias",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
    "fan_in_fan_out",
    "layer_replication",
)
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
    adapter = read_adapter(folder)
    rank, alpha = adapter.config["r"], adapter.config["lora_alpha"]
    if (rank, alpha) != (params.rank, params.alpha):
        raise ModelError(
            f"the adapter in {folder} has rank {rank} and alpha {alpha:g}",
            f"an adapter goes on with its own; the settings say {params.rank} and {params.alpha:g}",
            "set train_llm.rank and train_llm.alpha to the adapter's, or train_llm.initial to another",
        )
    if other := sorted(
        name for name in _OTHER_KINDS if adapter.config.get(name) not in (None, False, {}, "none")
    ):
        raise ModelError(
            f"the adapter in {folder} is of another kind ({', '.join(other)})",
            "a training goes on from plain LoRA with one rank and one scale",
            "set train_llm.initial to an adapter that a training here wrote, or leave it empty",
        )
    layers = adapter.config.get("layers_to_transform")
    blocks = None if layers is None else set(layers if isinstance(layers, list) else [layers])
    own = {
        name.replace(".default.weight", ".weight"): tuple(weight.shape)
        for name, weight in model.state_dict().items()
        if ".lora_" in name and (blocks is None or block_of(name) in blocks)
    }
    require_whole(
        own,
        adapter.shapes(),
        where=f"the adapter in {folder}",
        next_step="set train_llm.initial to an adapter of this base model, or leave it empty",
    )
    weights = load_file(folder / WEIGHTS)
    require_finite(
        weights, where=f"the adapter in {folder}", next_step="set train_llm.initial to another adapter"
    )
    set_peft_model_state_dict(model, {name: weight.float() for name, weight in weights.items()})
    log.info("going on from the adapter in %s", folder)

"""A LoRA adapter from its folder: looked at before PEFT is asked, and put on a model whole or not at all.

PEFT fills what an adapter's file lacks with a fresh adapter, which changes nothing, and drops what it cannot
place. Here the file must have what its own configuration asks for on this very model, by name and shape. No
command.
"""

import json
import logging
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tasks.errors import ModelError
from tasks.weights.stored import Stored, require_content, stored
from tasks.weights.whole import listed, require_finite, require_whole

log = logging.getLogger("malgil.weights")
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
OWN_BASE = "name the adapter that was trained on this base model, or train one: `dvc repro -f train_llm`"
_MOST_CONFIG_BYTES = 10_000_000
# settings of PEFT by which an adapter computes something else than rank and alpha say
_OTHER_KINDS = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "bias",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
)
_BLOCK = re.compile(r"\.layers\.(\d+)\.")
_NAMES = re.compile(r"[\w.-]+")  # what PEFT reads as a regular expression must be a plain name


class Adapter(NamedTuple):
    """A LoRA adapter's folder, its configuration as written, and what its file holds."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Stored]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}


def read_adapter(folder: Path) -> Adapter:
    """What an adapter says it is, and what its file holds; no values are read.

    Raises:
        ModelError: a file is missing, cut off or empty, it is no LoRA, or its configuration asks for what its
            file cannot hold.
    """
    if not (folder / WEIGHTS).is_file():
        pickled = (
            " (adapter_model.bin is pickled, and not read)"
            if (folder / "adapter_model.bin").is_file()
            else ""
        )
        raise ModelError(
            f"the adapter in {folder} cannot be loaded: it has no {WEIGHTS}{pickled}",
            f"an adapter is {CONFIG} and {WEIGHTS}",
            "save it again with PEFT's save_pretrained, which writes safetensors, or name another",
        )
    config = _config(folder)
    tensors = stored(folder / WEIGHTS)
    if not tensors:
        raise _wrong(folder, f"{WEIGHTS} holds no tensors")
    largest = max(max(tensor.shape, default=1) for tensor in tensors.values())
    ranks = {"r": config["r"], **config.get("rank_pattern", {})}
    beyond = {name: rank for name, rank in ranks.items() if not 0 < rank <= largest}
    if beyond:
        raise _wrong(
            folder, f"{CONFIG} has rank {next(iter(beyond.values()))}, which its tensors do not have"
        )
    integers = [f"{name} is {t.dtype}" for name, t in tensors.items() if not t.dtype.startswith(("F", "BF"))]
    if integers:
        raise _wrong(
            folder,
            listed(integers, "tensor is no floating-point numbers", "tensors are no floating-point numbers"),
        )
    return Adapter(folder, config, tensors)


def read_initial(
    folder: Path, expected: Mapping[str, tuple[int, ...]], *, rank: int, alpha: float
) -> dict[str, Any]:
    """The weights (torch tensors by name) of an adapter that a training goes on from.

    Args:
        expected: shapes of an adapter on every block of the base model, by name. Of one that was trained on
            some blocks, as its configuration says, the others are not asked for.
        rank, alpha: those of the training.

    Raises:
        ModelError: see `read_adapter`; or it has another rank, alpha or kind, is not wholly one of this base
            model, or holds NaN.
    """
    from safetensors.torch import load_file

    adapter = read_adapter(folder)
    its = adapter.config
    if (its["r"], its["lora_alpha"]) != (rank, alpha):
        raise ModelError(
            f"the adapter in {folder} has rank {its['r']} and alpha {its['lora_alpha']:g}",
            f"an adapter goes on with its own; the settings say {rank} and {alpha:g}",
            "set train_llm.rank and train_llm.alpha to the adapter's, or train_llm.initial to another",
        )
    if other := [name for name in _OTHER_KINDS if its.get(name) not in (None, False, {}, [], "none")]:
        raise ModelError(
            f"the adapter in {folder} is of another kind ({', '.join(other)})",
            "a training goes on from plain LoRA with one rank and one scale",
            "set train_llm.initial to an adapter that a training here wrote, or leave it empty",
        )
    layers = its.get("layers_to_transform")
    blocks = None if layers is None else set(map(str, layers if isinstance(layers, list) else [layers]))
    own = {
        name: shape
        for name, shape in expected.items()
        if blocks is None or ((found := _BLOCK.search(name)) and found[1] in blocks)
    }
    require_whole(
        own,
        adapter.shapes(),
        where=f"the adapter in {folder}",
        next_step="set train_llm.initial to an adapter of this base model, or leave it empty",
    )
    weights: dict[str, Any] = load_file(folder / WEIGHTS)
    require_finite(
        weights, where=f"the adapter in {folder}", next_step="set train_llm.initial to another adapter"
    )
    return weights


def merge_adapter(model: Any, folder: Path) -> Any:
    """`model` with the adapter of `folder` added to its weights, all of it.

    Raises:
        ModelError: see `load_adapter`; or PEFT cannot merge adapters of its kind.
    """
    adapted = load_adapter(model, folder)
    if not any(weight.any() for name, weight in adapted.named_parameters() if ".lora_B." in name):
        log.warning("the adapter in %s has learnt nothing: what is merged equals the base model", folder)
    try:
        return adapted.merge_and_unload()
    except Exception as error:
        raise _wrong(folder, f"PEFT cannot merge it ({' '.join(str(error).split())[:300]})") from error


def load_adapter(model: Any, folder: Path) -> Any:
    """A PEFT model: `model` with the adapter of `folder` on it, all of it.

    Raises:
        ModelError: see `read_adapter`; or tensors are missing, unexpected or of another shape for this model,
            or hold NaN.
    """
    from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    adapter = read_adapter(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT 0.21 reads a name that transformers renamed
            config = LoraConfig.from_pretrained(str(folder))
            config.inference_mode = True
            adapted = PeftModel(model, config)
    except Exception as error:
        raise _wrong(
            folder, f"does not go on this base model ({' '.join(str(error).split())[:300]})"
        ) from error
    own = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    require_whole(
        {name: tuple(weight.shape) for name, weight in own.items()},
        adapter.shapes(),
        where=f"the adapter in {folder}",
        next_step=OWN_BASE,
    )
    weights = load_file(folder / WEIGHTS)
    require_finite(
        weights, where=f"the adapter in {folder}", next_step="train it again with a lower learning rate"
    )
    set_peft_model_state_dict(adapted, weights)
    return adapted


def _config(folder: Path) -> dict[str, Any]:
    """adapter_config.json, as far as it is what PEFT may be asked with."""
    path = folder / CONFIG
    require_content(path)
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise TypeError(f"a {type(config).__name__}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _wrong(folder, f"{CONFIG} cannot be read ({str(error)[:200]})") from error
    if config.get("peft_type") != "LORA":
        raise _wrong(folder, f"its peft_type is {config.get('peft_type')!r} and not 'LORA'")
    ranks = config.get("rank_pattern") or {}
    if not isinstance(ranks, dict) or not all(_is_int(rank) for rank in (config.get("r"), *ranks.values())):
        raise _wrong(folder, f"{CONFIG} has no rank: r is {config.get('r')!r}")
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, dict) or not all(
        isinstance(alpha, int | float) and not isinstance(alpha, bool) and abs(alpha) < 1e9
        for alpha in (config.get("lora_alpha"), *alphas.values())
    ):
        raise _wrong(folder, f"{CONFIG} has no scale: lora_alpha is {config.get('lora_alpha')!r}")
    _check_names(folder, config, [*ranks, *alphas])
    if config.get("megatron_config"):
        raise _wrong(folder, f"{CONFIG} has a megatron_config, by which it names code to import")
    unknown = sorted(name for name, value in config.items() if value and name not in _known_settings())
    if unknown:
        raise _wrong(
            folder, f"{CONFIG} has {listed(unknown, 'setting', 'settings')} that this PEFT does not know"
        )
    return {**config, "rank_pattern": ranks, "alpha_pattern": alphas}


def _check_names(folder: Path, config: dict[str, Any], patterns: list[Any]) -> None:
    """Everything that PEFT would read as a regular expression must be a plain name: one may run for ever."""
    said = list(patterns)
    for key in (
        "target_modules",
        "exclude_modules",
        "layers_pattern",
        "modules_to_save",
        "target_parameters",
    ):
        value = config.get(key) or []
        said += value if isinstance(value, list) else [value]
    wrong = [repr(name)[:80] for name in said if not (isinstance(name, str) and _NAMES.fullmatch(name))]
    if wrong:
        raise _wrong(
            folder, f"{CONFIG} names its layers by {', '.join(wrong[:5])} and not by plain names in a list"
        )


def _known_settings() -> set[str]:
    from dataclasses import fields

    from peft import LoraConfig

    return {field.name for field in fields(LoraConfig)} | {"peft_version"}


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"the adapter in {folder} cannot be loaded: {why}",
        f"must be a whole LoRA adapter of this base model ({CONFIG}, {WEIGHTS})",
        OWN_BASE,
    )

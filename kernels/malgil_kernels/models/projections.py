"""The linear layers of a block on one input: LoRA layers by a kernel, together where possible.

q, k and v (gate and up) take one launch if their weights follow each other in memory. `put_together` sees to
that once, without a second copy: the layers' own parameters become parts of one storage. A layer that
`lora_linear` cannot compute runs its own forward, and the reason is logged once.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from malgil_kernels.dispatch import select
from malgil_kernels.lora_linear import choice_for, lora_linear, lora_linear_grouped, row_bounds
from malgil_kernels.models.adapters import Adapted, adapted, base_of, has_adapter, weight_of
from malgil_kernels.models.quantised import QuantisedLinear
from malgil_kernels.quantise import QuantisedWeight, stack_rows

log = logging.getLogger("malgil.kernels")


@dataclass(frozen=True)
class _Stack:
    """Weights under one another, and where each of them lay when they were put there."""

    weight: QuantisedWeight | torch.Tensor
    bounds: torch.Tensor
    places: tuple[int, ...]


# by the module that holds the layers; beside it, so that copying or saving that module copies no weight
_stacks: WeakKeyDictionary[nn.Module, _Stack] = WeakKeyDictionary()


def project(block: nn.Module, names: Sequence[str], x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The output of each layer `names` of `block` for x (..., columns)."""
    layers: list[Any] = [getattr(block, name) for name in names]
    found = [adapted(layer, x) if has_adapter(layer) else None for layer in layers]
    first = next((item for item in found if isinstance(item, Adapted)), None)
    if first is None or choice_for(x, first.weight).implementation == "reference":
        for name, item in zip(names, found, strict=True):
            _log_if_refused(name, item)
        return tuple(layer(x) for layer in layers)
    together = [item for item in found if isinstance(item, Adapted)]
    if len(together) == len(layers) > 1:
        stack = _stack_of(block, together)
        if stack is not None and len({_form(item) for item in together}) == 1:
            return _grouped(x, together, stack)
    return tuple(_alone(name, layer, item, x) for name, layer, item in zip(names, layers, found, strict=True))


def put_together(block: nn.Module, names: Sequence[str]) -> bool:
    """Puts the frozen weights of adapted (or 4-bit) layers under one another in memory, for one launch.

    Values, names and dtypes stay; each parameter becomes a part of one storage. Moving or copying the model
    afterwards takes them apart again, and then each layer is computed alone. Nothing is done where dispatch
    takes the reference.

    Returns:
        Whether they now lie together.
    """
    layers: list[Any] = [getattr(block, name) for name in names]
    bases = [base_of(layer) for layer in layers]
    weights = [weight_of(base) for base in bases]
    if not all(has_adapter(layer) for layer in layers) or any(isinstance(w, str) for w in weights):
        return False
    held: list[Any] = weights
    if select("lora_linear", dtype=held[0].dtype, device=held[0].device).implementation == "reference":
        return False
    try:
        with torch.inference_mode(False), torch.no_grad():
            stack, parts = _stacked(held)
            bounds = row_bounds([weight.shape[0] for weight in held], held[0].device)
    except (ValueError, TypeError) as error:
        _log_once(", ".join(names), f"each alone: {error}")
        return False
    for base, own in zip(bases, parts, strict=True):
        _store(base, own)
    held = [weight_of(base) for base in bases]
    _stacks[block] = _Stack(stack, bounds, tuple(_place(weight) for weight in held))
    return True


def _stacked(
    weights: Sequence[Any],
) -> tuple[QuantisedWeight | torch.Tensor, list[dict[str, torch.Tensor]]]:
    """The stack, and for each weight the parts of the stack's tensors that are its own."""
    if len({(type(w), w.dtype, w.device, w.shape[1]) for w in weights}) > 1:
        raise ValueError("weights of different formats, dtypes, devices or columns")
    stack: QuantisedWeight | torch.Tensor
    if isinstance(weights[0], torch.Tensor):
        stack = torch.cat(list(weights))
        return stack, [{"weight": part} for part in torch.split(stack, [w.shape[0] for w in weights])]
    stack = stack_rows(weights)
    split = {
        name: torch.split(tensor, [w.tensors()[name].shape[0] for w in weights])
        for name, tensor in stack.tensors().items()
        if name != "offset"  # of NF4: the stack has one per statistic, a weight has one
    }
    return stack, [{name: parts[i] for name, parts in split.items()} for i in range(len(weights))]


def _store(base: Any, own: dict[str, torch.Tensor]) -> None:
    """Makes the layer hold `own` instead of what it held, with the same values."""
    if isinstance(base, QuantisedLinear):
        base._buffers.update(own)
    elif "weight" in own:
        base.weight.data = own["weight"]
    else:  # bitsandbytes
        state = base.weight.quant_state
        base.weight.data = own["packed"].view(base.weight.dtype).view_as(base.weight)
        state.absmax, state.state2.absmax = own["absmax"], own["statistics"]


def _place(weight: QuantisedWeight | torch.Tensor) -> int:
    held = weight if isinstance(weight, torch.Tensor) else next(iter(weight.tensors().values()))
    return held.data_ptr()


def _stack_of(block: nn.Module, layers: Sequence[Adapted]) -> _Stack | None:
    """The stack that the layers' weights are parts of; one that they have left is forgotten."""
    stack = _stacks.get(block)
    if stack is not None and tuple(_place(layer.weight) for layer in layers) != stack.places:
        del _stacks[block]
        _log_once("a block", "each layer alone: the weights were moved or replaced after use_kernels")
        return None
    return stack


def _form(layer: Adapted) -> tuple[int, float, bool]:
    """What layers must have alike for one launch: rank, factor, a bias or none."""
    return layer.a.shape[0], layer.scaling, layer.bias is None


def _grouped(x: torch.Tensor, layers: Sequence[Adapted], stack: _Stack) -> tuple[torch.Tensor, ...]:
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return lora_linear_grouped(
        x,
        stack.weight,
        [layer.a for layer in layers],
        [layer.b for layer in layers],
        layers[0].scaling,
        torch.cat(biases) if biases else None,
        stack.bounds,
    )


def _alone(name: str, layer: nn.Module, item: Adapted | str | None, x: torch.Tensor) -> torch.Tensor:
    if isinstance(item, Adapted):
        return lora_linear(x, item.weight, item.a, item.b, item.scaling, item.bias)
    _log_if_refused(name, item)
    own: torch.Tensor = layer(x)
    return own


def _log_if_refused(name: str, item: Adapted | str | None) -> None:
    if isinstance(item, str):
        _log_once(name, f"PEFT's own forward ({item})")


@lru_cache(maxsize=256)
def _log_once(name: str, what: str) -> None:
    log.info("LoRA on %s: %s", name, what)

"""Linear layers with a LoRA adapter, of PEFT, as `lora_linear` takes them; or why it cannot take one.

PEFT and bitsandbytes are not imported: their classes are known by name, like those of transformers. Whatever
makes the layer's output more than y = x Wᵀ + s · (x Aᵀ) Bᵀ + bias is left to the layer's own forward.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from malgil_kernels.dispatch import DTYPES
from malgil_kernels.lora_linear import MAX_RANK
from malgil_kernels.models.quantised import QuantisedLinear
from malgil_kernels.quantise import QuantisedWeight, nf4_from_bitsandbytes

LORA_LAYERS = {"peft.tuners.lora.layer.Linear", "peft.tuners.lora.bnb.Linear4bit"}
FOUR_BITS = {"bitsandbytes.nn.modules.Linear4bit", "bitsandbytes.nn.modules.LinearNF4"}


@dataclass(frozen=True)
class Adapted:
    """The arguments of `lora_linear` for one layer; all share the layer's memory."""

    weight: QuantisedWeight | torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    scaling: float
    bias: torch.Tensor | None


def has_adapter(layer: nn.Module) -> bool:
    """Whether it is a LoRA layer of PEFT, of whatever kind."""
    return hasattr(layer, "lora_A") and hasattr(layer, "base_layer")


def base_of(layer: Any) -> nn.Module:
    """The layer below the adapter, or the layer itself where it has none."""
    base: nn.Module = layer.base_layer if has_adapter(layer) else layer
    return base


def adapted(layer: Any, x: torch.Tensor) -> Adapted | str:
    """What `lora_linear` needs to compute a LoRA layer's output for `x`, or why it cannot."""
    if _named(layer) not in LORA_LAYERS:
        return f"{_named(layer)} is another class than PEFT's"
    if layer.disable_adapters or layer.merged:
        return "the adapter is merged or disabled"
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(names) != 1:
        return f"{len(names)} active adapters"
    name = names[0]
    down, up, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    base: Any = base_of(layer)
    if name in layer.lora_variant:
        return "DoRA or another variant of LoRA"
    if layer.lora_bias[name] or type(down) is not nn.Linear or type(up) is not nn.Linear:
        return "adapter matrices with a bias or of another class"
    if dropout.training and getattr(dropout, "p", 0.0):
        return "dropout in training"
    if any(_is_watched(part) for part in (layer, base, down, up)):
        return "hooks on the layer"
    weight = weight_of(base)
    if isinstance(weight, str):
        return weight
    found = Adapted(weight, down.weight, up.weight, layer.scaling[name], base.bias)
    return _misfit(found, base, x) or found


def weight_of(base: Any) -> QuantisedWeight | torch.Tensor | str:
    """The frozen matrix of a linear layer in the form that it is held in, not copied; or why not."""
    if isinstance(base, QuantisedLinear):
        return base.quantised
    if _named(base) in FOUR_BITS:
        state = getattr(base.weight, "quant_state", None)
        if state is None or getattr(state, "packing_format_for_cpu", False):
            return "bitsandbytes holds the weight unquantised, or repacked for the CPU"
        try:
            return nf4_from_bitsandbytes(base.weight.detach(), state)
        except ValueError as error:
            return str(error)
    if type(base) is not nn.Linear or type(base.weight) is not nn.Parameter:
        return f"no kernel for the base layer {_named(base)}"
    if base.weight.requires_grad:
        return "the base weight is trained too"
    return base.weight.detach()


def _misfit(found: Adapted, base: Any, x: torch.Tensor) -> str | None:
    """What about dtypes, devices and shapes does not fit; None where all does."""
    tensors = [found.a, found.b, *([] if found.bias is None else [found.bias])]
    held = found.weight if isinstance(found.weight, torch.Tensor) else None
    dtypes = {x.dtype, *(tensor.dtype for tensor in tensors), *([] if held is None else [held.dtype])}
    if getattr(base, "compute_dtype", None):  # of bitsandbytes
        dtypes.add(base.compute_dtype)
    if torch.is_autocast_enabled(x.device.type) or len(dtypes) > 1 or x.dtype not in DTYPES:
        return "autocast, or input, weight and adapter are not of one dtype that has a kernel"
    if {found.weight.device, *(tensor.device for tensor in tensors)} != {x.device}:
        return "weight or adapter is on another device"
    if tuple(found.weight.shape) != (found.b.shape[0], found.a.shape[1]) or (
        held is not None and held.stride(1) != 1
    ):
        return "the weight is sharded or transposed"
    return f"a rank over {MAX_RANK}" if found.a.shape[0] > MAX_RANK else None


def _is_watched(module: nn.Module) -> bool:
    """Whether calling it does more than its class's forward."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in vars(module)
    )


def _named(layer: object) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"

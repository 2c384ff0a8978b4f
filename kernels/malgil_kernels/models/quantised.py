"""Frozen base weights below LoRA adapters, held quantised in this package's formats, without bitsandbytes.

    model = get_peft_model(model, LoraConfig(...))
    quantise_base(model, "nf4")
    use_kernels(model)

Not for layers that are trained, and not an exchange format: what leaves the machine is the adapter.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from malgil_kernels.quantise import (
    QuantisedWeight,
    quantise_fp8,
    quantise_int4,
    quantise_int8,
    quantise_nf4,
)

FORMATS: dict[str, Callable[[torch.Tensor], QuantisedWeight]] = {
    "nf4": quantise_nf4,
    "int4": quantise_int4,
    "int8": quantise_int8,
    "fp8": quantise_fp8,
}


def quantise_base(model: nn.Module, form: str) -> int:
    """Quantises the frozen linear layer under every LoRA adapter of `model`, where the layer lies.

    Each layer's `weight` becomes the buffers of its format (`QuantisedLinear`), so names in the whole model's
    state dict change below `base_layer`; those of the adapters do not, and PEFT saves and loads adapters as
    before. A whole state dict loads into a model prepared by the same call. There is no way back: the
    16-bit weights are gone; load the base model again, for instance to merge.

    Args:
        model: a PEFT model, or one with PEFT's adapters injected; before or after `use_kernels`.
        form: "nf4", "int4" (groups of 64, symmetric), "int8" or "fp8" (a scale per row).

    Returns:
        The number of layers quantised.

    Raises:
        ValueError: another `form`, a weight that is not finite, or no adapter over a frozen nn.Linear; then
            nothing is changed but what came before the weight at fault.
    """
    if form not in FORMATS:
        raise ValueError(f"form is {form!r}: must be one of {', '.join(FORMATS)}")
    count = 0
    layers: list[Any] = [layer for layer in model.modules() if hasattr(layer, "lora_A")]
    for layer in layers:
        base = getattr(layer, "base_layer", None)
        if type(base) is nn.Linear and not base.weight.requires_grad and not layer.merged:
            layer.base_layer = QuantisedLinear(FORMATS[form](base.weight.detach()), base.bias)
            count += 1
    if not count:
        raise ValueError(
            "model has no unmerged LoRA adapter over a frozen nn.Linear. Next: get_peft_model first; a model "
            "that bitsandbytes quantised stays as it is"
        )
    return count


class QuantisedLinear(nn.Module):
    """y = x Wᵀ + bias with W decoded at each call, forwards and backwards; W has no gradient.

    Moving the module moves its buffers; casting it (`.half()`) leaves them as they are.
    """

    def __init__(self, weight: QuantisedWeight, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_parameter("bias", bias)
        for name, tensor in weight.tensors().items():
            self.register_buffer(name, tensor)
        nothing = torch.empty(0, dtype=torch.uint8)
        # format, shape and dtype alone: the tensors are this module's buffers
        self.blank = replace(weight, **dict.fromkeys(weight.tensors(), nothing))  # type: ignore[arg-type]

    @property
    def quantised(self) -> QuantisedWeight:
        """W, sharing the buffers' memory."""
        return replace(self.blank, **self._buffers)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in features) to (..., out features) in x's dtype."""
        y: torch.Tensor = _DecodedLinear.apply(x, self.quantised)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """As of nn.Linear, and the format."""
        return f"in_features={self.in_features}, out_features={self.out_features}, format={self.blank.format}"

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            raise AttributeError(
                f"a base layer held in {self.blank.format} has no weight to merge into or to read. "
                "Next: load the base model again, put the adapter on it and merge there"
            )
        return super().__getattr__(name)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "QuantisedLinear":
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in self._buffers.items():
            old = before[name]
            if buffer is not None and old is not None and buffer.dtype != old.dtype:
                self._buffers[name] = old.to(buffer.device)
        return self


class _DecodedLinear(torch.autograd.Function):
    """Keeps the quantised weight for the backward, not the decoded one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: QuantisedWeight) -> torch.Tensor:
        ctx.weight = weight
        return linear(x, weight.dequantise(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0] @ ctx.weight.dequantise(grads[0].dtype), None

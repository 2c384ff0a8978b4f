"""LoRA on a linear layer with the sums written into the matrix products.

    y = x Wᵀ + s (x Aᵀ) Bᵀ

PEFT's own layer makes a temporary for the scaled product and another for the sum, forwards and
backwards; on a CPU these passes over memory cost about as much as the adapter's arithmetic. Registered
through PEFT's custom modules; the same numbers as PEFT's layer (a test compares outputs and gradients).
"""

import re
import warnings
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from tasks.llm.profiles import profile_of


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])  # (tokens, in)
        low = flat @ a.t()  # (tokens, rank)
        out = flat @ weight.t()
        out.addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(flat, weight, a, b, low)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, a, b, low = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])  # (tokens, out)
        grad_low = (grad @ b).mul_(ctx.scale)
        grad_b = (grad.t() @ low).mul_(ctx.scale)
        grad_a = grad_low.t() @ flat
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight
            grad_x.addmm_(grad_low, a)
            grad_x = grad_x.view(ctx.shape)
        return grad_x, None, grad_a, grad_b, None


class FusedLoraLinear(Linear):
    """PEFT's LoRA layer with a fused training pass; anything else (merged, dropout) is left to PEFT."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., in) → (..., out)."""
        names = self.active_adapters
        base = self.get_base_layer()
        plain = len(names) == 1 and not self.merged and not self.disable_adapters and base.bias is None
        if (
            not plain
            or kwargs
            or x.dtype != torch.float32
            or not isinstance(self.lora_dropout[names[0]], nn.Identity)
        ):
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        a, b = self.lora_A[names[0]].weight, self.lora_B[names[0]].weight
        adapted: Tensor = _Adapted.apply(x, base.weight, a, b, self.scaling[names[0]])  # type: ignore[no-untyped-call]
        return adapted


def blocks_of(model: Any) -> int:
    """How many transformer blocks a model has."""
    return int(model.config.num_hidden_layers)


def block_of(name: str) -> int | None:
    """The number of the block that a weight belongs to, by its name; None outside of the blocks."""
    found = re.search(r"\.layers\.(\d+)\.", name)
    return int(found[1]) if found else None


def add_lora(
    model: Any,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    seed: int,
    plain: bool = False,
    blocks: range | None = None,
) -> Any:
    """Freezes `model` and puts an adapter on every linear layer of its blocks; B starts at zero.

    Args:
        blocks: the numbers of the blocks that get one; None: all of them.
        plain: PEFT's own layers, which `malgil_kernels` computes, instead of `FusedLoraLinear`.
    """
    torch.manual_seed(seed)
    targets = list(profile_of(model.config.model_type).lora_targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # any number; PEFT divides it by the rank
        lora_dropout=dropout,
        target_modules=targets,
        layers_to_transform=None if blocks is None or len(blocks) == blocks_of(model) else list(blocks),
        task_type="CAUSAL_LM",
        bias="none",
    )
    if not plain:
        config._register_custom_module({nn.Linear: FusedLoraLinear})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT 0.21 reads a name that transformers renamed
        return get_peft_model(model, config)

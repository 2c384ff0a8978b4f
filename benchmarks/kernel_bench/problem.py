"""What a kernel benchmark is made of: an op at a size, who computes it, and how it is judged. No timing.

A family (`norms.py`, `attention.py`, …) offers `problems()`. Sizes are data; the figure that is asked for
stands beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Tensors = tuple[torch.Tensor, ...]
Make = Callable[[torch.Generator, torch.device], Tensors]
Compute = Callable[..., Any]  # inputs → a tensor or several
Gradient = Callable[[torch.Tensor], torch.Tensor]  # of an output: what its backward begins with


@dataclass(frozen=True)
class Asked:
    """The least that a figure must reach.

    Attributes:
        ratios: peer → its time over ours.
        copy: share of the measured copy bandwidth, by the bytes that the op must move.
        tflops: 10¹² floating-point operations per second.
        memory: peer → our peak memory over its, at most.
    """

    ratios: Mapping[str, float] = field(default_factory=dict)
    copy: float | None = None
    tflops: float | None = None
    memory: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """One row of the table.

    Attributes:
        op: the public name in `malgil_kernels`.
        size: what the row says of shape and type.
        make: inputs at full size; gradients are taken of those that require them.
        make_small: inputs at an odd small size, on which every implementation is judged in float64.
        implementations: name → function of the inputs; ours is "malgil", PyTorch's plain one "eager".
        reference: the truth, of inputs in float64.
        backward: forward and backward together, or forward alone.
        bytes_moved: that the op must read and write at least, forward (and backward).
        flops: that it must do.
        graph: time replays of a CUDA graph: for calls shorter than their launch.
        in_place: some implementation writes over its inputs (Liger's SwiGLU puts gradients there): they are
            made again before another one takes its turn.
    """

    op: str
    size: str
    make: Make
    make_small: Make
    implementations: Mapping[str, Compute]
    reference: Compute
    dtype: torch.dtype
    asked: Asked = Asked()
    backward: bool = True
    bytes_moved: int = 0
    flops: int = 0
    graph: bool = False
    in_place: bool = False

    @property
    def name(self) -> str:
        """Op, size and direction."""
        return f"{self.op} {self.size}, {'forward + backward' if self.backward else 'forward'}"


def output_gradient(y: torch.Tensor) -> torch.Tensor:
    """The gradient with which every implementation's backward begins: 1 for a loss, else random, the same.

    In the layout of y, as a layer behind would give it.
    """
    if y.ndim == 0:
        return torch.ones_like(y)
    generator = torch.Generator(device="cpu").manual_seed(11)
    row = torch.randn(y.shape[-1], generator=generator).to(y)
    return torch.empty_like(y).copy_(row)


def kept_gradients() -> Gradient:
    """`output_gradient`, made once per shape, layout and type: making one is no part of what is timed.

    A peer may write over them (Liger's RoPE turns them in place): for timing alone, not for a verdict.
    """
    kept: dict[tuple[object, ...], torch.Tensor] = {}

    def gradient(y: torch.Tensor) -> torch.Tensor:
        key = (y.shape, y.stride(), y.dtype)
        if key not in kept:
            kept[key] = output_gradient(y)
        return kept[key]

    return gradient


def outputs_and_gradients(
    compute: Compute, inputs: Sequence[Any], backward: bool, gradient: Gradient = output_gradient
) -> list[torch.Tensor]:
    """Outputs, then the gradient of every input that requires one, under fixed output gradients."""
    found = compute(*inputs)
    outputs = [found] if isinstance(found, torch.Tensor) else list(found)
    if not backward:
        return outputs
    leaves = [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad]
    differentiable = [y for y in outputs if y.requires_grad]
    gradients = torch.autograd.grad(
        differentiable, leaves, [gradient(y) for y in differentiable], allow_unused=True
    )
    return outputs + [g for g in gradients if g is not None]

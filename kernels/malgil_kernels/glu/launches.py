"""Real calls of `glu` for the compile check: Llama 3 8B's width, apart and as halves of one tensor."""

from collections.abc import Callable, Iterator

import torch

from malgil_kernels.glu.triton_op import glu_halves_triton, glu_triton


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Calls whose tensors' values are never read."""
    for activation in ("silu", "gelu", "gelu_tanh"):
        yield f"bfloat16, {activation}, width 14336", _apart(torch.bfloat16, activation)
    yield "bfloat16, silu, halves of 28672", _halves(torch.bfloat16, "silu")
    yield "float16, silu, width 14336", _apart(torch.float16, "silu")
    yield "float32, gelu_tanh, width 14336", _apart(torch.float32, "gelu_tanh")


def _apart(dtype: torch.dtype, activation: str) -> Callable[[], object]:
    def call() -> object:
        gate, up = (torch.empty(64, 14_336, dtype=dtype).requires_grad_() for _ in range(2))
        y = glu_triton(gate, up, activation, False)
        torch.autograd.backward([y], [torch.empty_like(y)])
        return y

    return call


def _halves(dtype: torch.dtype, activation: str) -> Callable[[], object]:
    def call() -> object:
        y = glu_halves_triton(torch.empty(64, 28_672, dtype=dtype).requires_grad_(), activation, False)
        torch.autograd.backward([y], [torch.empty_like(y)])
        return y

    return call

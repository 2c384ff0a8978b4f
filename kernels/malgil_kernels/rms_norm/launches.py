"""Real calls of rms_norm for the compile check: short rows, Llama's, an odd size, long ones."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from malgil_kernels.rms_norm.triton_op import rms_norm_triton

ROWS = 8192  # tokens of a micro batch
SHAPES = (
    (torch.bfloat16, 192, "llama"),  # eight rows a program
    (torch.bfloat16, 1000, "llama"),  # not a multiple of 16
    (torch.bfloat16, 4096, "llama"),
    (torch.bfloat16, 4096, "gemma"),
    (torch.bfloat16, 8192, "llama"),  # the longest row in registers
    (torch.bfloat16, 32_768, "llama"),
    (torch.bfloat16, 32_768, "gemma"),
    (torch.float16, 4096, "llama"),
    (torch.float32, 4096, "llama"),
    (torch.float32, 8192, "llama"),
    (torch.float32, 32_768, "llama"),
)


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Forward and backward of each shape."""
    for dtype, hidden, variant in SHAPES:
        yield f"{str(dtype)[6:]} {hidden} {variant}", partial(forward_backward, dtype, hidden, variant)


def forward_backward(dtype: torch.dtype, hidden: int, variant: str) -> None:
    """One training step's launches."""
    x = torch.empty(ROWS, hidden, dtype=dtype).requires_grad_()
    weight = torch.empty(hidden, dtype=dtype).requires_grad_()
    rms_norm_triton(x, weight, 1e-6, variant).backward(torch.empty(ROWS, hidden, dtype=dtype))

"""Real calls of add_rms_norm for the compile check."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from malgil_kernels.add_rms_norm.triton_op import add_rms_norm_triton

ROWS = 8192  # tokens of a micro batch
SHAPES = (
    (torch.bfloat16, 192, "llama"),
    (torch.bfloat16, 4096, "llama"),
    (torch.bfloat16, 4096, "gemma"),
    (torch.bfloat16, 8192, "llama"),
    (torch.bfloat16, 32_768, "llama"),
    (torch.float32, 8192, "llama"),
    (torch.float32, 32_768, "llama"),
)


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Forward and backward of each shape."""
    for dtype, hidden, variant in SHAPES:
        yield f"{str(dtype)[6:]} {hidden} {variant}", partial(forward_backward, dtype, hidden, variant)


def forward_backward(dtype: torch.dtype, hidden: int, variant: str) -> None:
    """One training step's launches."""
    x, residual, dy, dh = (torch.empty(ROWS, hidden, dtype=dtype) for _ in range(4))
    weight = torch.empty(hidden, dtype=dtype).requires_grad_()
    out = add_rms_norm_triton(x.requires_grad_(), residual.requires_grad_(), weight, 1e-6, variant)
    torch.autograd.backward(out, (dy, dh))

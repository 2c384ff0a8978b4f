"""Real calls of rms_norm for the compile check: Llama's and a small model's hidden sizes, and an odd one."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from malgil_kernels.rms_norm.triton_op import rms_norm_triton

ROWS = 8192  # tokens of a micro batch


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Forward and backward of each row of the table."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for hidden in (1000, 576, 4096, 8192):
            yield f"{str(dtype)[6:]}, hidden {hidden}", partial(forward_backward, dtype, hidden)


def forward_backward(dtype: torch.dtype, hidden: int) -> None:
    """One training step's launches."""
    x = torch.empty(ROWS, hidden, dtype=dtype).requires_grad_()
    weight = torch.empty(hidden, dtype=dtype).requires_grad_()
    rms_norm_triton(x, weight, 1e-6).backward(torch.empty(ROWS, hidden, dtype=dtype))

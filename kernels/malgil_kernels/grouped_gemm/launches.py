"""Real calls of the grouped product for the compile check: 8 and 128 experts, and a batch of decoding."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from malgil_kernels.grouped_gemm.triton_op import grouped_gemm_triton


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Forward and backward."""
    bf16 = torch.bfloat16
    yield "bf16, 8 experts, 16384 tokens", partial(forward_backward, 8, 16_384, 14_336, 4096, bf16)
    yield "bf16, 128 experts, 4096 tokens", partial(forward_backward, 128, 4096, 768, 2048, bf16)
    yield "bf16, 8 experts, 64 tokens", partial(forward_backward, 8, 64, 14_336, 4096, bf16)
    yield "fp32, 8 experts, 16384 tokens", partial(forward_backward, 8, 16_384, 1000, 1000, torch.float32)


def forward_backward(experts: int, tokens: int, rows: int, columns: int, dtype: torch.dtype) -> None:
    """One training step's launches."""
    x = torch.empty(tokens, columns, dtype=dtype).requires_grad_()
    weight = torch.empty(experts, rows, columns, dtype=dtype).requires_grad_()
    offsets = torch.empty(experts + 1, dtype=torch.int32)
    grouped_gemm_triton(x, weight, offsets).backward(torch.empty(tokens, rows, dtype=dtype))

"""Real calls of chunked attention for the compile check, at an encoder's sizes."""

from collections.abc import Callable, Iterator

import torch

from malgil_kernels.attention.rule import Rule
from malgil_kernels.attention.triton_op import padded_attention_triton

BATCH, FRAMES, HEADS, DIM = 16, 1_500, 16, 64


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """The encoder's dtypes; the name becomes the table's row."""
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
        yield f"{name}, chunks of 16, head dim {DIM}", _call(dtype)


def _call(dtype: torch.dtype) -> Callable[[], object]:
    def call() -> None:
        q, k, v = (torch.empty(BATCH * FRAMES, HEADS, DIM, dtype=dtype).requires_grad_() for _ in range(3))
        lengths = torch.empty(BATCH, dtype=torch.int32)
        rule = Rule(chunk=16, left=128, right=0)
        out, _ = padded_attention_triton(q, k, v, lengths, FRAMES, rule, DIM**-0.5)
        out.backward(torch.empty_like(out))

    return call

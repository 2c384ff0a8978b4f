"""Real calls of attention for the compile check: the tiles of each group of head dims, both directions."""

from collections.abc import Callable, Iterator

import torch

from malgil_kernels.attention.rule import Rule, causal_rule
from malgil_kernels.attention.triton_op import attention_triton

TOKENS, SEQUENCES = 16_384, 64


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Training sizes, grouped heads, packed sequences; the name becomes the table's row."""
    causal = causal_rule(True, None)
    yield "fp16, bidirectional, head dim 64", _call(64, torch.float16, causal_rule(False, None))
    yield "bf16, causal, head dim 80", _call(80, torch.bfloat16, causal)
    yield "bf16, causal, head dim 128", _call(128, torch.bfloat16, causal)
    yield "bf16, window and softcap, head dim 256", _call(256, torch.bfloat16, causal_rule(True, 4096), 50.0)
    yield "bf16, causal, head dim 256", _call(256, torch.bfloat16, causal)
    for dim in (64, 128, 256):
        yield f"fp32, causal, head dim {dim}", _call(dim, torch.float32, causal)


def _call(dim: int, dtype: torch.dtype, rule: Rule, softcap: float | None = None) -> Callable[[], object]:
    def call() -> None:
        q = torch.empty(TOKENS, 32, dim, dtype=dtype).requires_grad_()
        k, v = (torch.empty(TOKENS, 8, dim, dtype=dtype).requires_grad_() for _ in range(2))
        starts = torch.empty(SEQUENCES + 1, dtype=torch.int32)
        out, _ = attention_triton(q, k, v, starts, starts, TOKENS, rule, dim**-0.5, softcap)
        out.backward(torch.empty_like(out))

    return call

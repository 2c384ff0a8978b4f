"""Real calls of the LoRA linear for the compile check: a gate projection of an 8B model, in every format."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from malgil_kernels.lora_linear.launch_forward import DECODE_TOKENS
from malgil_kernels.lora_linear.triton_op import lora_linear_triton
from malgil_kernels.quantise.formats import Nf4Weight, QuantisedWeight
from malgil_kernels.quantise.launches import empty_weights

ROWS, COLUMNS = 14_336, 4096
QKV_ROWS = 6144
# per format: numbers of tokens that take another kernel or another block
CASES = {
    "dense": (16, 64),
    "int8": (16, 512),
    "fp8 rows": (16,),
    "fp8 blocks": (16, 512),
    "int4 32 with zero": (16, 512),
    "int4 128": (16, 512),
    "nf4": (16, 32, 64, 512),
}


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Formats and tokens, dtypes, a large rank, q, k and v, odd columns."""
    bf16 = torch.bfloat16
    for kind, weight in weights(bf16):
        for tokens in CASES.get(kind, ()):
            yield f"{kind}, {tokens} tokens", partial(forward_backward, weight, tokens, bf16)
    for dtype, tokens in ((torch.float16, 512), (torch.float32, 16), (torch.float32, 512)):
        nf4 = dict(empty_weights(ROWS, COLUMNS, dtype))["nf4"]
        yield f"nf4, {tokens} tokens, {str(dtype)[6:]}", partial(forward_backward, nf4, tokens, dtype)
    nf4 = dict(empty_weights(ROWS, COLUMNS, bf16))["nf4"]
    yield "nf4, rank 128, 512 tokens", partial(forward_backward, nf4, 512, bf16, 128)
    qkv = dict(empty_weights(QKV_ROWS, COLUMNS, bf16))["nf4 stacked"]
    for tokens in (16, 512):
        yield f"nf4, q, k and v, {tokens} tokens", partial(forward_backward, qkv, tokens, bf16, 16, 3)
    odd = dict(empty_weights(1000, 1000, bf16))["int4 64"]
    yield "int4 64, 1000 × 1000", partial(forward_backward, odd, 16, bf16)


def weights(dtype: torch.dtype) -> Iterator[tuple[str, QuantisedWeight | torch.Tensor]]:
    """Each format, and the matrix itself."""
    yield "dense", torch.empty(ROWS, COLUMNS, dtype=dtype)
    yield from empty_weights(ROWS, COLUMNS, dtype)


def forward_backward(
    weight: QuantisedWeight | torch.Tensor,
    tokens: int,
    dtype: torch.dtype,
    rank: int = 16,
    segments: int = 1,
) -> None:
    """One training step's launches; the backward of 16 tokens is NF4's only, the formats differ in 512."""
    rows, columns = weight.shape
    backward = tokens > DECODE_TOKENS or (isinstance(weight, Nf4Weight) and segments == 1)
    x = torch.empty(tokens, columns, dtype=dtype).requires_grad_(backward)
    a = torch.empty(segments * rank, columns, dtype=dtype).requires_grad_()
    b = torch.empty(rows, rank, dtype=dtype).requires_grad_()
    bounds = torch.empty(segments + 1, dtype=torch.int32) if segments > 1 else None
    ranges = [(rows * number // segments, rows * (number + 1) // segments) for number in range(segments)]
    y = lora_linear_triton(x, weight, a, b, 2.0, None, ranges, bounds, True)
    y.backward(torch.empty_like(y))

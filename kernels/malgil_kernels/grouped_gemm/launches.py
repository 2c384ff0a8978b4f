"""Real calls of the grouped products for the compile check: 8 and 128 experts, training and decoding."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from malgil_kernels.grouped_gemm.frozen_triton_op import (
    lora_grouped_gemm_triton,
    quantised_grouped_gemm_triton,
)
from malgil_kernels.grouped_gemm.triton_op import grouped_gemm_triton
from malgil_kernels.quantise.formats import QuantisedWeight
from malgil_kernels.quantise.launches import empty_weights

EXPERTS, ROWS, COLUMNS = 8, 14_336, 4096
# per format: numbers of tokens that take another block; over 32 of an expert, x is split into planes before
CASES = {
    "int8": (64, 16_384),
    "fp8 rows": (64,),
    "fp8 blocks": (16_384,),
    "int4 32 with zero": (64, 16_384),
    "int4 128": (64, 16_384),
    "nf4": (64, 200, 16_384),
    "nf4 stacked": (400,),
}


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Forward and backward: trained weights, each format, LoRA on some, odd columns."""
    bf16 = torch.bfloat16
    yield "bf16, 8 experts, 16384 tokens", partial(dense, 8, 16_384, 14_336, 4096, bf16)
    yield "bf16, 128 experts, 4096 tokens", partial(dense, 128, 4096, 768, 2048, bf16)
    yield "bf16, 8 experts, 64 tokens", partial(dense, 8, 64, 14_336, 4096, bf16)
    yield "fp32, 8 experts, 16384 tokens", partial(dense, 8, 16_384, 1000, 1000, torch.float32)
    for kind, weight in empty_weights(EXPERTS * ROWS, COLUMNS, bf16):
        for tokens in CASES.get(kind, ()):
            yield f"{kind}, {tokens} tokens", partial(quantised, weight, tokens, bf16)
    nf4 = dict(empty_weights(EXPERTS * ROWS, COLUMNS, torch.float32))["nf4"]
    yield "nf4, 16384 tokens, float32", partial(quantised, nf4, 16_384, torch.float32)
    for kind, rows, columns in (
        ("int8", 999, 999),
        ("int4 64", 999, 999),
        ("nf4", 999, 999),
        ("nf4", 1000, 4096),
    ):
        odd = dict(empty_weights(EXPERTS * rows, columns, bf16))[kind]
        yield f"{kind}, {rows} × {columns}", partial(quantised, odd, 1024, bf16)
    nf4 = dict(empty_weights(EXPERTS * ROWS, COLUMNS, bf16))["nf4"]
    frozen = torch.empty(EXPERTS, ROWS, COLUMNS, dtype=bf16)
    yield "nf4, LoRA, 64 tokens", partial(lora, nf4, 64, 16)
    yield "nf4, LoRA of rank 128, 16384 tokens", partial(lora, nf4, 16_384, 128)
    yield "bf16, LoRA, 16384 tokens", partial(lora, frozen, 16_384, 16)


def dense(experts: int, tokens: int, rows: int, columns: int, dtype: torch.dtype) -> None:
    """One training step's launches."""
    x = torch.empty(tokens, columns, dtype=dtype).requires_grad_()
    weight = torch.empty(experts, rows, columns, dtype=dtype).requires_grad_()
    grouped_gemm_triton(x, weight, _offsets(experts)).backward(torch.empty(tokens, rows, dtype=dtype))


def quantised(weight: QuantisedWeight, tokens: int, dtype: torch.dtype) -> None:
    """Forward and the gradient of x."""
    x = torch.empty(tokens, weight.shape[1], dtype=dtype).requires_grad_()
    y = quantised_grouped_gemm_triton(x, weight, _offsets(EXPERTS))
    y.backward(torch.empty_like(y))


def lora(weight: QuantisedWeight | torch.Tensor, tokens: int, rank: int) -> None:
    """Forward and the gradients of x, A and B."""
    x = torch.empty(tokens, COLUMNS, dtype=torch.bfloat16).requires_grad_()
    a = torch.empty(EXPERTS, rank, COLUMNS, dtype=torch.bfloat16).requires_grad_()
    b = torch.empty(EXPERTS, ROWS, rank, dtype=torch.bfloat16).requires_grad_()
    y = lora_grouped_gemm_triton(x, weight, _offsets(EXPERTS), a, b, 2.0)
    y.backward(torch.empty_like(y))


def _offsets(experts: int) -> torch.Tensor:
    return torch.empty(experts + 1, dtype=torch.int32)

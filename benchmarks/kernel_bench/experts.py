"""Benchmarks of mixtures of experts: trained against PyTorch's grouped product; quantised, with LoRA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import grouped_mm

from benchmarks.kernel_bench.lora import QUANTISE, RANK, SCALING
from benchmarks.kernel_bench.peers import normal
from benchmarks.kernel_bench.problem import Problem
from malgil_kernels import grouped_gemm, lora_grouped_gemm
from malgil_kernels.grouped_gemm.reference import grouped_gemm_reference, lora_grouped_gemm_reference
from malgil_kernels.quantise import dequantise

BF16 = torch.bfloat16
# experts, tokens (as many times as each is routed), columns (in), rows of an expert (out)
MIXTRAL, QWEN3 = (8, 16_384, 4_096, 14_336), (128, 32_768, 2_048, 768)
TRAINED = (MIXTRAL, QWEN3)
TRAINED_QUICK = ((3, 20, 64, 32),)
# the same, format, backward too
FROZEN = (
    *((*MIXTRAL, format_, True) for format_ in ("nf4", "int8")),
    (*QWEN3, "nf4", True),
    (8, 32, 4_096, 14_336, "nf4", False),
    (128, 64, 2_048, 768, "nf4", False),
)
FROZEN_QUICK = ((3, 20, 64, 32, "nf4", True),)


def problems(quick: bool) -> Iterator[Problem]:
    """Training of the experts themselves; then of LoRAs on frozen ones, and their decoding."""
    for size in TRAINED_QUICK if quick else TRAINED:
        yield _trained(*size)
    for frozen in FROZEN_QUICK if quick else FROZEN:
        yield _frozen(*frozen)


def _routed(tokens: int, experts: int, device: torch.device) -> torch.Tensor:
    """(experts + 1,) int32 offsets: every token to a random expert."""
    chosen = torch.randint(experts, (tokens,), generator=torch.Generator().manual_seed(tokens))
    ends = torch.bincount(chosen, minlength=experts).cumsum(0)
    return torch.cat([torch.zeros(1, dtype=torch.int64), ends]).to(device, torch.int32)


def _trained(experts: int, tokens: int, columns: int, out: int) -> Problem:
    def inputs(tokens: int, columns: int, out: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        x = normal((tokens, columns), BF16, generator)
        w = normal((experts, out, columns), BF16, generator, grad=False) * columns**-0.5
        return x, w.requires_grad_(), _routed(tokens, experts, generator.device)

    def torch_grouped(x: Any, w: Any, offsets: Any) -> Any:
        return grouped_mm(x, w.transpose(1, 2), offs=offsets[1:])

    return Problem(
        op="grouped_gemm",
        size=f"{experts} experts, {tokens:,} x {columns:,} to {out:,}, bf16",
        make=lambda generator, _: inputs(tokens, columns, out, generator),
        make_small=lambda generator, _: inputs(min(tokens, 99), 128, 96, generator),
        implementations={
            "malgil": grouped_gemm,
            "eager": grouped_gemm_reference,
            "torch grouped_mm": torch_grouped,
        },
        reference=grouped_gemm_reference,
        dtype=BF16,
        bytes_moved=3 * 2 * (experts * columns * out + tokens * (columns + out)),
        flops=3 * 2 * tokens * columns * out,
    )


@lru_cache(maxsize=2)
def _weight(experts: int, out: int, columns: int, format_: str, device: torch.device) -> Any:
    generator = torch.Generator(device=device).manual_seed(out)
    return QUANTISE[format_](normal((experts * out, columns), BF16, generator, grad=False) * columns**-0.5)


def _frozen(experts: int, tokens: int, columns: int, out: int, format_: str, backward: bool) -> Problem:
    def inputs(tokens: int, columns: int, out: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        _weight(experts, out, columns, format_, generator.device)
        x = normal((tokens, columns), BF16, generator)
        a = (normal((experts, RANK, columns), BF16, generator, grad=False) * columns**-0.5).requires_grad_()
        b = normal((experts, out, RANK), BF16, generator)
        return x, a, b, _routed(tokens, experts, generator.device)

    def weight(a: Any, b: Any) -> Any:
        return _weight(experts, b.shape[1], a.shape[2], format_, a.device)

    def ours(x: Any, a: Any, b: Any, offsets: Any) -> Any:
        return lora_grouped_gemm(x, weight(a, b), offsets, a, b, SCALING)

    def whole(inside: torch.dtype | None) -> Callable[..., Any]:
        # all experts dequantised into a buffer, then three products of each: nothing fused
        def call(x: Any, a: Any, b: Any, offsets: Any) -> Any:
            w = dequantise(weight(a, b), inside or x.dtype).to(x.dtype).view(experts, -1, x.shape[1])
            return lora_grouped_gemm_reference(x, w, offsets, a, b, SCALING)

        return call

    bits = {"nf4": 4.127, "int8": 8.0}[format_]
    directions = 2 if backward else 1
    return Problem(
        op="lora_grouped_gemm",
        size=f"{format_}, {experts} experts, {tokens:,} x {columns:,} to {out:,}, rank {RANK}, bf16",
        make=lambda generator, _: inputs(tokens, columns, out, generator),
        make_small=lambda generator, _: inputs(min(tokens, 99), 128, 96, generator),
        implementations={"malgil": ours, "eager": whole(None)},
        reference=whole(torch.float32),
        dtype=BF16,
        backward=backward,
        bytes_moved=directions * int(experts * columns * out * bits / 8 + 2 * tokens * (columns + out)),
        flops=directions * 2 * tokens * columns * out,
    )

"""Benchmarks of a LoRA linear layer over quantised weights, against bitsandbytes + PEFT and a plain GEMM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import linear

from benchmarks.kernel_bench.peers import normal
from benchmarks.kernel_bench.problem import Asked, Problem
from malgil_kernels import lora_linear
from malgil_kernels.quantise import dequantise, quantise_fp8, quantise_int4, quantise_int8, quantise_nf4

BF16 = torch.bfloat16
RANK, SCALING = 16, 2.0
QUANTISE: dict[str, Callable[[torch.Tensor], Any]] = {
    "nf4": quantise_nf4,
    "int4": quantise_int4,
    "int8": quantise_int8,
    "fp8": quantise_fp8,
    "bf16": lambda w: w,
}
# rows of x, columns (in), rows of W (out), format, backward too
SIZES = (
    *((rows, 4_096, 14_336, "nf4", False) for rows in (1, 8, 32)),
    *((rows, 4_096, 14_336, "nf4", True) for rows in (128, 512, 2_048, 8_192)),
    *((32, 4_096, 14_336, format_, False) for format_ in ("int4", "int8", "fp8", "bf16")),
    *((8_192, 4_096, 14_336, format_, True) for format_ in ("int8", "fp8", "bf16")),
)
SIZES_QUICK = ((3, 64, 96, "nf4", True), (2, 64, 96, "int8", False))


def problems(quick: bool) -> Iterator[Problem]:
    """NF4 by rows, decoding then training; the other formats at one size of each."""
    for rows, columns, out, format_, backward in SIZES_QUICK if quick else SIZES:
        yield _problem(rows, columns, out, format_, backward)


@lru_cache(maxsize=2)
def _weight(out: int, columns: int, format_: str, device: torch.device) -> Any:
    generator = torch.Generator(device=device).manual_seed(out)
    w = normal((out, columns), BF16, generator, grad=False) * columns**-0.5
    return QUANTISE[format_](w)


@lru_cache(maxsize=2)
def _layer(out: int, columns: int, device: torch.device) -> Any:
    """PEFT's LoRA around bitsandbytes' NF4 layer with double quantisation, on the same weight."""
    import bitsandbytes
    from peft import LoraConfig, inject_adapter_in_model

    base = bitsandbytes.nn.Linear4bit(
        columns, out, bias=False, compute_dtype=BF16, compress_statistics=True, quant_type="nf4"
    )
    generator = torch.Generator(device=device).manual_seed(out)
    w = normal((out, columns), BF16, generator, grad=False) * columns**-0.5
    base.weight = bitsandbytes.nn.Params4bit(
        w.cpu(), requires_grad=False, compress_statistics=True, quant_type="nf4"
    )
    holder = torch.nn.ModuleDict({"linear": base}).to(device)
    config = LoraConfig(r=RANK, lora_alpha=int(RANK * SCALING), target_modules=["linear"])
    inject_adapter_in_model(config, holder)
    return holder["linear"].to(BF16)


def _peft(x: Any, a: Any, b: Any) -> Any:
    layer = _layer(b.shape[0], a.shape[1], x.device)
    # the adapter's matrices are this call's, so that their gradients can be compared
    return torch.func.functional_call(layer, {"lora_A.default.weight": a, "lora_B.default.weight": b}, (x,))


def _problem(rows: int, columns: int, out: int, format_: str, backward: bool) -> Problem:
    def inputs(rows: int, columns: int, out: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        _weight(out, columns, format_, generator.device)
        x = normal((rows, columns), BF16, generator)
        a = (normal((RANK, columns), BF16, generator, grad=False) * columns**-0.5).requires_grad_()
        b = normal((out, RANK), BF16, generator)
        return x, a, b

    def ours(x: Any, a: Any, b: Any) -> Any:
        return lora_linear(x, _weight(b.shape[0], a.shape[1], format_, x.device), a, b, SCALING)

    def whole(x: Any, a: Any, b: Any) -> Any:
        # W dequantised into a buffer, then three products: what is done where nothing is fused
        weight = _weight(b.shape[0], a.shape[1], format_, x.device)
        w = weight if format_ == "bf16" else dequantise(weight, x.dtype)
        return linear(x, w) + SCALING * linear(linear(x, a), b)

    def reference(x: Any, a: Any, b: Any) -> Any:
        weight = _weight(b.shape[0], a.shape[1], format_, x.device)
        w = weight if format_ == "bf16" else dequantise(weight, torch.float32)
        return linear(x, w.double()) + SCALING * linear(linear(x, a), b)

    implementations = {"malgil": ours, "eager": whole}
    asked = Asked()
    if format_ == "nf4":
        implementations["bitsandbytes + PEFT"] = _peft
        if rows <= 32:
            asked = Asked(ratios={"bitsandbytes + PEFT": 3.0}, copy=0.7)
        elif rows == 8_192:
            asked = Asked(ratios={"bitsandbytes + PEFT": 1.2})
    bits = {"nf4": 4.127, "int4": 4.25, "int8": 8.0, "fp8": 8.0, "bf16": 16.0}[format_]
    return Problem(
        op="lora_linear",
        size=f"{format_}, {rows:,} x {columns:,} to {out:,}, rank {RANK}, bf16",
        make=lambda generator, _: inputs(rows, columns, out, generator),
        make_small=lambda generator, _: inputs(min(rows, 33), min(columns, 256), min(out, 192), generator),
        implementations=implementations,
        reference=reference,
        dtype=BF16,
        asked=asked,
        backward=backward,
        bytes_moved=int(columns * out * bits / 8) * (2 if backward else 1) + 2 * rows * (columns + out),
        flops=2 * rows * columns * out * (2 if backward else 1),
        graph=rows <= 32,
    )

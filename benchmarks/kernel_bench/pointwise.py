"""Benchmarks of what is bound by bytes between the matrix products: RoPE, SwiGLU, GeGLU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import gelu, silu

from benchmarks.kernel_bench.peers import compiled, made, normal, peer
from benchmarks.kernel_bench.problem import Asked, Problem
from malgil_kernels import glu, rope
from malgil_kernels.glu.reference import glu_reference
from malgil_kernels.rope.reference import rope_reference

BF16 = torch.bfloat16
ASKED = Asked(ratios={"eager": 3.0, "liger": 1.0}, copy=0.85)
# tokens, query heads, key heads, head dim; q and k are 400 MB at the first
ROPE = ((32_768, 32, 8, 128), (16_384, 16, 8, 256))
ROPE_QUICK = ((9, 4, 2, 16),)
# rows, width; 470 MB each at the first
GLU = ((16_384, 14_336), (32_768, 8_192))
GLU_QUICK = ((5, 100),)


def problems(quick: bool) -> Iterator[Problem]:
    """RoPE by size, then SwiGLU and GeGLU by size."""
    for size in ROPE_QUICK if quick else ROPE:
        yield _rope(*size)
    for size in GLU_QUICK if quick else GLU:
        yield _glu("silu", "SwiGLU", "liger_kernel.transformers.functional", "liger_swiglu", *size)
        yield _glu("gelu_tanh", "GeGLU", "liger_kernel.transformers.functional", "liger_geglu", *size)


def _rope(tokens: int, heads: int, kv_heads: int, dim: int) -> Problem:
    def inputs(tokens: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        q = normal((1, tokens, heads, dim), BF16, generator).detach().transpose(1, 2).requires_grad_()
        k = normal((1, tokens, kv_heads, dim), BF16, generator).detach().transpose(1, 2).requires_grad_()
        frequency = 1e4 ** -(torch.arange(dim // 2, device=generator.device) / (dim // 2))
        angles = torch.arange(tokens, device=generator.device)[:, None] * frequency
        return q, k, angles.cos()[None], angles.sin()[None]

    def whole(table: torch.Tensor) -> torch.Tensor:
        return torch.cat((table, table), dim=-1)

    def eager(q: Any, k: Any, cos: Any, sin: Any) -> Any:
        # as transformers has it: tables in the type of q
        cos, sin = (whole(t).to(q.dtype)[:, None] for t in (cos, sin))

        def half(x: Any) -> Any:
            return torch.cat((-x[..., dim // 2 :], x[..., : dim // 2]), dim=-1)

        return q * cos + half(q) * sin, k * cos + half(k) * sin

    liger_rope = peer("liger_kernel.transformers.functional", "liger_rope")

    def liger(q: Any, k: Any, cos: Any, sin: Any) -> Any:
        # it writes over q and k
        return liger_rope(made(q), made(k), whole(cos).to(q.dtype), whole(sin).to(q.dtype))

    def reference(q: Any, k: Any, cos: Any, sin: Any) -> Any:
        return tuple(rope_reference(x.transpose(1, 2), cos, sin, False).transpose(1, 2) for x in (q, k))

    return Problem(
        op="rope",
        size=f"{tokens:,} tokens, {heads}+{kv_heads} heads of {dim}, bf16",
        make=lambda generator, _: inputs(tokens, generator),
        make_small=lambda generator, _: inputs(min(tokens, 101), generator),
        implementations={
            "malgil": lambda q, k, cos, sin: rope(q, k, cos, sin),
            "eager": eager,
            "compile": compiled(eager),
            "liger": liger,
        },
        reference=reference,
        dtype=BF16,
        asked=ASKED,
        bytes_moved=2 * 2 * 2 * tokens * (heads + kv_heads) * dim,  # read, write; there and back; two bytes
        in_place=True,
    )


def _glu(activation: str, shown: str, module: str, liger: str, rows: int, width: int) -> Problem:
    def inputs(rows: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return normal((rows, width), BF16, generator), normal((rows, width), BF16, generator)

    def eager(gate: Any, up: Any) -> Any:
        return (silu(gate) if activation == "silu" else gelu(gate, approximate="tanh")) * up

    return Problem(
        op="glu",
        size=f"{shown}, {rows:,} x {width:,}, bf16",
        make=lambda generator, _: inputs(rows, generator),
        make_small=lambda generator, _: inputs(min(rows, 7), generator),
        implementations={
            "malgil": lambda gate, up: glu(gate, up, activation),
            "eager": eager,
            "compile": compiled(eager),
            "liger": peer(module, liger),  # its backward writes the gradients over gate and up
        },
        reference=lambda gate, up: glu_reference(gate, up, activation),
        dtype=BF16,
        asked=ASKED,
        bytes_moved=2 * (3 + 5) * rows * width,  # forward: two in, one out; backward: three in, two out
        in_place=True,
    )

"""Benchmarks of the norms: RMSNorm, with the residual add, layer norm, and layer norm with GELU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.functional import gelu
from torch.nn.functional import layer_norm as torch_layer_norm

from benchmarks.kernel_bench.peers import compiled, normal, peer
from benchmarks.kernel_bench.problem import Asked, Problem
from malgil_kernels import add_rms_norm, layer_norm, layer_norm_gelu, rms_norm
from malgil_kernels.add_rms_norm.reference import add_rms_norm_reference
from malgil_kernels.layer_norm.reference import layer_norm_reference
from malgil_kernels.layer_norm_gelu.reference import layer_norm_gelu_reference
from malgil_kernels.rms_norm.reference import rms_norm_reference

BF16 = torch.bfloat16
EPS = 1e-6
LIGER = "liger_kernel.transformers.functional"
ASKED = Asked(ratios={"eager": 3.0, "liger": 1.0}, copy=0.85)
# rows, hidden; 268 MB and more each, as the figures ask
SIZES = ((32_768, 4_096), (65_536, 2_048), (8_192, 16_384))
SIZES_QUICK = ((5, 100),)
# frames, channels: the first convolution of a wav2vec2 on ten minutes of audio, and its later ones
CHANNELS = ((1_920_000, 48), (1_920_000, 512))
CHANNELS_QUICK = ((11, 48),)


def problems(quick: bool) -> Iterator[Problem]:
    """Every norm by size, forward and backward."""
    for rows, hidden in SIZES_QUICK if quick else SIZES:
        yield _rms_norm(rows, hidden)
        yield _add_rms_norm(rows, hidden)
        yield _layer_norm("layer_norm", rows, hidden)
    for rows, hidden in CHANNELS_QUICK if quick else CHANNELS:
        yield _layer_norm("layer_norm_gelu", rows, hidden)


def _eager_rms_norm(x: Any, weight: Any) -> Any:
    # transformers' LlamaRMSNorm
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)).to(x.dtype)


def _rms_norm(rows: int, hidden: int) -> Problem:
    def inputs(rows: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return normal((rows, hidden), BF16, generator), normal((hidden,), BF16, generator)

    liger = peer(LIGER, "liger_rms_norm")
    return _problem(
        "rms_norm",
        rows,
        hidden,
        inputs,
        {
            "malgil": lambda x, w: rms_norm(x, w, EPS),
            "eager": _eager_rms_norm,
            "compile": compiled(_eager_rms_norm),
            # without its in-place gradient, which would change what the others are given
            "liger": lambda x, w: liger(x, w, EPS, in_place=False),
        },
        lambda x, w: rms_norm_reference(x, w, EPS),
        passes=2 + 3,  # x, y; dy, x, dx
    )


def _add_rms_norm(rows: int, hidden: int) -> Problem:
    def inputs(rows: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        x, residual = (normal((rows, hidden), BF16, generator) for _ in range(2))
        return x, residual, normal((hidden,), BF16, generator)

    def eager(x: Any, residual: Any, weight: Any) -> Any:
        stream = x + residual
        return _eager_rms_norm(stream, weight), stream

    liger = peer(LIGER, "liger_fused_add_rms_norm")
    return _problem(
        "add_rms_norm",
        rows,
        hidden,
        inputs,
        {
            "malgil": lambda x, r, w: add_rms_norm(x, r, w, EPS),
            "eager": eager,
            "compile": compiled(eager),
            "liger": lambda x, r, w: liger(x, r, w, EPS, in_place=False),
        },
        lambda x, r, w: add_rms_norm_reference(x, r, w, EPS),
        passes=4 + 4,  # x, residual, y, stream; dy, dstream, stream, d
    )


def _layer_norm(op: str, rows: int, hidden: int) -> Problem:
    def inputs(rows: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        weight, bias = (normal((hidden,), BF16, generator) for _ in range(2))
        return normal((rows, hidden), BF16, generator), weight, bias

    if op == "layer_norm":

        def eager(x: Any, w: Any, b: Any) -> Any:
            return torch_layer_norm(x, (hidden,), w, b, EPS)

        liger = peer(LIGER, "liger_layer_norm")
        implementations = {
            "malgil": lambda x, w, b: layer_norm(x, w, b, EPS),
            "eager": eager,
            "compile": compiled(eager),
            "liger": lambda x, w, b: liger(x, w, b, EPS),
        }
        return _problem(
            op, rows, hidden, inputs, implementations, lambda x, w, b: layer_norm_reference(x, w, b, EPS), 5
        )

    def with_gelu(x: Any, w: Any, b: Any) -> Any:
        return gelu(torch_layer_norm(x, (hidden,), w, b, EPS))

    implementations = {
        "malgil": lambda x, w, b: layer_norm_gelu(x, w, b, EPS),
        "eager": with_gelu,
        "compile": compiled(with_gelu),
    }
    return _problem(
        op, rows, hidden, inputs, implementations, lambda x, w, b: layer_norm_gelu_reference(x, w, b, EPS), 5
    )


def _problem(
    op: str,
    rows: int,
    hidden: int,
    inputs: Callable[[int, torch.Generator], tuple[torch.Tensor, ...]],
    implementations: dict[str, Callable[..., Any]],
    reference: Callable[..., Any],
    passes: int,
) -> Problem:
    asked = ASKED if op in ("rms_norm", "add_rms_norm") else Asked()
    return Problem(
        op=op,
        size=f"{rows:,} x {hidden:,}, bf16",
        make=lambda generator, _: inputs(rows, generator),
        make_small=lambda generator, _: inputs(min(rows, 7), generator),
        implementations=implementations,
        reference=reference,
        dtype=BF16,
        asked=asked,
        bytes_moved=2 * passes * rows * hidden,
    )

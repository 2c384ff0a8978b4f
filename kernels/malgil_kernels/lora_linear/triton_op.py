"""The LoRA linear on Triton: which kernels run, and its gradients.

    y = x Wᵀ + s (x Aᵀ) Bᵀ;   dx = dy W + s (dy B) A;   dA = s (dy B)ᵀ x;   dB = s dyᵀ (x Aᵀ);   W is frozen

Saved for the backward: x, A and B; x Aᵀ is taken again. W is decoded in registers up to `FUSED_TOKENS` tokens
(`forward.py`, `backward.py`) and block by block into a small buffer above (`blocks.py`); never as a whole.
"""

from typing import Any, Literal

import torch

from malgil_kernels.lora_linear.backward import launch_input_gradient
from malgil_kernels.lora_linear.blocks import forward_by_blocks, input_gradient_by_blocks
from malgil_kernels.lora_linear.forward import DECODE_TOKENS, launch_decode, launch_tiles
from malgil_kernels.quantise.decode import Operands, operands
from malgil_kernels.quantise.formats import QuantisedWeight

# Estimated, to be measured: per 128 tokens a fused tile decodes all of W again (13 µs of integer work for NF4
# 4096 → 14336 on 132 multiprocessors), decoding once costs about 40 µs.
FUSED_TOKENS = 512
Path = Literal["decode", "tiles", "blocks"]


def choose_path(tokens: int, about: Operands, columns: int) -> tuple[Path, str]:
    """Which kernels multiply, and why."""
    packed = about.format in ("nf4", "int4")
    if about.format != "dense":
        if packed and (columns % 2 or not about.aligned):
            return "blocks", f"{columns} columns: blocks of the format span rows"
        if tokens > FUSED_TOKENS:
            return "blocks", f"{tokens} tokens: over {FUSED_TOKENS}, so W is decoded once"
    if tokens <= DECODE_TOKENS:
        return "decode", f"{tokens} tokens: at most {DECODE_TOKENS}, bound by W's bytes"
    return "tiles", f"{tokens} tokens"


class LoraLinearTriton(torch.autograd.Function):
    """Inputs as matrices; `segments` are the row ranges of the stacked weights, `bounds` the same on the device."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        bias: torch.Tensor | None,
        weight: QuantisedWeight | torch.Tensor,
        scaling: float,
        segments: list[tuple[int, int]],
        bounds: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, a, b)
        ctx.weight, ctx.scaling, ctx.segments = weight, scaling, segments
        ctx.has_bias = bias is not None
        about = operands(weight)
        path, _ = choose_path(x.shape[0], about, x.shape[1])
        if path == "decode":
            return launch_decode(x, about, a, b, scaling, bias, bounds)
        low = scaled_product(x, a.t(), scaling)
        if path == "tiles":
            return launch_tiles(x, about, low, b, bias, bounds)
        assert isinstance(weight, QuantisedWeight)
        return forward_by_blocks(x, weight, low, b, segments, bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, a, b = ctx.saved_tensors
        dy = grads[0]
        dy = dy if dy.stride(1) == 1 else dy.contiguous()
        rank = b.shape[1]
        needs_x, needs_a, needs_b, needs_bias = ctx.needs_input_grad[:4]
        dx = da = db = None
        if needs_x or needs_a:
            dlow = torch.cat(
                [scaled_product(dy[:, start:end], b[start:end], ctx.scaling) for start, end in ctx.segments], dim=1
            )
            da = dlow.t() @ x if needs_a else None
            dx = _input_gradient(dy, ctx.weight, dlow, a) if needs_x else None
        if needs_b:
            low = scaled_product(x, a.t(), ctx.scaling)
            db = torch.empty_like(b)
            for number, (start, end) in enumerate(ctx.segments):
                torch.mm(dy[:, start:end].t(), low[:, number * rank : (number + 1) * rank], out=db[start:end])
        dbias = dy.sum(dim=0) if ctx.has_bias and needs_bias else None
        return dx, da, db, dbias, None, None, None, None


def lora_linear_triton(
    x: torch.Tensor,
    weight: QuantisedWeight | torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scaling: float,
    bias: torch.Tensor | None,
    segments: list[tuple[int, int]],
    bounds: torch.Tensor | None,
) -> torch.Tensor:
    """x (..., columns) → y (..., rows); a is (segments · rank, columns), b (rows, rank)."""
    rows = b.shape[0]
    if not x.numel() or not rows:
        return x.new_zeros(*x.shape[:-1], rows) + x.sum() * 0 + a.sum() * 0 + b.sum() * 0
    flat = _rows(x)
    y: torch.Tensor = LoraLinearTriton.apply(
        flat, _inner(a), b.contiguous(), bias, weight, scaling, segments, bounds
    )
    return y.view(*x.shape[:-1], rows)


def scaled_product(left: torch.Tensor, right: torch.Tensor, scaling: float) -> torch.Tensor:
    """scaling · left right, scaled before it is rounded."""
    return torch.addmm(left.new_zeros(1, 1), left, right, beta=0, alpha=scaling)


def _input_gradient(
    dy: torch.Tensor, weight: QuantisedWeight | torch.Tensor, dlow: torch.Tensor, a: torch.Tensor
) -> torch.Tensor:
    if isinstance(weight, torch.Tensor):
        return torch.mm(dlow, a).addmm_(dy, weight)
    about = operands(weight)
    path, _ = choose_path(dy.shape[0], about, a.shape[1])
    if path == "blocks":
        return input_gradient_by_blocks(dy, weight, dlow, a)
    return launch_input_gradient(dy, about, dlow, a)


def _rows(x: torch.Tensor) -> torch.Tensor:
    return _inner(x.reshape(-1, x.shape[-1]))


def _inner(matrix: torch.Tensor) -> torch.Tensor:
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()

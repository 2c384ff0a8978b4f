"""The LoRA linear on Triton: which kernels run, and its gradients.

    y = x Wᵀ + s (x Aᵀ) Bᵀ;   dx = dy W + s (dy B) A;   dA = s (dy B)ᵀ x;   dB = s dyᵀ (x Aᵀ);   W is frozen

Saved for the backward: x, A and B; x Aᵀ is taken again. Up to the tokens that dispatch says, W is decoded in
registers (`forward.py`, `backward.py`), above block by block into a small buffer (`blocks.py`); never as a
whole.
"""

from typing import Any, Literal

import torch

from malgil_kernels.dispatch import on_its_device
from malgil_kernels.lora_linear.backward import launch_input_gradient
from malgil_kernels.lora_linear.blocks import forward_by_blocks, input_gradient_by_blocks
from malgil_kernels.lora_linear.launch_forward import DECODE_TOKENS, launch_decode, launch_tiles
from malgil_kernels.quantise.decode import Operands, operands
from malgil_kernels.quantise.formats import QuantisedWeight

Path = Literal["decode", "tiles", "blocks", "matmul"]


def choose_path(about: Operands, tokens: int, columns: int, fused: bool) -> Path:
    """Which kernels multiply; `fused` is what dispatch said of this number of tokens."""
    if about.format in ("nf4", "int4") and (columns % 2 or not about.aligned):
        return "blocks"  # blocks of the format, or a byte, span rows: the tile decoders cannot cut them
    if not fused:
        return "matmul" if about.format == "dense" else "blocks"
    return "decode" if tokens <= DECODE_TOKENS else "tiles"


class LoraLinearTriton(torch.autograd.Function):
    """Inputs as matrices; `segments`: the row ranges of stacked weights, `bounds`: the same on the device."""

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
        fused: bool,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, a, b)
        ctx.weight, ctx.scaling, ctx.segments = weight, scaling, segments
        about = operands(weight)
        ctx.path = choose_path(about, x.shape[0], x.shape[1], fused)
        if ctx.path == "decode":
            return launch_decode(x, about, a, b, scaling, bias, bounds)
        low = scaled_product(x, a.t(), scaling)
        if ctx.path == "tiles":
            return launch_tiles(x, about, low, b, bias, bounds)
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
                [scaled_product(dy[:, start:end], b[start:end], ctx.scaling) for start, end in ctx.segments],
                dim=1,
            )
            da = dlow.t() @ x if needs_a else None
            dx = _input_gradient(dy, ctx.weight, dlow, a, ctx.path) if needs_x else None
        if needs_b:
            low = scaled_product(x, a.t(), ctx.scaling)
            db = torch.empty_like(b)
            for number, (start, end) in enumerate(ctx.segments):
                torch.mm(dy[:, start:end].t(), low[:, number * rank : (number + 1) * rank], out=db[start:end])
        dbias = dy.sum(dim=0) if needs_bias else None
        return dx, da, db, dbias, None, None, None, None, None


@on_its_device
def lora_linear_triton(
    x: torch.Tensor,
    weight: QuantisedWeight | torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scaling: float,
    bias: torch.Tensor | None,
    segments: list[tuple[int, int]],
    bounds: torch.Tensor | None,
    fused: bool,
) -> torch.Tensor:
    """x (..., columns) → y (..., rows); a is (segments · rank, columns), b (rows, rank).

    `fused`: W is decoded inside the matmul; otherwise block by block in front of PyTorch's.
    """
    rows = b.shape[0]
    if not x.numel() or not rows:
        return x.new_zeros(*x.shape[:-1], rows) + x.sum() * 0 + a.sum() * 0 + b.sum() * 0
    flat = _rows(x)
    y: torch.Tensor = LoraLinearTriton.apply(
        flat, _inner(a), b.contiguous(), bias, weight, scaling, segments, bounds, fused
    )
    return y.view(*x.shape[:-1], rows)


def scaled_product(left: torch.Tensor, right: torch.Tensor, scaling: float) -> torch.Tensor:
    """scaling · left right, scaled before it is rounded."""
    return torch.addmm(left.new_zeros(1, 1), left, right, beta=0, alpha=scaling)


def _input_gradient(
    dy: torch.Tensor, weight: QuantisedWeight | torch.Tensor, dlow: torch.Tensor, a: torch.Tensor, path: Path
) -> torch.Tensor:
    if path in ("blocks", "matmul") or isinstance(weight, torch.Tensor):
        return input_gradient_by_blocks(dy, weight, dlow, a)
    return launch_input_gradient(dy, operands(weight), dlow, a)


def _rows(x: torch.Tensor) -> torch.Tensor:
    return _inner(x.reshape(-1, x.shape[-1]))


def _inner(matrix: torch.Tensor) -> torch.Tensor:
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()

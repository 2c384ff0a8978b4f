"""Gated linear units in Triton: SwiGLU, GeGLU with erf, GeGLU with tanh.

    y = act(g)·u;  du = dy·act(g);  dg = dy·u·act'(g)
    silu: g·σ(g);  gelu: g·Φ(g);  gelu_tanh: g·σ(2√(2/π)(g + 0.044715 g³)), since (1 + tanh t)/2 = σ(2t)

The backward recomputes act(g), so nothing but the inputs is kept. Bytes in a 16-bit type: forward 6 per
element of y (two reads, one write), backward 10 (three reads, two writes), with about 20 instructions each:
bound by memory. A program takes 1,024 columns, one 16-byte load per thread and tensor; contiguous tensors are
one long row, so that no block is cut by a row's end. Deterministic: each element is written once.
"""

from typing import Any

import torch
import triton
import triton.language as tl

BLOCK = 1024
LOG2_E = tl.constexpr(1.4426950408889634)
HALF_LOG2_E = tl.constexpr(0.7213475204444817)
SQRT_HALF = tl.constexpr(0.7071067811865476)
INV_SQRT_2_PI = tl.constexpr(0.3989422804014327)
TANH_SCALE = tl.constexpr(1.5957691216057308)  # 2·√(2/π)
TANH_CUBE = tl.constexpr(0.044715)


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * LOG2_E))


@triton.jit
def activated(g, ACTIVATION: tl.constexpr):
    """act(g) and act'(g) in float32; the compiler drops whichever is not used."""
    if ACTIVATION == "silu":
        s = sigmoid(g)
        value = g * s
        slope = s * (1.0 + g * (1.0 - s))
    elif ACTIVATION == "gelu":
        phi = 0.5 * (1.0 + tl.math.erf(g * SQRT_HALF))
        value = g * phi
        slope = phi + g * INV_SQRT_2_PI * tl.exp2(-g * g * HALF_LOG2_E)
    else:
        square = tl.minimum(g * g, 1e4)  # σ is 0 or 1 exactly far before; inf · 0 would be NaN in the slope
        s = sigmoid(g * (square * TANH_CUBE + 1.0) * TANH_SCALE)
        value = g * s
        slope = s + g * s * (1.0 - s) * (square * (3.0 * TANH_CUBE) + 1.0) * TANH_SCALE
    return value, slope


@triton.jit
def glu_forward_kernel(
    gate_ptr,
    up_ptr,
    y_ptr,
    gate_stride,
    up_stride,
    y_stride,
    width,
    blocks,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    row = program // blocks
    columns = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    g = tl.load(gate_ptr + row * gate_stride + columns, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up_ptr + row * up_stride + columns, mask=inside, other=0.0).to(tl.float32)
    value, _ = activated(g, ACTIVATION)
    y = (value * u).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + row * y_stride + columns, y, mask=inside)


@triton.jit
def glu_backward_kernel(
    dy_ptr,
    gate_ptr,
    up_ptr,
    dgate_ptr,
    dup_ptr,
    dy_stride,
    gate_stride,
    up_stride,
    dgate_stride,
    dup_stride,
    width,
    blocks,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    row = program // blocks
    columns = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    dy = tl.load(dy_ptr + row * dy_stride + columns, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate_ptr + row * gate_stride + columns, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up_ptr + row * up_stride + columns, mask=inside, other=0.0).to(tl.float32)
    value, slope = activated(g, ACTIVATION)
    dgate = (dy * u * slope).to(dgate_ptr.dtype.element_ty)
    dup = (dy * value).to(dup_ptr.dtype.element_ty)
    tl.store(dgate_ptr + row * dgate_stride + columns, dgate, mask=inside)
    tl.store(dup_ptr + row * dup_stride + columns, dup, mask=inside)


def _launch(kernel: Any, tensors: list[torch.Tensor], activation: str) -> None:
    """Runs an element-wise kernel over tensors (rows, width) of inner stride 1."""
    rows, width = tensors[0].shape
    strides = [x.stride(0) for x in tensors]
    if all(x.is_contiguous() for x in tensors):
        rows, width, strides = 1, rows * width, [rows * width] * len(tensors)
    if not rows or not width:
        return
    blocks = triton.cdiv(width, BLOCK)
    with torch.cuda.device_of(tensors[0]):
        kernel[(rows * blocks,)](
            *tensors, *strides, width, blocks, ACTIVATION=activation, BLOCK=BLOCK, num_warps=4
        )


def launch_forward(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    """gate, up (rows, width), inner stride 1 → y (rows, width), contiguous."""
    y = torch.empty_like(gate, memory_format=torch.contiguous_format)
    _launch(glu_forward_kernel, [gate, up, y], activation)
    return y


def launch_backward(
    dy: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    dgate: torch.Tensor,
    dup: torch.Tensor,
    activation: str,
) -> None:
    """Writes both gradients, (rows, width) each; `dgate` and `dup` may be `gate` and `up`."""
    _launch(glu_backward_kernel, [dy, gate, up, dgate, dup], activation)


class GluTriton(torch.autograd.Function):
    """gate and up as two tensors (rows, width)."""

    @staticmethod
    def forward(
        ctx: Any, gate: torch.Tensor, up: torch.Tensor, activation: str, gradient_in_place: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation, ctx.gradient_in_place = activation, gradient_in_place
        return launch_forward(gate, up, activation)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        gate, up = (x.detach() for x in ctx.saved_tensors)
        if ctx.gradient_in_place:
            dgate, dup = gate, up
            for overwritten in (gate, up):  # a second backward must raise
                torch.autograd.graph.increment_version(overwritten)
        else:
            dgate, dup = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (gate, up))
        launch_backward(rows_of(grads[0]), gate, up, dgate, dup, ctx.activation)
        return dgate, dup, None, None


class GluHalvesTriton(torch.autograd.Function):
    """gate and up as halves of one tensor (rows, 2·width), whose gradient is one tensor too."""

    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor, activation: str, gradient_in_place: bool) -> torch.Tensor:
        ctx.save_for_backward(gate_up)
        ctx.activation, ctx.gradient_in_place = activation, gradient_in_place
        gate, up = gate_up.chunk(2, dim=-1)
        return launch_forward(gate, up, activation)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        gate_up = ctx.saved_tensors[0].detach()
        if ctx.gradient_in_place:
            gradient = gate_up
            torch.autograd.graph.increment_version(gate_up)
        else:
            gradient = torch.empty_like(gate_up, memory_format=torch.contiguous_format)
        gate, up = gate_up.chunk(2, dim=-1)
        dgate, dup = gradient.chunk(2, dim=-1)
        launch_backward(rows_of(grads[0]), gate, up, dgate, dup, ctx.activation)
        return gradient, None, None


def rows_of(x: torch.Tensor) -> torch.Tensor:
    """x (..., width) as (rows, width) with inner stride 1; a view wherever the strides allow it."""
    rows = x.reshape(-1, x.shape[-1]) if x.numel() else x.reshape(0, x.shape[-1])
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def glu_triton(
    gate: torch.Tensor, up: torch.Tensor, activation: str, gradient_in_place: bool
) -> torch.Tensor:
    """act(gate) · up by the kernels above; arguments are checked by `glu`."""
    y: torch.Tensor = GluTriton.apply(rows_of(gate), rows_of(up), activation, gradient_in_place)
    return y.view(gate.shape)


def glu_halves_triton(gate_up: torch.Tensor, activation: str, gradient_in_place: bool) -> torch.Tensor:
    """act(first half) · second half by the kernels above; arguments are checked by `glu_halves`."""
    y: torch.Tensor = GluHalvesTriton.apply(rows_of(gate_up), activation, gradient_in_place)
    return y.view(*gate_up.shape[:-1], gate_up.shape[-1] // 2)

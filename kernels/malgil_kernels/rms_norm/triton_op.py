"""RMSNorm in Triton, alone or after a residual add; rows of up to 8,192 columns stay in registers.

    h = x (+ residual);  r = rsqrt(mean(h²) + eps);  y = h·r·g, g = w (Llama) or 1 + w (Gemma)
    dh = r·(g·dy − h·r²·mean(g·dy·h)) (+ the gradient of h as the next residual);  dw = Σ_rows dy·h·r

Bytes per element in 16 bits: forward 4 (x, y), with the add 8 (x, residual, h, y); backward 6 (dy, h, dh),
with the add 8. Nothing is read twice: the row waits in registers for its own statistic. The forward keeps r,
one float32 per row. In the backward a program walks over tiles and sums dw in registers, the next tile's
loads in flight (num_stages) while this one is reduced; the programs' sums, one row each, are added by
PyTorch, so that the result does not depend on the order in which programs run.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from malgil_kernels.dispatch import on_its_device
from malgil_kernels.rms_norm.long_rows import launch_long_backward, launch_long_forward
from malgil_kernels.row_tiles import LONGEST, as_rows, programs_for, tile_of


@triton.jit
def rms_norm_forward_kernel(
    x_ptr,
    residual_ptr,
    w_ptr,
    h_ptr,
    y_ptr,
    r_ptr,
    x_stride,
    residual_stride,
    h_stride,
    y_stride,
    rows,
    hidden,
    eps,
    ADD: tl.constexpr,
    GEMMA: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (columns < hidden)
    x = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=0.0)
    if ADD:
        residual = tl.load(residual_ptr + row * residual_stride + columns, mask=inside, other=0.0)
        # the next layer reads h rounded: norm what it reads
        x = (x.to(tl.float32) + residual.to(tl.float32)).to(h_ptr.dtype.element_ty)
        tl.store(h_ptr + row * h_stride + columns, x, mask=inside)
    h = x.to(tl.float32)
    r = 1.0 / tl.sqrt(tl.sum(h * h, axis=1, keep_dims=True) / hidden + eps)
    w = tl.load(w_ptr + columns, mask=columns < hidden, other=0.0).to(tl.float32)
    # Llama rounds the normed row
    y = h * r * (1.0 + w) if GEMMA else (h * r).to(y_ptr.dtype.element_ty).to(tl.float32) * w
    tl.store(y_ptr + row * y_stride + columns, y, mask=inside)
    tl.store(r_ptr + row, r, mask=row < rows)


@triton.jit
def rms_norm_backward_kernel(
    dy_ptr,
    h_ptr,
    w_ptr,
    r_ptr,
    dnext_ptr,
    dh_ptr,
    dw_ptr,
    dy_stride,
    h_stride,
    dnext_stride,
    dh_stride,
    rows,
    hidden,
    ADD: tl.constexpr,
    GEMMA: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    program = tl.program_id(0)
    columns = tl.arange(0, BLOCK)[None, :]
    w = tl.load(w_ptr + columns, mask=columns < hidden, other=0.0).to(tl.float32)
    if GEMMA:
        w += 1.0
    dw = tl.zeros([ROWS, BLOCK], dtype=tl.float32)
    for tile in tl.range(program, tl.cdiv(rows, ROWS), tl.num_programs(0), num_stages=STAGES):
        row = tile * ROWS + tl.arange(0, ROWS).to(tl.int64)[:, None]
        inside = (row < rows) & (columns < hidden)
        h = tl.load(h_ptr + row * h_stride + columns, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + row * dy_stride + columns, mask=inside, other=0.0).to(tl.float32)
        r = tl.load(r_ptr + row, mask=row < rows, other=0.0)
        gdy = w * dy
        normed = h * r
        dh = r * (gdy - normed * (tl.sum(gdy * normed, axis=1, keep_dims=True) / hidden))
        if ADD:
            dh += tl.load(dnext_ptr + row * dnext_stride + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(dh_ptr + row * dh_stride + columns, dh, mask=inside)
        dw += dy * normed
    column = tl.arange(0, BLOCK)
    dw_ptr += program.to(tl.int64) * hidden
    tl.store(dw_ptr + column, tl.sum(dw, axis=0), mask=column < hidden)


def launch_forward(
    x: torch.Tensor, weight: torch.Tensor, eps: float, variant: str, residual: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x and residual (rows, hidden), inner stride 1 → y and h (rows, hidden), r (rows,) float32.

    h is x itself where there is no residual.
    """
    rows, hidden = x.shape
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    h = x if residual is None else torch.empty_like(x, memory_format=torch.contiguous_format)
    r = torch.empty(rows, dtype=torch.float32, device=x.device)
    if rows == 0 or hidden == 0:
        return y, h, r
    added = x if residual is None else residual
    tensors = (x, added, weight, h, y, r, x.stride(0), added.stride(0), h.stride(0), y.stride(0))
    flags = {"ADD": residual is not None, "GEMMA": variant == "gemma"}
    if hidden > LONGEST:
        launch_long_forward(rows, hidden, eps, tensors, flags)
        return y, h, r
    tile = tile_of(hidden)
    rms_norm_forward_kernel[(triton.cdiv(rows, tile.rows),)](
        *tensors, rows, hidden, eps, **flags, ROWS=tile.rows, BLOCK=tile.block, num_warps=tile.warps
    )
    return y, h, r


def launch_backward(
    dy: torch.Tensor,
    h: torch.Tensor,
    weight: torch.Tensor,
    r: torch.Tensor,
    variant: str,
    dnext: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of h (rows, hidden) and of the weight (hidden,); `dnext` is what h has from elsewhere."""
    rows, hidden = h.shape
    dh = torch.empty_like(h, memory_format=torch.contiguous_format)
    if rows == 0 or hidden == 0:
        return dh, torch.zeros_like(weight)
    added = dy if dnext is None else dnext
    tensors = (dy, h, weight, r, added, dh)
    strides = (dy.stride(0), h.stride(0), added.stride(0), dh.stride(0))
    flags = {"ADD": dnext is not None, "GEMMA": variant == "gemma"}
    if hidden > LONGEST:
        return dh, launch_long_backward(rows, hidden, tensors, strides, flags).to(weight.dtype)
    tile = tile_of(hidden)
    programs = programs_for(triton.cdiv(rows, tile.rows), tile.warps, h.device)
    dw = torch.empty(programs, hidden, dtype=torch.float32, device=h.device)
    rms_norm_backward_kernel[(programs,)](
        *tensors,
        dw,
        *strides,
        rows,
        hidden,
        **flags,
        ROWS=tile.rows,
        BLOCK=tile.block,
        STAGES=2,
        num_warps=tile.warps,
    )
    return dh, dw.sum(dim=0).to(weight.dtype)


class RmsNormTriton(torch.autograd.Function):
    """Saves x, the weight and one float32 per row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, variant: str) -> torch.Tensor:
        y, h, r = launch_forward(x, weight, eps, variant)
        ctx.save_for_backward(h, weight, r)
        ctx.variant = variant
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        h, weight, r = ctx.saved_tensors
        dx, dw = launch_backward(as_rows(grads[0]), h, weight, r, ctx.variant)
        return dx, dw, None, None


@on_its_device
def rms_norm_triton(
    x: torch.Tensor, weight: torch.Tensor, eps: float, variant: str = "llama"
) -> torch.Tensor:
    """RMSNorm of x (..., hidden) by the kernels above; arguments as `rms_norm` has checked them."""
    y: torch.Tensor = RmsNormTriton.apply(as_rows(x), weight.contiguous(), eps, variant)
    return y.view(x.shape)

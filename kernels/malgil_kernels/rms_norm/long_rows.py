"""RMSNorm in Triton for rows over 8,192 columns, which do not fit in a program's registers.

Forward: a program walks over its row twice, for the statistic and for y; the second time the row comes from
L2 (16 bits, 65,536 columns, 132 programs: 17 MB). Backward in two kernels: one takes mean(g·dy·h) of each
row; the other has a stripe of columns for each program, over which it sums dw in registers while it writes
dh. That reads dy and h twice (10 bytes per element instead of 6), but keeps no partial sums of whole rows.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from malgil_kernels.dispatch import multiprocessors

BLOCK = 4096  # columns in flight of a row, 8 warps
STRIPE = 1024  # columns of a backward program, 4 warps


@triton.jit
def rms_norm_long_forward_kernel(
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
    hidden,
    eps,
    ADD: tl.constexpr,
    GEMMA: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    residual_ptr += row * residual_stride
    h_ptr += row * h_stride
    y_ptr += row * y_stride
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    for start in tl.range(0, hidden, BLOCK, num_stages=2):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + columns, mask=columns < hidden, other=0.0)
        if ADD:
            residual = tl.load(residual_ptr + columns, mask=columns < hidden, other=0.0)
            x = (x.to(tl.float32) + residual.to(tl.float32)).to(h_ptr.dtype.element_ty)
            tl.store(h_ptr + columns, x, mask=columns < hidden)
        squares += x.to(tl.float32) * x.to(tl.float32)
    r = 1.0 / tl.sqrt(tl.sum(squares, axis=0) / hidden + eps)
    tl.store(r_ptr + row, r)
    if ADD:
        tl.debug_barrier()  # h is read below by other threads than those that stored it
    for start in tl.range(0, hidden, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        h = tl.load(h_ptr + columns, mask=columns < hidden, other=0.0).to(tl.float32)
        w = tl.load(w_ptr + columns, mask=columns < hidden, other=0.0).to(tl.float32)
        # Llama rounds the normed row
        y = h * r * (1.0 + w) if GEMMA else (h * r).to(y_ptr.dtype.element_ty).to(tl.float32) * w
        tl.store(y_ptr + columns, y, mask=columns < hidden)


@triton.jit
def rms_norm_long_mean_kernel(
    dy_ptr,
    h_ptr,
    w_ptr,
    r_ptr,
    mean_ptr,
    dy_stride,
    h_stride,
    hidden,
    GEMMA: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """mean(g·dy·h·r) of each row."""
    row = tl.program_id(0).to(tl.int64)
    dots = tl.zeros([BLOCK], dtype=tl.float32)
    for start in tl.range(0, hidden, BLOCK, num_stages=2):
        columns = start + tl.arange(0, BLOCK)
        dy = tl.load(dy_ptr + row * dy_stride + columns, mask=columns < hidden, other=0.0).to(tl.float32)
        h = tl.load(h_ptr + row * h_stride + columns, mask=columns < hidden, other=0.0).to(tl.float32)
        w = tl.load(w_ptr + columns, mask=columns < hidden, other=0.0).to(tl.float32)
        if GEMMA:
            w += 1.0
        dots += w * dy * h
    tl.store(mean_ptr + row, tl.sum(dots, axis=0) * tl.load(r_ptr + row) / hidden)


@triton.jit
def rms_norm_long_backward_kernel(
    dy_ptr,
    h_ptr,
    w_ptr,
    r_ptr,
    dnext_ptr,
    dh_ptr,
    mean_ptr,
    dw_ptr,
    dy_stride,
    h_stride,
    dnext_stride,
    dh_stride,
    rows,
    hidden,
    ADD: tl.constexpr,
    GEMMA: tl.constexpr,
    STRIPE: tl.constexpr,
):
    columns = tl.program_id(0) * STRIPE + tl.arange(0, STRIPE)
    inside = columns < hidden
    w = tl.load(w_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    if GEMMA:
        w += 1.0
    dw = tl.zeros([STRIPE], dtype=tl.float32)
    for step in tl.range(tl.program_id(1), rows, tl.num_programs(1), num_stages=3):
        row = tl.cast(step, tl.int64)
        dy = tl.load(dy_ptr + row * dy_stride + columns, mask=inside, other=0.0).to(tl.float32)
        h = tl.load(h_ptr + row * h_stride + columns, mask=inside, other=0.0).to(tl.float32)
        r = tl.load(r_ptr + row)
        normed = h * r
        dh = r * (w * dy - normed * tl.load(mean_ptr + row))
        if ADD:
            dh += tl.load(dnext_ptr + row * dnext_stride + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(dh_ptr + row * dh_stride + columns, dh, mask=inside)
        dw += dy * normed
    tl.store(dw_ptr + tl.program_id(1).to(tl.int64) * hidden + columns, dw, mask=inside)


def launch_long_forward(
    rows: int, hidden: int, eps: float, tensors: tuple[Any, ...], flags: dict[str, bool]
) -> None:
    """`tensors` are the forward kernel's pointers and strides."""
    rms_norm_long_forward_kernel[(rows,)](*tensors, hidden, eps, **flags, BLOCK=BLOCK, num_warps=8)


def launch_long_backward(
    rows: int,
    hidden: int,
    tensors: tuple[torch.Tensor, ...],
    strides: tuple[int, int, int, int],
    flags: dict[str, bool],
) -> torch.Tensor:
    """Writes dh, the last of `tensors`; returns the weight's gradient (hidden,) float32."""
    dy, h, weight, r, _, _ = tensors
    mean = torch.empty_like(r)
    rms_norm_long_mean_kernel[(rows,)](
        dy, h, weight, r, mean, *strides[:2], hidden, GEMMA=flags["GEMMA"], BLOCK=BLOCK, num_warps=8
    )
    stripes = triton.cdiv(hidden, STRIPE)
    programs = min(rows, triton.cdiv(8 * multiprocessors(dy.device), stripes))
    dw = torch.empty(programs, hidden, dtype=torch.float32, device=dy.device)
    rms_norm_long_backward_kernel[(stripes, programs)](
        *tensors, mean, dw, *strides, rows, hidden, **flags, STRIPE=STRIPE, num_warps=4
    )
    return dw.sum(dim=0)

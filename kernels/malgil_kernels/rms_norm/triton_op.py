"""RMSNorm in Triton, one row per program.

    r = rsqrt(mean(x²) + eps);  y = x·r·w;  dx = r·(w·dy − x·r²·mean(w·dy·x));  dw = Σ_rows dy·x·r

The forward keeps r (one float32 per row); the backward sums dw over the rows of a program, and PyTorch adds
the programs' sums, so that the result does not depend on the order in which programs run.
"""

from typing import Any

import torch
import triton
import triton.language as tl

MAX_HIDDEN = 65_536  # one row must fit in a program's registers
BACKWARD_PROGRAMS = 256


@triton.jit
def rms_norm_forward_kernel(x_ptr, w_ptr, y_ptr, r_ptr, x_stride, y_stride, hidden, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < hidden
    x = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
    r = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / hidden + eps)
    w = tl.load(w_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    normed = (x * r).to(y_ptr.dtype.element_ty).to(tl.float32)  # Llama rounds here
    tl.store(y_ptr + row * y_stride + columns, normed * w, mask=inside)
    tl.store(r_ptr + row, r)


@triton.jit
def rms_norm_backward_kernel(
    dy_ptr,
    x_ptr,
    w_ptr,
    r_ptr,
    dx_ptr,
    dw_ptr,
    dy_stride,
    x_stride,
    dx_stride,
    rows,
    hidden,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < hidden
    w = tl.load(w_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    dw = tl.zeros([BLOCK], dtype=tl.float32)
    for row in range(program, rows, programs):
        x = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + row * dy_stride + columns, mask=inside, other=0.0).to(tl.float32)
        r = tl.load(r_ptr + row)
        wdy = w * dy
        dx = r * (wdy - x * (r * r * tl.sum(wdy * x, axis=0) / hidden))
        tl.store(dx_ptr + row * dx_stride + columns, dx, mask=inside)
        dw += dy * x * r
    tl.store(dw_ptr + program * hidden + columns, dw, mask=inside)


def launch_forward(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """x (rows, hidden), inner stride 1 → y (rows, hidden) and r (rows,) float32."""
    rows, hidden = x.shape
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    r = torch.empty(rows, dtype=torch.float32, device=x.device)
    if rows and hidden:
        block = triton.next_power_of_2(hidden)
        rms_norm_forward_kernel[(rows,)](
            x, weight, y, r, x.stride(0), y.stride(0), hidden, eps, BLOCK=block, num_warps=_warps(block)
        )
    return y, r


def launch_backward(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, r: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x (rows, hidden) and of the weight (hidden,)."""
    rows, hidden = x.shape
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not rows or not hidden:
        return dx, torch.zeros_like(weight)
    programs = min(rows, BACKWARD_PROGRAMS)
    dw = torch.empty(programs, hidden, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(hidden)
    rms_norm_backward_kernel[(programs,)](
        dy,
        x,
        weight,
        r,
        dx,
        dw,
        dy.stride(0),
        x.stride(0),
        dx.stride(0),
        rows,
        hidden,
        BLOCK=block,
        num_warps=_warps(block),
    )
    return dx, dw.sum(dim=0).to(weight.dtype)


class RmsNormTriton(torch.autograd.Function):
    """Saves x, the weight and one float32 per row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        y, r = launch_forward(x, weight, eps)
        ctx.save_for_backward(x, weight, r)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight, r = ctx.saved_tensors
        dx, dw = launch_backward(_rows(grads[0]), x, weight, r)
        return dx, dw, None


def rms_norm_triton(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm of x (..., hidden) by the kernels above.

    Raises:
        ValueError: the hidden size is over `MAX_HIDDEN`.
    """
    if x.shape[-1] > MAX_HIDDEN:
        raise ValueError(
            f"hidden size {x.shape[-1]}: must be at most {MAX_HIDDEN}. Next: MALGIL_KERNELS=reference"
        )
    y: torch.Tensor = RmsNormTriton.apply(_rows(x), weight.contiguous(), eps)
    return y.view(x.shape)


def _rows(x: torch.Tensor) -> torch.Tensor:
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(-1) == 1 or rows.shape[-1] <= 1 else rows.contiguous()


def _warps(block: int) -> int:
    return min(max(block // 256, 1), 16)

"""Layer norm in Triton, with or without the exact GELU behind it: launchers and the autograd function.

The maths stand in forward.py and backward.py. Bytes per element in 16 bits: forward 4 (x, y), backward 6 (dy,
x, dx); GELU adds none, where unfused it adds 4 and 6. The forward keeps mean and r, two float32 per row.
Rows over 8,192 columns (over 4,096 in the backward, which holds two sums besides) are read in blocks.
"""

from typing import Any

import torch
import triton

from malgil_kernels.dispatch import multiprocessors, on_its_device
from malgil_kernels.layer_norm.backward import (
    layer_norm_backward_kernel,
    layer_norm_long_backward_kernel,
    layer_norm_long_mean_kernel,
)
from malgil_kernels.layer_norm.forward import layer_norm_forward_kernel, layer_norm_long_forward_kernel
from malgil_kernels.row_tiles import LONGEST, Tile, as_rows, programs_for, tile_of

LONGEST_BACKWARD = 4096
BLOCK = 4096  # columns in flight of a long row, 8 warps
STRIPE = 1024  # columns of a long backward program, 4 warps
FRAMES = 16  # of a forward tile whose frames lie next to each other: in 16 bits one 32-byte sector of memory
# of a backward tile: 16 spill. Neighbours work on neighbouring tiles, and one finds the sector in L2.
FRAMES_BACKWARD = 8
MOST_CHANNELS = 512  # of such a tile: wav2vec2's


def as_batches(x: torch.Tensor) -> torch.Tensor:
    """(..., hidden) → (batch, rows, hidden): x itself where frames lie next to each other, else 1 × rows."""
    return x if frames_inside(x) else as_rows(x).unsqueeze(0)


def frames_inside(x: torch.Tensor) -> bool:
    """Whether x is (batch, frames, channels) that a convolution left as (batch, channels, frames)."""
    if x.ndim != 3 or x.numel() == 0 or x.shape[-1] > MOST_CHANNELS:
        return False
    return x.shape[1] > 1 and x.stride(1) == 1 and 1 < x.stride(2) <= 2**31 // MOST_CHANNELS


def tile_for(x: torch.Tensor, backward: bool) -> Tile:
    """The tile for x (batch, rows, hidden)."""
    if not frames_inside(x):
        return tile_of(x.shape[-1], per_thread=8 if backward else 16)
    block = triton.next_power_of_2(x.shape[-1])
    frames = FRAMES_BACKWARD if backward else FRAMES
    return Tile(frames, block, min(max(frames * block // (256 if backward else 512), 1), 16))


def empty_alike(x: torch.Tensor) -> torch.Tensor:
    """Dense memory in the layout of x (batch, rows, hidden)."""
    if not frames_inside(x):
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    batch, frames, channels = x.shape
    return torch.empty(batch, channels, frames, dtype=x.dtype, device=x.device).transpose(1, 2)


def launch_forward(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float, use_gelu: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x (batch, rows, hidden) → y in its layout, mean and r (batch · rows,) float32."""
    batches, rows, hidden = x.shape
    y = empty_alike(x)
    mean, r = (torch.empty(batches * rows, dtype=torch.float32, device=x.device) for _ in range(2))
    if x.numel() == 0:
        return y, mean, r
    flags = {"WEIGHT": weight is not None, "BIAS": bias is not None, "GELU": use_gelu}
    tensors = (x, x if weight is None else weight, x if bias is None else bias, y, mean, r)
    if hidden > LONGEST:
        layer_norm_long_forward_kernel[(rows,)](
            *tensors, x.stride(1), y.stride(1), hidden, eps, **flags, BLOCK=BLOCK, num_warps=8
        )
        return y, mean, r
    tile = tile_for(x, backward=False)
    layer_norm_forward_kernel[(batches * triton.cdiv(rows, tile.rows),)](
        *tensors,
        *x.stride(),
        *y.stride(),
        rows,
        hidden,
        eps,
        **flags,
        ROWS=tile.rows,
        BLOCK=tile.block,
        num_warps=tile.warps,
    )
    return y, mean, r


def launch_backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    r: torch.Tensor,
    use_gelu: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """dy, x (batch, rows, hidden) → dx in x's layout, dw and db (hidden,) float32."""
    batches, rows, hidden = x.shape
    dx = empty_alike(x)
    if x.numel() == 0:
        return dx, *torch.zeros(2, hidden, device=x.device)
    flags = {"WEIGHT": weight is not None, "BIAS": bias is not None, "GELU": use_gelu}
    tensors = (dy, x, x if weight is None else weight, x if bias is None else bias, mean, r)
    if hidden > LONGEST_BACKWARD:
        return dx, *launch_long_backward(tensors, dx, flags)
    tile = tile_for(x, backward=True)
    programs = programs_for(batches * triton.cdiv(rows, tile.rows), tile.warps, x.device)
    sums = torch.empty(2, programs, hidden, dtype=torch.float32, device=x.device)
    layer_norm_backward_kernel[(programs,)](
        *tensors,
        dx,
        *sums,
        *dy.stride(),
        *x.stride(),
        *dx.stride(),
        batches,
        rows,
        hidden,
        **flags,
        ROWS=tile.rows,
        BLOCK=tile.block,
        STAGES=1 if frames_inside(x) else 2,  # strided addresses leave no registers for the next tile's
        num_warps=tile.warps,
    )
    return dx, *sums.sum(dim=1)


def launch_long_backward(
    tensors: tuple[torch.Tensor, ...], dx: torch.Tensor, flags: dict[str, bool]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Writes dx (1, rows, hidden); returns dw and db (hidden,) float32."""
    dy, x = tensors[:2]
    _, rows, hidden = x.shape
    means = torch.empty(2, rows, dtype=torch.float32, device=x.device)
    strides = (dy.stride(1), x.stride(1))
    layer_norm_long_mean_kernel[(rows,)](
        *tensors, *means, *strides, hidden, **flags, BLOCK=BLOCK, num_warps=8
    )
    stripes = triton.cdiv(hidden, STRIPE)
    programs = min(rows, triton.cdiv(8 * multiprocessors(x.device), stripes))
    sums = torch.empty(2, programs, hidden, dtype=torch.float32, device=x.device)
    layer_norm_long_backward_kernel[(stripes, programs)](
        *tensors, *means, dx, *sums, *strides, dx.stride(1), rows, hidden, **flags, STRIPE=STRIPE, num_warps=4
    )
    dw, db = sums.sum(dim=1)
    return dw, db


class LayerNormTriton(torch.autograd.Function):
    """Saves x, the weight, the bias and two float32 per row."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        eps: float,
        use_gelu: bool,
    ) -> torch.Tensor:
        y, mean, r = launch_forward(x, weight, bias, eps, use_gelu)
        ctx.save_for_backward(x, weight, bias, mean, r)
        ctx.use_gelu = use_gelu
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, bias, mean, r = ctx.saved_tensors
        dy = grads[0] if frames_inside(x) else as_rows(grads[0]).unsqueeze(0)
        dx, dw, db = launch_backward(dy, x, weight, bias, mean, r, ctx.use_gelu)
        dw_or_none = None if weight is None else dw.to(weight.dtype)
        return dx, dw_or_none, None if bias is None else db.to(bias.dtype), None, None


@on_its_device
def layer_norm_triton(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    use_gelu: bool = False,
) -> torch.Tensor:
    """Layer norm of x (..., hidden), then GELU if asked for; arguments as `layer_norm` has checked them."""
    channels = [None if c is None else c.contiguous() for c in (weight, bias)]
    y: torch.Tensor = LayerNormTriton.apply(as_batches(x), *channels, eps, use_gelu)
    return y.view(x.shape)

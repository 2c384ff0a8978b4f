"""How ops that reduce over the last dimension cut it: rows × columns of one program, and its warps.

A norm moves a few bytes per element and computes little, so a tile is sized by loads in flight: about 16
elements per thread (two 16-byte loads of a 16-bit type), and at least 2,048 elements per program. A short row
shares a program with others, so that no lane idles; a row over `LONGEST` does not fit in registers and is
read in blocks by kernels of its own.
"""

from typing import NamedTuple

import torch

from malgil_kernels.dispatch import multiprocessors

LONGEST = 8192  # columns that a program holds in registers
MAX_HIDDEN = 65_536
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Tile(NamedTuple):
    """One program's share."""

    rows: int
    block: int  # columns, a power of two
    warps: int


def tile_of(hidden: int) -> Tile:
    """The tile for rows of `hidden` ≤ `LONGEST` columns: (8, 256) at 192, (1, 4096) at 4096."""
    block = 1 << max(hidden - 1, 0).bit_length()
    rows = min(max(2048 // block, 1), 64) if block <= 512 else 1
    return Tile(rows, block, min(max(rows * block // 512, 1), 16))


def programs_for(tiles: int, warps: int, device: torch.device) -> int:
    """Programs of a backward that sums a weight's gradient over the tiles: 16 warps per multiprocessor.

    That is what about 120 registers a thread leave room for. Each program costs one row of float32 partial
    sums, which a second stage adds: 4.3 MB on 132 multiprocessors, whatever the hidden size over 512.
    """
    return max(min(tiles, max(16 // warps, 1) * multiprocessors(device)), 1)


def as_rows(x: torch.Tensor) -> torch.Tensor:
    """(..., hidden) → (rows, hidden) with inner stride 1; copies only where strides leave no such view."""
    rows = x.reshape(-1, x.shape[-1]) if x.shape[-1] else x.reshape(x.shape[:-1].numel(), 0)
    return rows if rows.stride(-1) == 1 or rows.shape[-1] <= 1 else rows.contiguous()


def check_rows(x: torch.Tensor, **channels: torch.Tensor | None) -> None:
    """Refuses what a norm over the last dimension of `x` cannot take.

    Args:
        x: (..., hidden).
        channels: per name, a (hidden,) tensor or None.

    Raises:
        TypeError: a dtype is no floating type that the reference computes.
        ValueError: a shape or a device does not fit, or the hidden size is over `MAX_HIDDEN`.
    """
    if x.ndim == 0:
        raise ValueError("x has shape (): must be (..., hidden)")
    if x.shape[-1] > MAX_HIDDEN:
        raise ValueError(f"x has hidden size {x.shape[-1]}: must be at most {MAX_HIDDEN}")
    for name, tensor in {"x": x, **channels}.items():
        if tensor is None:
            continue
        if tensor.dtype not in FLOATS:
            raise TypeError(f"{name} is {tensor.dtype}: must be float32, float16, bfloat16 or float64")
        if tensor is not x and tensor.shape != x.shape[-1:]:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}: must be ({x.shape[-1]},), x's last size"
            )
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}: must be on x's device, {x.device}")

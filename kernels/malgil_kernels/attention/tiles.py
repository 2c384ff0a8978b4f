"""Tile sizes of the attention kernels by head dim, dtype and GPU: data, checked by the compile check for spills.

A warp group of Hopper multiplies 64 rows at a time, so eight warps take 128. Accumulators stay in registers:
rows · dim · 4 bytes over the threads, at most 128 of a thread's 255. `stages` is how many tiles of keys are
under way; what a GPU's shared memory holds decides it (H100 227 KB, A100 163 KB, sm_89 and sm_120 99 KB).
"""

from typing import NamedTuple

import torch

from malgil_kernels.dispatch import capability


class Tile(NamedTuple):
    """Rows of queries, rows of keys, warps of a program, and tiles in flight."""

    block_m: int
    block_n: int
    warps: int
    stages: int


def forward_tile_of(dim: int, dtype: torch.dtype, device: torch.device) -> Tile:
    """For the forward kernel."""
    if dtype == torch.float32:
        return Tile(64, 32, 8, 1) if dim <= 64 else Tile(32, 32, 8, 1)
    hopper, roomy = _room(device)
    if dim <= 64:
        return Tile(128, 128, 8, 3) if hopper else Tile(128, 64, 4, 3)
    if dim <= 128:
        return Tile(128, 128, 8, 2) if hopper else Tile(128, 64, 8, 2)
    return Tile(128, 64, 8, 2) if roomy else Tile(64, 32, 4, 2)


def dq_tile_of(dim: int, dtype: torch.dtype, device: torch.device) -> Tile:
    """For the backward kernel that owns query rows."""
    if dtype == torch.float32:
        return Tile(32, 32, 8, 1)
    hopper, roomy = _room(device)
    if dim <= 64:
        return Tile(128, 128, 8, 2) if hopper else Tile(128, 64, 8, 2)
    if dim <= 128:
        return Tile(128, 64, 8, 2) if roomy else Tile(64, 64, 4, 2)
    return Tile(64, 64, 8, 1) if roomy else Tile(64, 32, 8, 1)


def dkdv_tile_of(dim: int, dtype: torch.dtype, device: torch.device) -> Tile:
    """For the backward kernel that owns keys."""
    if dtype == torch.float32:
        return Tile(32, 32, 8, 1)
    hopper, roomy = _room(device)
    if dim <= 64:
        return Tile(64, 128, 8, 2)
    if dim <= 128:
        return Tile(64, 128, 8, 2) if roomy else Tile(32, 64, 4, 2)
    return Tile(64, 64, 8, 1) if roomy else Tile(32, 64, 8, 1)


def _room(device: torch.device) -> tuple[bool, bool]:
    """Whether the GPU has Hopper's tensor cores, and whether a program may take over 99 KB of shared memory."""
    architecture = capability(device)
    return 90 <= architecture < 120, architecture == 80 or 90 <= architecture < 120

"""Tile sizes of the attention kernels by head dim, dtype and GPU: data, held by the compile check.

A warp group of Hopper multiplies 64 rows at a time, so eight warps take 128. Accumulators stay in registers:
rows · dim · 4 bytes over the threads, at most 128 of a thread's 255 registers. `stages` is how many tiles are
under way; with them a program fits into 227 KB of shared memory on Hopper and into 99 KB elsewhere (sm_89 has
no more). float32 has no tensor cores at its precision: small tiles, whose operands registers hold.
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


# head dims to 64, to 128, to 256
HOPPER = {
    "forward": (Tile(128, 128, 8, 3), Tile(128, 128, 8, 2), Tile(128, 32, 8, 3)),
    "dq": (Tile(128, 128, 8, 2), Tile(128, 64, 8, 2), Tile(128, 32, 8, 2)),
    "dkdv": (Tile(64, 128, 8, 2), Tile(32, 128, 8, 2), Tile(32, 64, 8, 2)),
}
OTHERS = {
    "forward": (Tile(128, 64, 8, 3), Tile(128, 32, 8, 3), Tile(64, 32, 8, 2)),
    "dq": (Tile(128, 64, 8, 2), Tile(64, 64, 8, 2), Tile(64, 32, 8, 1)),
    "dkdv": (Tile(32, 128, 8, 2), Tile(32, 64, 8, 2), Tile(16, 64, 8, 2)),
}
FLOAT32 = {
    "forward": (Tile(32, 32, 8, 1), Tile(32, 16, 8, 1), Tile(32, 16, 8, 1)),
    "dq": (Tile(16, 16, 8, 1), Tile(16, 16, 8, 1), Tile(16, 16, 8, 1)),
    "dkdv": (Tile(16, 32, 8, 1), Tile(16, 32, 8, 1), Tile(16, 32, 8, 1)),
}


def tile_of(kernel: str, dim: int, dtype: torch.dtype, device: torch.device) -> Tile:
    """The tile of "forward", "dq" (owns query rows) or "dkdv" (owns keys) for a head dim up to 256."""
    table = HOPPER if 90 <= capability(device) < 120 else OTHERS
    if dtype == torch.float32:
        table = FLOAT32
    return table[kernel][0 if dim <= 64 else 1 if dim <= 128 else 2]

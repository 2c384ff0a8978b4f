"""Many tokens: W is decoded once, block by block into a small buffer, and multiplied by the vendor's GEMM.

    y[:, block] = x W[block]ᵀ + low B[block]ᵀ;    dx[:, block] = dy W[:, block] + dlow A[:, block]

The forward takes blocks of W's rows, the backward blocks of its columns, so that each output is one GEMM and
nothing is summed over blocks in 16 bits. A block is at most 16 MiB, which stays in the 50 MB L2 of an H100
between the kernel that writes it and the GEMM that reads it: in 16 bits W never reaches memory, and no buffer
of W's size exists. Deterministic as far as the GEMM is.
"""

import torch

from malgil_kernels.quantise.formats import QuantisedWeight
from malgil_kernels.quantise.triton_op import launch_dequantise

BLOCK_BYTES = 16 * 2**20
UNIT = 128  # rows or columns: whole tiles and whole groups of every format


def forward_by_blocks(
    x: torch.Tensor,
    weight: QuantisedWeight | torch.Tensor,
    low: torch.Tensor,
    up: torch.Tensor,
    segments: list[tuple[int, int]],
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """x (tokens, columns), low = s · x Aᵀ (tokens, segments · rank), up = B (rows, rank) → y (tokens, rows).

    Each segment of rows has its own `rank` columns of `low`.
    """
    (rows, columns), rank = weight.shape, up.shape[1]
    y = torch.empty(x.shape[0], rows, dtype=x.dtype, device=x.device)
    for number, (start, end) in enumerate(segments):
        torch.mm(low[:, number * rank : (number + 1) * rank], up[start:end].t(), out=y[:, start:end])
    if bias is not None:
        y += bias
    if isinstance(weight, torch.Tensor):
        return y.addmm_(x, weight.t())
    size = _block(columns, rows, x.dtype)
    buffer = torch.empty(min(size, rows), columns, dtype=x.dtype, device=x.device)
    for first in range(0, rows, size):
        block = buffer[: min(size, rows - first)]
        launch_dequantise(weight, block, first, 0)
        y[:, first : first + block.shape[0]].addmm_(x, block.t())
    return y


def input_gradient_by_blocks(
    dy: torch.Tensor, weight: QuantisedWeight | torch.Tensor, dlow: torch.Tensor, a: torch.Tensor
) -> torch.Tensor:
    """dy (tokens, rows), dlow = s · dy B (tokens, ranks), a (ranks, columns) → dx (tokens, columns)."""
    rows, columns = weight.shape
    dx = torch.mm(dlow, a)
    if isinstance(weight, torch.Tensor):
        return dx.addmm_(dy, weight)
    size = _block(rows, columns, dy.dtype)
    for first in range(0, columns, size):
        block = torch.empty(rows, min(size, columns - first), dtype=dy.dtype, device=dy.device)
        launch_dequantise(weight, block, 0, first)
        dx[:, first : first + block.shape[1]].addmm_(dy, block)
    return dx


def _block(across: int, along: int, dtype: torch.dtype) -> int:
    """Rows (or columns) of `across` elements that fit a block: whole units, at least one, at most `along`."""
    fit = BLOCK_BYTES // (across * dtype.itemsize) // UNIT * UNIT
    return max(1, min(max(fit, UNIT), along))

"""NF4 with double quantisation in Triton, to the bit as bitsandbytes 0.50.2.

    code = number of bounds under w / absmax, the bounds being the midpoints of the 16 values;
    absmax ≈ map[code₂] · statistic + offset, offset = mean of all absmax, statistic = max of 256 |absmax −
    offset|

Two kernels with PyTorch's mean between them (its order of summation is part of the bits). The first reads
each weight once and writes half a byte: memory-bound, 15 compares a weight. Deterministic.
"""

import torch
import triton
import triton.language as tl

from malgil_kernels.dispatch import on_its_device
from malgil_kernels.quantise.codes import (
    NF4_BLOCK,
    NF4_STATISTICS_BLOCK,
    nf4_bounds,
    statistics_bounds,
    statistics_table,
)
from malgil_kernels.quantise.formats import Nf4Weight
from malgil_kernels.quantise.triton_op import EXACT

BLOCKS = 32  # blocks of 64 weights per program


@triton.jit
def bounded_ratio(values, absmax):
    """values / absmax within −1 and 1, by bitsandbytes' reciprocal with its guard against blocks of zeros."""
    one = tl.full(absmax.shape, 1.0, tl.float32)
    smallest = tl.full(absmax.shape, 1e-38, tl.float32)  # a plain literal this small would be a float64
    inverse = tl.div_rn(one, tl.maximum(absmax, smallest))
    return tl.minimum(tl.maximum(values * inverse[:, None], -1.0), 1.0)


@triton.jit
def quantise_nf4_kernel(w_ptr, packed_ptr, absmax_ptr, bounds_ptr, count, BLOCKS: tl.constexpr):
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    place = block[:, None] * 64 + tl.arange(0, 64)[None, :]
    w = tl.load(w_ptr + place, mask=place < count, other=0.0).to(tl.float32)
    absmax = tl.max(tl.abs(w), axis=1)
    tl.store(absmax_ptr + block, absmax, mask=block * 64 < count)
    ratio = bounded_ratio(w, absmax)
    code = tl.zeros([BLOCKS, 64], dtype=tl.int32)
    for bound in tl.static_range(15):
        code += (ratio > tl.load(bounds_ptr + bound)).to(tl.int32)
    high, low = tl.split(tl.reshape(code, (BLOCKS, 32, 2)))
    byte = block[:, None] * 32 + tl.arange(0, 32)[None, :]
    tl.store(packed_ptr + byte, (high << 4 | low).to(tl.uint8), mask=byte * 2 < count)


@triton.jit
def quantise_statistics_kernel(
    absmax_ptr, offset_ptr, codes_ptr, statistics_ptr, lookup_ptr, count, GRID: tl.constexpr
):
    """GRID: lookup_ptr has the CPU build's 65,536 codes; otherwise the 255 bounds, searched in halves."""
    block = tl.program_id(0).to(tl.int64)
    place = block * 256 + tl.arange(0, 256)[None, :]
    centred = tl.load(absmax_ptr + place, mask=place < count, other=0.0) - tl.load(offset_ptr)
    centred = tl.where(place < count, centred, 0.0)
    statistic = tl.max(tl.abs(centred), axis=1)
    tl.store(statistics_ptr + block + tl.arange(0, 1), statistic)
    ratio = bounded_ratio(centred, statistic)
    if GRID:
        code = tl.load(lookup_ptr + ((ratio + 1.0) * 0.5 * 65535.0 + 0.5).to(tl.int32)).to(tl.int32)
    else:
        code = tl.zeros([1, 256], dtype=tl.int32)
        for level in tl.static_range(8):
            middle = tl.load(lookup_ptr + code + ((128 >> level) - 1))
            code += tl.where(ratio > middle, 128 >> level, 0)
    code = tl.where((statistic == 0.0)[:, None], 0, code)
    tl.store(codes_ptr + place, code.to(tl.uint8), mask=place < count)


@on_its_device
def quantise_nf4_triton(w: torch.Tensor, match: str) -> Nf4Weight:
    """w (rows, columns) contiguous → NF4; `match` is the build whose rounding of the absmax is followed."""
    count = w.numel()
    blocks = triton.cdiv(count, NF4_BLOCK)
    packed = torch.empty((count + 1) // 2, dtype=torch.uint8, device=w.device)
    absmax = torch.empty(blocks, dtype=torch.float32, device=w.device)
    quantise_nf4_kernel[(triton.cdiv(blocks, BLOCKS),)](
        w, packed, absmax, nf4_bounds(w.device), count, BLOCKS=BLOCKS, num_warps=4, **EXACT
    )
    offset = absmax.mean().view(1)
    nested = torch.empty(blocks, dtype=torch.uint8, device=w.device)
    statistics = torch.empty(triton.cdiv(blocks, NF4_STATISTICS_BLOCK), dtype=torch.float32, device=w.device)
    grid = match == "cpu"
    lookup = statistics_table(w.device) if grid else statistics_bounds(w.device)
    quantise_statistics_kernel[(statistics.numel(),)](
        absmax, offset, nested, statistics, lookup, blocks, GRID=grid, num_warps=1, **EXACT
    )
    return Nf4Weight((w.shape[0], w.shape[1]), w.dtype, packed, nested, statistics, offset)

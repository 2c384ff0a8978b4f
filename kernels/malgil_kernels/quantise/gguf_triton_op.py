"""GGUF's Q8_0 and Q4_0 blocks in Triton, to the byte as `gguf.quants` 0.19 (and so llama.cpp's reference).

    Q8_0: d = absmax / 127, code = w / d rounded half away from zero
    Q4_0: d = (the weight of largest magnitude) / −8, code = min(trunc(w / d + 8.5), 15)

A block is 32 weights, two bytes of float16 d and then the codes: 34 or 18 bytes, so blocks are aligned to two
bytes only and codes are stored byte by byte (neighbouring lanes still fill whole sectors). Deterministic.
"""

import torch
import triton
import triton.language as tl

from malgil_kernels.dispatch import on_its_device
from malgil_kernels.quantise.formats import (
    GGUF_BLOCK,
    Q4_0_BYTES,
    Q8_0_BYTES,
    Q4_0Weight,
    Q8_0Weight,
)
from malgil_kernels.quantise.triton_op import EXACT, reciprocal

BLOCKS = 64  # blocks of 32 weights per program


@triton.jit
def quantise_q8_0_kernel(w_ptr, out_ptr, blocks, BLOCKS: tl.constexpr):
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    inside = (block < blocks)[:, None]
    place = tl.arange(0, 32)[None, :]
    w = tl.load(w_ptr + block[:, None] * 32 + place, mask=inside, other=0.0).to(tl.float32)
    d = tl.div_rn(tl.max(tl.abs(w), axis=1), 127.0)
    tl.store((out_ptr + block * 34).to(tl.pointer_type(tl.float16)), d.to(tl.float16), mask=block < blocks)
    scaled = w * reciprocal(d, 1.0)[:, None]
    size = tl.abs(scaled)
    floor = tl.floor(size)
    rounded = floor + tl.floor(2.0 * (size - floor))
    code = tl.where(scaled < 0.0, -rounded, rounded).to(tl.int8)
    tl.store(out_ptr + block[:, None] * 34 + 2 + place, code.to(tl.uint8, bitcast=True), mask=inside)


@triton.jit
def quantise_q4_0_kernel(w_ptr, out_ptr, blocks, BLOCKS: tl.constexpr):
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    inside = (block < blocks)[:, None]
    place = tl.arange(0, 32)[None, :]
    w = tl.load(w_ptr + block[:, None] * 32 + place, mask=inside, other=0.0).to(tl.float32)
    size = tl.abs(w)
    first = tl.min(tl.where(size == tl.max(size, axis=1)[:, None], place, 32), axis=1)
    d = tl.div_rn(tl.sum(tl.where(place == first[:, None], w, 0.0), axis=1), -8.0)
    tl.store((out_ptr + block * 18).to(tl.pointer_type(tl.float16)), d.to(tl.float16), mask=block < blocks)
    code = tl.minimum((w * reciprocal(d, 1.0)[:, None] + 8.5).to(tl.int32), 15)
    # columns i and i + 16 share byte i
    low, high = tl.split(tl.permute(tl.reshape(code, (BLOCKS, 2, 16)), (0, 2, 1)))
    byte = tl.arange(0, 16)[None, :]
    tl.store(out_ptr + block[:, None] * 18 + 2 + byte, (low | high << 4).to(tl.uint8), mask=inside)


@triton.jit
def dequantise_gguf_kernel(blocks_ptr, out_ptr, blocks, BYTES: tl.constexpr, BLOCKS: tl.constexpr):
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    inside = (block < blocks)[:, None]
    start = blocks_ptr + block * BYTES
    d = tl.load(start.to(tl.pointer_type(tl.float16)), mask=block < blocks, other=0.0).to(tl.float32)[:, None]
    if BYTES == 34:
        place = tl.arange(0, 32)[None, :]
        code = tl.load(start[:, None] + 2 + place, mask=inside, other=0).to(tl.int8, bitcast=True)
        tl.store(out_ptr + block[:, None] * 32 + place, code.to(tl.float32) * d, mask=inside)
    else:
        place = tl.arange(0, 16)[None, :]
        code = tl.load(start[:, None] + 2 + place, mask=inside, other=0).to(tl.int32)
        out = out_ptr + block[:, None] * 32 + place
        tl.store(out, ((code & 15) - 8).to(tl.float32) * d, mask=inside)
        tl.store(out + 16, ((code >> 4) - 8).to(tl.float32) * d, mask=inside)


@on_its_device
def quantise_q8_0_triton(w: torch.Tensor) -> Q8_0Weight:
    """w (rows, columns) contiguous, columns a multiple of 32 → the bytes of a GGUF tensor."""
    return Q8_0Weight((w.shape[0], w.shape[1]), w.dtype, _quantise(w, quantise_q8_0_kernel, Q8_0_BYTES))


@on_its_device
def quantise_q4_0_triton(w: torch.Tensor) -> Q4_0Weight:
    """w (rows, columns) contiguous, columns a multiple of 32 → the bytes of a GGUF tensor."""
    return Q4_0Weight((w.shape[0], w.shape[1]), w.dtype, _quantise(w, quantise_q4_0_kernel, Q4_0_BYTES))


@on_its_device
def dequantise_gguf_triton(weight: Q8_0Weight | Q4_0Weight, dtype: torch.dtype) -> torch.Tensor:
    """(rows, columns) in `dtype`."""
    out = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    blocks = out.numel() // GGUF_BLOCK
    if blocks:
        size = Q8_0_BYTES if isinstance(weight, Q8_0Weight) else Q4_0_BYTES
        dequantise_gguf_kernel[(triton.cdiv(blocks, BLOCKS),)](
            weight.blocks, out, blocks, BYTES=size, BLOCKS=BLOCKS, num_warps=4, **EXACT
        )
    return out


def _quantise(w: torch.Tensor, kernel: triton.JITFunction, size: int) -> torch.Tensor:
    blocks = w.numel() // GGUF_BLOCK
    out = torch.empty(w.shape[0], w.shape[1] // GGUF_BLOCK * size, dtype=torch.uint8, device=w.device)
    if blocks:
        kernel[(triton.cdiv(blocks, BLOCKS),)](w, out, blocks, BLOCKS=BLOCKS, num_warps=4, **EXACT)
    return out

"""Quantise by row or by block, and dequantise any format that matmuls read, in Triton.

    code = round(w · (top / absmax));  scale = absmax / top;  w ≈ code · scale

Memory-bound: quantising reads a row twice (the second time from the cache) and writes a byte a weight;
dequantising reads half a byte or a byte and writes 2 or 4. NF4 and GGUF quantise in their own files. The
products are never contracted to fused multiply-adds (`enable_fp_fusion=False`): bits equal the reference's.
Deterministic: no program writes what another one writes.
"""

import torch
import triton
import triton.language as tl

from malgil_kernels.dispatch import on_its_device
from malgil_kernels.quantise.decode import operands, weight_tile
from malgil_kernels.quantise.formats import FP8_BLOCK, Fp8Weight, Int4Weight, Int8Weight, QuantisedWeight

EXACT = {"enable_fp_fusion": False}
ROW_BLOCK = 2048  # columns of a row in registers at once
PACKED_TILE = (
    64,
    64,
)  # rows and columns of a tile: 32 bytes of a row, one block of NF4; int4's group of 32 takes 32
BYTE_TILE = (16, 128)


@triton.jit
def round_half_even(value):
    """int32 nearest to |value| < 2^22: adding 1.5 · 2^23 leaves the rounded integer in the mantissa."""
    return (value + 12582912.0).to(tl.int32, bitcast=True) - 0x4B400000


@triton.jit
def e4m3_code(value):
    """uint8 e4m3fn nearest to |value| ≤ 448, halves to even; by bits, so that every target agrees."""
    bits = value.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    normal = ((size + 0x7FFFF + ((size >> 20) & 1)) >> 20) - 960  # 8 · (127 − 7)
    small = round_half_even(tl.abs(value) * 512.0)  # multiples of 2^−9 under 2^−6
    code = tl.minimum(tl.where(size < 0x3C800000, small, normal), 0x7E)
    return (((bits >> 24) & 0x80) | code).to(tl.uint8)


@triton.jit
def reciprocal(absmax, numerator):
    """numerator / absmax, correctly rounded; 0 where absmax is 0."""
    safe = tl.where(absmax == 0.0, 1.0, absmax)
    return tl.where(absmax == 0.0, 0.0, tl.div_rn(numerator + tl.zeros_like(safe), safe))


@triton.jit
def quantise_rows_kernel(
    w_ptr, codes_ptr, scale_ptr, w_stride, columns, TOP: tl.constexpr, FP8: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, BLOCK)
    largest = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, columns, BLOCK):
        inside = start + places < columns
        w = tl.load(w_ptr + row * w_stride + start + places, mask=inside, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(w))
    absmax = tl.max(largest, axis=0)
    tl.store(scale_ptr + row, tl.div_rn(absmax, TOP))
    inverse = reciprocal(absmax, TOP)
    for start in range(0, columns, BLOCK):
        inside = start + places < columns
        w = tl.load(w_ptr + row * w_stride + start + places, mask=inside, other=0.0).to(tl.float32)
        scaled = tl.minimum(tl.maximum(w * inverse, -TOP), TOP)
        code = e4m3_code(scaled) if FP8 else round_half_even(scaled).to(tl.int8)
        tl.store(codes_ptr + row * columns + start + places, code, mask=inside)


@triton.jit
def quantise_fp8_blocks_kernel(w_ptr, codes_ptr, scale_ptr, w_stride, rows, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < columns)
    w = tl.load(w_ptr + row * w_stride + column, mask=inside, other=0.0).to(tl.float32)
    absmax = tl.max(tl.max(tl.abs(w), axis=1), axis=0)
    tl.store(scale_ptr + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), tl.div_rn(absmax, 448.0))
    scaled = tl.minimum(tl.maximum(w * reciprocal(absmax, 448.0), -448.0), 448.0)
    tl.store(codes_ptr + row * columns + column, e4m3_code(scaled), mask=inside)


@triton.jit
def quantise_int4_kernel(
    w_ptr,
    packed_ptr,
    scale_ptr,
    zero_ptr,
    w_stride,
    rows,
    columns,
    SYMMETRIC: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    w = tl.load(w_ptr + row[:, None] * w_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    low = tl.minimum(tl.min(w, axis=1), 0.0)
    high = tl.maximum(tl.max(w, axis=1), 0.0)
    if SYMMETRIC:
        scale = tl.div_rn(tl.maximum(-low, high), 7.0).to(tl.float16)
    else:
        scale = tl.div_rn(high - low, 15.0).to(tl.float16)
    inverse = reciprocal(scale.to(tl.float32), 1.0)
    place = row * tl.num_programs(1) + tl.program_id(1)
    tl.store(scale_ptr + place, scale, mask=row < rows)
    if SYMMETRIC:
        zero = tl.zeros_like(inverse).to(tl.int32) + 8
    else:
        zero = tl.minimum(round_half_even(tl.minimum(-low * inverse, 16.0)), 15)
        tl.store(zero_ptr + place, zero.to(tl.uint8), mask=row < rows)
    bounded = tl.minimum(tl.maximum(w * inverse[:, None], -16.0), 16.0)
    code = tl.minimum(tl.maximum(round_half_even(bounded) + zero[:, None], 0), 15)
    code = tl.where(column[None, :] < columns, code, 8)
    even, odd = tl.split(tl.reshape(code, (BLOCK_N, GROUP // 2, 2)))
    byte = tl.program_id(1) * (GROUP // 2) + tl.arange(0, GROUP // 2)
    row_bytes = (columns + 1) // 2
    tl.store(
        packed_ptr + row[:, None] * row_bytes + byte[None, :],
        (even << 4 | odd).to(tl.uint8),
        mask=(row < rows)[:, None] & (byte < row_bytes)[None, :],
    )


@triton.jit
def dequantise_kernel(
    codes_ptr,
    scale_ptr,
    second_ptr,
    offset_ptr,
    map_ptr,
    out_ptr,
    first_row,
    first_column,
    rows,
    columns,
    row_stride,
    out_rows,
    out_columns,
    out_stride,
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    STACKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    out_row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    start = tl.program_id(1) * BLOCK_K
    value = weight_tile(
        codes_ptr,
        scale_ptr,
        second_ptr,
        offset_ptr,
        map_ptr,
        first_row + out_row,
        first_column + start,
        rows,
        columns,
        row_stride,
        FORMAT,
        GROUP,
        ZERO,
        STACKED,
        ALIGNED,
        BLOCK_N,
        BLOCK_K,
        tl.float32,
        "",
    )
    column = start + tl.arange(0, BLOCK_K)
    inside = (out_row < out_rows)[:, None] & (column < out_columns)[None, :]
    tl.store(out_ptr + out_row[:, None] * out_stride + column[None, :], value, mask=inside)


@on_its_device
def quantise_rows_triton(w: torch.Tensor, fp8: bool) -> Int8Weight | Fp8Weight:
    """w (rows, columns), inner stride 1 → one byte a weight and one scale a row."""
    rows, columns = w.shape
    scale = torch.empty(rows, dtype=torch.float32, device=w.device)
    codes = torch.empty(rows, columns, dtype=torch.uint8 if fp8 else torch.int8, device=w.device)
    block = min(triton.next_power_of_2(max(columns, 16)), ROW_BLOCK)
    if rows:
        top = 448.0 if fp8 else 127.0
        quantise_rows_kernel[(rows,)](
            w,
            codes,
            scale,
            w.stride(0),
            columns,
            TOP=top,
            FP8=fp8,
            BLOCK=block,
            num_warps=max(block // 512, 1),
            **EXACT,
        )
    if fp8:
        return Fp8Weight((rows, columns), w.dtype, codes.view(torch.float8_e4m3fn), scale)
    return Int8Weight((rows, columns), w.dtype, codes, scale)


@on_its_device
def quantise_fp8_blocks_triton(w: torch.Tensor) -> Fp8Weight:
    """w (rows, columns), inner stride 1 → e4m3 and a scale per block of 128 × 128."""
    rows, columns = w.shape
    grid = (triton.cdiv(rows, FP8_BLOCK), triton.cdiv(columns, FP8_BLOCK))
    scale = torch.empty(grid, dtype=torch.float32, device=w.device)
    codes = torch.empty(rows, columns, dtype=torch.uint8, device=w.device)
    if rows and columns:
        quantise_fp8_blocks_kernel[grid](
            w, codes, scale, w.stride(0), rows, columns, BLOCK=FP8_BLOCK, num_warps=8, **EXACT
        )
    return Fp8Weight((rows, columns), w.dtype, codes.view(torch.float8_e4m3fn), scale)


@on_its_device
def quantise_int4_triton(w: torch.Tensor, group: int, symmetric: bool) -> Int4Weight:
    """w (rows, columns), inner stride 1 → nibbles and a float16 scale (and a zero point) per group."""
    rows, columns = w.shape
    groups = triton.cdiv(columns, group)
    packed = torch.empty(rows, (columns + 1) // 2, dtype=torch.uint8, device=w.device)
    scale = torch.empty(rows, groups, dtype=torch.float16, device=w.device)
    zero = None if symmetric else torch.empty(rows, groups, dtype=torch.uint8, device=w.device)
    if rows and columns:
        block = 2048 // group
        quantise_int4_kernel[(triton.cdiv(rows, block), groups)](
            w,
            packed,
            scale,
            packed if zero is None else zero,
            w.stride(0),
            rows,
            columns,
            SYMMETRIC=symmetric,
            GROUP=group,
            BLOCK_N=block,
            num_warps=4,
            **EXACT,
        )
    return Int4Weight((rows, columns), w.dtype, packed, scale, zero, group)


@on_its_device
def dequantise_triton(weight: QuantisedWeight, dtype: torch.dtype) -> torch.Tensor:
    """(rows, columns) in `dtype`."""
    rows, columns = weight.shape
    out = torch.empty(rows, columns, dtype=dtype, device=weight.device)
    launch_dequantise(weight, out, 0, 0)
    return out


def launch_dequantise(weight: QuantisedWeight, out: torch.Tensor, first_row: int, first_column: int) -> None:
    """Writes weight[first_row : first_row + n, first_column : first_column + k] into out (n, k), inner stride
    1.

    `first_column` is a multiple of 128, so that a tile lies within one group.
    """
    rows, columns = weight.shape
    if not out.numel():
        return
    about = operands(weight)
    packed = about.format in ("int4", "nf4") and about.aligned
    block_n, block_k = PACKED_TILE if packed else BYTE_TILE
    if about.format == "int4":
        block_k = min(about.group, block_k)
    dequantise_kernel[(triton.cdiv(out.shape[0], block_n), triton.cdiv(out.shape[1], block_k))](
        *about.pointers,
        out,
        first_row,
        first_column,
        rows,
        columns,
        about.row_stride,
        out.shape[0],
        out.shape[1],
        out.stride(0),
        FORMAT=about.format,
        GROUP=about.group if about.format == "int4" else 0,
        ZERO=about.zero,
        STACKED=about.stacked,
        ALIGNED=about.aligned,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        num_warps=4,
        **EXACT,
    )

"""Triton functions of the fused LoRA linear: a tile of W xᵀ, W decoded in registers, and the low-rank term.

Tiles are transposed, (out features, tokens): W is then the left operand, which wgmma reads from registers, so
that decoded weights never pass through shared memory; x is the right one, which few tokens keep narrow (16
columns, where a row-major tile would be padded to 64 rows).

The nibbles of a byte or of a word of 16 bits are neighbouring columns. They stay apart: a tile of words
decodes to four planes, the columns k with k % 4 = 0, 1, 2, 3, and x is split alike, so nothing is interleaved
and a pair of words is what a thread's register of the matrix instruction wants:  W xᵀ = Σ_plane W_plane
x_planeᵀ. Scales of groups of columns are applied to the product of a group, 1 multiply-add per output and
group instead of one per weight, and the codes themselves are exact in 16 bits (int4) or rounded once (NF4).
"""

import os

import triton
import triton.language as tl

from malgil_kernels.quantise.decode import e4m3_value, nibble_values, word_values

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def dot(left, right, acc):
    """left · right + acc in float32; the interpreter multiplies the bits of bfloat16, so it gets float32."""
    if INTERPRETED:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, acc, input_precision="ieee")


@triton.jit
def far_scale(scale_ptr, row, column, columns, FORMAT: tl.constexpr, GROUP: tl.constexpr):
    """(BLOCK_N,): the scales at `column` as they are stored: the load worth starting early."""
    if FORMAT == "fp8_blocks":
        place = row // 128 * tl.cdiv(columns, 128) + column // 128
    else:
        place = row * tl.cdiv(columns, GROUP) + column // GROUP
    return tl.load(scale_ptr + place)


@triton.jit
def near_scale(
    stored,
    second_ptr,
    offset_ptr,
    map_ptr,
    row,
    column,
    columns,
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
    STACKED: tl.constexpr,
):
    """(BLOCK_N,) float32: the scales that `far_scale` began."""
    if FORMAT == "nf4":
        statistic = (row * (columns // GROUP) + column // GROUP) // 256
        offset = tl.load(offset_ptr + statistic) if STACKED else tl.load(offset_ptr)
        scale = tl.load(map_ptr + stored.to(tl.int32)) * tl.load(second_ptr + statistic) + offset
    else:
        scale = stored.to(tl.float32)
    return scale


@triton.jit
def x_plane(places, number, columns, inside, PLANES: tl.constexpr, EVEN: tl.constexpr):
    """(BLOCK_M, BLOCK_K / PLANES): the columns k of x with k % PLANES = number, which stand together."""
    here = places + number * (columns // PLANES)
    return tl.load(here) if EVEN else tl.load(here, mask=inside, other=0.0)


@triton.jit
def nibble_product(
    x_ptr,
    codes_ptr,
    scale_ptr,
    second_ptr,
    offset_ptr,
    map_ptr,
    token,  # (BLOCK_M,) int64, all inside
    row,  # (BLOCK_N,) int64, all inside
    columns,
    x_stride,
    row_stride,
    first,
    last,
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    STACKED: tl.constexpr,
    PLANES: tl.constexpr,
    PRESPLIT: tl.constexpr,
    ASSEMBLY: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN: tl.constexpr,
    STAGES: tl.constexpr,
):
    """(BLOCK_N, BLOCK_M) float32: W[row, first:last] · x[token, first:last]ᵀ for two weights a byte."""
    acc = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    UNITS: tl.constexpr = BLOCK_K // PLANES  # bytes, or words of 16 bits
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    units_ptr = codes_ptr.to(tl.pointer_type(tl.int16)) if PLANES == 4 else codes_ptr
    row_units = row_stride // 2 if PLANES == 4 else row_stride
    stored = far_scale(scale_ptr, row, first, columns, FORMAT, GROUP)
    for k in tl.range(first, last, BLOCK_K, num_stages=STAGES):
        unit = k // PLANES + tl.arange(0, UNITS)
        inside = (unit < row_units)[None, :]
        weights = units_ptr + row[:, None] * row_units + unit[None, :]
        packed = tl.load(weights) if EVEN else tl.load(weights, mask=inside, other=0)
        if PRESPLIT:
            places = x_ptr + token[:, None] * x_stride + unit[None, :]
            x0 = x_plane(places, 0, columns, inside, PLANES, EVEN)
            x1 = x_plane(places, 1, columns, inside, PLANES, EVEN)
            if PLANES == 4:
                x2 = x_plane(places, 2, columns, inside, PLANES, EVEN)
                x3 = x_plane(places, 3, columns, inside, PLANES, EVEN)
        else:
            column = k + tl.arange(0, BLOCK_K)
            places = x_ptr + token[:, None] * x_stride + column[None, :]
            x = tl.load(places) if EVEN else tl.load(places, mask=(column < columns)[None, :], other=0.0)
            if PLANES == 4:
                x_even, x_odd = tl.split(tl.reshape(x, (BLOCK_M, UNITS, 2, 2)))
                x0, x2 = tl.split(x_even)
                x1, x3 = tl.split(x_odd)
            else:
                x0, x1 = tl.split(tl.reshape(x, (BLOCK_M, UNITS, 2)))
        next_stored = far_scale(scale_ptr, row, tl.minimum(k + BLOCK_K, columns - 1), columns, FORMAT, GROUP)
        part = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
        if PLANES == 4:
            w0, w1, w2, w3 = word_values(packed, FORMAT, dtype, ASSEMBLY)
            part = dot(w2, tl.trans(x2), dot(w3, tl.trans(x3), part))
        else:
            w0, w1 = nibble_values(packed, FORMAT, dtype, ASSEMBLY)
        part = dot(w0, tl.trans(x0), dot(w1, tl.trans(x1), part))
        if ZERO:
            place = row * tl.cdiv(columns, GROUP) + k // GROUP
            zero = 8.0 - tl.load(second_ptr + place).to(tl.float32)
            total = tl.sum(x0.to(tl.float32), axis=1) + tl.sum(x1.to(tl.float32), axis=1)
            if PLANES == 4:
                total += tl.sum(x2.to(tl.float32), axis=1) + tl.sum(x3.to(tl.float32), axis=1)
            part += zero[:, None] * total[None, :]
        scale = near_scale(stored, second_ptr, offset_ptr, map_ptr, row, k, columns, FORMAT, GROUP, STACKED)
        acc += part * scale[:, None]
        stored = next_stored
    return acc


@triton.jit
def byte_product(
    x_ptr,
    codes_ptr,
    scale_ptr,
    token,
    row,
    columns,
    x_stride,
    row_stride,
    first,
    last,
    FORMAT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN: tl.constexpr,
    STAGES: tl.constexpr,
):
    """(BLOCK_N, BLOCK_M) float32: the same for one weight a byte, and for weights that are not quantised."""
    acc = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    for k in tl.range(first, last, BLOCK_K, num_stages=STAGES):
        column = k + tl.arange(0, BLOCK_K)
        weights = codes_ptr + row[:, None] * row_stride + column[None, :]
        places = x_ptr + token[:, None] * x_stride + column[None, :]
        if EVEN:
            code = tl.load(weights)
            x = tl.load(places)
        else:
            code = tl.load(weights, mask=(column < columns)[None, :], other=0)
            x = tl.load(places, mask=(column < columns)[None, :], other=0.0)
        if FORMAT == "dense":
            w = code.to(dtype)
        elif FORMAT == "int8":
            w = code.to(tl.float32).to(dtype)
        else:
            w = e4m3_value(code).to(dtype)
        if FORMAT == "fp8_blocks":
            scale = far_scale(scale_ptr, row, k, columns, FORMAT, 128)
            part = dot(w, tl.trans(x), tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32))
            acc += part * scale[:, None]
        else:
            acc = dot(w, tl.trans(x), acc)
    if FORMAT == "int8" or FORMAT == "fp8_rows":
        acc *= tl.load(scale_ptr + row)[:, None]
    return acc


@triton.jit
def weight_product(
    x_ptr,
    codes_ptr,
    scale_ptr,
    second_ptr,
    offset_ptr,
    map_ptr,
    token,
    row,
    columns,
    x_stride,
    row_stride,
    first,
    last,
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    STACKED: tl.constexpr,
    PLANES: tl.constexpr,
    PRESPLIT: tl.constexpr,
    ASSEMBLY: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN: tl.constexpr,
    STAGES: tl.constexpr,
):
    """(BLOCK_N, BLOCK_M) float32: W[row, first:last] · x[token, first:last]ᵀ for any format."""
    if FORMAT == "nf4" or FORMAT == "int4":
        acc = nibble_product(
            x_ptr,
            codes_ptr,
            scale_ptr,
            second_ptr,
            offset_ptr,
            map_ptr,
            token,
            row,
            columns,
            x_stride,
            row_stride,
            first,
            last,
            FORMAT,
            GROUP,
            ZERO,
            STACKED,
            PLANES,
            PRESPLIT,
            ASSEMBLY,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            EVEN,
            STAGES,
        )
    else:
        acc = byte_product(
            x_ptr,
            codes_ptr,
            scale_ptr,
            token,
            row,
            columns,
            x_stride,
            row_stride,
            first,
            last,
            FORMAT,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            EVEN,
            STAGES,
        )
    return acc


@triton.jit
def add_low_rank(
    acc,  # (BLOCK_N, BLOCK_M) float32
    low,  # (BLOCK_M, BLOCK_R), B's dtype: s · x Aᵀ of this segment
    up_ptr,
    row,  # (BLOCK_N,) int64
    mine,  # (BLOCK_N,): the rows of the segment
    up_stride,
    rank,
    BLOCK_R: tl.constexpr,
):
    """acc + B[row] lowᵀ for the rows of one segment."""
    places = tl.arange(0, BLOCK_R)
    mask = mine[:, None] & (places < rank)[None, :]
    up = tl.load(up_ptr + row[:, None] * up_stride + places[None, :], mask=mask, other=0.0)
    return dot(up, tl.trans(low), acc)

"""Triton functions that decode weights, shared by every kernel that reads a quantised matrix.

A format is a constexpr string: "dense", "int8", "int4", "nf4", "fp8_rows" or "fp8_blocks". Each function gets
the same five pointers (`Operands`): the codes, their scales, a second level, NF4's offset and its dynamic
map. Not a kernel: nothing here is launched.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from malgil_kernels.quantise.codes import NF4_BLOCK, statistics_code
from malgil_kernels.quantise.formats import (
    FP8_BLOCK,
    Fp8Weight,
    Int4Weight,
    Int8Weight,
    Nf4Weight,
    QuantisedWeight,
)


class Operands(NamedTuple):
    """What a kernel is told about a weight: pointers, then constants of its format."""

    pointers: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
    row_stride: int  # codes of one row; bytes of one row where two share a byte
    format: str
    group: int  # columns of a row that share a scale
    zero: bool = False  # int4 with zero points
    stacked: bool = False  # nf4: one offset per statistic
    aligned: bool = True  # no block of the format spans two rows


def operands(weight: QuantisedWeight | torch.Tensor) -> Operands:
    """The operands of a weight; an absent tensor is stood in for by the codes.

    Raises:
        TypeError: the weight has no tile decoder (the GGUF formats have none).
    """
    columns = weight.shape[1]
    match weight:
        case torch.Tensor():
            return Operands(_pointers(weight), weight.stride(0), "dense", columns)
        case Int8Weight():
            return Operands(_pointers(weight.values, weight.scale), columns, "int8", columns)
        case Fp8Weight():
            format, group = ("fp8_blocks", FP8_BLOCK) if weight.per_block else ("fp8_rows", columns)
            return Operands(_pointers(weight.values.view(torch.uint8), weight.scale), columns, format, group)
        case Int4Weight():
            pointers = _pointers(weight.packed, weight.scale, weight.zero)
            has_zero = weight.zero is not None
            return Operands(pointers, weight.packed.shape[1], "int4", weight.group, has_zero)
        case Nf4Weight():
            map = statistics_code(weight.device)
            pointers = _pointers(weight.packed, weight.absmax, weight.statistics, weight.offset, map)
            stacked, aligned = weight.offset.numel() > 1, columns % NF4_BLOCK == 0
            return Operands(pointers, columns // 2, "nf4", NF4_BLOCK, False, stacked, aligned)
        case _:
            raise TypeError(
                f"weight is a {type(weight).__name__}: must be a tensor, Int8Weight, Int4Weight, Nf4Weight "
                "or Fp8Weight. Next: dequantise() it and quantise to one of these"
            )


def _pointers(
    codes: torch.Tensor,
    scale: torch.Tensor | None = None,
    second: torch.Tensor | None = None,  # int4: zero points; nf4: statistics
    offset: torch.Tensor | None = None,  # nf4
    map: torch.Tensor | None = None,  # nf4: the dynamic map
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    scale, second, offset, map = (codes if t is None else t for t in (scale, second, offset, map))
    return codes, scale, second, offset, map


@triton.jit
def nf4_value(code):
    """The float32 value of codes 0–15 (int32): four levels of selects."""
    bit0 = (code & 1) != 0
    bit1 = (code & 2) != 0
    bit2 = (code & 4) != 0
    v0 = tl.where(bit0, -0.6961928009986877, -1.0)
    v2 = tl.where(bit0, -0.39491748809814453, -0.5250730514526367)
    v4 = tl.where(bit0, -0.18477343022823334, -0.28444138169288635)
    v6 = tl.where(bit0, 0.0, -0.09105003625154495)
    v8 = tl.where(bit0, 0.16093020141124725, 0.07958029955625534)
    v10 = tl.where(bit0, 0.33791524171829224, 0.24611230194568634)
    v12 = tl.where(bit0, 0.5626170039176941, 0.44070982933044434)
    v14 = tl.where(bit0, 1.0, 0.7229568362236023)
    v0 = tl.where(bit1, v2, v0)
    v4 = tl.where(bit1, v6, v4)
    v8 = tl.where(bit1, v10, v8)
    v12 = tl.where(bit1, v14, v12)
    return tl.where((code & 8) != 0, tl.where(bit2, v12, v8), tl.where(bit2, v4, v0))


@triton.jit
def e4m3_value(byte):
    """The float32 value of e4m3fn bytes (uint8), exact on every target, through their bits."""
    byte = byte.to(tl.int32)
    bits = ((byte & 0x80) << 24) | ((byte & 0x7F) << 20)
    return bits.to(tl.float32, bitcast=True) * 1.329227995784916e36  # 2^120


@triton.jit
def nibble_values(packed, FORMAT: tl.constexpr, DTYPE: tl.constexpr, ASSEMBLY: tl.constexpr):
    """Bytes → the values of their high and of their low nibbles, unscaled (int4: code − 8), in DTYPE."""
    if ASSEMBLY != "" and DTYPE == tl.bfloat16:  # noqa: SIM300
        high, low = tl.inline_asm_elementwise(
            ASSEMBLY, "=r,=r,=r,=r,r", [packed], dtype=(tl.bfloat16, tl.bfloat16), is_pure=True, pack=4
        )
    elif ASSEMBLY != "":
        high, low = tl.inline_asm_elementwise(
            ASSEMBLY, "=r,=r,=r,=r,r", [packed], dtype=(tl.float16, tl.float16), is_pure=True, pack=4
        )
    elif FORMAT == "nf4":
        high = nf4_value(packed.to(tl.int32) >> 4).to(DTYPE)
        low = nf4_value(packed.to(tl.int32) & 15).to(DTYPE)
    else:
        high = (
            ((packed.to(tl.int32) >> 4) - 8).to(tl.float32).to(DTYPE)
        )  # the interpreter has no int → bfloat16
        low = ((packed.to(tl.int32) & 15) - 8).to(tl.float32).to(DTYPE)
    return high, low


@triton.jit
def word_values(packed, FORMAT: tl.constexpr, DTYPE: tl.constexpr, ASSEMBLY: tl.constexpr):
    """Words of two bytes (int16) → the values of their four weights, in the order of columns."""
    if ASSEMBLY != "" and DTYPE == tl.bfloat16:  # noqa: SIM300
        w0, w1, w2, w3 = tl.inline_asm_elementwise(
            ASSEMBLY,
            "=r,=r,=r,=r,r",
            [packed],
            dtype=(tl.bfloat16, tl.bfloat16, tl.bfloat16, tl.bfloat16),
            is_pure=True,
            pack=2,
        )
    elif ASSEMBLY != "":
        w0, w1, w2, w3 = tl.inline_asm_elementwise(
            ASSEMBLY,
            "=r,=r,=r,=r,r",
            [packed],
            dtype=(tl.float16, tl.float16, tl.float16, tl.float16),
            is_pure=True,
            pack=2,
        )
    else:
        word = packed.to(tl.int32)
        w0, w1 = nibble_values(word & 255, FORMAT, DTYPE, "")
        w2, w3 = nibble_values((word >> 8) & 255, FORMAT, DTYPE, "")
    return w0, w1, w2, w3


@triton.jit
def nf4_scale(block, scale_ptr, second_ptr, offset_ptr, map_ptr, inside, STACKED: tl.constexpr):
    """The absmax of NF4 blocks (int64 numbers), float32: map[code] · statistic + offset."""
    code = tl.load(scale_ptr + block, mask=inside, other=0).to(tl.int32)
    statistic = tl.load(second_ptr + block // 256, mask=inside, other=0.0)
    offset = tl.load(offset_ptr + block // 256, mask=inside, other=0.0) if STACKED else tl.load(offset_ptr)
    return tl.load(map_ptr + code) * statistic + offset


@triton.jit
def tile_scale(
    scale_ptr,
    second_ptr,
    offset_ptr,
    map_ptr,
    row,  # (BLOCK_N,) int64
    column,  # the tile's first column; the tile lies within one group
    columns,
    inside,  # (BLOCK_N,)
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
    STACKED: tl.constexpr,
):
    """(BLOCK_N,) float32: the scale of each row of a tile that lies within one group of columns."""
    if FORMAT == "nf4":
        block = row * (columns // 64) + column // 64
        scale = nf4_scale(block, scale_ptr, second_ptr, offset_ptr, map_ptr, inside, STACKED)
    else:
        if FORMAT == "int4":
            place = row * tl.cdiv(columns, GROUP) + column // GROUP
        elif FORMAT == "fp8_blocks":
            place = row // 128 * tl.cdiv(columns, 128) + column // 128
        else:
            place = row
        scale = tl.load(scale_ptr + place, mask=inside, other=0.0).to(tl.float32)
    return scale


@triton.jit
def tile_zero(second_ptr, row, column, columns, inside, GROUP: tl.constexpr):
    """(BLOCK_N,) float32: 8 − zero point of each row of an int4 tile."""
    place = row * tl.cdiv(columns, GROUP) + column // GROUP
    return 8.0 - tl.load(second_ptr + place, mask=inside, other=8).to(tl.float32)


@triton.jit
def weight_tile(
    codes_ptr,
    scale_ptr,
    second_ptr,
    offset_ptr,
    map_ptr,
    row,  # (BLOCK_N,) int64
    column,  # the tile's first column, a multiple of BLOCK_K
    rows,
    columns,
    row_stride,
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    STACKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,  # divides GROUP, except in the formats with one scale per row
    DTYPE: tl.constexpr,  # NF4's values are rounded to it before they are scaled
    ASSEMBLY: tl.constexpr,
):
    """(BLOCK_N, BLOCK_K) float32: a tile of the weight, for DTYPE float32 exactly what `dequantise` gives."""
    inside = row < rows
    k = column + tl.arange(0, BLOCK_K)
    mask = inside[:, None] & (k < columns)[None, :]
    if FORMAT == "dense":
        value = tl.load(codes_ptr + row[:, None] * row_stride + k[None, :], mask=mask, other=0.0).to(
            tl.float32
        )
    elif not ALIGNED:  # NF4 whose blocks and bytes span rows: one load per weight
        flat = row[:, None] * columns + k[None, :]
        byte = tl.load(codes_ptr + flat // 2, mask=mask, other=0).to(tl.int32)
        value = nf4_value(tl.where(flat % 2 == 0, byte >> 4, byte & 15))
        value *= nf4_scale(flat // 64, scale_ptr, second_ptr, offset_ptr, map_ptr, mask, STACKED)
    else:
        scale = tile_scale(
            scale_ptr, second_ptr, offset_ptr, map_ptr, row, column, columns, inside, FORMAT, GROUP, STACKED
        )
        if FORMAT == "nf4" or FORMAT == "int4":
            byte = column // 2 + tl.arange(0, BLOCK_K // 2)
            stored = inside[:, None] & (byte < row_stride)[None, :]
            packed = tl.load(codes_ptr + row[:, None] * row_stride + byte[None, :], mask=stored, other=0)
            high, low = nibble_values(packed, FORMAT, DTYPE, ASSEMBLY)
            value = tl.reshape(tl.join(high, low), (BLOCK_N, BLOCK_K)).to(tl.float32)
            if ZERO:
                value += tile_zero(second_ptr, row, column, columns, inside, GROUP)[:, None]
        else:
            code = tl.load(codes_ptr + row[:, None] * row_stride + k[None, :], mask=mask, other=0)
            value = code.to(tl.float32) if FORMAT == "int8" else e4m3_value(code)
        value *= scale[:, None]
    return value

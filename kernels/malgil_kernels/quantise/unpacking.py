"""PTX that turns four packed bytes into eight 16-bit floats: what the compiled kernels decode nibbles with.

    byte b → (value of b >> 4, value of b & 15), as bfloat16 or float16, for NF4 and for int4 (code − 8)

The plain way, a tree of 15 selects per weight, costs 23 instructions a weight in a matmul's loop on sm_90. A
memory-bound matmul has room for about 3.5: 37 weights per clock and multiprocessor at 4.3 TB/s. NF4 therefore
looks its values up with `prmt`, which picks four bytes out of eight by a selector: the 16 values are four
tables of eight bytes (low and high byte of codes 0–7 and 8–15), and a third `prmt` picks by bit 3: under 3
instructions a weight, no memory. int4 needs no table: or-ing a nibble into the mantissa of 128 (bfloat16) or
1024 (float16) gives 128 + code exactly, and one fused multiply-add subtracts.

A register of 16-bit floats holds two of them. By bytes, they are two neighbouring bytes' nibbles: 2 planes,
even and odd columns. By words of two bytes they are two neighbouring words' nibbles: 4 planes, the columns
modulo 4.

The interpreter has no inline assembly: there the kernels use the select tree of decode.py. So the text below
is built from the code table, and the tests execute it, instruction by instruction, for every byte.
"""

import os
from collections.abc import Sequence
from functools import lru_cache

import torch

from malgil_kernels.quantise.codes import NF4

# After a lookup of two bytes, the four bytes of a plane belong to low 0, high 0, low 1, high 1.
_HIGH_PAIR, _LOW_PAIR = 0x7351, 0x6240


def packed_assembly(format: str, dtype: torch.dtype, planes: int) -> str:
    """The PTX for `format` ("nf4", "int4") and `dtype`; empty where the kernel must do without."""
    if format not in ("nf4", "int4") or dtype not in (torch.bfloat16, torch.float16):
        return ""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    return assembly(format, dtype, planes)


@lru_cache(maxsize=8)
def assembly(format: str, dtype: torch.dtype, planes: int) -> str:
    """The PTX text itself, interpreter or not. $4 has bytes 0 to 3; what comes out, two values a register:

    2 planes: $0, $1 the high nibbles of bytes 0, 1 and 2, 3; $2, $3 the low ones.
    4 planes: $0 the high and $1 the low nibbles of bytes 0, 2; $2 and $3 those of bytes 1, 3.
    """
    lines = _nf4(dtype, planes) if format == "nf4" else _int4(dtype, planes)
    return "{\n" + "\n".join(lines) + "\n}"


def _nf4(dtype: torch.dtype, planes: int) -> list[str]:
    bits = torch.tensor(NF4, dtype=torch.float32, device="cpu").to(dtype).view(torch.int16).tolist()
    low = [_words([bit & 0xFF for bit in bits[half : half + 8]]) for half in (0, 8)]
    high = [_words([bit >> 8 & 0xFF for bit in bits[half : half + 8]]) for half in (0, 8)]
    places = 0x32103210 if planes == 2 else 0x32321010  # of a nibble among the four looked up together
    lines = [
        ".reg .b32 code, half, code0, code1, half0, half1, a, b, low0, low1, high0, high1;",
        "and.b32 code, $4, 0x77777777;",
        "shr.u32 half, $4, 1;",
        # its place, or its place + 4 where bit 3 of the code is set: (half & 0x4…) | places
        f"lop3.b32 half, half, 0x44444444, {places:#x}, 0xEA;",
    ]
    pairs = (0x4410, 0x4432) if planes == 2 else (0x4420, 0x4431)  # the bytes that share a register
    for place, pair in enumerate(pairs):
        lines += [f"prmt.b32 {name}{place}, {name}, 0x0, {pair:#x};" for name in ("code", "half")]
    for place in (0, 1):
        for plane, table in (("low", low), ("high", high)):
            lines += [
                f"prmt.b32 a, {table[0][0]}, {table[0][1]}, code{place};",
                f"prmt.b32 b, {table[1][0]}, {table[1][1]}, code{place};",
                f"prmt.b32 {plane}{place}, a, b, half{place};",
            ]
    outputs = ((0, 2), (1, 3)) if planes == 2 else ((0, 1), (2, 3))
    for place, (first, second) in enumerate(outputs):
        lines += [
            f"prmt.b32 ${first}, low{place}, high{place}, {_HIGH_PAIR:#x};",
            f"prmt.b32 ${second}, low{place}, high{place}, {_LOW_PAIR:#x};",
        ]
    return lines


def _int4(dtype: torch.dtype, planes: int) -> list[str]:
    # one in the mantissa's last place is one: 128 + code in bfloat16, 1024 + code in float16
    magic, one, minus, kind = (
        (0x43004300, 0x3F803F80, 0xC308C308, "bf16x2")
        if dtype == torch.bfloat16
        else (0x64006400, 0x3C003C00, 0xE408E408, "f16x2")
    )
    lines = [".reg .b32 pair0, pair1, nibble, one, minus;"]
    lines += [f"mov.b32 one, {one:#x};", f"mov.b32 minus, {minus:#x};"]
    if planes == 2:
        lines += ["prmt.b32 pair0, $4, 0x0, 0x4140;", "prmt.b32 pair1, $4, 0x0, 0x4342;"]
        sources = (("pair0", 4), ("pair1", 4), ("pair0", 0), ("pair1", 0))
    else:
        sources = (("$4", 4), ("$4", 0), ("$4", 12), ("$4", 8))
    for output, (source, shift) in enumerate(sources):
        lines += [
            f"shr.u32 nibble, {source}, {shift};",
            f"lop3.b32 nibble, nibble, 0xF000F, {magic:#x}, 0xEA;",  # (a & b) | c
            f"fma.rn.{kind} ${output}, nibble, one, minus;",
        ]
    return lines


def _words(values: Sequence[int]) -> tuple[str, str]:
    """Eight bytes as two little-endian words."""
    first, second = (int.from_bytes(bytes(values[at : at + 4]), "little") for at in (0, 4))
    return f"{first:#010x}", f"{second:#010x}"

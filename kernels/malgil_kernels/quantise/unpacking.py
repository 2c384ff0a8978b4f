"""PTX that turns four packed bytes into eight 16-bit floats: what the compiled kernels decode nibbles with.

    byte b → (value of b >> 4, value of b & 15), as bfloat16 or float16, for NF4 and for int4 (code − 8)

The plain way, a tree of 15 selects per weight, costs 23 instructions a weight in a matmul's loop on sm_90; a
memory-bound matmul has room for about 3.5 (37 weights per clock and multiprocessor at 4.3 TB/s). NF4
therefore looks its values up with `prmt`, which picks four bytes out of eight by a selector: the 16 values
are four tables of eight bytes (low and high byte of codes 0–7 and 8–15), and a third `prmt` picks by bit 3:
2.6 instructions a weight, no memory. int4 needs no table: or-ing a nibble into the mantissa of 128 (bfloat16)
or 1024 (float16) gives 128 + code exactly, and one fused multiply-add subtracts.

The interpreter has no inline assembly: there the kernels use the select tree of decode.py. So the text below
is built from the code table, and the tests execute it, instruction by instruction, for every byte.
"""

import os
from collections.abc import Sequence
from functools import lru_cache

import torch

from malgil_kernels.quantise.codes import NF4

# where the high (odd places) and the low nibbles' bytes stand after a lookup: low 0, high 0, low 1, high 1
_HIGH_PAIR, _LOW_PAIR = 0x7351, 0x6240


def packed_assembly(format: str, dtype: torch.dtype) -> str:
    """The PTX for `format` ("nf4", "int4") and `dtype`; empty where the kernel must do without.

    Operands: $0, $1 the high nibbles' values of bytes 0–3, $2, $3 the low nibbles', $4 the four bytes.
    """
    if format not in ("nf4", "int4") or dtype not in (torch.bfloat16, torch.float16):
        return ""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    return assembly(format, dtype)


@lru_cache(maxsize=4)
def assembly(format: str, dtype: torch.dtype) -> str:
    """The PTX text itself, interpreter or not."""
    lines = _nf4(dtype) if format == "nf4" else _int4(dtype)
    return "{\n" + "\n".join(lines) + "\n}"


def _nf4(dtype: torch.dtype) -> list[str]:
    bits = torch.tensor(NF4, dtype=torch.float32, device="cpu").to(dtype).view(torch.int16).tolist()
    low = [_words([bit & 0xFF for bit in bits[half : half + 8]]) for half in (0, 8)]
    high = [_words([bit >> 8 & 0xFF for bit in bits[half : half + 8]]) for half in (0, 8)]
    lines = [
        ".reg .b32 code0, code1, half0, half1, a, b, low0, low1, high0, high1;",
        "and.b32 code0, $4, 0x77777777;",
        "shr.u32 half0, $4, 1;",
        "and.b32 half0, half0, 0x44444444;",
        "or.b32 half0, half0, 0x32103210;",  # nibble i: i, or i + 4 where bit 3 of the code is set
        "shr.u32 code1, code0, 16;",
        "shr.u32 half1, half0, 16;",
    ]
    for place in (0, 1):
        for plane, table in (("low", low), ("high", high)):
            lines += [
                f"prmt.b32 a, {table[0][0]}, {table[0][1]}, code{place};",
                f"prmt.b32 b, {table[1][0]}, {table[1][1]}, code{place};",
                f"prmt.b32 {plane}{place}, a, b, half{place};",
            ]
    for first, pair in ((0, _HIGH_PAIR), (2, _LOW_PAIR)):
        lines += [f"prmt.b32 ${first + place}, low{place}, high{place}, {pair:#x};" for place in (0, 1)]
    return lines


def _int4(dtype: torch.dtype) -> list[str]:
    # one in the mantissa's last place is one: 128 + code in bfloat16, 1024 + code in float16
    magic, one, minus, kind = (
        (0x43004300, 0x3F803F80, 0xC308C308, "bf16x2")
        if dtype == torch.bfloat16
        else (0x64006400, 0x3C003C00, 0xE408E408, "f16x2")
    )
    lines = [".reg .b32 pair0, pair1, high, low, one, minus;", f"mov.b32 one, {one:#x};"]
    lines += [
        f"mov.b32 minus, {minus:#x};",
        "prmt.b32 pair0, $4, 0x0, 0x4140;",
        "prmt.b32 pair1, $4, 0x0, 0x4342;",
    ]
    for place in (0, 1):
        lines += [
            f"shr.u32 high, pair{place}, 4;",
            f"lop3.b32 high, high, 0xF000F, {magic:#x}, 0xEA;",  # (a & b) | c
            f"lop3.b32 low, pair{place}, 0xF000F, {magic:#x}, 0xEA;",
            f"fma.rn.{kind} ${place}, high, one, minus;",
            f"fma.rn.{kind} ${2 + place}, low, one, minus;",
        ]
    return lines


def _words(values: Sequence[int]) -> tuple[str, str]:
    """Eight bytes as two little-endian words."""
    first, second = (int.from_bytes(bytes(values[at : at + 4]), "little") for at in (0, 4))
    return f"{first:#010x}", f"{second:#010x}"

"""Quantising and dequantising in readable PyTorch: the truth, and what runs on a CPU.

Quantising works in float32, as the libraries whose bytes it must give do; dequantising works in float32 and
in float64 when asked for float64. Sources: bitsandbytes 0.50.2 (NF4), `gguf.quants` 0.19 (Q8_0, Q4_0).
"""

import torch
from torch.nn.functional import pad

from malgil_kernels.quantise.codes import (
    NF4_BLOCK,
    NF4_STATISTICS_BLOCK,
    TABLE_BINS,
    nf4_bounds,
    nf4_code,
    statistics_bounds,
    statistics_code,
    statistics_table,
)
from malgil_kernels.quantise.formats import (
    FP8_BLOCK,
    FP8_MAX,
    GGUF_BLOCK,
    Fp8Weight,
    Int4Weight,
    Int8Weight,
    Nf4Weight,
    Q4_0Weight,
    Q8_0Weight,
    QuantisedWeight,
)

SMALLEST = 1e-38  # bitsandbytes' guard against the reciprocal of a block of zeros


def quantise_int8_reference(w: torch.Tensor) -> Int8Weight:
    """scale = max|row| / 127; code = round_half_even(w · (127 / max|row|)); a row of zeros has scale 0."""
    wide = w.float()
    absmax = _absmax(wide)
    codes = torch.round(wide * _reciprocal(absmax, 127.0)[:, None]).to(torch.int8)
    return Int8Weight(_shape(w), w.dtype, codes, absmax / 127)


def quantise_int4_reference(w: torch.Tensor, group: int, symmetric: bool) -> Int4Weight:
    """Symmetric: scale = absmax / 7, zero = 8. Otherwise scale = (max − min) / 15, zero = round(−min /
    scale).

    Both take 0 into [min, max], round the scale to float16 first and code = round(w / scale) + zero, clamped.
    """
    rows, columns = w.shape
    wide = pad(w.float(), (0, -columns % group)).view(rows, -1, group)
    low, high = wide.amin(-1).clamp_max(0), wide.amax(-1).clamp_min(0)
    top = torch.maximum(-low, high) / 7 if symmetric else (high - low) / 15
    scale = top.half()
    inverse = _reciprocal(scale.float(), 1.0)
    zero = torch.full_like(inverse, 8) if symmetric else torch.round(-low * inverse).clamp(0, 15)
    codes = (torch.round(wide * inverse[..., None]) + zero[..., None]).clamp(0, 15).to(torch.uint8)
    codes = pad(codes.view(rows, -1)[:, :columns], (0, columns % 2), value=8)
    packed = codes[:, ::2] << 4 | codes[:, 1::2]
    return Int4Weight(_shape(w), w.dtype, packed, scale, None if symmetric else zero.to(torch.uint8), group)


def quantise_nf4_reference(w: torch.Tensor, match: str) -> Nf4Weight:
    """NF4 and its nested statistics; `match` is the build whose rounding of absmax is followed."""
    flat = w.reshape(-1).float()
    blocks = pad(flat, (0, -flat.numel() % NF4_BLOCK)).view(-1, NF4_BLOCK)
    absmax = _absmax(blocks)
    scaled = (blocks * (1.0 / absmax.clamp_min(SMALLEST))[:, None]).clamp(-1, 1)
    codes = torch.bucketize(scaled, nf4_bounds(w.device), out_int32=True).to(torch.uint8).view(-1)
    codes = codes[: flat.numel() + flat.numel() % 2]
    offset = absmax.mean()
    nested, statistics = quantise_statistics_reference(absmax - offset, match)
    return Nf4Weight(_shape(w), w.dtype, codes[::2] << 4 | codes[1::2], nested, statistics, offset.view(1))


def quantise_statistics_reference(centred: torch.Tensor, match: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The second quantisation: (blocks,) float32 around 0 → (blocks,) uint8 and one statistic per 256.

    "cuda" takes the nearest code. "cpu" rounds to a grid of 65,536 points first, as that build does, and
    so differs in about 4 of 10,000 codes, each by one.
    """
    count = centred.numel()
    blocks = pad(centred, (0, -count % NF4_STATISTICS_BLOCK)).view(-1, NF4_STATISTICS_BLOCK)
    statistics = _absmax(blocks)
    scaled = (blocks * (1.0 / statistics.clamp_min(SMALLEST))[:, None]).clamp(-1, 1)
    if match == "cpu":
        bins = ((scaled + 1.0) * 0.5 * (TABLE_BINS - 1) + 0.5).to(torch.int32)
        codes = statistics_table(centred.device)[bins.long()]
    else:
        codes = torch.bucketize(scaled, statistics_bounds(centred.device), out_int32=True).to(torch.uint8)
    codes = torch.where(statistics[:, None] == 0, 0, codes).to(torch.uint8)
    return codes.view(-1)[:count].contiguous(), statistics


def quantise_fp8_reference(w: torch.Tensor, per_block: bool) -> Fp8Weight:
    """scale = absmax / 448 of a row or of a block of 128 × 128; rounding to nearest even."""
    rows, columns = w.shape
    wide = w.float()
    if not per_block:
        absmax = _absmax(wide)
        values = wide * _reciprocal(absmax, FP8_MAX)[:, None]
        return Fp8Weight(_shape(w), w.dtype, _e4m3(values), absmax / FP8_MAX)
    padded = pad(wide, (0, -columns % FP8_BLOCK, 0, -rows % FP8_BLOCK))
    tiles = padded.view(-(-rows // FP8_BLOCK), FP8_BLOCK, -(-columns // FP8_BLOCK), FP8_BLOCK)
    absmax = tiles.abs().amax(dim=(1, 3))
    values = (tiles * _reciprocal(absmax, FP8_MAX)[:, None, :, None]).view(padded.shape)[:rows, :columns]
    return Fp8Weight(_shape(w), w.dtype, _e4m3(values), absmax / FP8_MAX)


def quantise_q8_0_reference(w: torch.Tensor) -> Q8_0Weight:
    """d = absmax / 127; code = w / d, rounded half away from zero."""
    blocks = w.float().reshape(-1, GGUF_BLOCK)
    d = _absmax(blocks)[:, None] / 127
    scaled = blocks * torch.where(d == 0, 0, 1 / d)
    size = scaled.abs()
    floor = size.floor()
    codes = (scaled.sign() * (floor + (2 * (size - floor)).floor())).to(torch.int8)
    return Q8_0Weight(_shape(w), w.dtype, _joined(w, d, codes.view(torch.uint8)))


def quantise_q4_0_reference(w: torch.Tensor) -> Q4_0Weight:
    """d = (the first weight of largest magnitude) / −8; code = trunc(w / d + 8.5), at most 15."""
    blocks = w.float().reshape(-1, GGUF_BLOCK)
    d = blocks.gather(1, _first_largest(blocks)) / -8
    codes = (blocks * torch.where(d == 0, 0, 1 / d) + 8.5).trunc().clamp(0, 15).to(torch.uint8)
    half = GGUF_BLOCK // 2
    return Q4_0Weight(_shape(w), w.dtype, _joined(w, d, codes[:, :half] | codes[:, half:] << 4))


def dequantise_reference(weight: QuantisedWeight, dtype: torch.dtype) -> torch.Tensor:
    """(rows, columns) in `dtype`; the products are taken in float32, or in float64 for float64."""
    inside = torch.promote_types(dtype, torch.float32)
    rows, columns = weight.shape
    match weight:
        case Int8Weight():
            wide = weight.values.to(inside) * weight.scale.to(inside)[:, None]
        case Fp8Weight(per_block=False):
            wide = weight.values.to(inside) * weight.scale.to(inside)[:, None]
        case Fp8Weight():
            scale = _spread(weight.scale, FP8_BLOCK, columns).repeat_interleave(FP8_BLOCK, 0)[:rows]
            wide = weight.values.to(inside) * scale.to(inside)
        case Int4Weight():
            codes = unpacked(weight.packed)[:, :columns].to(inside)
            zero = 8 if weight.zero is None else _spread(weight.zero, weight.group, columns).to(inside)
            wide = (codes - zero) * _spread(weight.scale, weight.group, columns).to(inside)
        case Nf4Weight():
            absmax = nf4_absmax(weight, inside).repeat_interleave(NF4_BLOCK)[: rows * columns]
            codes = unpacked(weight.packed[None])[0, : rows * columns]
            wide = (nf4_code(codes.device).to(inside)[codes.long()] * absmax).view(rows, columns)
        case Q8_0Weight():
            d, codes = _split(weight.blocks, GGUF_BLOCK + 2, inside)
            wide = (codes.view(torch.int8).to(inside) * d).view(rows, columns)
        case Q4_0Weight():
            d, packed = _split(weight.blocks, GGUF_BLOCK // 2 + 2, inside)
            codes = torch.cat([packed & 15, packed >> 4], dim=1).to(inside)
            wide = ((codes - 8) * d).view(rows, columns)
        case _:
            raise TypeError(f"weight is a {type(weight).__name__}: must be one of malgil_kernels' formats")
    return wide.to(dtype)


def nf4_absmax(weight: Nf4Weight, inside: torch.dtype) -> torch.Tensor:
    """(blocks,): the absmax of each block after the double quantisation."""
    count = weight.absmax.numel()
    code = statistics_code(weight.absmax.device).to(inside)[weight.absmax.long()]
    statistics = weight.statistics.to(inside).repeat_interleave(NF4_STATISTICS_BLOCK)[:count]
    offset = weight.offset.to(inside)
    if offset.numel() > 1:
        offset = offset.repeat_interleave(NF4_STATISTICS_BLOCK)[:count]
    return code * statistics + offset


def unpacked(packed: torch.Tensor) -> torch.Tensor:
    """(rows, bytes) → (rows, 2 · bytes): the high nibble of a byte first."""
    return torch.stack([packed >> 4, packed & 15], dim=-1).flatten(1)


def _shape(w: torch.Tensor) -> tuple[int, int]:
    return w.shape[0], w.shape[1]


def _absmax(rows: torch.Tensor) -> torch.Tensor:
    return rows.abs().amax(-1) if rows.numel() else rows.new_zeros(rows.shape[:-1])


def _reciprocal(values: torch.Tensor, numerator: float) -> torch.Tensor:
    # torch rounds `number / tensor` twice, as number · (1 / tensor); a division of tensors is rounded once
    return torch.where(values == 0, 0, torch.full_like(values, numerator) / values)


def _e4m3(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)


def _spread(per_group: torch.Tensor, group: int, columns: int) -> torch.Tensor:
    return per_group.repeat_interleave(group, dim=1)[:, :columns]


def _first_largest(blocks: torch.Tensor) -> torch.Tensor:
    size = blocks.abs()
    places = torch.arange(GGUF_BLOCK, device=blocks.device)  # argmax promises no order among equals
    return torch.where(size == size.amax(1, keepdim=True), places, GGUF_BLOCK).amin(1, keepdim=True)


def _joined(w: torch.Tensor, d: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    return torch.cat([d.half().view(torch.uint8), codes], dim=1).view(w.shape[0], -1)


def _split(blocks: torch.Tensor, size: int, inside: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    split = blocks.reshape(-1, size)
    return split[:, :2].contiguous().view(torch.float16).to(inside), split[:, 2:]

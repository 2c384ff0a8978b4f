"""One frozen container per quantised format, with its layout in bytes.

All hold a matrix (rows, columns) = (out features, in features), row-major; `dtype` is what `dequantise()`
gives. Not the arithmetic: quantising is in this package's `__init__`, the reference in reference.py.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import torch

INT4_GROUPS = (32, 64, 128)
FP8_BLOCK = 128
FP8_MAX = 448.0  # the largest e4m3fn
GGUF_BLOCK = 32
Q8_0_BYTES = 34
Q4_0_BYTES = 18


@dataclass(frozen=True)
class QuantisedWeight(ABC):
    """A quantised matrix."""

    format: ClassVar[str]
    shape: tuple[int, int]
    dtype: torch.dtype

    @abstractmethod
    def tensors(self) -> dict[str, torch.Tensor]:
        """The stored tensors by name."""

    @property
    def device(self) -> torch.device:
        return next(iter(self.tensors().values())).device

    @property
    def nbytes(self) -> int:
        """Bytes stored."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def to(self, device: torch.device | str) -> Self:
        """The same weight on another device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self.tensors().items()})  # type: ignore[arg-type]

    def dequantise(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """(rows, columns) in `dtype`, or the dtype that was quantised."""
        from malgil_kernels.quantise import dequantise

        return dequantise(self, dtype)


class _Stored(QuantisedWeight):
    def tensors(self) -> dict[str, torch.Tensor]:
        """The stored tensors by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


@dataclass(frozen=True)
class Int8Weight(_Stored):
    """w ≈ values · scale, one scale per row: scale = max|row| / 127.

    values: (rows, columns) int8, one byte a weight, −127 to 127.
    scale: (rows,) float32.
    """

    format: ClassVar[str] = "int8"
    values: torch.Tensor
    scale: torch.Tensor


@dataclass(frozen=True)
class Int4Weight(_Stored):
    """w ≈ (code − zero) · scale, one scale (and zero point) per group of 32, 64 or 128 columns of a row.

    packed: (rows, ⌈columns/2⌉) uint8; byte j holds column 2j in its high nibble and 2j + 1 in its low one,
        each a code of 0 to 15; the low nibble past an odd number of columns is 8.
    scale: (rows, ⌈columns/group⌉) float16: 2 bytes a group. A group whose absmax is under 2e-7 loses
    precision.
    zero: (rows, ⌈columns/group⌉) uint8, 0 to 15; None for the symmetric form, whose zero point is 8.
    """

    format: ClassVar[str] = "int4"
    packed: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None
    group: int


@dataclass(frozen=True)
class Nf4Weight(_Stored):
    """NF4 with double quantisation, bit for bit as bitsandbytes stores it.

    Weights are taken flat, row after row; blocks of 64 share an absmax, 256 absmax share a statistic:
    absmax[b] ≈ dynamic_map[absmax[b]] · statistics[b // 256] + offset; w ≈ NF4[code] · absmax.

    packed: (⌈rows·columns/2⌉,) uint8; byte i holds weight 2i in its high nibble, 2i + 1 in its low one.
    absmax: (blocks,) uint8, codes of the signed dynamic map.
    statistics: (⌈blocks/256⌉,) float32.
    offset: (1,) float32, the mean of the unquantised absmax values; in a stack of weights (`stack_rows`) one
        per statistic.
    """

    format: ClassVar[str] = "nf4"
    packed: torch.Tensor
    absmax: torch.Tensor
    statistics: torch.Tensor
    offset: torch.Tensor


@dataclass(frozen=True)
class Fp8Weight(_Stored):
    """w ≈ values · scale in e4m3 (no infinities, largest 448): scale = max|·| / 448 of a row or a block.

    values: (rows, columns) float8_e4m3fn, one byte a weight.
    scale: float32, (rows,) for scales per row, (⌈rows/128⌉, ⌈columns/128⌉) for blocks of 128 × 128.
    """

    format: ClassVar[str] = "fp8"
    values: torch.Tensor
    scale: torch.Tensor

    @property
    def per_block(self) -> bool:
        """Whether a scale belongs to a block of 128 × 128, not to a row."""
        return self.scale.ndim == 2


@dataclass(frozen=True)
class Q8_0Weight(_Stored):
    """GGUF's Q8_0: blocks of 32 columns, 34 bytes each: float16 d, then 32 int8; w = int8 · d.

    blocks: (rows, columns/32 · 34) uint8, the bytes of a GGUF tensor.
    """

    format: ClassVar[str] = "q8_0"
    blocks: torch.Tensor


@dataclass(frozen=True)
class Q4_0Weight(_Stored):
    """GGUF's Q4_0: blocks of 32 columns, 18 bytes each: float16 d, then 16 bytes; w = (nibble − 8) · d.

    Byte i of a block holds column i in its low nibble and column i + 16 in its high one.
    blocks: (rows, columns/32 · 18) uint8, the bytes of a GGUF tensor.
    """

    format: ClassVar[str] = "q4_0"
    blocks: torch.Tensor


def check_matmul_format(weight: QuantisedWeight) -> None:
    """Refuses the formats that no matmul here reads.

    Raises:
        TypeError: the weight is in a GGUF format.
    """
    if isinstance(weight, Q8_0Weight | Q4_0Weight):
        raise TypeError(
            f"weight is {weight.format}, a file format: must be int8, int4, NF4, fp8 or not quantised. "
            "Next: quantise_int8(weight.dequantise()) or quantise_int4(weight.dequantise(), group=32)"
        )
